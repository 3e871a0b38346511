"""The whole story on one platform: reset, cold install, kernel, TDs, upload; good images, bad images, every state."""

from __future__ import annotations

from functools import lru_cache

import pytest

from seamref.arch.structures import SEAMEXTEND
from seamref.host import vmm
from seamref.host.abi import Errno
from seamref.host.fw_upload import Terminal
from seamref.host.image import TDX_BLOB_V2, V1
from seamref.host.install import seamldr_install_module
from seamref.host.kernel import Host
from seamref.host.machine import add_tds, blob, blob_for, count_of, machine
from seamref.host.records import UpdateState
from seamref.host.series import SERIES, V10
from seamref.host.tdx import cpu_offline, cpu_online, kexec, tdx_enable
from seamref.host.update import begin, control, finish, in_order, round_robin, steps

SIZES = ((2, 1), (8, 2), (64, 4))
UP = "/sys/class/firmware/tdx_module"


def story(host: Host, data: bytes) -> tuple[str, str]:
    """The commands of the documentation: what `cat status error` and `cat version` say."""
    shell = Terminal(host, {"module.blob": data})
    shell.session(f"cd {UP}", "echo 1 > loading", "cat module.blob > data", "echo 0 > loading")
    return shell.run("cat status error"), shell.run("cat /sys/devices/faux/tdx_host/version")


@lru_cache
def with_td(cpus: int = 2, sockets: int = 1, **more: object) -> tuple[Host, vmm.Td]:
    host = machine(cpus, sockets=sockets, **more)  # type: ignore[arg-type]
    (td,) = add_tds(host)
    assert [count_of(host, td), count_of(host, td)] == [1, 2]
    return host, td


def fresh(cpus: int = 2, sockets: int = 1, **more: object) -> tuple[Host, vmm.Td]:
    host, td = with_td(cpus, sockets, **more)
    return host.fork(), td.copy()


def patched(data: bytes, field: str, value: object) -> bytes:
    out = bytearray(data)
    TDX_BLOB_V2.poke(out, field, value)
    return bytes(out)


GOOD = blob("1.5.16")
HEADER_ONLY = patched(patched(GOOD[:4096], "sigstruct_nr_pages", 0), "module_nr_pages", 0)
BEFORE: dict[str, bytes] = {
    "published format 1.0": blob("1.5.16", version=V1),
    "cut short": GOOD[:-1],
    "shorter than a header": GOOD[:4095],
    "wrong magic": patched(GOOD, "signature", b"TDX-BLOP"),
    "version 0x201": patched(GOOD, "version", 0x201),
    "reserved byte": GOOD[:100] + b"\1" + GOOD[101:],
    "two sigstruct pages": patched(GOOD, "sigstruct_nr_pages", 2) + bytes(4096),
    "497 module pages": patched(GOOD[:8192], "module_nr_pages", 497) + bytes(497 * 4096),
}
"""Refused by the kernel: nothing was shut down."""
AFTER: dict[str, tuple[bytes, int]] = {
    "header only": (HEADER_ONLY, 0x8000000000020000),
    "no module pages": (patched(GOOD[:8192], "module_nr_pages", 0), 0x8000000000020001),
    "signature of nobody": (blob("1.5.16", signed={"signature": bytes(384)}), 0x8000000000020000),
    "hash of something else": (blob("1.5.16", signed={"seamhash": bytes(48)}), 0x8000000000020001),
    "lower minor SVN": (blob("1.5.01"), 0x8000000000020000),
    "other major SVN": (blob("2.0.05"), 0x8000000000000003),
    "other processors": (blob("1.5.16", signed={"cpuid_table": [0xA06D0]}), 0x8000000000010004),
    "handoff version it cannot read": (blob("1.5.931"), 0x8000000000000004),
    "too large for SEAMRR": (blob("1.5.16", signed={"num_global_data_pages": 60000}), 0x8000000000010002),
}
"""Let through by the kernel: P-SEAMLDR refuses when the old module is already shut down."""


