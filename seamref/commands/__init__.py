"""Commands of `python -m seamref`, one module each: ``HELP``, ``add_arguments(parser)``, ``run(args) -> int``.

``run`` returns 0, or 1 when the answer is "no".  Bad input is a SeamrefError; the command line makes it exit code 2.
A module imports what it needs inside ``run``, so that the list of commands stays quick.

A command that asks is a noun of the documents (``seamcall``, ``msr``); one that works on something is a verb or its
object (``inspect``, ``blob``); what belongs to one component and would be unclear alone has its name before it
(``module-update``).  A name that was given up stays as an alias.
"""

from __future__ import annotations

GROUPS: dict[str, tuple[str, ...]] = {
    "ask the machine": ("seamcall", "seamret", "event", "access", "msr", "leaves", "memory", "remaining"),
    "look at numbers and files": ("explain", "doctor", "identify", "inspect", "verify", "plan", "blob", "acm"),
    "run the chain": ("boot", "uefi", "install", "upload", "failures", "serialise", "module-story", "module-update",
                      "module-build", "module-handoff"),
    "prove and compare": ("explore", "campaign", "conform", "seamcall-table", "peers", "consume", "export", "vectors"),
    "for authors": ("clause", "layout", "completion", "man"),
}
"""What a user wants to do, and the commands for it; those named nowhere are listed last."""

ALIASES: dict[str, str] = {
    "tdx-build": "module-build", "tdx-handoff": "module-handoff", "tdx-story": "module-story",
    "tdx-update": "module-update",
}
"""Names given up, and what is run instead."""

EXAMPLES: dict[str, tuple[str, ...]] = {
    "access": ("access host 0x7C001000", "access --matrix"),
    "blob": ("blob mint module.blob", "blob convert module.blob module.v2.blob",
             "blob check module.blob --kernel merged"),
    "boot": ("boot --sockets 2 --lps 4", "boot --break unlocked --trace"),
    "campaign": ("campaign --scenarios update,info-callers --faults none,mc --cpus 2-3",
                 "campaign --faults none,all --store found.jsonl --html found.html --junit found.xml",
                 "campaign --report --store found.jsonl --json"),
    "clause": ("clause SEAMCALL.cpl", "clause INSTALL.params --json",
               "clause --mark chosen"),
    "completion": ("completion bash",),
    "conform": ("conform --only 'caller*'", "conform tests/conformance/vectors/npseamldr --json"),
    "consume": ("consume --set seamcall -- ./my_emulator", "consume --set seamcall --small --requests",
                "consume --set seamret --revision 343754-002 --kit kit --json -- ./my_emulator"),
    "doctor": ("doctor dmesg.txt rdmsr.txt", "doctor --collect bundle.txt"),
    "event": ("event", "event --kind mc --mode seam"),
    "explain": ("explain 0xC000010000000001", "explain -- -ENODEV",
                'explain "seamldr: SEAMCALL (0x8000000000000001) failed: 0x8000000000020000"'),
    "explore": ("explore", "explore update --cpus 3 --fault nmi"),
    "export": ("export kit", "export kit --small", "export kit --only seamcall --only layouts", "export --list"),
    "failures": ("failures", "failures --series v3"),
    "identify": ("identify 0x010C", 'identify "build_date 20240725, build_num 784"'),
    "inspect": ("inspect module.blob", "inspect --json tdx_module.sigstruct"),
    "install": ("install --lps 4", "install --row INSTALL.params.version", "install --changes"),
    "layout": ("layout", "layout SEAM_SIGSTRUCT"),
    "leaves": ("leaves", "leaves --seamldr 1.0"),
    "man": ("man > seamref.1",),
    "memory": ("memory --sockets 2 --lps 112 --seamrr 128M", "memory --lps 1 --seamrr 32M --edge"),
    "module-build": ("module-build",),
    "module-handoff": ("module-handoff", "module-handoff --pairs"),
    "module-story": ("module-story", "module-story --sockets 2 --lps 4 --to 1.5.16"),
    "module-update": ("module-update", 'module-update "TD runs"'),
    "msr": ("msr", "msr IA32_SEAMRR_PHYS_BASE", "msr 0x1401 --value 0x3FFFFC000C00"),
    "peers": ("peers", "peers OpenTDX --instruction SEAMCALL", "peers Cornelius --with OpenTDX --json"),
    "plan": ("plan --running 1.5.05 --seamldr 1.5.00 --cpu 0x806F8",),
    "remaining": ("remaining --seamdb 4",),
    "seamcall": ("seamcall --mode guest --cpl 3 --revision 343754-002", "seamcall --everywhere --all-revisions"),
    "seamcall-table": ("seamcall-table --json", "seamcall-table --diff OpenTDX silicon --reachable"),
    "seamret": ("seamret",),
    "serialise": ("serialise", "serialise --series v3"),
    "uefi": ("uefi", "uefi 1.5.05 --cpus 4 --not-started 2"),
    "upload": ("upload", "upload 1.5.16 --running 1.5.05 --cpus 4 --states"),
    "verify": ("verify module.blob --signer test --sockets 1 --lps 2",),
}
"""What one would type; the tests see to it that each can be parsed."""

WITHOUT_JSON: dict[str, str] = {
    "completion": "its answer is a script for a shell", "man": "its answer is a page for man",
    "blob demo": "a demonstration for a reader; `blob check --json` answers programs",
    **{f"blob {verb}": "its answer is the file that it writes" for verb in ("join", "split", "convert", "mint")},
}
"""Commands without ``--json``, and why; every other one answers a program with a format id and seamref's version."""

NO: dict[str, str] = {
    "access": "the access is refused", "blob": "a rule of the format, or the kernel asked about, refuses the file",
    "boot": "the chain stopped before P-SEAMLDR answered",
    "campaign": "a case breaks what its scenario does not declare, or differs from --baseline",
    "clause": "nothing carries the clause",
    "conform": "a case differs", "consume": "a test is answered otherwise, or not at all",
    "doctor": "something is wrong, or it is not shown that all is well",
    "explain": "nothing is known about something that was asked",
    "explore": "a property is broken, or the search stopped before its end", "identify": "not known",
    "inspect": "a rule is broken",
    "install": "no module was installed", "memory": "the module does not fit",
    "module-story": "a step was refused", "plan": "no release qualifies", "uefi": "no module is ready afterwards",
    "upload": "the update failed", "verify": "INSTALL would refuse",
}
"""What exit code 1 says; commands named nowhere here have no "no"."""
