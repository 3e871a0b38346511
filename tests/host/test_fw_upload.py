"""What user space sees: files, modes, contents, errno texts, the upload worker."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import lab

from seamref.arch import lab as arch_lab
from seamref.errors import SeamrefError
from seamref.host import log
from seamref.host.abi import SEAMLDR_INFO, TDX_UPDATE_COMPAT_SENSITIVE, Errno, Leaf
from seamref.host.fw_upload import (
    PROBE,
    SUPPORTED,
    LoadingText,
    Terminal,
    files,
    parse_loading,
    probe,
    read_data,
    read_error,
    upload,
    work,
    work_piece,
    work_to_end,
    write_cancel,
    write_data,
    write_loading,
)
from seamref.host.image import V1, V2, build
from seamref.host.install import prepare, seamldr_install_module
from seamref.host.kernel import Host
from seamref.host.records import FwError, ModuleState, Status
from seamref.host.series import MERGED, SERIES, V3, V4, V5, V10, KernelSeries
from seamref.host.series import V1 as FIRST
from seamref.host.series import V2 as SECOND

MODULE = bytes(range(256)) * 16 * 3
GOOD2, GOOD1 = build(bytes(2048), MODULE, V2), build(bytes(2048), MODULE, V1)


def ready(series: KernelSeries = MERGED, *, remaining: int = 3, cpus: int = 2, keeps_vmcs: bool = True) -> Host:
    """A kernel with the driver loaded; INFO answers version 1.5.0 and ``remaining``."""
    from seamref.arch.software import Running, register_program

    class Info:
        id, name = b"seamref.test.inf", "info"

        def step(self, platform, lp, parameters):  # type: ignore[no-untyped-def]
            if lp.program_state is None:
                leaf = lp.rax
                if leaf == Leaf.SEAMLDR_INFO:
                    page = SEAMLDR_INFO.new(major_version=1, minor_version=5, update_version=0,
                                            num_remaining_updates=platform.board.get("remaining", 0)).encode()
                    platform.store(arch_lab.Agent.P_SEAMLDR, lp.rcx, page, lp)
                answers = platform.board.get(leaf, ((0, ()),))
                lp.rax = answers[0][0]
                if len(answers) > 1:
                    platform.board[leaf] = answers[1:]
                for name, value in answers[0][1]:
                    setattr(lp, name, value)
                lp.program_state = "answered"
                return Running("answered")
            arch_lab.advance_rip(lp)
            return arch_lab.seamret(platform, lp.id)

    register_program(Info())  # type: ignore[arg-type]
    host = lab.host(cpus, series, keeps_vmcs=keeps_vmcs)
    host.platform = arch_lab.platform(topology=arch_lab.Topology(1, cpus), keeps_vmcs=keeps_vmcs, program=Info.id)
    lab.answer(host, 34, 0, r8=1)
    host.platform.board["remaining"] = remaining
    assert probe(host) is Errno.OK
    return host


def user(host: Host, **files_: bytes) -> Terminal:
    return Terminal(host, {"good.blob": GOOD1 if host.series.blob.value.startswith("1.0") else GOOD2, **files_})


def test_PROBE__each_row() -> None:
    host = lab.host()
    assert PROBE.decide(host) is None
    down = lab.host()
    down.set(module=ModuleState())
    assert probe(down) is Errno.ENODEV and PROBE.decide(down).id == "PROBE.initialized"  # type: ignore[union-attr]
    down.set(features=frozenset())
    assert probe(down) is Errno.ENODEV and PROBE.decide(down).id == "PROBE.feature"  # type: ignore[union-attr]
    assert files(down) == {}


def test_SUPPORTED__each_row_hides_the_interface() -> None:
    host = lab.host()
    assert SUPPORTED.decide(host, MERGED) is None
    host.set(bugs=frozenset({"seamret_invd_vmcs"}))
    assert SUPPORTED.decide(host, MERGED).id == "SUPPORTED.erratum"  # type: ignore[union-attr]
    assert SUPPORTED.decide(host, V4) is None and SUPPORTED.decide(host, V5) is not None
    assert host.state.sysinfo is not None
    host.set(sysinfo=replace(host.state.sysinfo, features0=0))
    assert SUPPORTED.decide(host, MERGED).id == "SUPPORTED.td_preserving"  # type: ignore[union-attr]
    host.set(sysinfo=None)
    assert SUPPORTED.decide(host, MERGED).id == "SUPPORTED.sysinfo"  # type: ignore[union-attr]


def test_SUPPORTED__hidden_means_version_only() -> None:
    host = lab.host(keeps_vmcs=False)
    assert "seamret_invd_vmcs" in host.state.bugs and probe(host) is Errno.OK
    assert list(files(host)) == ["/sys/devices/faux/tdx_host/version"]
    assert Terminal(host).run("ls /sys/class/firmware/tdx_module").startswith("ls: cannot access")
    with pytest.raises(SeamrefError, match="no upload"):
        upload(host)


@pytest.mark.parametrize("name", SERIES)
def test_SERIES__paths_modes_and_formats(name: str) -> None:
    series = SERIES[name]
    host = ready(series)
    shell = Terminal(host)
    old = name in ("v1", "v2", "v3")
    assert f"/sys/class/firmware/{'seamldr_upload' if old else 'tdx_module'}/loading" in files(host)
    where = series.seamldr_dir + ("/seamldr_version" if series.seamldr_dir.endswith("tdx_host") else "/version")
    expected = "1.5.0\n" if name in ("v1", "v2", "v3", "v4", "v5", "v6", "v7") else "1.5.00\n"
    assert shell.run(f"cat {where}") == expected
    denied = Terminal(host, root=False).run(f"cat {where}")
    assert ("Permission denied" in denied) == (not old)
    assert shell.run(f"cat {series.seamldr_dir}/num_remaining_updates") == "3\n"


def test_SERIES__v1_reads_P_SEAMLDR_once_others_each_time() -> None:
    for series, expected in ((FIRST, "3\n"), (MERGED, "2\n")):
        host = ready(series)
        host.platform.board["remaining"] = 2
        assert Terminal(host).run(f"cat {series.seamldr_dir}/num_remaining_updates") == expected


def test_SERIES__v2_registers_no_uploader_when_no_update_remains() -> None:
    for series, there in ((SECOND, False), (FIRST, True), (V3, True), (MERGED, True)):
        assert (ready(series, remaining=0).state.upload is not None) == there


def test_FW_loading__the_user_procedure_reads_like_a_terminal() -> None:
    shell = user(ready())
    assert shell.session(
        "cd /sys/class/firmware/tdx_module", "echo 1 > loading", "cat loading", "cat good.blob > data",
        "echo 0 > loading", "cat status error remaining_size", "cat /sys/devices/faux/tdx_host/version", "ls",
        "ls /sys/devices/faux/tdx_host", "cat /sys/devices/faux/tdx_host/firmware/tdx_module/status",
    ) == """\