@pytest.mark.parametrize(("cpus", "sockets"), SIZES)
@pytest.mark.parametrize("schedule", [in_order, round_robin()])
def test_story__a_good_image_and_the_TDs_live_on(cpus: int, sockets: int, schedule: object) -> None:
    host, td = fresh(cpus, sockets)
    assert story(host, GOOD) == ("idle\n", "1.5.16\n")
    assert [count_of(host, td), count_of(host, td)] == [3, 4]
    assert not any("SEAMCALL" in line for line in host.state.dmesg)
    register = SEAMEXTEND.decode(host.platform.SEAMEXTEND)
    assert register.tee_tcb_svn.seam_minor_svn == 11 and register.seam_ready == 1
    assert seamldr_install_module(host, blob("1.5.920"), schedule) is Errno.OK  # type: ignore[arg-type]
    assert count_of(host, td) == 5


@pytest.mark.parametrize(("cpus", "sockets"), SIZES)
@pytest.mark.parametrize("what", BEFORE)
def test_story__a_bad_image_that_the_kernel_refuses_costs_nothing(what: str, cpus: int, sockets: int) -> None:
    host, td = fresh(cpus, sockets)
    before = host.platform.fingerprint()
    assert story(host, BEFORE[what]) == ("idle\ntransferring:firmware-invalid\n", "1.5.05\n")
    assert host.platform.SEAMEXTEND == with_td(cpus, sockets)[0].platform.SEAMEXTEND
    assert host.platform.fingerprint() == before  # nothing on the platform moved at all
    assert count_of(host, td) == 3
    assert story(host, GOOD) == ("idle\n", "1.5.16\n")  # and the user tries again


@pytest.mark.parametrize(("cpus", "sockets"), SIZES)
@pytest.mark.parametrize("what", AFTER)
def test_story__a_bad_image_that_the_kernel_lets_through_costs_everything(what: str, cpus: int, sockets: int) -> None:
    host, td = fresh(cpus, sockets)
    data, status = AFTER[what]
    gone = "cat: /sys/devices/faux/tdx_host/version: No such device or address\n"
    assert story(host, data) == ("idle\ntransferring:firmware-invalid\n", gone)
    assert host.state.dmesg[-1] == f"seamldr: SEAMCALL (0x8000000000000001) failed: 0x{status:016x}"
    assert count_of(host, td) in ("VMfailInvalid", "TDX_SYS_SHUTDOWN")
    # no second try: the shutdown step wants a live module
    assert story(host, GOOD) == ("idle\ntransferring:firmware-invalid\n", gone)


def test_story__checksum_is_nobodys_business() -> None:
    host, td = fresh()
    assert story(host, patched(GOOD, "checksum", 0x1234)) == ("idle\n", "1.5.16\n")
    assert count_of(host, td) == 3


# --- a failure at each state ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cpus", "sockets"), SIZES)
def test_failure_in_SHUTDOWN__v10_asks_published_modules_for_what_they_do_not_know(cpus: int, sockets: int) -> None:
    host, td = fresh(cpus, sockets, series=V10)
    assert story(host, GOOD) == ("idle\ntransferring:firmware-invalid\n", "1.5.05\n")
    assert host.state.dmesg[-1] == "virt/tdx: SEAMCALL (0x0000000000000034) failed: 0xc000010000000001"
    assert count_of(host, td) == 3 and host.state.module.initialized


def test_failure_in_SHUTDOWN__a_TD_is_being_built_and_the_module_says_so() -> None:
    host = machine(2, module="1.5.920", series=V10)
    td = vmm.build_td(host.platform, until="TDH.MEM.PAGE.ADD")
    assert story(host, blob("1.5.930")) == ("idle\ntransferring:device-busy\n", "1.5.920\n")
    assert td.hkid and not any("failed" in line for line in host.state.dmesg)


