"""Vectors whose expectations were worked out by hand from the documents, in the format of the recorded ones.

They stand on nothing this implementation answered: statuses, registers, counters and addresses are written down, and
what is hashed is built here from its definition.
"""

from __future__ import annotations

from hashlib import sha256, sha384
from struct import pack
from typing import Any

from seamref import mint
from seamref.conformance.pseamldr_format import build_image, build_sigstruct

INFO = {
    "version": 0, "attributes": 0, "vendor_id": 0x8086, "build_date": 20240131, "build_num": 7, "minor": 5, "major": 1,
}
VMX = {
    "0x480": "0xda050000000013", "0x48d": "0xff00000016", "0x48e": "0xfffbfffe04006172", "0x48f": "0x7fffffff00036dfb",
    "0x490": "0x7fffff000011fb", "0x486": "0x80000021", "0x487": "0xffffffff", "0x488": "0x2000", "0x489": "0x1ff2fff",
}
ONE = {
    "num_sockets": 1, "cpuid4_max_lps_minus1": 0, "lps": [[0, 1]], "tot_num_lps": 1, "fms": ["0x806f8"], "max_pa": 46,
    "hkid_bits": 6, "num_mktme_kids": 31, "private_hkid_min": 32, "seamrr_base": "0x7e000000",
    "seamrr_size": "0x2000000",
    "p_seamldr_range_size": "0x200000", "debug_unlocked": 0, "acm_x2apicid": 0, "skip_smrr2_check": 0, "tdx_ac": 0,
    "cmrs": [["0x100000", "0x7ff00000"]], "sysinfo_version": 0, "reserved_seed": None, "vmx_msrs": VMX,
}
TWO = {**ONE, "cpuid4_max_lps_minus1": 1, "lps": [[0, 2]], "tot_num_lps": 2}

FRESH = (bytes(130) + b"\x01" + bytes(5)).hex()
"""SEAMEXTEND after NP-SEAMLDR: p_seamldr_ready alone."""
NOTHING = bytes(136).hex()
CANARY = [[1, "0x1122334455667788"]]

SIGSTRUCT = {
    "header_type": 6, "header_length": 0xE1, "header_version": 0x10000, "module_type": 0, "module_vendor": 0x8086,
    "date": 0x20240131, "size": 0x200, "key_size": 0x60, "modulus_size": 0x60, "exponent_size": 1, "exponent": 0x10001,
    "seam_minor_svn": 2, "seam_major_svn": 1, "attributes": 0, "rip_offset": 0x1000, "num_stack_pages": 1,
    "num_tls_pages": 1, "num_keyhole_pages": 7, "num_global_data_pages": 3, "module_hv": 2, "min_update_hv": 1,
    "no_downgrade": 1, "num_handoff_pages": 1, "gdt_idt_offset": 0, "fault_wrapper_offset": 0, "cpuid_table_size": 1,
    "cpuid_table": [0x806F0],
}
IMAGE = {"pages": 2, "fill": ["zero"], "writes": [["ehdr", 0, {"e_entry": 0x1000}], ["hex", 0x1000, "f30f1efa0f0b"]]}
IMAGE_BYTES = build_image(IMAGE, "images.i")
SEAMHASH = sha384(IMAGE_BYTES).hexdigest()
MODULI = {"k0": mint.KEY.modulus_le, "k1": mint.OTHER_KEY.modulus_le}
KEYS = {name: modulus.hex() for name, modulus in MODULI.items()}


