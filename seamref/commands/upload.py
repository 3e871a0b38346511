"""Update the TDX module the way a user does, on a machine booted for this, and show the terminal.

IMAGE is a file with a TDX-BLOB or the name of a module build.  Without IMAGE, 1.5.16 is uploaded over a running
1.5.05.  The code of a genuine image cannot run here: P-SEAMLDR works on the file's own bytes, and behind INSTALL the
model of a build runs in its place (of the same release, or --stands-for); the answer says so.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seamref.commands._answer import Rows
    from seamref.host.fw_upload import Terminal
    from seamref.host.kernel import Host

HELP = "echo 1 > loading; cat image > data; echo 0 > loading, on a machine of your choice"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from seamref.commands._answer import add_json

    add_json(parser)
    parser.add_argument("image", nargs="?", default="1.5.16", metavar="IMAGE", help="file, or name of a module build")
    parser.add_argument("--running", default="1.5.05", metavar="BUILD", help="module build installed at boot")
    parser.add_argument("--cpus", type=int, default=2, metavar="N", help="logical processors of the machine")
    parser.add_argument("--sockets", type=int, default=1, metavar="N", help="packages they are on")
    parser.add_argument("--series", default="merged", metavar="NAME",
                        help="kernel series: v1 to v10, merged, extensions-v2, dynamic-pamt")
    parser.add_argument("--tds", type=int, default=1, metavar="N", help="TDs that run meanwhile")
    parser.add_argument("--offline", type=int, action="append", default=[], metavar="CPU",
                        help="CPU taken offline before")
    parser.add_argument("--erratum", action="store_true", help="a CPU whose SEAMRET invalidates the current VMCS")
    parser.add_argument("--fail", action="append", default=[], metavar="RULE",
                        help="what a SEAMCALL of the kernel does instead of entering SEAM, as KEY=VALUE,...: cpu, "
                             "leaf, rdx, nth, nth_to, outcome (completed, vmfailinvalid, fault, zf), rax, vector, "
                             "out.REGISTER; for example cpu=1,leaf=TDH.SYS.LP.INIT,rax=TDX_RND_NO_ENTROPY")
    parser.add_argument("--signer-of", metavar="FILE", help="a TDX-BLOB or sigstruct: this machine's P-SEAMLDR trusts "
                        "its signer, so that an image of another key gets through the whole host path")
    parser.add_argument("--stands-for", metavar="BUILD", help="the module build whose model runs where the code of a "
                        "genuine image would")
    parser.add_argument("--states", action="store_true", help="also which CPU was in which state of the update")


def run(args: argparse.Namespace) -> int:
    """Print the session; 1 when the update failed."""
    from seamref.commands._answer import Rows
    from seamref.commands._files import read
    from seamref.commands._names import count, pick
    from seamref.errors import NotModelled, SeamrefError
    from seamref.host.fw_upload import Terminal, files
    from seamref.host.machine import add_tds, blob_for, count_of, machine
    from seamref.host.script import Script, parse_rules
    from seamref.host.series import get_series
    from seamref.host.tdx import cpu_offline
    from seamref.host.verify import signer_of, trust_signer
    from seamref.tdxmodule.build import BUILDS

    series = get_series(args.series)
    rules = parse_rules(args.fail)
    count(args.cpus, "--cpus", 1, 64)
    count(args.sockets, "--sockets", 1, 8)
    count(args.tds, "--tds", 0, 8)
    if args.cpus % args.sockets:
        raise SeamrefError(f"--cpus {args.cpus}: cannot be dealt out evenly to {args.sockets} packages")
    data = blob_for(series, args.image) if args.image in BUILDS else read(args.image)
    trusted = read(args.signer_of) if args.signer_of else None
    running = pick(args.running, BUILDS, "build")
    host = machine(args.cpus, sockets=args.sockets, module=running, series=series, keeps_vmcs=not args.erratum)
    tds = add_tds(host, args.tds)
    before = [count_of(host, td) for td in tds]
    for cpu in args.offline:
        if cpu_offline(host, cpu):
            raise SeamrefError(f"CPU {cpu} cannot go offline")
    if trusted is not None:
        trust_signer(host.platform, signer_of(trusted))
    stands = None if args.image in BUILDS else _appoint(host, data, args.stands_for)
    if args.stands_for and stands is None:
        raise SeamrefError(f"--stands-for: this machine runs the code of {args.image} itself")
    if rules:
        host.set(script=Script(rules))
    name = f"tdx_module_{args.image}.blob" if args.image in BUILDS else Path(args.image).name
    shell = Terminal(host, {name: data}, hold=args.states)
    where = f"/sys/class/firmware/{series.upload_name}"
    version = next((path for path in files(host) if path.endswith("/version")), "")
    remaining = [path for path in files(host) if path.endswith("num_remaining_updates")]
    session = [f"cat {version}", *(f"cat {path}" for path in remaining), f"cd {where}", "echo 1 > loading",
               f"cat {name} > data", "echo 0 > loading", "cat status", "cat error", f"cat {version}", "dmesg"]
    rows = Rows(args, "upload", "session")
    notes = [note for note in (None if args.signer_of else foreign_signer(data), stands) if note]
    for note in notes:
        rows.say(f"note: {note}")
    told = {"image": args.image, "running": running, "series": series.name, "cpus": args.cpus,
            "sockets": args.sockets, "notes": notes}
    try:
        rows.say(_typed(shell, rows, session[:-4]))
    except NotModelled as gap:
        return _unknown_code(host, gap, rows, told)
    states = _states(host) if args.states else {}
    if args.states:
        rows.say("\n".join(f"    {state:12} {', '.join(f'{name} on {_cpus(cpus)}' for name, cpus in calls.items())}"
                           for state, calls in states.items()))
    rows.say(_typed(shell, rows, session[-4:]))
    after = [count_of(host, td) for td in tds]
    for number, (one, other) in enumerate(zip(before, after, strict=True)):
        rows.say(f"TD {number}: counted to {one} before, {other if isinstance(other, str) else f'to {other}'} after")
    upload = host.state.upload
    good = upload is not None and upload.error is None and not upload.hung
    return rows.end(
        0 if good and host.state.module.initialized else 1, **told, updated=good,
        error=None if upload is None else upload.error, module_initialized=host.state.module.initialized,
        states=states, tds=[{"before": one, "after": other} for one, other in zip(before, after, strict=True)],
        log=host.state.dmesg, gap=None)


def _typed(shell: Terminal, rows: Rows, commands: list[str]) -> str:
    """Type commands one after another: the session as a terminal shows it; each answer is kept for a program."""
    shown = []
    for command in commands:
        text = shell.session(command)
        answer = text.splitlines()[1:]
        if rows.json and command != "dmesg":
            rows.rows.append({"command": command, "answer": answer})
        shown.append(text)
    return "\n".join(shown)


def _appoint(host: Host, data: bytes, build: str | None) -> str | None:
    """Let a model stand for code that cannot run here; what stands for what, ``None`` when nothing has to.

    A file that the host path refuses anyway, and a release without a model, go on without one.
    """
    from seamref.errors import SeamrefError
    from seamref.host.stand_in import appoint, stand_in_for

    try:
        appointed = stand_in_for(data, build)
    except SeamrefError:
        if build is not None:
            raise
        return None
    if appointed is None:
        return None
    appoint(host.platform, appointed)
    return appointed.says


def _unknown_code(host: Host, gap: Exception, rows: Rows, told: dict[str, Any]) -> int:
    """The loader took an image whose code is nobody's here."""
    rows.say("\n".join(host.state.dmesg))
    rows.say(f"P-SEAMLDR took the image; its own code cannot run on this machine ({gap}); --stands-for BUILD lets a "
             "model run in its place")
    return rows.end(1, **told, updated=False, error=None, module_initialized=host.state.module.initialized, states={},
                    tds=[], log=host.state.dmesg, gap=str(gap))


