"""What runs before the operating system: BIOS and MCHECK, the authenticated code module, NP-SEAMLDR."""