def _signed(**recipe: Any) -> dict[str, Any]:
    """A sigstruct recipe with the signature over what it makes, PKCS#1 v1.5 with SHA-384 by the test key."""
    recipe = {"seamhash": SEAMHASH, "signature": bytes(384).hex(), **recipe}
    bare = build_sigstruct({**recipe, "post": []}, "recipe", SIGSTRUCT, MODULI)
    digest = sha384(bare[:128] + bare[900:]).digest()
    info = bytes.fromhex("3041300d060960864801650304020205000430") + digest
    message = b"\x00\x01" + b"\xff" * (384 - 3 - len(info)) + b"\x00" + info
    signature = pow(int.from_bytes(message, "big"), mint.KEY.d, mint.KEY.n).to_bytes(384, "little")
    recipe["signature"] = signature.hex()
    return {**recipe, "sha256": sha256(build_sigstruct(recipe, "recipe", SIGSTRUCT, MODULI)).hexdigest()}


def _memory(sigstruct: str, scenario: int = 0) -> list[dict[str, Any]]:
    params = {"scenario": scenario, "sigstruct_pa": "0x10001000", "num_module_pages": 2,
              "pages": [[0, "0x10100000", 2]]}
    return [{"pa": "0x10000000", "params": params}, {"pa": "0x10001000", "sigstruct": sigstruct},
            {"image": "i", "at": [["0x10100000", 0, 2]]}]


def _expect(rax: int, rdx: int, seamextend: str = FRESH, remaining: int = 0, update: int = 0, shutdown: int = 0,
            **more: Any) -> dict[str, Any]:
    return {"rax": hex(rax), "rdx": hex(rdx), "seamextend": seamextend, "num_remaining_updates": remaining,
            "lps_in_update": update, "lps_in_shutdown": shutdown, **more}


def _step(leaf: str, expect: dict[str, Any], lp: int = 0, rcx: int = 0x10000000, rdx: int = 0x5A5A, **more: Any) -> Any:
    return {"lp": lp, "leaf": leaf, "rcx": hex(rcx), "rdx": rdx, "expect": expect, **more}


def _case(id: str, *steps: dict[str, Any], platform: dict[str, Any] = ONE) -> dict[str, Any]:
    return {"id": id, "group": id.split("/")[0], "platform": platform, "seamextend": FRESH,
            "seamdb": {"size": 16, "last": -1}, "steps": list(steps)}


def _identity(ready: int) -> str:
    """SEAMEXTEND of the module: valid 1FFH, SVN 1.2, MRSEAM, the ready flags."""
    return (pack("<QBB14x", 0x1FF, 2, 1) + bytes.fromhex(SEAMHASH) + bytes(56) + bytes([ready, 0, 1]) + bytes(5)).hex()


def _info_bytes(remaining: int, seamextend: str) -> str:
    head = pack("<IIIIHHHHII", 0, 0, 0x8086, 20240131, 7, 5, 1, 0, 0, remaining)
    return (head + bytes.fromhex(seamextend)).ljust(256, b"\0").hex()


_EBADPARAM, _EBADCALL, _EBADSIG, _EUNSPEC = 1 << 63, 1 << 63 | 3, 1 << 63 | 0x20000, 1 << 63 | 0x10003