@pytest.mark.parametrize(("cpus", "sockets"), SIZES)
def test_failure_in_SHUTDOWN__a_stray_INSTALL_has_blocked_the_module_and_linux_does_not_know(
    cpus: int, sockets: int
) -> None:
    from seamref.bootchain import INSTALL, seamldr_call

    host, td = fresh(cpus, sockets)
    seamldr_call(host.platform, host.platform.lps[-1], INSTALL, 0)  # opens a session, and that alone is enough
    assert story(host, GOOD) == ("idle\ntransferring:firmware-invalid\n", "1.5.05\n")
    assert host.state.module.initialized and count_of(host, td) == "VMfailInvalid"


@pytest.mark.parametrize(("cpus", "sockets"), SIZES)
def test_failure_in_CPU_INIT__an_offline_CPU_leaves_the_session_open(cpus: int, sockets: int) -> None:
    host, td = fresh(cpus, sockets)
    assert cpu_offline(host, cpus - 1) is Errno.OK if cpus // sockets > 1 else True
    begin_states: list[UpdateState] = []
    from seamref.host.install import Prepared, prepare

    prepared = prepare(host, GOOD)
    assert isinstance(prepared, Prepared)
    begin(host, prepared.params)
    for _ in steps(host):
        if not begin_states or begin_states[-1] is not control(host).state:
            begin_states.append(control(host).state)
    assert finish(host) is Errno.ENODEV
    assert begin_states[-1] is UpdateState.CPU_INIT
    assert host.state.dmesg[-1] == "virt/tdx: module not loaded"
    assert not host.platform.SEAM_READY and count_of(host, td) == "VMfailInvalid"
    # bringing the CPU back does not help: it is refused too
    assert cpu_online(host, cpus - 1) is Errno.ENODEV and not host.cpu(cpus - 1).online


@pytest.mark.parametrize(("cpus", "sockets"), SIZES)
def test_failure_in_CPU_INIT__no_entropy_ten_times(cpus: int, sockets: int) -> None:
    from seamref.host.install import Prepared, prepare

    host, td = fresh(cpus, sockets)
    prepared = prepare(host, GOOD)
    assert isinstance(prepared, Prepared)
    begin(host, prepared.params)
    injected = False
    for _ in steps(host):
        if control(host).state is UpdateState.CPU_INIT and not injected:
            injected = True
            host.platform.inject("rdrand", *[(0, 0)] * 2000)
    assert finish(host) is Errno.EIO
    assert "failed: 0x8000020300000000" in host.state.dmesg[-1]
    assert isinstance(count_of(host, td), str)


@pytest.mark.parametrize(("cpus", "sockets"), SIZES)
def test_failure_in_RUN_UPDATE__somebody_else_was_there_first(cpus: int, sockets: int) -> None:
    from seamref.host.install import Prepared, prepare

    host, td = fresh(cpus, sockets)
    prepared = prepare(host, GOOD)
    assert isinstance(prepared, Prepared)
    begin(host, prepared.params)
    stray = ""
    for _ in steps(host, round_robin()):
        if not stray and control(host).state is UpdateState.RUN_UPDATE:
            stray = str(vmm.tdh(host.platform, host.platform.lps[-1], "TDH.SYS.UPDATE"))
    assert stray == "TDX_SUCCESS" and finish(host) is Errno.EIO
    assert host.state.dmesg[-1] == "virt/tdx: SEAMCALL (0x0000000000000035) failed: 0xc000050800000000"
    assert host.platform.SEAM_READY and not host.state.module.initialized
    assert Terminal(host).run("cat /sys/devices/faux/tdx_host/version").endswith("No such device or address\n")
    assert count_of(host, td) == 3  # the module would go on; it is Linux that gave up


