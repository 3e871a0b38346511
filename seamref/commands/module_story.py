"""The whole story: boot, install 1.5.05, build and run two TDs, update to 1.5.06, they go on, their reports verify."""

from __future__ import annotations

import argparse

HELP = "boot, install a TDX module, run two TDs, replace the module under them, compare what they report"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from seamref.commands._answer import add_json

    add_json(parser)
    parser.add_argument("--sockets", type=int, default=1, help="packages (default 1)")
    parser.add_argument("--lps", type=int, default=2, help="processors in each package (default 2)")
    parser.add_argument("--from", dest="old", default="1.5.05", metavar="BUILD", help="module to start with")
    parser.add_argument("--to", dest="new", default="1.5.06", metavar="BUILD", help="module to update to")


def run(args: argparse.Namespace) -> int:
    """Run the story; 1 when a step is refused."""
    from seamref import bootchain
    from seamref.arch.sgx import everifyreport2
    from seamref.commands._answer import Rows
    from seamref.commands._names import count, pick
    from seamref.host import vmm
    from seamref.pseamldr.limits import check_platform
    from seamref.tdxmodule.build import BUILDS

    old, new = (pick(name, BUILDS, "build") for name in (args.old, args.new))
    check_platform(args.sockets, args.lps)
    count(args.sockets * args.lps, "processors", 1, 512)
    rows = Rows(args, "module-story", "steps")
    platform = vmm.boot(args.sockets, args.lps, old)
    vmm.bring_up(platform)
    first, last = platform.lps[0], platform.lps[-1]
    rows.say(f"{len(platform.lps)} processors in {args.sockets} packages, TDX module {old}: up")
    tds = [vmm.build_td(platform, first, number) for number in (0, 1)]
    vmm.must(platform, first, "TDH.VP.FLUSH", rcx=tds[1].tdvprs[0])
    counted: dict[int, list[int]] = {}
    homes = (first, last)
    for td, lp in zip(tds, homes, strict=True):
        counts = [vmm.run_td(platform, lp, td).count for _ in range(3)]
        rows.say(f"TD with KeyID {td.hkid} on processor {lp} counts {counts}")
        counted[td.hkid] = counts[-1:]
    before = vmm.report_of(platform, first, tds[0])
    left = bootchain.read_info(platform).num_remaining_updates
    done = vmm.update(platform, new)
    for name, lp, answer in done.steps:
        rows.add(f"  {name:18} on processor {lp:3}: {answer}", call=name, lp=lp, answer=answer)
    if not done.ok:
        return rows.end(1, ok=False)
    now = bootchain.read_info(platform).num_remaining_updates
    rows.say(f"num_remaining_updates: {left} -> {now}")
    for td, lp in zip(tds, homes, strict=True):
        counted[td.hkid].append(vmm.run_td(platform, lp, td).count)
        rows.say(f"TD with KeyID {td.hkid} on processor {lp} counts on: {counted[td.hkid][-1]}")
    after = vmm.report_of(platform, first, tds[0])
    verified = everifyreport2(platform, first, after.encode()).name  # type: ignore[union-attr]
    rows.say(f"EVERIFYREPORT2 of its report: {verified}")
    report = {}
    for field in ("mrseam", "tee_tcb_svn", "tee_tcb_svn2"):
        was, is_ = before.tee_tcb_info[field], after.tee_tcb_info[field]
        rows.say(f"report {field:13} {'unchanged' if was == is_ else 'changed'}: {_shown(was)} -> {_shown(is_)}")
        report[field] = {"before": _shown(was), "after": _shown(is_), "changed": was != is_}
    rows.say(f"report tdinfo (MRTD, RTMRs) {'unchanged' if before.tdinfo == after.tdinfo else 'changed'}")
    return rows.end(ok=True, num_remaining_updates=[left, now], counts=counted, everifyreport2=verified, report=report,
                    tdinfo_changed=before.tdinfo != after.tdinfo)


def _shown(value: object) -> str:
    if isinstance(value, bytes):
        return value[:8].hex() + "..."
    return f"{value.seam_major_svn}.{value.seam_minor_svn}"  # type: ignore[attr-defined]
