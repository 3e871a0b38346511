"""The whole story: boot, install 1.5.05, build and run two TDs, update to 1.5.06, they go on, their reports verify."""

from __future__ import annotations

import argparse

HELP = "boot, install a TDX module, run two TDs, replace the module under them, compare what they report"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--sockets", type=int, default=1, help="packages (default 1)")
    parser.add_argument("--lps", type=int, default=2, help="processors in each package (default 2)")
    parser.add_argument("--from", dest="old", default="1.5.05", metavar="BUILD", help="module to start with")
    parser.add_argument("--to", dest="new", default="1.5.06", metavar="BUILD", help="module to update to")


def run(args: argparse.Namespace) -> int:
    """Run the story; 1 when a step is refused."""
    from seamref import bootchain
    from seamref.arch.sgx import everifyreport2
    from seamref.host import vmm

    platform = vmm.boot(args.sockets, args.lps, args.old)
    vmm.bring_up(platform)
    first, last = platform.lps[0], platform.lps[-1]
    print(f"{len(platform.lps)} processors in {args.sockets} packages, TDX module {args.old}: up")
    tds = [vmm.build_td(platform, first, number) for number in (0, 1)]
    vmm.must(platform, first, "TDH.VP.FLUSH", rcx=tds[1].tdvprs[0])
    homes = (first, last)
    for td, lp in zip(tds, homes, strict=True):
        counts = [vmm.run_td(platform, lp, td).count for _ in range(3)]
        print(f"TD with KeyID {td.hkid} on processor {lp} counts {counts}")
    before = vmm.report_of(platform, first, tds[0])
    left = bootchain.read_info(platform).num_remaining_updates
    done = vmm.update(platform, args.new)
    for name, lp, answer in done.steps:
        print(f"  {name:18} on processor {lp:3}: {answer}")
    if not done.ok:
        return 1
    print(f"num_remaining_updates: {left} -> {bootchain.read_info(platform).num_remaining_updates}")
    for td, lp in zip(tds, homes, strict=True):
        print(f"TD with KeyID {td.hkid} on processor {lp} counts on: {vmm.run_td(platform, lp, td).count}")
    after = vmm.report_of(platform, first, tds[0])
    print(f"EVERIFYREPORT2 of its report: {everifyreport2(platform, first, after.encode()).name}")  # type: ignore[union-attr]
    for field in ("mrseam", "tee_tcb_svn", "tee_tcb_svn2"):
        old, new = before.tee_tcb_info[field], after.tee_tcb_info[field]
        print(f"report {field:13} {'unchanged' if old == new else 'changed'}: {_shown(old)} -> {_shown(new)}")
    print(f"report tdinfo (MRTD, RTMRs) {'unchanged' if before.tdinfo == after.tdinfo else 'changed'}")
    return 0


def _shown(value: object) -> str:
    if isinstance(value, bytes):
        return value[:8].hex() + "..."
    return f"{value.seam_major_svn}.{value.seam_minor_svn}"  # type: ignore[attr-defined]