# RDRAND 0x4000: address bits 46:34 get 0x4000 << 32.  One processor, 2 pages of code, (1+1) local, 3+1 global and
# 1+1 handoff pages; 8 keyholes; data at SEAMRR + 4K + one VMCS; code 2 MiB below P_SEAMLDR_RANGE; 3 stack pages below.
_ASLR = 0x400000000000
_CODE, _STACK, _KEYHOLE = 0xFFFFC00000000000, 0xFFFFC00100000000, 0xFFFFC00200000000
_DATA, _SYSINFO, _EDIT = 0xFFFFC00300000000, 0xFFFFC003FFFF0000, 0x400100000000
_PML4 = 0x7FC00000 - 3 * 4096 - 4096
# Tables in the order of mapping, downward from the page below the PML4: PDPT, PD, PT of the code; then PD and PT
# each of data, stacks, SYS_INFO_TABLE and keyholes; then PDPT, PD, PT of the key-edit region.
_TABLES = 3 + 4 * 2 + 3
_KEYHOLE_TABLE = _PML4 - 11 * 4096
_MEMORY = {
    "module_physlimit": "0x7fe00000", "seamcfg_region_size": 4096, "vmcs_region_size": 4096,
    "sysinfo_table_linbase": _SYSINFO, "code_region_size": 8192, "code_region_linbase": _CODE,
    "code_region_physbase": "0x7fc00000", "local_data_size": 8192, "global_data_size": 16384,
    "handoff_data_size": 8192,
    "data_region_size": 32768, "data_region_linbase": _DATA, "data_region_physbase": "0x7e002000",
    "data_stack_size": 8192, "shadow_stack_size": 4096, "lp_stack_size": 12288, "stack_region_size": 12288,
    "stack_region_linbase": _STACK, "stack_region_physbase": "0x7fbfd000", "keyhole_region_size": 32768,
    "keyhole_region_linbase": _KEYHOLE, "keyedit_region_size": 4096, "keyedit_region_linbase": _EDIT,
    "paging_structure_size": 7 * 4096, "pml4_physbase": _PML4, "current_pt_physbase": _PML4 - (_TABLES + 1) * 4096,
    "num_addressable_lps": 1, "idt_linbase": 0, "gdt_linbase": 0, "fault_wrapper_linbase": None,
    "td_preserving_supported": True,
}
_XD = 1 << 63
_RUNS = [
    [_EDIT, _KEYHOLE_TABLE | 0x67 | _XD, 1], [_CODE, 0x7FC00021, 2], [_STACK, 0x7FBFD063 | _XD, 2],
    [_STACK + 8192, 0x7FBFF061 | _XD, 1], [_DATA, 0x7E002063 | _XD, 8], [_SYSINFO, 0x7E000021 | _XD, 1],
]
_LEAVES = b"".join(
    pack("<QQ", linear + 4096 * i, entry + 4096 * i) for linear, entry, count in _RUNS for i in range(count))
_SYS_INFO = {
    "code_rgn_base": _CODE, "code_rgn_size": 8192, "data_rgn_base": _DATA, "data_rgn_size": 32768,
    "stack_rgn_base": _STACK, "stack_rgn_size": 12288, "keyhole_rgn_base": _KEYHOLE, "keyhole_rgn_size": 32768,
    "keyhole_edit_rgn_base": _EDIT, "keyhole_edit_rgn_size": 4096, "num_stack_pages": 1, "num_tls_pages": 1,
    "module_hv": 2, "min_update_hv": 1, "no_downgrade": 1, "num_handoff_pages": 1,
    "mcheck_sha256": sha256(
        (pack("<QII8IQQBB", 0, 1, 1, 0x806F8, *(0,) * 7, 0x7FE00000, 0x200000, 0, 0).ljust(128, b"\0")
         + pack("<QQ", 0x100000, 0x7FF00000)).ljust(2048, b"\0")).hexdigest(),
}
_VMCS = {
    "common": {
        "guest_rip": "0x1000000000000000", "revision_id": 0x13, "proc_based": 0x4006172, "pin_based": 0x16,
        "exit_ctls": 0x573F7FFF, "entry_ctls": 0x7EF1FF, "host_cs_selector": 8, "host_ss_selector": 0x10,
        "host_fs_selector": 0x18, "host_gs_selector": 0x18, "host_tr_selector": 0x20, "host_rip": _CODE + 0x1000,
        "host_ia32_pat": 0x0006060606060606, "host_ia32_efer": 0xD00, "host_cr0": 0x80010031, "host_cr3": _PML4,
        "host_cr4": 0xB526A8, "host_idtr_base": 0, "host_gdtr_base": 0, "host_fs_base": _SYSINFO,
        "host_ia32_s_cet": 0x15,
    },
    "count": 1,
    "per_lp": {"host_rsp": [_STACK + 0x1FF8], "host_ssp": [_STACK + 0x2FF8], "host_gs_base": [_DATA + 0x2000]},
}
_INSTALLED = {
    "memory": _MEMORY, "mapping": {"sha256": sha256(_LEAVES).hexdigest(), "leaves": 15, "tables": 15, "runs": _RUNS},
    "sys_info_table": _SYS_INFO, "vmcs": _VMCS, "code_region_sha256": sha256(IMAGE_BYTES).hexdigest(),
    "page_table_pages_used": _TABLES,
}
_LOAD = [["CLEAR", 0], ["GETREF", 3, 0, 16], ["INSERT", 0]]

