"""The grammar of lines: what is taken off in front, and every line that TDX bring-up is known to print, as data.

A :class:`LineForm` says which component prints a line, in which kernels, what its fields are, what it means for the
chain from BIOS to KVM, and the public source of the wording.  Patterns are anchored at words of the message, never at
a number; fields are read only where the pattern has them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum

from seamref.diagnose.names import ERRNO_TEXTS, KERNEL, LOADER, MODULE
from seamref.diagnose.reading import Kind
from seamref.host import log

MAX_LINE = 4096
"""Characters of a line that are looked at."""

# --- what stands in front -----------------------------------------------------------------------------------

_CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")
_HOST = r"[\w.:-]{1,64}"
PREFIXES: tuple[tuple[str, str], ...] = (
    ("quote", r"[>|]\s?"),
    ("level", r"<\d{1,3}>"),
    ("facility", r"(?:kern|user|daemon|syslog|local\d)\s*[.:]\s*(?:emerg|alert|crit|err|warn|warning|notice|info|debug)"
                 r"\s*:?\s+"),
    ("seconds", r"\[\s*\+?\d+\.\d{1,9}\]\s?"),
    ("date", r"\[(?:[A-Z][a-z]{2} )?[A-Z][a-z]{2}\s+\d{1,2} [\d:.+]*(?: \d{4})?\s?\]\s?"),
    ("caller", r"\[\s*[TC]\d+\]\s?"),
    ("iso", r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?\s+"),
    ("journal", r"[A-Z][a-z]{2} {1,2}\d{1,2} \d\d:\d\d:\d\d(?:\.\d+)? "),
    ("vmkernel", r"In\(\d+\) vmkernel:\s*(?:cpu\d+:\d+\))?"),
    ("sender", rf"(?:{_HOST} )?kernel(?:\[\d+\])?:\s?"),
    ("program", rf"(?:{_HOST} )(?=[\w.-]+\[\d+\]:)"),
)
"""What tools put in front of a message: a name and a pattern, tried in any order until none fits."""
_PREFIX = tuple(re.compile(pattern) for _, pattern in PREFIXES)
_SENDER = re.compile(r"[\w./-]{1,64}\[\d+\]:\s+")


def strip_prefix(line: str) -> str:
    """The message alone: time stamps, levels, facility, host and sender taken off, control characters removed."""
    text = _CONTROL.sub("", line[:MAX_LINE]).strip()
    for _ in range(8):
        for pattern in _PREFIX:
            if found := pattern.match(text):
                text = text[found.end():].lstrip()
                break
        else:
            break
    return text[found.end():] if (found := _SENDER.match(text)) else text


# --- links of the chain -------------------------------------------------------------------------------------


class Link(Enum):
    """The chain in order; a link that fails makes those behind it meaningless."""

    BIOS = "BIOS: memory encryption and TDX KeyIDs"
    MCHECK = "MCHECK: the platform check"
    SEAMRR = "SEAMRR: the range exists"
    NP_SEAMLDR = "NP-SEAMLDR"
    P_SEAMLDR = "P-SEAMLDR"
    MODULE = "TDX module"
    KERNEL = "kernel"
    KVM = "KVM"
    UPDATE = "module update"


@dataclass(frozen=True, slots=True)
class LineForm:
    """One kind of line.

    ``pattern``  of the message behind the prefix, case does not matter
    ``who``      the component that prints it; ``kernels`` which versions
    ``kind``     what it means; ``link`` for which link of the chain
    ``what``     sentence, with fields of the pattern in braces; ``hexes`` are fields named as MSR, leaf or status
    """

    id: str
    pattern: str
    what: str
    kind: Kind = Kind.INFO
    link: Link | None = None
    who: str = "Linux"
    kernels: str = ""
    causes: tuple[str, ...] = ()
    recoverable: str = ""
    advice: str = ""
    clauses: tuple[str, ...] = ()
    source: str = "LNX"


TDX = r"(?:(?:virt|x86)/)?tdx: "
OUT = "out of tree 5.15 to 6.5"
EARLY = "out of tree 5.19 to 6.7"
UBUNTU = "6.8-intel and other out-of-tree 6.x"
MAIN = "6.8 and later"
G, N, W, C, Q = Kind.GOOD, Kind.INFO, Kind.WARNING, Kind.CAUSE, Kind.CONSEQUENCE
_BIOS_TDX = "BIOS: Memory Encryption (TME) and TME-MT on, TDX on, SEAM loader on, TME-MT/TDX key split not 0"
_SEAMRR = "read it: rdmsr -f 11:11 0x1401 (1: valid); " + _BIOS_TDX
_TD_IOCTL = r"KVM_TDX_(?:CAPABILITIES|INIT_VM|INIT_VCPU|INIT_MEM_REGION|FINALIZE_VM|GET_CPUID|[A-Z_]+)"

_LEAF = r"(?:\b|_)(?P<name>(?:TD[HG]|SEAMLDR)[._][A-Z0-9._]+)\b(?: ?\((?:leaf )?(?:0x)?[0-9a-f]{1,16}\))?"

_READ: tuple[LineForm, ...] = (
    # --- SEAMCALL failed, in every wording: read by seamref.diagnose.explain, which knows the fields
    LineForm("LOG.seamcall_failed",
             r"SEAMCALL \((?:leaf )?(?P<leaf>0x[0-9a-f]{1,16}|\d{1,5})\) failed:? ?(?P<status>0x[0-9a-f]{1,16})\b",
             "a SEAMCALL failed", C, kernels=MAIN, source="LNX seamcall_internal.h; 6.8 arch/x86/virt/vmx/tdx/tdx.c"),
    LineForm("LOG.seamcall_failed_cpu", r"SEAMCALL failed: (?:CPU (?P<cpu>\d{1,5}): )?leaf (?P<leaf>0x[0-9a-f]{1,16}|"
             r"\d{1,5}), error (?P<status>0x[0-9a-f]{1,16})\b", "a SEAMCALL failed", C, kernels=EARLY,
             source="public mails of the TDX host series v4 to v16"),
    LineForm("LOG.leaf_failed", _LEAF + r"(?: on CPU (?P<cpu>\d{1,5}))?,? (?:fail(?:ed|s|ure)|returned|error)\b(?: "
             r"with)?"
             r"(?: (?:status|error|err|code|result))?[:,=]? ?\(?(?P<status>0x[0-9a-f]{5,16})\b",
             "a leaf failed", C, who="the caller that the line names"),
    LineForm("LOG.leaf_failed_name", _LEAF + r",? (?:fail(?:ed|s|ure)|returned)\b(?: with)?(?: "
             r"(?:status|error|err))?[:,]? "
             r"?(?P<status>[A-Z][A-Z0-9_]{3,60})\b", "a leaf failed", C, who="the caller that the line names"),
    LineForm("LOG.not_vmx", r"SEAMCALL failed: CPU (?P<cpu>\d{1,5}) is not in VMX operation",
             "SEAMCALL met #UD on CPU {cpu}: that CPU had not executed VMXON", C, Link.KERNEL, kernels=EARLY,
             causes=("KVM had not switched VMX on there", "VMX is off in BIOS (IA32_FEATURE_CONTROL)"),
             advice="load kvm_intel; bring every CPU online first", clauses=("SEAMCALL.vmx", "LNX.stub.fixup")),
    # --- registers that belong to the call before
    LineForm("LOG.registers", r"^(?:" + TDX + r"|seamldr: )?R?CX (?P<rcx>0x[0-9a-f]{1,16}) RDX "
             r"(?P<rdx>0x[0-9a-f]{1,16}) "
             r"R0?8 (?P<r8>0x[0-9a-f]{1,16})$", "output registers of the call in the line before", N, kernels=MAIN),
    LineForm("LOG.registers_2", r"^(?:" + TDX + r"|seamldr: )?R0?9 (?P<r9>0x[0-9a-f]{1,16}) R10 "
             r"(?P<r10>0x[0-9a-f]{1,16}) R11 (?P<r11>0x[0-9a-f]{1,16})$",
             "output registers of the call before, second line", N, kernels=MAIN),
    LineForm("LOG.additional_output", TDX + r"additional output: rcx (?P<rcx>0x[0-9a-f]{1,16}), rdx "
             r"(?P<rdx>0x[0-9a-f]{1,16}), r8 (?P<r8>0x[0-9a-f]{1,16})(?:, r9 (?P<r9>0x[0-9a-f]{1,16}), r10 "
             r"(?P<r10>0x[0-9a-f]{1,16}), r11 (?P<r11>0x[0-9a-f]{1,16}))?", "output registers of the call in the line "
             "before",
             N, kernels=EARLY),
    # --- BIOS, memory encryption
    LineForm("LOG.tme_off", r"x86/tme: not enabled by BIOS", "TME is off: IA32_TME_ACTIVATE is not locked and "
             "enabled, so "
             "there are no KeyIDs and no TDX", C, Link.BIOS, causes=("memory encryption is off in BIOS",),
             recoverable="no: a reset is needed", advice=_BIOS_TDX),
    LineForm("LOG.tme_on", r"x86/tme: enabled by BIOS", "memory encryption is on", N, Link.BIOS),
    LineForm("LOG.tme_inconsistent", r"x86/tme: configuration is inconsistent between CPUs", "IA32_TME_ACTIVATE "
             "differs "
             "between processors", C, Link.BIOS, advice="update the BIOS"),
    LineForm("LOG.tme_policy", r"x86/tme: Unknown policy is active: (?P<policy>0x[0-9a-f]{1,16})", "TME uses an "
             "algorithm "
             "that the kernel does not know ({policy}); by itself this stops nothing", W, Link.BIOS),
    LineForm("LOG.mktme_unusable", r"x86/(?:mk)?tme: MKTME is not usable", "the kernel will not use multi-key "
             "encryption",
             Q, Link.BIOS),
    LineForm("LOG.mktme_on", r"x86/mktme: enabled by BIOS", "multi-key encryption is on", N, Link.BIOS),
    LineForm("LOG.mktme_off", r"x86/mktme: disabled by BIOS", "multi-key encryption has no KeyIDs: TDX takes its own "
             "from "
             "the same pool", C, Link.BIOS, advice=_BIOS_TDX, recoverable="no: a reset is needed"),
    LineForm("LOG.mktme_keyids", r"x86/mktme: (?P<count>\d{1,6}) KeyIDs available", "{count} KeyIDs in all; TDX has a "
             "part "
             "of them", N, Link.BIOS),
    LineForm("LOG.mktme_algorithm", r"x86/mktme: No known encryption algorithm is supported: "
             r"(?P<algs>0x[0-9a-f]{1,16})",
             "the kernel knows none of the algorithms that are on ({algs})", W, Link.BIOS),
    LineForm("LOG.keyids", TDX + r"BIOS enabled: (?:private|TDX) KeyID range \[(?P<first>\d{1,6}), (?P<end>\d{1,6})\)",
             "BIOS gave TDX the KeyIDs [{first}, {end}); the first is the module's own.  It does not say that SEAMRR "
             "is "
             "valid, nor that a module is loaded", G, Link.BIOS, kernels="5.19 and later"),
    LineForm("LOG.few_keyids", r"initialization failed: too few private KeyIDs(?: available)?", "one TDX KeyID is not "
             "enough: the first is the module's own", C, Link.BIOS, causes=("BIOS setting TME-MT/TDX key split",),
             recoverable="no: a reset is needed", advice="give TDX more KeyIDs in BIOS"),
    LineForm("LOG.no_keyids", r"no TDX private KeyIDs available", "the platform has no TDX KeyIDs, as the kernel sees "
             "it: "
             "TDX is off in BIOS, or the kernel gave up at start", C, Link.BIOS, who="KVM", kernels="6.16 to 6.18",
             advice=_BIOS_TDX, recoverable="no: a reset is needed"),
    LineForm("LOG.no_host_platform", r"TDX (?:is )?not supported by the host platform", "this kernel has TDX and the "
             "platform has not: no TDX KeyIDs, or an earlier line says why the kernel gave up", C, Link.BIOS,
             kernels="merged", causes=("a processor without TDX (then nothing is wrong)", "TDX is off in BIOS",
                                       "hibernation is available (an earlier line says so)"), advice=_BIOS_TDX),
    # --- SEAMRR
    LineForm("LOG.not_enabled", TDX + r"(?:\[firmware bug\]: )?(?:TDX is )?not enabled by BIOS", "SEAMCALL met #GP: "
             "SEAMRR is not valid on that processor (MSR 0x1401 bit 11), though KeyIDs may be there", C, Link.SEAMRR,
             kernels=EARLY, causes=("MCHECK found the platform's configuration not acceptable: memory population, SGX "
                                    "off, a BIOS option", "the BIOS has no TDX for this part"),
             recoverable="no: a reset is needed", advice=_SEAMRR, clauses=("SEAMCALL.seamrr", "LNX.stub.fixup")),
    LineForm("LOG.seamrr_off", r"SEAMRR (?:is )?not enabled|Cannot enable TDX with SEAMRR disabled", "SEAMRR is not "
             "valid: "
             "MCHECK did not accept the configuration, or TDX is off in BIOS", C, Link.SEAMRR, kernels=OUT,
             advice=_SEAMRR,
             recoverable="no: a reset is needed", clauses=("SEAMCALL.seamrr",)),
    # --- P-SEAMLDR
    LineForm("LOG.seam_loading", r"^seam: Loading TDX P-SEAMLDR (?P<file>\S+?)\.?$", "the kernel launches NP-SEAMLDR "
             "from "
             "{file}", N, Link.NP_SEAMLDR, kernels="5.10 to 5.15 out of tree"),
    LineForm("LOG.seam_loaded", r"^seam: Successfully loaded TDX P-SEAMLDR", "P-SEAMLDR was loaded", G, Link.P_SEAMLDR,
             kernels="5.10 to 5.15 out of tree"),
    LineForm("LOG.seamldr_version", r"P-SEAMLDR: version (?P<version>0x[0-9a-f]+),?.*?vendor_id:? "
             r"?(?P<vendor>0x[0-9a-f]+)"
             r",? *build_date:? (?P<date>\d{8}),? *build_num:? (?P<build>(?:0x)?[0-9a-f]+)"
             r"(?P<rest>,? *(?:major|minor).*)?$", "P-SEAMLDR answers: built {date}, build {build}", G, Link.P_SEAMLDR,
             kernels=OUT),
    LineForm("LOG.no_seamldr", r"P-SEAMLDR is not loaded", "P-SEAMLDR is not loaded: nobody launched NP-SEAMLDR, or it "
             "failed", C, Link.P_SEAMLDR, kernels=OUT, advice="BIOS: SEAM loader on; or EFI/TDX with NP-SEAMLDR",
             causes=("the SEAM loader option is off in BIOS", "NP-SEAMLDR refused the platform"),
             clauses=("SEAMCALL.p_seamldr_not_ready",), recoverable="no: only BIOS or a loader before the kernel"),
    LineForm("LOG.seamldr_failed", r"Failed to (?:detect|load)(?: TDX)? P-SEAMLDR", "P-SEAMLDR could not be used; the "
             "line "
             "before says why", C, Link.P_SEAMLDR, kernels=OUT),
    LineForm("LOG.fw_missing", r"Direct firmware load for (?P<file>intel-seam/\S+) failed with error "
             r"(?P<errno>-\d{1,3})",
             "the kernel looked for {file} and did not get it ({errno}); kernels before 6.0 load P-SEAMLDR and module "
             "from files", C, Link.P_SEAMLDR, kernels="5.10 to 5.15 out of tree", advice="put the file into the "
             "initrd"),
    # --- module: version lines
    LineForm("LOG.module_version", r"(?:TDX module(?: version:?)?|Module version:|module vers?i?on:) "
             r"(?P<version>\d{1,3}\.\d{1,3}\.\d{1,3}(?:\.\d{1,5})?)(?:, build (?:number|num) (?P<build>\d{1,6}))?"
             r"(?:, build date (?P<date>[0-9a-f]{8}))?", "the module is {version}", N, Link.MODULE,
             kernels="6.8 and later, "
             "merged"),
    LineForm("LOG.module_info", r"TDX (?:SEAM )?module: (?:attributes (?P<attributes>0x[0-9a-f]+),? )?vendor_id "
             r"(?P<vendor>0x[0-9a-f]+),? .*?build_date (?P<date>\d{8}|0x[0-9a-f]{7,8}),? build_num "
             r"(?P<build>(?:0x)?[0-9a-f]{1,6})\b.*$", "the module answers: built {date}, build {build}", N, Link.MODULE,
             kernels="5.15 to 6.8 out of tree"),
    LineForm("LOG.module_parts", r"build_date:? (?P<date>\d{8}|0x[0-9a-f]{7,8}),? build_num:? (?P<build>(?:0x)?[0-9a-f]"
             r"{1,6})", "a module or loader built {date}, build {build}", N, Link.MODULE),
    LineForm("LOG.module_detected", r"TDX module detected", "P-SEAMLDR says that a module is loaded", N, Link.MODULE,
             kernels=OUT),
    LineForm("LOG.module_loaded", r"^tdx: Loaded TDX module via P-SEAMLDR", "P-SEAMLDR installed the module", N,
             Link.MODULE, kernels="5.10 to 5.15 out of tree"),
    LineForm("LOG.module_load_failed", r"^tdx: Failed to load TDX module", "P-SEAMLDR refused the module; the line "
             "before "
             "says why", C, Link.MODULE, kernels="5.10 to 5.15 out of tree"),
    LineForm("LOG.not_loaded", r"(?:" + TDX + r"(?:TDX )?|^TDX )module (?:is )?not loaded",
             "SEAMCALL met VMfailInvalid: no module is "
             "loaded, or it was disabled (TDH.SYS.INIT is the first call)", C, Link.MODULE,
             causes=("BIOS or a loader did not install a TDX module", "perhaps P-SEAMLDR is not there either",
                     "or, in an update: a CPU did not take part, so P-SEAMLDR did not complete the session"),
             recoverable="no", advice="install a module before the kernel (BIOS: SEAM loader; EFI/TDX/TDX-SEAM.so "
             "beside its "
             "sigstruct); after an update: reboot"),
    LineForm("LOG.no_module", r"TDX module is not loaded", "no TDX module is loaded", C, Link.MODULE, kernels=EARLY,
             recoverable="no", advice="install a module before the kernel", clauses=("SEAMCALL.module_not_ready",)),
    LineForm("LOG.rbp", r"RBP\) clobber|NO_RBP_MOD feature is not supported|NO_RBP_MOD|RBP_MOD",
             "TDX_FEATURES0 bit 18 (NO_RBP_MOD) is 0: the module is too old for this kernel", C, Link.MODULE,
             causes=("a module before 1.5.06, or one of line 1.0",), recoverable="no: another module is needed",
             advice="take a newer module", clauses=("LNX.sysinfo",)),
    # --- kernel: initialisation
    LineForm("LOG.initialized", r"(?:" + TDX + r"(?:TDX[- ])?module initialized|TDX-Module initialized|Successfully "
             r"initialized TDX module|^tdx: Initialized TDX module|^virt/tdx: module initialized)", "the module is up",
             G, Link.KERNEL, clauses=("LNX.tdmr",)),
    LineForm("LOG.init_failed", TDX + r"(?:TDX[- ])?(?:module )?initialization failed \((?P<errno>-\d{1,4})\)",
             "initialisation failed with {errno}", Q, Link.KERNEL, clauses=("LNX.tdmr",),
             advice="the line before it says why"),
    LineForm("LOG.init_failed_old", r"Failed to (?:initialize|find) (?:the )?TDX module\.? \(?(?P<errno>-\d{1,4})\b",
             "initialisation failed with {errno}", Q, Link.KERNEL, kernels=OUT, advice="the line before it says why"),
    LineForm("LOG.reserved", r"initialization failed: TDMR \[(?P<base>0x[0-9a-f]{1,16}), (?P<end>0x[0-9a-f]{1,16})\):? "
             r"reserved areas exhausted", "one TDMR [{base}, {end}) has more holes than the module allows (16): the "
             "kernel's "
             "memory map has too many small gaps there.  A kernel matter", C, Link.KERNEL,
             causes=("BIOS reports many small reserved ranges in e820, and this kernel counts each as a hole although "
                     "CMRs "
                     "cover it",), recoverable="no, not on this kernel", clauses=("LNX.tdmr",),
             advice="take a kernel that joins such holes (Ubuntu's 24.04 kernels were patched for it, 25.04's were "
             "not), or a "
             "BIOS with fewer gaps",
             source="LNX tdx.c; canonical/tdx issues 135, 415"),
    LineForm("LOG.tdmrs", r"initialization failed: TDMRs exhausted|too many TDMRs", "the memory map needs more TDMRs "
             "than "
             "the module has", C, Link.KERNEL, recoverable="no, not on this kernel", advice="BIOS: memory "
             "interleaving so "
             "that there are fewer regions; a newer kernel", clauses=("LNX.tdmr",)),
    LineForm("LOG.tdmrs_near", r"consumed TDMRs reaching limit: (?P<used>\d+) used out of (?P<all>\d+)", "{used} of "
             "{all} "
             "TDMRs are used", W, Link.KERNEL),
    LineForm("LOG.pamt_node", r"unable to find local NUMA node for PAMT allocation", "PAMT comes from another node", N,
             Link.KERNEL),
    LineForm("LOG.hibernation", TDX + r"(?:initialization failed: )?Hibernation support is enabled",
             "the kernel gives TDX up "
             "because "
             "hibernation is available", C, Link.KERNEL, recoverable="yes, after a reboot",
             advice="boot with nohibernate on the kernel command line"),
    LineForm("LOG.notifier", r"initialization failed: unable to register memory notifier \((?P<errno>-\d{1,4})\)",
             "the kernel could not watch memory hotplug ({errno})", C, Link.KERNEL),
    LineForm("LOG.acpi_s3", r"Disable ACPI S3\b", "suspend to RAM is switched "
             "off "
             "because TDX cannot survive it: nothing is wrong", N, Link.KERNEL),
    LineForm("LOG.cmr", TDX + r"CMR: \[(?P<base>0x[0-9a-f]{1,16}), (?P<end>0x[0-9a-f]{1,16})\)", "convertible memory "
             "that "
             "MCHECK accepted: [{base}, {end})", N, Link.MCHECK, kernels="5.15 to 6.8 out of tree"),
    LineForm("LOG.pamt", r"(?P<kb>\d{1,12}) (?:KB|pages) allocated for PAMT", "memory for PAMT: {kb} KB (about 1/256 "
             "of what "
             "TDX may use)", N, Link.KERNEL),
    LineForm("LOG.memory_blocks", r"^tdx: Build all system memory blocks as TDX memory", "the kernel makes its "
             "TDMRs", N,
             Link.KERNEL, kernels="5.10 to 5.15 out of tree"),
    LineForm("LOG.initializing", r"^(?:virt/)?tdx: Initializing TDX module", "initialisation begins", N, Link.KERNEL),
    LineForm("LOG.required_kernel", r"^(?:virt/)?tdx: (?P<feature>XSAVE|OSXSAVE|MOVDIR64B) is required for TDX",
             "the kernel wants {feature} and CPUID does not show it", C, Link.KERNEL,
             causes=("the feature is switched off on the command line or by a hypervisor",), clauses=("LNX.tdx_init",)),
    LineForm("LOG.selfsnoop", r"Self-snoop is required for TDX", "the kernel wants self-snoop and CPUID does not show "
             "it",
             C, Link.KERNEL, causes=("the feature is hidden by a hypervisor or a quirk",)),
    LineForm("LOG.disable_failed", r"TDH\.SYS\.DISABLE failed", "kexec could not disable the module", W, Link.KERNEL,
             causes=("a module without that leaf",), clauses=("LNX.sys_disable",)),
    LineForm("LOG.dynamic_pamt", r"Enable Dynamic PAMT", "the kernel asks the module for a PAMT that grows with use", N,
             Link.KERNEL, kernels="in tip x86/tdx, for v7.4"),
    LineForm("LOG.extensions", r"(?P<kb>\d{1,12}) KB consumed for TDX module extensions", "{kb} KB went to the module "
             "for its add-on features", N, Link.KERNEL, kernels="posted 2026-06-18, not merged"),
    LineForm("LOG.warn_quoting", r"WARNING.*init_tdx_quoting_extension", "TDH.QUOTE.INIT failed: the module makes no "
             "quotes; the rest goes on", W, Link.KERNEL, kernels="posted 2026-06-18, not merged"),
    LineForm("LOG.warn_extensions", r"WARNING.*tdx_ext_mem_setup", "the module did not take the memory for its add-on "
             "features", W, Link.KERNEL, kernels="posted 2026-06-18, not merged"),
    LineForm("LOG.keyids_in_use", r"TDX private KeyIDs in use|TDX requires all packages to have an online CPU",
             "the last "
             "online CPU of a package stays while TDs have KeyIDs", W, Link.KERNEL, recoverable="yes",
             advice="end the TDs first"),
    # --- KVM
    LineForm("LOG.kvm_failed", r"kvm[_-]intel: (?:Failed to initialize TDX module|TDX module "
             r"initialization failed)", "KVM could not bring the module up; "
             "the "
             "lines before say why", Q, Link.KVM, kernels=UBUNTU, advice="look for the first failure before this line"),
    LineForm("LOG.tdx_host_probe", r"tdx_host: probe\b.*failed(?: with error (?P<errno>-\d{1,4}))?",
             "the tdx-host driver found "
             "no module that is up", Q, Link.KERNEL, advice="the lines before it say why"),
    LineForm("LOG.kvm_symbols", r"kvm_intel: no symbol version for (?P<symbol>\S+)", "kvm_intel was built apart from "
             "the "
             "kernel ({symbol} has no version): by itself this stops nothing", W, Link.KVM),
    LineForm("LOG.kvm_required", r"(?:^|: )(?P<feature>EPT|APICv|OSXSAVE|MOVDIR64B|TDP MMU(?: and MMIO caching and "
             r"EPT A/D "
             r"bit)?) (?:is|are) re(?:quired|qiured) for TDX", "KVM wants {feature} for TDX and has it not", C,
             Link.KVM,
             who="KVM", kernels="6.16 and later", advice="take the kvm / kvm_intel option away that switches it off"),
    LineForm("LOG.kvm_ept", r"Cannot enable TDX with EPT disabled", "KVM wants EPT for TDX", C, Link.KVM, who="KVM",
             advice="kvm_intel.ept=1"),
    LineForm("LOG.kvm_disabled_platform", r"Cannot enable TDX on TDX disabled platform", "the kernel found no TDX "
             "before "
             "KVM asked", Q, Link.KVM, who="KVM", kernels=OUT),
    LineForm("LOG.kvm_virt_at_load", r"requires kvm\.enable_virt_at_load=1", "KVM must switch VMX on when it is "
             "loaded, and "
             "an option says no", C, Link.KVM, who="KVM", kernels="6.16 to 6.18",
             advice="load kvm with enable_virt_at_load=1"),
    LineForm("LOG.kvm_vcpus", r"MAX_VCPUS?_PER_TD", "the module allows a TD fewer vCPUs than this machine has "
             "processors: "
             "KVM gives TDX up", C, Link.KVM, who="KVM", advice="take a newer module"),
    LineForm("LOG.kvm_tdp_mmu", r"TDX requires TDP MMU", "a TD was to start and KVM runs without TDP MMU", C, Link.KVM,
             who="KVM", advice="kvm.tdp_mmu=1"),
    LineForm("LOG.vm_type", r"(?:vm-type|kvm-type) '?(?P<type>\S*tdx\S*?)'? not supported by KVM", "QEMU asked KVM "
             "for a "
             "TD and KVM has no TDX: the kernel log says why", Q, Link.KVM, who="QEMU",
             causes=("the module is not up", "kvm_intel.tdx is N", "this user space and this kernel are of two "
                     "out-of-tree series"), advice="cat /sys/module/kvm_intel/parameters/tdx; dmesg | grep -i tdx",
             source="canonical/tdx issues 102, 342, 385; intel/tdx-tools issues 223, 281"),
    LineForm("LOG.td_ioctl", r"(?P<ioctl>" + _TD_IOCTL + r") failed:? (?P<text>" + ERRNO_TEXTS + r")",
             "an ioctl of KVM on one TD failed ({text}); it says nothing about the module's update", C, Link.KVM,
             who="QEMU", causes=("KVM or the module refused this TD: the kernel log may have a SEAMCALL line",
                                 "QEMU and kernel are of two series with another ioctl layout"),
             advice="dmesg at that moment; a QEMU that belongs to this kernel"),
    LineForm("LOG.kvm_init", r"failed to initialize kvm: (?P<text>" + ERRNO_TEXTS + r")", "QEMU could not use KVM "
             "({text}): "
             "KVM's own errno, not one of a SEAMCALL", C, Link.KVM, who="QEMU",
             causes=("no /dev/kvm, or no right to use it", "the kernel's KVM has no TDX, or another version of its "
                     "interface"), advice="ls -l /dev/kvm; lsmod | grep kvm; dmesg | grep -iE 'kvm|tdx'"),
    LineForm("LOG.kvm_access", r"Could not access KVM kernel module: (?P<text>" + ERRNO_TEXTS + r")", "QEMU could not "
             "open "
             "/dev/kvm ({text})", C, Link.KVM, who="QEMU", advice="ls -l /dev/kvm; lsmod | grep kvm"),
    # --- updates
    LineForm("LOG.updated", r"module updated: (?P<old>\d[\d.]{2,12}) -> (?P<new>\d[\d.]{2,12})", "the module was "
             "updated "
             "from {old} to {new}", G, Link.UPDATE, kernels="series v3 to v8"),
    LineForm("LOG.update_offline", r"Cannot update TDX module if any CPU is offline", "v2-v4 refuse an update unless "
             "every "
             "present CPU is online; later versions leave it to user space", C, Link.UPDATE, kernels="series v2 to v4",
             recoverable="yes", advice="bring it online", causes=("a CPU is offline",
                                                                                                    )),
    LineForm("LOG.update_failed", r"update failed, SEAMCALLs will report failure until TDs killed", "v2-v7: the update "
             "failed after the old module was shut down", Q, Link.UPDATE, kernels="series v2 to v7", recoverable="no",
             advice="reboot"),
    LineForm("LOG.blob_version", r"unsupported blob version", "v2-v7: the file's version is not 1.0", C, Link.UPDATE,
             recoverable="yes", advice="python -m seamref blob convert"),
    LineForm("LOG.blob_header", r"non-zero reserved fields|invalid signature|invalid checksum", "v1-v7: the file's "
             "header",
             C, Link.UPDATE, recoverable="yes", advice="python -m seamref blob check FILE"),
    LineForm("LOG.upload_value", r"firmware (?P<name>\S{1,64}): firmware_loading_store: unexpected value "
             r"\((?P<number>-?\d{1,10})\)", "{number} was written to the loading file of {name}; it takes 1, 0 and -1",
             W, Link.UPDATE, causes=("a script wrote something else", "the data was written before 1"),
             recoverable="yes"),
    LineForm("LOG.sleeping", r"BUG: sleeping function called from invalid context", "a sleeping lock was taken with "
             "interrupts off", W, None, causes=("here: a spinlock_t around P-SEAMLDR calls on PREEMPT_RT",),
             advice="make it a raw_spinlock_t"),
    LineForm("LOG.warn_seamldr", r"WARNING.*seamldr_call", "P-SEAMLDR was called on a CPU whose SEAMRET invalidates "
             "the "
             "current VMCS", C, Link.UPDATE, causes=("IA32_VMX_BASIC[60] is 0",), recoverable="no",
             advice="newer microcode"),
    LineForm("LOG.warn_shutdown", r"WARNING.*tdx_module_shutdown", "v9, v10: MODULE_HV could not be read; the "
             "shutdown goes "
             "on", W, Link.UPDATE),
    LineForm("LOG.warn_update", r"WARNING.*tdx_module_run_update", "the version could not be read after the update, "
             "or a "
             "feature changed; the update counts as done", W, Link.UPDATE),
    # --- canonical/tdx's system report
    LineForm("LOG.report_tme", r"^(?:MK_TME_ENABLED?|HW_ENCRYPT_ENABLE) bit: (?P<bit>[01])\b",
             "IA32_TME_ACTIVATE[1] (MSR 0x982) "
             "was read as {bit}; 1 is needed", N, None, who="system-report.sh", source="canonical/tdx"),
    LineForm("LOG.report_seamrr", r"^(?:SEAM_RR|TDX_STATUS) bit: (?P<bit>[01])\b",
             "IA32_SEAMRR_PHYS_MASK.VALID (MSR 0x1401 bit "
             "11) was read as {bit}; with 0 every SEAMCALL meets #GP", N, None, who="system-report.sh",
             clauses=("SEAMCALL.seamrr",), source="canonical/tdx"),
    LineForm("LOG.report_keys", r"^NUM_TDX_PRIV_KEYS: (?P<count>(?:0x)?[0-9a-f]{1,8})\b",
             "the number of TDX KeyIDs (MSR 0x87 bits "
             "63:32) was read as {count}, hexadecimal; two are needed", N, None, who="system-report.sh",
             source="canonical/tdx"),
    LineForm("LOG.report_mcheck", r"^SGX_AND_MCHECK_STATUS: (?P<status>(?:0x)?[0-9a-f]{1,16})\b",
             "MSR 0xA0 was read as {status}; "
             "0 is expected: MCHECK and SGX activation had no error", N, None, who="system-report.sh",
             source="canonical/tdx"),
    # --- the kernel itself
    LineForm("LOG.linux", r"^Linux version (?P<version>[\w.+~-]{1,64})", "a kernel starts: {version}", N, None),
    LineForm("LOG.command_line", r"^(?:Kernel command line|Command line): ",
             "the kernel command line; the doctor looks for "
             "kvm_intel.tdx and nohibernate in it", N, None),
    LineForm("LOG.td_guest", r"^tdx: Guest detected|Memory Encryption Features active: Intel TDX|^virt: Intel TDX "
             r"guest",
             "this kernel runs inside a TD: its log says nothing about the host but that TDX works there", N, None),
    # --- the UEFI loader
    LineForm("LOG.uefi_installed", r"^(?:says: )?TDX module (?P<not>not )?installed$", "what Intel's UEFI loader "
             "believes: "
             "it judges by the last processor's RAX", N, Link.MODULE, who="tdx-module-loader (UEFI)",
             source="intel/tdx-module-loader"),
    # --- rdmsr
    LineForm("LOG.rdmsr", r"^rdmsr: CPU (?P<cpu>\d{1,6}) cannot read MSR (?P<msr>0x[0-9a-f]{1,8})", "RDMSR of {msr} "
             "met #GP "
             "on CPU {cpu}: the processor has no such register, or a hypervisor hides it", C, None, who="rdmsr",
             causes=("not bare metal: rdmsr in a VM", "a processor without that feature"),
             advice="systemd-detect-virt"),
    LineForm("LOG.rdmsr_open", r"^rdmsr: ?open: (?P<text>" + ERRNO_TEXTS + r")", "rdmsr could not use /dev/cpu/N/msr "
             "({text}); "
             "it says nothing about the register", N, None, who="rdmsr", advice="modprobe msr; run as root; kernel "
             "lockdown "
             "may forbid it"),
)


def _as_printed(form: LineForm, lines: Iterable[log.LogLine]) -> LineForm:
    """A form with the clauses and sources that are declared with lines of the kernel of ``seamref.host``."""
    held = list(lines)
    clauses = dict.fromkeys((*form.clauses, *(clause for line in held for clause in line.clauses)))
    sources = dict.fromkeys((*((form.source,) if form.source != "LNX" else ()), *(line.source for line in held)))
    return replace(form, clauses=tuple(clauses), source="; ".join(sources) or form.source)


def _pattern_of(line: log.LogLine) -> re.Pattern[str]:
    """What reads exactly this line, whatever stands before it."""
    parts = re.split(r"\{[^{}]*\}", line.text)
    return re.compile(r"(?:^|: )" + r"\S+".join(map(re.escape, parts)) + r"\s*$", re.IGNORECASE)


FORMS: tuple[LineForm, ...] = tuple(
    _as_printed(form, (line for line in log.LINES if line.id == form.id)) for form in _READ)
"""Every known line; the first form that fits reads it."""

_COMPILED = tuple((re.compile(form.pattern, re.IGNORECASE), form) for form in FORMS)
_EXACT: dict[str, list[tuple[re.Pattern[str], LineForm]]] = {
    form.id: [(_pattern_of(line), _as_printed(form, (line,))) for line in log.LINES if line.id == form.id]
    for form in _READ}
"""Form -> the lines of the kernel of ``seamref.host`` that it reads, and the form as it is said of this line alone."""
BY_ID = {form.id: form for form in FORMS}
RELATED = re.compile(
    rb"tdx|seam|MK_TME|HW_ENCRYPT|MCHECK|td[hg][._]|x86/(?:mk)?tme|kvm|rdmsr|EBAD(?:SIG|HASH|PARAM|CALL|HANDOFF)|build_num|PAMT|RBP|self-snoop|"
    rb"R(?:CX|09) 0x|sleeping function|0x[89abcdef][0-9a-f]{15}\b|S3\.|KeyID", re.IGNORECASE)
"""What a line must contain to be looked at in a whole log."""


def match_form(message: str) -> tuple[LineForm, re.Match[str]] | None:
    """The first form that reads a message (a line without its prefix); its clauses are those of this very line."""
    for pattern, form in _COMPILED:
        found = pattern.search(message)
        if found is not None:
            return next((own for exact, own in _EXACT[form.id] if exact.search(message)), form), found
    return None


WHO = {"Linux": "Linux", "module": MODULE, "loader": LOADER, "stub": KERNEL}