# cd /sys/class/firmware/tdx_module
# echo 1 > loading
# cat loading
1
# cat good.blob > data
# echo 0 > loading
# cat status error remaining_size
idle
0
# cat /sys/devices/faux/tdx_host/version
1.1.01
# ls
cancel  data  error  loading  remaining_size  status
# ls /sys/devices/faux/tdx_host
firmware  num_remaining_updates  seamldr_version  version
# cat /sys/devices/faux/tdx_host/firmware/tdx_module/status
idle"""


def test_FW_loading__states_of_the_worker_one_by_one() -> None:
    host = ready()
    shell = Terminal(host, {"good.blob": GOOD2}, hold=True)
    up = "/sys/class/firmware/tdx_module"
    shell.session(f"echo 1 > {up}/loading", f"cat good.blob > {up}/data")
    assert shell.run(f"cat {up}/status") == "idle\n"  # collecting is not yet an upload
    shell.run(f"echo 0 > {up}/loading")
    seen = []
    while upload(host).status is not Status.IDLE:
        seen.append(shell.run(f"cat {up}/status").strip())
        assert shell.run(f"cat {up}/error") == f"cat: {up}/error: Device or resource busy\n"
        assert shell.run(f"echo 0 > {up}/loading") == ""  # taken, and nothing happens
        assert shell.run(f"cat {up}/data") == f"cat: {up}/data: No such device\n"
        assert shell.run(f"echo 1 > {up}/cancel") == ""  # accepted, and nothing comes of it
        work(host)
    assert seen == ["receiving", "preparing", "transferring", "programming"]
    assert shell.run(f"cat {up}/error") == "" and work(host) is Status.IDLE


def test_FW_loading__odd_writes() -> None:
    host = ready()
    assert write_loading(host, "x\n") is Errno.OK and not upload(host).loading  # no number reads as 0
    said = "firmware tdx_module: firmware_loading_store: unexpected value"
    assert host.state.dmesg[-1] == f"{said} (0)"
    assert write_loading(host, "2") is Errno.OK and host.state.dmesg[-1] == f"{said} (2)"
    assert write_data(host, b"early") is Errno.OK  # taken without 1; the next 1 throws it away
    assert read_data(host) == b"early"
    assert write_loading(host, "1") is Errno.OK and read_data(host) == b"" and write_loading(host, "0") is Errno.OK
    assert upload(host).status is Status.IDLE  # empty data: nothing happens
    write_loading(host, "1")
    write_data(host, b"abc")
    count = len(host.state.dmesg)
    assert write_loading(host, "-1") is Errno.OK and not upload(host).loading and len(host.state.dmesg) == count
    assert read_data(host) == b"abc"  # freed by the next 1 only


def test_FW_data__is_a_file_with_offsets_not_a_pipe() -> None:
    host = ready()
    write_loading(host, "1")
    assert write_data(host, b"evilbytes") is Errno.OK and write_data(host, b"good") is Errno.OK
    assert read_data(host) == b"goodbytes"
    assert write_data(host, b"!", 12) is Errno.OK and read_data(host, 9) == b"\0\0\0!"
    assert read_data(host, 13) == b"" == read_data(host, 99)


def test_FW_data__a_second_cat_overwrites_the_first() -> None:
    """cat bad > data; cat good > data: Linux updates the module."""
    shell = user(ready(), bad=bytes(len(GOOD2)))
    up = "/sys/class/firmware/tdx_module"
    shell.session(f"cd {up}", "echo 1 > loading", "cat bad > data", "cat good.blob > data")
    assert shell.run("sha256sum data").split()[0] == shell.run("sha256sum good.blob").split()[0]
    assert shell.run("wc -c data") == f"{len(GOOD2)}  data\n"
    shell.run("echo 0 > loading")
    assert shell.run("cat error") == "" and shell.run("wc -c data") == "0  data\n"


def test_FW_loading_busy__only_when_the_worker_gave_its_data_back_and_is_not_idle_yet() -> None:
    host = ready()
    write_loading(host, "1")
    write_data(host, GOOD2)
    write_loading(host, "0")
    while upload(host).status is not Status.PROGRAMMING:
        work_piece(host)
    work_piece(host)
    assert upload(host).status is Status.PROGRAMMING and upload(host).returned
    write_loading(host, "1")
    write_data(host, GOOD2)
    assert write_loading(host, "0") is Errno.EBUSY
    work_to_end(host)
    # The data are nobody's now: no worker will give them back, so nothing is taken any more.
    assert upload(host).status is Status.IDLE and write_data(host, b"x") is Errno.ENODEV
    assert write_loading(host, "1") is Errno.OK and not upload(host).loading


@pytest.mark.parametrize(("text", "older", "newer"), [
    ("1\n", 1, 1), ("-1", -1, -1), ("0", 0, 0), ("+1", 0, 1), (" 1", 0, Errno.EINVAL), ("x", 0, Errno.EINVAL),
    ("1 0", 1, Errno.EINVAL), ("", 0, Errno.EINVAL), ("-", 0, Errno.EINVAL), ("1\n\n", 1, Errno.EINVAL),
    ("4294967297", 1, Errno.ERANGE), ("2147483648", -(1 << 31), Errno.ERANGE), ("1\0junk", 1, 1),
])
def test_FW_loading_text__older_and_newer_kernels(text: str, older: int, newer: int | Errno) -> None:
    assert parse_loading(text) == older
    assert parse_loading(text, LoadingText.KSTRTOINT) == newer
    host = ready()
    if isinstance(newer, Errno):
        assert write_loading(host, text, LoadingText.KSTRTOINT) is newer


def test_FW_cancel__values() -> None:
    host = ready()
    for text in ("0", "maybe", " 1", "", "of", "-1", "n", "oops"):
        assert write_cancel(host, text) is Errno.EINVAL, text
    for text in ("1\n", "12", "yolo", "1 0", "on", "oN", "true", "T"):
        assert write_cancel(host, text) is Errno.ENODEV, text  # true by its first character, and idle


@pytest.mark.parametrize("name", SERIES)
def test_FW_cancel__v1_to_v3_can(name: str) -> None:
    host = ready(SERIES[name])
    write_loading(host, "1")
    write_data(host, GOOD1 if "1.0" in host.series.blob.value else GOOD2)
    write_loading(host, "0")
    assert write_cancel(host, "1") is Errno.OK
    work_to_end(host)
    expected = "transferring:user-abort\n" if name in ("v1", "v2", "v3") else ""
    assert read_error(host) == expected
    assert upload(host).remaining == (len(GOOD1) if expected else 0)


def test_Terminal__what_a_shell_says() -> None:
    shell = user(ready())
    assert shell.run("rm x") == "bash: rm: command not found"
    assert shell.run("# a comment") == ""
    assert shell.run("cat /nowhere") == "cat: /nowhere: No such file or directory\n"
    assert shell.run("cat nofile > data") == "cat: nofile: No such file or directory"
    assert shell.run("cat good.blob > /nowhere") == "bash: /nowhere: No such file or directory"
    assert shell.run("echo 1 > /sys/class/firmware/tdx_module/status").endswith("Input/output error")
    assert shell.run("cat /sys/class/firmware/tdx_module/cancel").endswith("Permission denied\n")
    other = Terminal(shell.host, root=False)
    assert other.run("echo 1 > /sys/class/firmware/tdx_module/loading").endswith("Permission denied")
    assert other.session("dmesg").startswith("$ dmesg\n")


# --- every failure, as errno, as error text -------------------------------------------------------------------


def try_upload(host: Host, data: bytes) -> str:
    shell = Terminal(host, {"x.blob": data})
    up = f"/sys/class/firmware/{host.series.upload_name}"
    shell.session(f"echo 1 > {up}/loading", f"cat x.blob > {up}/data", f"echo 0 > {up}/loading")
    return shell.run(f"cat {up}/error").strip()


@pytest.mark.parametrize("name", SERIES)
def test_SERIES__error_mapping(name: str) -> None:
    series = SERIES[name]
    good = GOOD1 if "1.0" in series.blob.value else GOOD2

    def failing(leaf: int, status: int) -> str:
        host = ready(series)
        lab.answer(host, leaf, status)
        return try_upload(host, good)

    eio = "hw-error" if name in ("v3", "v4", "v5", "v6", "v7") else "firmware-invalid"
    assert failing(Leaf.SEAMLDR_INSTALL, 0x8000000000020000) == f"transferring:{eio}"
    busy = "device-busy" if name in ("v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10") else "firmware-invalid"
    assert failing(Leaf.TDH_SYS_SHUTDOWN, TDX_UPDATE_COMPAT_SENSITIVE) == f"transferring:{busy}"
    assert try_upload(ready(series), good[:4096]) == (
        "transferring:firmware-invalid")
    assert series.fw_error("ENOMEM") == (
        "read-write-error" if name in ("v3", "v4", "v5", "v6", "v7") else "firmware-invalid")
    assert series.fw_error("ENOSPC") == ("flash-wearout" if name in ("v3", "v4", "v5") else "firmware-invalid")


@pytest.mark.parametrize("name", SERIES)
def test_INSTALL_MODULE_gate__offline_and_remaining(name: str) -> None:
    series = SERIES[name]
    good = GOOD1 if "1.0" in series.blob.value else GOOD2
    gated = name in ("v2", "v3", "v4")
    host = ready(series)
    host.set_cpu(1, online=False)
    ret = seamldr_install_module(host, good)
    assert (ret is Errno.EBUSY) == gated
    assert (f"seamldr: {log.OFFLINE}" in host.state.dmesg) == gated
    host = ready(series)
    host.platform.board["remaining"] = 0
    assert (seamldr_install_module(host, good) is Errno.ENOSPC) == gated
    host = ready(series)
    lab.answer(host, Leaf.SEAMLDR_INFO, 0x8000000000000000)
    assert (seamldr_install_module(host, good) is Errno.EIO) == gated


def test_IMAGE__errno_before_anything_is_shut_down() -> None:
    host = ready()
    for data, errno in ((GOOD1, Errno.EINVAL), (b"short", Errno.EINVAL), (GOOD2 + bytes(1), Errno.EINVAL)):
        assert seamldr_install_module(host, data) is errno
        assert host.state.module.initialized
    assert seamldr_install_module(host, GOOD2, no_memory=True) is Errno.ENOMEM
    assert host.state.module.initialized and host.state.heap == ()
    old = ready(SERIES["v2"])
    assert seamldr_install_module(old, GOOD2) is Errno.EINVAL
    assert "seamldr: unsupported blob version: 512" in old.state.dmesg


def test_INSTALL_MODULE_params__a_header_only_file_passes_and_names_no_page() -> None:
    from seamref.host.abi import SEAMLDR_PARAMS
    from seamref.host.image import TDX_BLOB_V2
    from seamref.host.install import Prepared

    host = ready()
    empty = bytearray(TDX_BLOB_V2.new(signature=b"TDX-BLOB").encode())
    TDX_BLOB_V2.poke(empty, "version", V2)
    prepared = prepare(host, bytes(empty))
    assert isinstance(prepared, Prepared)
    params = SEAMLDR_PARAMS.decode(host.read(prepared.params, 4096))
    assert (params.scenario, params.num_module_pages, params.sigstruct_paddr) == (1, 0, 0)


def test_INSTALL_MODULE_params__pages_are_listed_where_they_lie() -> None:
    from seamref.host.abi import SEAMLDR_PARAMS
    from seamref.host.install import Prepared, release

    host = ready()
    prepared = prepare(host, GOOD2)
    assert isinstance(prepared, Prepared)
    params = SEAMLDR_PARAMS.decode(host.read(prepared.params, 4096))
    assert b"".join(host.read(at, 4096) for at in params.module_pages_pa_list[:3]) == MODULE
    assert not any(params.module_pages_pa_list[3:]) and params.version == 0 and not any(params.reserved)
    release(host, prepared)
    assert host.state.heap == ()
    with pytest.raises(SeamrefError, match="not allocated"):
        release(host, prepared)


def test_version__ENXIO_after_a_failed_update() -> None:
    host = ready()
    shell = Terminal(host)
    assert shell.run("cat /sys/devices/faux/tdx_host/version") == "1.5.05\n"
    lab.answer(host, Leaf.SEAMLDR_INSTALL, 0x8000000000020000)
    assert try_upload(host, GOOD2) == "transferring:firmware-invalid"
    assert shell.run("cat /sys/devices/faux/tdx_host/version") == (
        "cat: /sys/devices/faux/tdx_host/version: No such device or address\n")
    lab.answer(host, Leaf.SEAMLDR_INFO, 0x8000000000010003)
    assert shell.run("cat /sys/devices/faux/tdx_host/seamldr_version").endswith("Input/output error\n")
    arch_lab.set_ready(host.platform, p_seamldr=False)
    assert shell.run("cat /sys/devices/faux/tdx_host/seamldr_version").endswith("No such device\n")


def test_FW_worker__a_dead_processor_leaves_it_transferring_for_ever() -> None:
    host = ready()
    host.platform.store(arch_lab.Agent.CPU, arch_lab.P_SEAMLDR_RANGE.base + 0x2000, bytes(4096))
    assert try_upload(host, GOOD2) == f"cat: /sys/class/firmware/tdx_module/error: {'Device or resource busy'}"
    assert upload(host).status is Status.TRANSFERRING and upload(host).hung


def test_FwError__names() -> None:
    assert [e.value for e in FwError] == ["hw-error", "timeout", "user-abort", "device-busy", "invalid-file-size",
                                          "read-write-error", "flash-wearout", "firmware-invalid"]
    assert {e.value for e in FwError} >= {V10.fw_error(n) for n in ("EIO", "EBUSY")}