CASES = [
    _case("leaf/unknown", _step("0x8000000000000004", _expect(_EBADPARAM, 0x5A5A), rdrand=CANARY),
          _step("0x3", _expect(_EBADPARAM, 0x5A5A))),
    _case("canary/no_entropy", _step("INSTALL", _expect(_EUNSPEC, 0x5A5A), rdrand=[[0, 0]]),
          _step("SHUTDOWN", _expect(0, 0x5A5A, NOTHING, shutdown=1), rdrand=CANARY)),
    _case("info/contents",
          _step("INFO", _expect(0, 1, remaining=16, written={"pa": "0x10000000", "len": 256,
                                                             "hex": _info_bytes(16, FRESH)}),
                rdx=1, rdrand=CANARY, seamops=[["GETREF", 3, 0, 16]]),
          _step("INFO", _expect(_EBADPARAM, 1, remaining=16), rcx=0x10000080, rdx=1)),
    _case("info/inside", _step("INFO", _expect(_EBADPARAM, 2), rcx=0x7FE00000, rdx=2, rdrand=CANARY)),
    _case("seaminfo/alignment", _step("SEAMINFO", _expect(_EBADPARAM, 0x5A5A), rcx=0x10000100, rdrand=CANARY)),
    _case("guest/step", _step(
        "SHUTDOWN", _expect(0, 0x5A5A, NOTHING, shutdown=1, guest={
            "rip": 0x2004, "interruptibility": 8, "pending_dbg": 0x4001}), rdrand=CANARY,
        guest={"rip": 0x2000, "instruction_length": 4, "interruptibility": 9, "rflags": 0x102, "debugctl": 0,
               "pending_dbg": 1})),
    _case("session/refused",
          _step("INSTALL", _expect(0, 0, update=1), lp=1, rdrand=CANARY),
          _step("INSTALL", _expect(_EBADCALL, 0, update=1), lp=1),
          _step("INSTALL", _expect(_EBADPARAM, 0), rcx=0x10000800), platform=TWO),
    _case("session/shutdown",
          _step("INSTALL", _expect(0, 0, update=1), rdrand=CANARY),
          _step("SHUTDOWN", _expect(0, 7, update=1, shutdown=1), lp=1, rdx=7),
          _step("INSTALL", _expect(_EBADCALL, 0, update=1, shutdown=1), lp=1),
          _step("SHUTDOWN", _expect(0, 7, NOTHING, update=1, shutdown=2), rdx=7), platform=TWO),
    _case("install/signature",
          _step("INSTALL", _expect(_EBADSIG, 0), mem=_memory("bad"), rdrand=CANARY)),
    _case("install/load",
          _step("INSTALL", _expect(0, 0, _identity(1), 15, **_INSTALLED), mem=_memory("good"),
                rdrand=[*CANARY, [1, "0x4000"]], seamops=_LOAD),
          _step("INSTALL", _expect(_EBADPARAM, 0, _identity(1), 15, vmclear=["0x7e001000"]), rcx=0x10000001)),
]

DOCUMENT: dict[str, Any] = {
    "format": "pseamldr-vectors/1", "pseamldr_info": INFO, "keys": KEYS, "signer_key_sha384": mint.KEY.key_hash.hex(),
    "sigstruct_default": SIGSTRUCT,
    "sigstructs": {"good": _signed(), "bad": _signed(post=[[20, "99"]])},
    "images": {"i": {**IMAGE, "sha384": SEAMHASH}},
    "cases": CASES,
}