def test_failure__no_update_remains() -> None:
    host, td = fresh()
    while story(host, GOOD)[0] == "idle\n":
        pass
    assert Terminal(host).run("cat /sys/devices/faux/tdx_host/num_remaining_updates") == "0\n"
    assert "failed: 0x8000000000000003" in host.state.dmesg[-1]
    assert isinstance(count_of(host, td), str)


def test_surprise_3__one_entropy_shortage_in_INSTALL_kills_update_and_TDs() -> None:
    from seamref.host.install import Prepared, prepare

    host, td = fresh()
    prepared = prepare(host, GOOD)
    assert isinstance(prepared, Prepared)
    begin(host, prepared.params)
    done = False
    for s in steps(host):
        if not done and control(host).state is UpdateState.CPU_INSTALL:
            done = True
            host.platform.inject("rdrand", (0, 0))
        assert s.did is not None
    assert finish(host) is Errno.EIO and "failed: 0x8000000000030001" in host.state.dmesg[-1]
    assert isinstance(count_of(host, td), str)


# --- around the update ------------------------------------------------------------------------------------------


def test_collision__merged_updates_in_the_middle_of_a_TD_build() -> None:
    host = machine(2)
    td = vmm.new_td(0)
    build = vmm.build_steps(host.platform, host.platform.lps[0], td)
    vmm.go_on_building(build, "TDH.MR.EXTEND")
    assert story(host, blob("1.5.06-crypto")) == ("idle\n", "1.5.06\n")  # nobody objects
    vmm.go_on_building(build)
    plain = machine(2)
    other = vmm.build_td(plain.platform, plain.platform.lps[0])

    def mrtd(at: Host, which: vmm.Td) -> bytes:
        assert count_of(at, which) == 1
        value: bytes = vmm.report_of(at.platform, at.platform.lps[0], which).tdinfo.mrtd
        return value

    assert mrtd(host, td) != mrtd(plain, other)  # a wrong measurement, and no error anywhere


@pytest.mark.parametrize("name", SERIES)
def test_SERIES__every_version_updates_on_the_real_thing(name: str) -> None:
    series = SERIES[name]
    refuses = series.compat.name == "ALWAYS"
    host = machine(4, sockets=2, module="1.5.920" if refuses else "1.5.05", series=series)
    (td,) = add_tds(host)
    assert count_of(host, td) == 1
    assert seamldr_install_module(host, blob_for(series, "1.5.930" if refuses else "1.5.16"), round_robin()) is Errno.OK
    assert count_of(host, td) == 2


def test_LNX_sys_disable__kexec_leaves_no_CPU_in_VMX_and_says_when_the_leaf_is_unknown() -> None:
    host = machine(4)
    rax = kexec(host)
    assert not any(host.lp(n).vmx_on for n in host.online)
    assert (rax == 0) != any("TDH.SYS.DISABLE failed" in line for line in host.state.dmesg)
    assert not any(c.cache_state_incoherent or c.vmx_refs for c in host.state.cpus)


def test_LNX_cpu_offline__last_of_a_package_with_TDs_stays() -> None:
    host = machine(4, sockets=2)
    add_tds(host)
    assert cpu_offline(host, 3) is Errno.OK and cpu_offline(host, 2) is Errno.EBUSY
    assert host.state.dmesg[-1] == ("virt/tdx: TDX requires all packages to have an online CPU. "
                                    "Delete all TDs in order to offline all CPUs of a package.")
    assert cpu_offline(host, 0) is Errno.EBUSY
    assert not host.lp(3).vmx_on
    assert cpu_online(host, 3) is Errno.OK and host.lp(3).vmx_on


