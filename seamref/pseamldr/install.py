"""SEAMLDR.INSTALL: a session over all logical processors, and what the last one's call does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from hashlib import sha384
from typing import assert_never

from seamref.arch.msr import SGX_DEBUG_MODE
from seamref.arch.seamops import SeamopsLeaf, SeamopsStatus
from seamref.arch.software import Ud2
from seamref.arch.structures import IDT_GATE, SEAMEXTEND, SYS_INFO_TABLE, point_gate
from seamref.arch.vmx import vmclear
from seamref.pseamldr.api import (
    CODE_REGION,
    HANDOFF_DATA_HEADER,
    INSERT_TRIES,
    MAX_LPS,
    PAGE,
    SEAMLDR_PARAMS,
    VALID_INTEL,
    Recoverability,
    Scenario,
    Status,
)
from seamref.pseamldr.build import R10
from seamref.pseamldr.data import Call
from seamref.pseamldr.elf import ElfFatal, ElfOutcome, ElfRefused, Relocated, relocate
from seamref.pseamldr.hpa import is_shared_hpa
from seamref.pseamldr.info import query_remaining_updates
from seamref.pseamldr.manifest import INSTALL_MANIFEST, INSTALL_PARAMS, ManifestState, ParamsState, sigstruct_layout
from seamref.pseamldr.memory_constants import (
    INSTALL_MEMORY,
    MemoryConstants,
    MemoryState,
    addressable_lps,
    aslr_bits,
    compute_memory_constants,
    shape_of,
)
from seamref.pseamldr.memory_map import INSTALL_MAP, ModuleRegion, build_page_tables
from seamref.pseamldr.sigstruct import SEAM_SIGSTRUCT
from seamref.pseamldr.sysvalues import SystemValues, get_lpid, run_cpuid
from seamref.pseamldr.vmcs_setup import set_up_vmcss
from seamref.spec import MEASURED, Check, CheckTable, implements

_SRC = "PSL src/pseamldr_dispatcher/api_calls/seamldr_install.c"

_HANDOFF_PAGES = SYS_INFO_TABLE.offset_of("num_handoff_pages")
_REGIONS = SYS_INFO_TABLE.offset_of("code_rgn_base")
_HANDOFF_FIELDS = SYS_INFO_TABLE.offset_of("module_hv")
_SEAMHASH = SEAM_SIGSTRUCT.span("seamhash")
_SVN = SEAM_SIGSTRUCT.span("seam_minor_svn", "seam_major_svn")
_ID_SVN = SEAMEXTEND.span("tee_tcb_svn.seam_minor_svn", "tee_tcb_svn.seam_major_svn")
HANDLER_SIZE = 16
"""Bytes of one of the 32 handlers behind the fault wrapper."""
_MCHECK_SIZE = SYS_INFO_TABLE.field("mcheck").type.size


# --- the part of every processor


@dataclass(frozen=True, slots=True)
class LpState:
    """The calling processor (x2APIC id), how many have called SHUTDOWN, whether this one is in the session already."""

    lpid: int
    lps_in_shutdown: int
    call: Call

    def in_session(self) -> bool:
        """Whether this processor's bit of update_bitmap is set."""
        return bool(self.call.get_bytes("update_bitmap")[self.lpid // 8] >> self.lpid % 8 & 1)


INSTALL_LP: CheckTable[LpState, Status] = CheckTable("INSTALL.lp", (
    Check("INSTALL.lp.x2apic_id", "x2APIC id is 1024 or more", lambda c: c.lpid >= MAX_LPS, Status.EUNSPECERR, _SRC,
          MEASURED),
    Check("INSTALL.lp.shutdown", "a SHUTDOWN has begun", lambda c: c.lps_in_shutdown != 0, Status.EBADCALL, _SRC,
          MEASURED),
    Check("INSTALL.lp.repeated", "this processor has called in this session; the session goes on", LpState.in_session,
          Status.EBADCALL, _SRC, MEASURED),
), "SEAMLDR.INSTALL on each processor: nothing changes when one of these stops (RDX = 0).")


@implements("INSTALL.leaf", "count the processor, block the module on the first, VMCLEAR its transfer VMCS; the last "
            "processor installs and ends the session", _SRC, MEASURED)
def seamldr_install(call: Call, values: SystemValues) -> Status | Installing:
    """INSTALL.leaf.  Input: RCX, SEAMLDR_PARAMS, looked at on the last processor only.  RDX: recoverability.

    With ``PlatformConfig.fine_steps`` the last processor stops before each phase; :func:`go_on` goes on.
    """
    call.give("rdx", Recoverability.RECOVERABLE)
    lpid = get_lpid(call)
    row = INSTALL_LP.decide(LpState(lpid, call.get("lps_in_shutdown"), call), call.build.revision)
    if row is not None:
        return row.result
    call.test_and_set("update_bitmap", lpid)
    count = call.get("lps_in_update")
    if count == 0:
        call.block_module()
    count += 1
    call.put("lps_in_update", count)
    if call.get("module_range_initialized"):
        _clear_transfer_vmcs(call, values, lpid)
    if count < call.sysinfo["tot_num_lps"]:
        return Status.SUCCESS
    at: Installing | Status = Installing()
    if not call.platform.config.fine_steps:
        session = Session(call, values, Installing())
        while isinstance(at, Installing):
            at = session.phase(at)
    return at


def go_on(call: Call, values: SystemValues, at: Installing) -> Installing | Status:
    """The next phase of the last processor's INSTALL, which had stopped."""
    return Session(call, values, at).phase(at)


@implements("INSTALL.vmclear", "VMCLEAR SEAMRR.BASE + 4096 + x2APIC id * 4096, once this loader has set up the "
            "range; its result is ignored", _SRC, MEASURED)
def _clear_transfer_vmcs(call: Call, values: SystemValues, lpid: int) -> None:
    """INSTALL.vmclear: the processor must not hold a copy of a VMCS that is going to be overwritten."""
    address = values.seamrr_base + PAGE + lpid * PAGE
    vmclear(call.platform, call.lp.id, address)
    call.computed("VMCLEAR", address)


# --- the last processor


@dataclass(frozen=True, slots=True)
class RcxState:
    """RCX of the last processor's call."""

    rcx: int
    values: SystemValues


INSTALL_RCX: CheckTable[RcxState, Status] = CheckTable("INSTALL.rcx", (
    Check("INSTALL.rcx.pa", "RCX is no shared HPA aligned to 4096", lambda c: not is_shared_hpa(c.rcx, PAGE, c.values),
          Status.EBADPARAM, _SRC, MEASURED),
), "RCX of the last processor's INSTALL, before SEAMLDR_PARAMS is copied.")


@dataclass(frozen=True, slots=True)
class UpdateState:
    """What UPDATE looks at before it wipes: updates left, the old module's handoff header and pages, the new module."""

    remaining: int
    valid: int
    hv: int
    size: int
    old_handoff_pages: int
    module_hv: int
    min_update_hv: int

    @property
    def total(self) -> int:
        """Bytes to keep: header and data (64-bit, no wrap)."""
        return self.size + HANDOFF_DATA_HEADER.size


INSTALL_UPDATE: CheckTable[UpdateState, Status] = CheckTable("INSTALL.update", (
    Check("INSTALL.update.remaining", "num_remaining_updates is 0, maybe only because nobody asked SEAMDB yet",
          lambda c: c.remaining == 0, Status.EBADCALL, _SRC, MEASURED),
    Check("INSTALL.update.handoff_valid", "the handoff header is not valid", lambda c: c.valid == 0, Status.EBADHANDOFF,
          _SRC, MEASURED),
    Check("INSTALL.update.handoff_size", "header and data exceed the OLD module's handoff pages",
          lambda c: c.total > (c.old_handoff_pages + 1) * PAGE, Status.EBADHANDOFF, _SRC, MEASURED),
    Check("INSTALL.update.handoff_hv_low", "handoff version is below the new module's min_update_hv",
          lambda c: c.hv < c.min_update_hv, Status.EBADHANDOFF, _SRC, MEASURED),
    Check("INSTALL.update.handoff_hv_high", "handoff version is above the new module's module_hv",
          lambda c: c.hv > c.module_hv, Status.EBADHANDOFF, _SRC, MEASURED),
), "UPDATE to a module with major SVN above 0: the old module still runs afterwards (RDX = 0).")


@dataclass(frozen=True, slots=True)
class HashState:
    """SHA-384 of the image as copied, and SEAMHASH of the sigstruct."""

    digest: bytes
    seamhash: bytes


INSTALL_HASH: CheckTable[HashState, Status] = CheckTable("INSTALL.hash", (
    Check("INSTALL.hash.seamhash", "SHA-384 of the image is not SEAMHASH", lambda c: c.digest != c.seamhash,
          Status.EBADHASH, _SRC, MEASURED),
), "The image as it lies in SEAM memory, before relocation (RDX = 1).")

INSTALL_RELOCATION: CheckTable[ElfOutcome, Status] = CheckTable("INSTALL.relocation", (
    Check("INSTALL.relocation.elf", "a row of the ELF tables stops; relocations already written stay",
          lambda c: isinstance(c, ElfRefused), Status.EBADPARAM, "PSL src/common/helpers/elf.c", MEASURED),
), "ELF header and relocations (RDX = 1).")

INSTALL_SEAMDB: CheckTable[int, Status] = CheckTable("INSTALL.seamdb", (
    Check("INSTALL.seamdb.entropy", "SEAMDB_INSERT had no entropy five times",
          lambda status: status == SeamopsStatus.ENTROPY_ERROR, Status.ENOENTROPY, _SRC, MEASURED),
), "After the module is complete: identity in SEAMEXTEND, seam_ready = 0 (RDX = 1).")


class Phase(Enum):
    """Phases of the last processor's INSTALL; between two of them a device may change what lies in host memory."""

    PARAMS = "SEAMLDR_PARAMS"
    SIGSTRUCT = "sigstruct"
    RANGE = "range"
    COPY = "pages"
    HASH = "hash"
    RELOCATION = "relocation"
    END = "SEAMEXTEND"


@dataclass(frozen=True, slots=True)
class Installing:
    """Where the last processor's INSTALL is, and what it keeps on its stack: which phase comes next, SEAMLDR_PARAMS as
    copied, the memory constants, what RDX would say, the status that the session will end with."""

    phase: Phase = Phase.PARAMS
    params: bytes = b""
    plan: MemoryConstants | None = None
    recoverability: Recoverability = Recoverability.RECOVERABLE
    status: Status = Status.SUCCESS

    def ends(self, status: Status) -> Installing:
        """Only the end of the session is left."""
        return replace(self, phase=Phase.END, status=status)


class Session:
    """The last processor's work.  ``recoverable`` is the documents' "rec": what RDX says when this fails."""

    __slots__ = ("call", "recoverability", "region", "revision", "sigstruct", "values")

    def __init__(self, call: Call, values: SystemValues, at: Installing) -> None:
        self.call = call
        self.values = values
        self.revision = call.build.revision
        self.recoverability = at.recoverability
        self.region = ModuleRegion(call, values.seamrr_base, call.sysinfo["p_seamldr_range_base"])
        self.sigstruct = call.get_bytes("seam_sigstruct_snapshot")

    def _field(self, name: str) -> int:
        """A field of the sigstruct snapshot."""
        value: int = sigstruct_layout(self.revision).peek(self.sigstruct, name)
        return value

    # --- steps A to O

    def phase(self, at: Installing) -> Installing | Status:
        """One phase: how it goes on, or the leaf's status when the session has ended."""
        match at.phase:
            case Phase.PARAMS:
                return self._params(at)
            case Phase.SIGSTRUCT:
                return self._manifest(at)
            case Phase.RANGE:
                return self._range(at)
            case Phase.COPY:
                return self._copy(at)
            case Phase.HASH:
                return self._hash(at)
            case Phase.RELOCATION:
                return self._relocate(at)
            case Phase.END:
                return self.end(at.status)
            case _ as never:
                assert_never(never)

    def _params(self, at: Installing) -> Installing:
        """Steps A and B: RCX and SEAMLDR_PARAMS, copied once."""
        call = self.call
        rcx = call.saved("rcx")
        row = INSTALL_RCX.decide(RcxState(rcx, self.values), self.revision)
        if row is not None:
            return at.ends(row.result)
        at = replace(at, params=call.read(rcx, SEAMLDR_PARAMS.size))
        refused = INSTALL_PARAMS.decide(self._given(at), self.revision)
        if refused is not None:
            return at.ends(refused.result)
        self.call.did("INSTALL.params")
        return replace(at, phase=Phase.SIGSTRUCT)

    def _given(self, at: Installing) -> ParamsState:
        snapshot = self.call.get_bytes("seamextend_snapshot")
        return ParamsState(at.params, self.values, SEAMEXTEND.peek(snapshot, "seam_ready"))

    def _manifest(self, at: Installing) -> Installing:
        """Steps C to E: the sigstruct, copied once into the snapshot."""
        call = self.call
        self.sigstruct = call.read(self._given(at)["sigstruct_pa"], 2048)
        call.put_bytes("seam_sigstruct_snapshot", self.sigstruct)
        stopped = INSTALL_MANIFEST.decide(self._manifest_state(at), self.revision)
        if stopped is not None:
            return at.ends(stopped.result)
        self.call.did("INSTALL.manifest")
        return replace(at, phase=Phase.RANGE)

    def _manifest_state(self, at: Installing) -> ManifestState:
        call, params = self.call, self._given(at)
        snapshot = call.get_bytes("seamextend_snapshot")
        return ManifestState(
            sigstruct=self.sigstruct,
            scenario=params["scenario"],
            num_module_pages=len(params.pages),
            seam_minor_svn=SEAMEXTEND.peek(snapshot, "tee_tcb_svn.seam_minor_svn"),
            seam_major_svn=SEAMEXTEND.peek(snapshot, "tee_tcb_svn.seam_major_svn"),
            debug_unlocked=bool(call.rdmsr(SGX_DEBUG_MODE) & 2),
            socket_cpuids=call.sysinfo.socket_cpuids(),
            signer_key_hash=call.build.signer_key_hash,
            revision=self.revision,
        )

    def _range(self, at: Installing) -> Installing:
        """Steps F to I: where everything goes, the range cleared, page tables."""
        params = self._given(at)
        status, plan = self._plan(len(params.pages), self._manifest_state(at))
        if plan is None:
            return at.ends(status)
        self.call.did("INSTALL.memory")
        status = self._clear_range(plan, params["scenario"])
        if status is not Status.SUCCESS:
            return at.ends(status)
        self.call.put("module_range_initialized", 1)
        self.recoverability = Recoverability.UNRECOVERABLE
        at = replace(at, plan=plan, recoverability=self.recoverability)
        self.call.did("INSTALL.clear")
        fitted, next_table = build_page_tables(self.region, plan, self.revision)
        self.call.computed("current_pt_physbase", next_table)
        row = INSTALL_MAP.decide(fitted, self.revision)
        if row is not None:
            return at.ends(row.result)
        self.call.did("INSTALL.map")
        return replace(at, phase=Phase.COPY)

    @implements("INSTALL.plan", "one RDRAND, then the memory constants", _SRC, MEASURED)
    def _plan(self, num_pages: int, manifest: ManifestState) -> tuple[Status, MemoryConstants | None]:
        """INSTALL.plan (step F)."""
        call = self.call
        carry, random = call.platform.rdrand()
        per_socket = (run_cpuid(call, 4, 3).eax >> 14 & 0xFFF) + 1
        plan = compute_memory_constants(
            shape_of(manifest.fields, num_pages),  # type: ignore[arg-type]
            addressable_lps(per_socket, call.sysinfo["tot_num_sockets"]),
            aslr_bits(random),
            self.values.seamrr_base,
            call.sysinfo["p_seamldr_range_base"],
            self.revision,
        )
        row = INSTALL_MEMORY.decide(MemoryState(carry, plan), self.revision)
        if row is not None:
            return row.result, None
        self.call.computed("memory_constants", plan)
        return Status.SUCCESS, plan

    def _clear_range(self, plan: MemoryConstants, scenario: int) -> Status:
        """Step G: LOAD empties SEAMDB and the whole range, UPDATE keeps the handoff data."""
        if self.revision == R10:
            self.region.zero(self.region.base, self.region.end - self.region.base)
            return Status.SUCCESS
        if scenario == Scenario.LOAD or not plan.td_preserving_supported:
            self._clear_for_load()
            return Status.SUCCESS
        return self._clear_for_update(plan)

    @implements("INSTALL.load", "SEAMDB_CLEAR, num_remaining_updates from SEAMDB, the module range zeroed; also for "
                "UPDATE to major SVN 0", _SRC, MEASURED)
    def _clear_for_load(self) -> None:
        """INSTALL.load: a CLEAR that fails is fatal."""
        call = self.call
        status = call.seamops(SeamopsLeaf.SEAMDB_CLEAR)
        if status != SeamopsStatus.SUCCESS:
            raise Ud2(f"SEAMDB_CLEAR: status {status} (source F006H, code 4)")
        call.put("num_remaining_updates", query_remaining_updates(call))
        self.region.zero(self.region.base, self.region.end - self.region.base)

    @implements("INSTALL.preserve", "everything is zeroed but the handoff header and the bytes behind it", _SRC,
                MEASURED)
    def _clear_for_update(self, plan: MemoryConstants) -> Status:
        """INSTALL.preserve: the header lies at the start of the data region, whose place depends on no module."""
        region, at = self.region, plan.data_region_physbase
        header = HANDOFF_DATA_HEADER.decode(region.read(at, HANDOFF_DATA_HEADER.size))
        old_pages = int.from_bytes(region.read(region.base + _HANDOFF_PAGES, 2), "little")
        state = UpdateState(
            self.call.get("num_remaining_updates"), header.valid, header.hv, header.size, old_pages,
            self._field("module_hv"), self._field("min_update_hv"),
        )
        row = INSTALL_UPDATE.decide(state, self.revision)
        if row is not None:
            return row.result
        region.zero(region.base, at - region.base)
        kept_end = at + state.total
        region.zero(kept_end, (region.end - kept_end) & (1 << 64) - 1)
        return Status.SUCCESS

    @property
    def code_base(self) -> int:
        """Where the image goes: below P_SEAMLDR_RANGE, at the end of the module's range."""
        range_size = self.call.sysinfo["p_seamldr_range_size"]
        return self.values.seamrr_base + self.values.seamrr_size - range_size - CODE_REGION

    def _copy(self, at: Installing) -> Installing:
        """Step J: the pages of the image, copied once into SEAM memory."""
        image = bytearray().join(self.call.read(page, PAGE) for page in self._given(at).pages)
        self.region.write(self.code_base, image)
        self.call.did("INSTALL.copy")
        return replace(at, phase=Phase.HASH)

    def _image(self, at: Installing) -> bytes:
        """The image as it lies in SEAM memory."""
        return self.region.read(self.code_base, PAGE * len(self._given(at).pages))

    def _hash(self, at: Installing) -> Installing:
        """Step K: the image in SEAM memory is measured, not the one in the host's."""
        seamhash = self.sigstruct[_SEAMHASH]
        hashed = INSTALL_HASH.decide(HashState(sha384(self._image(at)).digest(), seamhash), self.revision)
        if hashed is not None:
            return at.ends(hashed.result)
        self.call.did("INSTALL.hash")
        return replace(at, phase=Phase.RELOCATION)

    def _relocate(self, at: Installing) -> Installing:
        """Steps L to O: relocation, IDT, SYS_INFO_TABLE, VMCSs."""
        plan = at.plan
        assert plan is not None
        if self.revision != R10:
            image = bytearray(self._image(at))
            outcome = relocate(image, plan.code_region_linbase)
            refused = INSTALL_RELOCATION.decide(outcome, self.revision)
            if isinstance(outcome, Relocated) and plan.idt_linbase:
                fix_up_idt(image, plan.idt_linbase - plan.code_region_linbase, plan.fault_wrapper_linbase or 0)
            self.region.write(self.code_base, image)
            if isinstance(outcome, ElfFatal):
                raise Ud2(f"#DE relocating: sh_entsize at 0x{outcome.at:X} was overwritten with 0")
            if refused is not None:
                return at.ends(refused.result)
            self.call.did("INSTALL.relocation")
        self._fill_sys_info(plan)
        set_up_vmcss(self.region, plan, self._field("rip_offset"), self.call.rdmsr, self.revision)
        self.call.did("INSTALL.vmcs")
        return at.ends(Status.SUCCESS)

    @implements("INSTALL.sys_info", "SYS_INFO_TABLE: MCHECK's half copied, regions and page counts; the handoff "
                "fields come only after SEAMDB took the module", _SRC, MEASURED)
    def _fill_sys_info(self, plan: MemoryConstants) -> None:
        """INSTALL.sys_info (step N)."""
        words = (
            plan.code_region_linbase, plan.code_region_size, plan.data_region_linbase, plan.data_region_size,
            plan.stack_region_linbase, plan.stack_region_size, plan.keyhole_region_linbase, plan.keyhole_region_size,
            plan.keyedit_region_linbase, plan.keyedit_region_size, self._field("num_stack_pages"),
            self._field("num_tls_pages"),
        )
        self.region.write(self.region.base, self.call.sysinfo.data[:_MCHECK_SIZE])
        self.region.write(self.region.base + _REGIONS, b"".join(word.to_bytes(8, "little") for word in words))

    # --- the end of the session

    def end(self, status: Status) -> Status:
        """Epilogue: identity or failure into SEAMEXTEND; the session is over; RDX tells recoverability."""
        call = self.call
        if status is Status.SUCCESS:
            status = self._succeed()
        else:
            self._fail()
        call.put_bytes("update_bitmap", bytes(128))
        call.put("lps_in_update", 0)
        call.give("rdx", Recoverability.RECOVERABLE if status is Status.SUCCESS else self.recoverability)
        self.call.did("INSTALL.end")
        return status

    @implements("INSTALL.identity", "the new SVN and MRSEAM, valid = 1FFH, MRSIGNER and attributes 0; the rest as in "
                "the snapshot", _SRC, MEASURED)
    def _identity(self) -> bytearray:
        """INSTALL.identity: SEAMEXTEND of the new module, with seam_ready still 0."""
        identity = bytearray(self.call.get_bytes("seamextend_snapshot"))
        identity[_ID_SVN] = self.sigstruct[_SVN]
        identity[SEAMEXTEND.span("mrseam")] = self.sigstruct[_SEAMHASH]
        SEAMEXTEND.poke(identity, "mrsigner", bytes(48))
        SEAMEXTEND.poke(identity, "attributes", 0)
        SEAMEXTEND.poke(identity, "seam_ready", 0)
        SEAMEXTEND.poke(identity, "valid", VALID_INTEL)
        return identity

    @implements("INSTALL.success", "identity into SEAMEXTEND, SEAMDB_INSERT up to five times, then seam_ready = 1, "
                "the handoff fields, one update less", _SRC, MEASURED)
    def _succeed(self) -> Status:
        """INSTALL.success.  1.0 writes the register once, with seam_ready = 1, and keeps it as the snapshot."""
        call = self.call
        identity = self._identity()
        if self.revision == R10:
            SEAMEXTEND.poke(identity, "seam_ready", 1)
            call.put_bytes("seamextend_snapshot", identity)
            call.write_SEAMEXTEND(identity)
            return Status.SUCCESS
        call.write_SEAMEXTEND(identity)
        row = INSTALL_SEAMDB.decide(_insert(call), self.revision)
        if row is not None:
            return row.result
        SEAMEXTEND.poke(identity, "seam_ready", 1)
        call.write_SEAMEXTEND(identity)
        for at, part in ((_HANDOFF_FIELDS, SEAM_SIGSTRUCT.span("module_hv", "no_downgrade")),
                         (_HANDOFF_PAGES, SEAM_SIGSTRUCT.span("num_handoff_pages"))):
            self.region.write(self.region.base + at, self.sigstruct[part])
        call.put("num_remaining_updates", (call.get("num_remaining_updates") - 1) & 0xFFFFFFFF)
        return Status.SUCCESS

    @implements("INSTALL.failure", "the snapshot goes back into SEAMEXTEND: the old module runs again; once the "
                "range was cleared its identity, valid and seam_ready are 0 first", _SRC, MEASURED)
    def _fail(self) -> None:
        """INSTALL.failure."""
        snapshot = bytearray(self.call.get_bytes("seamextend_snapshot"))
        if self.recoverability is Recoverability.UNRECOVERABLE:
            snapshot[_ID_SVN] = bytes(2)
            for name in ("mrseam", "mrsigner"):
                SEAMEXTEND.poke(snapshot, name, bytes(48))
            for name in ("valid", "attributes", "seam_ready"):
                SEAMEXTEND.poke(snapshot, name, 0)
            self.call.put_bytes("seamextend_snapshot", snapshot)
        self.call.write_SEAMEXTEND(snapshot)


@implements("INSTALL.insert", "SEAMDB_INSERT is tried again at once without entropy, five times in all; any other "
            "error is fatal", _SRC, MEASURED)
def _insert(call: Call) -> int:
    """INSTALL.insert: the last status, 0 or "entropy error"."""
    status = int(SeamopsStatus.ENTROPY_ERROR)
    for _ in range(INSERT_TRIES):
        status = call.seamops(SeamopsLeaf.SEAMDB_INSERT)
        if status == SeamopsStatus.SUCCESS:
            break
        if status != SeamopsStatus.ENTROPY_ERROR:
            raise Ud2(f"SEAMDB_INSERT: status {status} (source F006H, code 5)")
    return status


@implements("INSTALL.idt", "vectors 0 to 31: offset bits of each gate := fault wrapper + 16 * vector; selector, type "
            "and the last four bytes keep the image's values",
            "PSL src/pseamldr_dispatcher/api_calls/seamldr_install.c",
            MEASURED)
def fix_up_idt(image: bytearray, idt_offset: int, fault_wrapper: int) -> None:
    """INSTALL.idt: ``idt_offset`` bytes into the image; ``fault_wrapper`` is linear."""
    for vector in range(32):
        point_gate(image, idt_offset + IDT_GATE.size * vector, fault_wrapper + HANDLER_SIZE * vector)