def foreign_signer(data: bytes) -> str | None:
    """What to say when this machine's P-SEAMLDR will refuse the signer, who is not the test key."""
    from seamref.errors import SeamrefError
    from seamref.host.inspection import KEYS
    from seamref.host.verify import signer_of
    from seamref.mint.keys import KEY

    try:
        signer = signer_of(data)
    except SeamrefError:
        return None
    if signer == KEY.key_hash:
        return None
    who = KEYS.get(signer, "another key")
    return (f"this machine's P-SEAMLDR trusts a test key, and the image is signed by {who}: it will answer EBADSIG.  "
            "python -m seamref verify FILE asks the rows of the real chain; --signer-of FILE makes this machine trust "
            "that "
            "signer")


def _states(host: Host) -> dict[str, dict[str, list[int]]]:
    """Which SEAMCALLs each CPU makes in each state; the update is the one that `echo 0 > loading` has queued."""
    from seamref.host import fw_upload
    from seamref.host.abi import leaf_title
    from seamref.host.update import control

    made: dict[str, dict[str, list[int]]] = {}
    seen: dict[int, str] = {}

    def watch(at: Host, ready: tuple[int, ...]) -> int:
        for cpu, state in enumerate(at.state.cpus):
            call = state.tasks[-1].call if state.tasks else None
            name = leaf_title(call.fn) if call is not None else ""
            if name and seen.get(cpu) != name:
                made.setdefault(control(at).state.name, {}).setdefault(name, []).append(cpu)
            seen[cpu] = name
        return ready[0]

    fw_upload.work_to_end(host, watch)
    return made


def _cpus(cpus: list[int]) -> str:
    """CPU 0; CPU 0, 1; 64 CPUs."""
    known = sorted(set(cpus))
    return f"CPU {', '.join(map(str, known))}" if len(known) <= 8 else f"{len(known)} CPUs"