def test_TDX_ENABLE__each_row_and_its_errno() -> None:
    from seamref.host.machine import cold
    from seamref.host.tdx import ENABLE

    expected = {"TDX_ENABLE.platform": (Errno.ENODEV, "TDX not supported by the host platform"),
                "TDX_ENABLE.xsave": (Errno.EINVAL, "XSAVE is required for TDX"),
                "TDX_ENABLE.movdir64b": (Errno.EINVAL, "MOVDIR64B is required for TDX"),
                "TDX_ENABLE.selfsnoop": (Errno.ENODEV, "Self-snoop is required for TDX")}
    for row, (errno, line) in expected.items():
        host = Host(cold(2))
        assert ENABLE.decide(host) is None
        if row == "TDX_ENABLE.platform":
            host.set(features=frozenset())
        else:
            host.set(lacks=frozenset({row.split(".")[1]}))
        assert ENABLE.decide(host).id == row and tdx_enable(host) is errno  # type: ignore[union-attr]
        assert host.state.dmesg[-1] == f"virt/tdx: {line}"


def test_LNX_tdx_init__without_a_module_the_kernel_says_not_loaded() -> None:
    from seamref.host.machine import cold

    host = Host(cold(2, module=None))
    assert tdx_enable(host) is Errno.ENODEV
    assert host.state.dmesg[-1] == "virt/tdx: module not loaded"
    assert not any(c.vmx_refs for c in host.state.cpus)


def test_LNX_tdx_init__feature_and_bug_bits() -> None:
    from seamref.host.machine import cold

    assert Host(cold(2)).state.bugs == frozenset()
    assert Host(cold(2, keeps_vmcs=False)).state.bugs == {"seamret_invd_vmcs"}
    from seamref.arch.platform import Platform

    bare = Host(Platform())
    assert bare.state.features == frozenset() and bare.state.dmesg == ()


def test_LNX_tdx_init__one_TDX_KeyID_is_too_few() -> None:
    from seamref.host.machine import cold

    platform = cold(2)
    platform.set_msr(platform.lp(0), 0x87, 1 << 32 | 31)
    host = Host(platform)
    assert host.state.features == frozenset() and tdx_enable(host) is Errno.ENODEV
    assert host.state.dmesg == (
        "virt/tdx: BIOS enabled: private KeyID range [32, 33)",
        "virt/tdx: initialization failed: too few private KeyIDs available.",
        "virt/tdx: TDX not supported by the host platform",
    )


def test_TDX_INIT__each_row_its_line_and_no_bug_bit_without_TDX() -> None:
    from seamref.host.kernel import TDX_INIT, Early, tdx_init
    from seamref.host.machine import cold
    from seamref.host.records import Boot

    platform = cold(1)

    def early(reading: int | None, **boot: bool) -> tuple[str, tuple[str, ...], frozenset[str]]:
        host = Host(platform)
        host.set(dmesg=())
        what = Early(reading, 0, Boot(**boot))
        tdx_init(host, what)
        row = TDX_INIT.decide(what)
        return row.id if row else "", host.state.dmesg, host.state.features | host.state.bugs

    s3 = "virt/tdx: Disable ACPI S3. Turn off TDX in the BIOS to use ACPI S3."
    both = frozenset({"tdx_host_platform", "seamret_invd_vmcs"})
    assert early(None) == ("TDX_INIT.msr", (), frozenset())
    assert early(31) == ("TDX_INIT.none", (), frozenset())
    assert early(1 << 32)[0] == "TDX_INIT.few" and early(1 << 32)[2] == frozenset()
    assert early(32 << 32 | 31, hibernation=True) == ("TDX_INIT.hibernation", (
        "virt/tdx: BIOS enabled: private KeyID range [32, 64)",
        "virt/tdx: initialization failed: Hibernation support is enabled"), frozenset())
    assert early(32 << 32 | 31) == ("", ("virt/tdx: BIOS enabled: private KeyID range [32, 64)", s3), both)
    assert s3 not in early(32 << 32 | 31, acpi_s3=False)[1]
    assert early(2 << 32 | 0xFFFFFFFF)[1][0] == "virt/tdx: BIOS enabled: private KeyID range [0, 2)"  # 32-bit numbers


def test_LNX_sysinfo__what_a_boot_reads_in_which_order() -> None:
    from seamref.host.abi import FIELD_MAJOR_VERSION, FIELD_MINOR_VERSION, FIELD_NUM_CPUID_CONFIG, FIELD_UPDATE_VERSION
    from seamref.host.machine import cold
    from seamref.host.script import Rule, Script
    from seamref.host.tdx import read_metadata, tdx_online_cpu

    host = Host(cold(1))
    assert tdx_online_cpu(host, 0) is Errno.OK
    host.set(script=Script((Rule(leaf=34, rdx=FIELD_NUM_CPUID_CONFIG, out=(("r8", 0x10000 + 3),)),
                            Rule(leaf=34, rdx=FIELD_UPDATE_VERSION, out=(("r8", 0x50007),)),
                            *(Rule(leaf=34, rdx=0x9900000300000400 + i, out=(("r8", i),)) for i in range(3)),
                            *(Rule(leaf=34, rdx=0x9900000300000500 + i, out=(("r8", 16 + i),)) for i in range(6)))))
    assert read_metadata(host) is Errno.OK and host.state.sysinfo is not None and host.state.script is not None
    asked = [call["rdx"] for call in host.state.script.asked]
    assert asked[:3] == [FIELD_MINOR_VERSION, FIELD_MAJOR_VERSION, FIELD_UPDATE_VERSION] and len(asked) == 27
    assert host.state.sysinfo.update == 7 and "virt/tdx: Module version: 1.5.07" in host.state.dmesg
    assert host.state.sysinfo.td_config.cpuid == ((0, 16, 17), (1, 18, 19), (2, 20, 21))
    host.set(script=Script((Rule(leaf=34, rdx=FIELD_NUM_CPUID_CONFIG, out=(("r8", 129),)),)))
    assert read_metadata(host) is Errno.EINVAL


def test_LNX_sysinfo__the_version_line_comes_even_when_nothing_could_be_read() -> None:
    from seamref.host.machine import cold
    from seamref.host.script import Ends, Rule, Script
    from seamref.host.tdx import read_metadata

    host = Host(cold(1))
    host.set(script=Script((Rule(outcome=Ends.VMFAILINVALID),)))
    assert read_metadata(host) is Errno.ENODEV
    assert host.state.dmesg[-1] == "virt/tdx: Module version: 0.0.00"


def test_LNX_tdmr__the_boot_says_how_much_the_PAMTs_take() -> None:
    assert "virt/tdx: 4108 KB allocated for PAMT" in machine(2).state.dmesg


def test_LNX_sysinfo__a_module_that_clobbers_RBP_is_refused() -> None:
    from seamref.host.machine import cold

    host = Host(cold(2, module=blob("1.5.05", version=V1, tdx_features0=2)))
    assert tdx_enable(host) is Errno.EINVAL
    assert any("RBP" in line for line in host.state.dmesg)
    assert host.state.dmesg[-1] == "virt/tdx: TDX-Module initialization failed (-22)"


def test_LNX_suspend__VMX_goes_and_comes_and_the_TD_counts_on() -> None:
    from seamref.host.tdx import resume, suspend

    host, td = fresh(4)
    suspend(host)
    assert not any(host.lp(n).vmx_on for n in host.online)
    assert count_of(host, td) == "#UD"
    assert resume(host) is Errno.OK and count_of(host, td) == 3
    unflushed = host.fork()
    unflushed.set(tds=())  # a KVM that forgot to flush its vCPUs
    suspend(unflushed)
    assert resume(unflushed) is Errno.OK and "VMfailValid(5)" in str(count_of(unflushed, td.copy()))
    assert not unflushed.platform.SEAM_READY  # the module's VMRESUME failed: shutdown in SEAM
    suspend(host)
    host.platform.set_msr(host.lp(1), 0x3A, 1)  # somebody forbade VMX meanwhile
    assert resume(host) is Errno.EIO
