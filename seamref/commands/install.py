"""Run a whole INSTALL session on a platform that is made for it, and say what every call answered.

A module of the book's own is signed with a test key; any field of its sigstruct or of SEAMLDR_PARAMS can be changed.
--every-refusal and --unrecoverable run one attempt for each row of P-SEAMLDR's check tables.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seamref.experiments.loader.lab import Attempt, Session
    from seamref.layout import Layout

MOST = 4096
"""Processors of one machine that are run here."""
HELP = "an INSTALL session executed: RAX, RDX and SEAMEXTEND call by call, the row that stops it, what survives"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from seamref.commands._answer import add_json

    add_json(parser)
    parser.add_argument("--lps", type=int, default=2, metavar="N", help="logical processors of each socket (2)")
    parser.add_argument("--sockets", type=int, default=1, metavar="N", help="sockets (1)")
    parser.add_argument("--addressable", type=int, default=0, metavar="N", help="addressable processors of a socket")
    parser.add_argument("--seamrr", default="64M", metavar="SIZE", help="bytes of SEAMRR, a power of two (64M)")
    parser.add_argument("--seamdb", type=int, default=16, metavar="N", help="entries of SEAMDB (16)")
    parser.add_argument("--seamldr", choices=("1.0", "1.5"), default="1.5", help="generation of P-SEAMLDR (1.5)")
    parser.add_argument("--old", default="1.5.05", metavar="BUILD", help="module that runs before, or none (1.5.05)")
    parser.add_argument("--build", default="1.5.06", metavar="BUILD", help="module to install (1.5.06)")
    parser.add_argument("--scenario", choices=("load", "update"), default="load")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="field of the sigstruct")
    parser.add_argument("--params", action="append", default=[], metavar="FIELD=VALUE", help="field of SEAMLDR_PARAMS")
    parser.add_argument("--stale", action="store_true", help="keep the signature from before --set")
    parser.add_argument("--other-key", action="store_true", help="sign with a key that P-SEAMLDR does not know")
    parser.add_argument("--order", metavar="LP,LP,...", help="x2APIC ids that call, in order (each once)")
    parser.add_argument("--changes", action="store_true", help="instead: each change to the sigstruct, LOAD and UPDATE")
    parser.add_argument("--row", metavar="CLAUSE", help="instead: the attempt that this row stops")
    parser.add_argument("--every-refusal", action="store_true", help="instead: one attempt for each row")
    parser.add_argument("--unrecoverable", action="store_true", help="instead: what each failure with RDX = 1 leaves")


def number(text: str) -> int:
    """A number, with an optional K, M or G behind it."""
    from seamref.errors import SeamrefError

    shift = {"K": 10, "M": 20, "G": 30}.get(text[-1:].upper(), 0)
    try:
        return int(text[:-1] if shift else text, 0) << shift
    except ValueError:
        raise SeamrefError(f"{text!r}: must be a number such as 4, 0x806F8 or 64M") from None


def assignments(given: list[str], layout: Layout) -> dict[str, Any]:
    """FIELD=VALUE as values of a structure: numbers, hex bytes for byte fields, comma lists for arrays."""
    from seamref.errors import SeamrefError
    from seamref.layout import Array, Raw

    out: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise SeamrefError(f"{text!r}: must be FIELD=VALUE")
        kind, _ = layout.resolve(name)
        match kind:
            case Raw(size=size):
                try:
                    data = bytes.fromhex(value.removeprefix("0x"))
                except ValueError:
                    raise SeamrefError(f"{layout.name}.{name}: {value!r}, must be hex digits") from None
                if len(data) != size:
                    raise SeamrefError(f"{layout.name}.{name}: {len(data)} bytes given, must be {size}")
                out[name] = data
            case Array():
                out[name] = [number(part) for part in value.split(",") if part]
            case _:
                out[name] = number(value)
    return out


def run(args: argparse.Namespace) -> int:
    """Print the session."""
    from seamref.commands._names import pick
    from seamref.experiments.loader.refusals import case_of, held_rows

    _refuse_together(args)
    if args.every_refusal or args.unrecoverable:
        return _every(args)
    if args.changes:
        return _changes(args)
    if args.row:
        case = case_of(pick(args.row, held_rows(), "attempt for"))
        if not args.json:
            print(f"{case.row}: {case.brings}")
        return _print(args, case.attempt.run())
    return _print(args, attempt_of(args).run())


def _refuse_together(args: argparse.Namespace) -> None:
    """Two things to do at once."""
    from seamref.errors import SeamrefError

    alone = [name for name, given in (("--changes", args.changes), ("--row", args.row is not None),
                                      ("--every-refusal", args.every_refusal),
                                      ("--unrecoverable", args.unrecoverable)) if given]
    if len(alone) > 1:
        raise SeamrefError(f"{alone[0]} does not go together with {alone[1]}")
    described = [name for name, given in (("--set", args.set), ("--params", args.params), ("--stale", args.stale),
                                          ("--other-key", args.other_key), ("--order", args.order)) if given]
    if alone and described:
        raise SeamrefError(f"{alone[0]} has attempts of its own: without {', '.join(described)}")


def _changes(args: argparse.Namespace) -> int:
    """Every change of a sigstruct, tried."""
    from seamref.commands._answer import Rows
    from seamref.experiments.loader.changes import changes_tried

    rows = Rows(args, "install-changes", "attempts")
    rows.say("one sigstruct, one INSTALL on two processors; SVN 1.5 runs, SVN 1.6 is brought")
    for name, scenario, session in changes_tried():
        row = session.last.row.id if session.last.row else "-"
        rows.add(f"{name:42} {scenario.name:7} {session.last.answer!s:16} {row:42} {session.survives}", change=name,
                 scenario=scenario.name, answer=session.last.answer, stopped_by=None if row == "-" else row,
                 old_module=session.survives)
    return rows.end()


def attempt_of(args: argparse.Namespace) -> Attempt:
    """The attempt that the options describe."""
    from seamref.commands._names import count, pick
    from seamref.errors import SeamrefError
    from seamref.experiments.loader.lab import Attempt
    from seamref.experiments.loader.refusals import NOTHING_1_0
    from seamref.pseamldr.api import SEAMLDR_PARAMS, Scenario
    from seamref.pseamldr.limits import check_platform
    from seamref.pseamldr.sigstruct import SEAM_SIGSTRUCT
    from seamref.tdxmodule.build import BUILDS

    args.build, args.old = pick(args.build, BUILDS, "build"), pick(args.old, [*BUILDS, "none"], "build")
    check_platform(args.sockets, args.lps, args.addressable, seamrr=number(args.seamrr))
    count(args.sockets * args.lps, "processors", 1, MOST)
    count(args.seamdb, "--seamdb", 1, 1 << 16)
    order = tuple(number(part) for part in args.order.split(",")) if args.order else None
    if order and len(set(order)) != len(order):
        raise SeamrefError(f"--order {args.order}: each processor once")
    old = NOTHING_1_0 if args.seamldr == "1.0" else {}
    return Attempt(
        old=None if args.old == "none" else args.old, old_sig=old, build=args.build,
        scenario=Scenario.UPDATE if args.scenario == "update" else Scenario.LOAD,
        sig={**old, **assignments(args.set, SEAM_SIGSTRUCT)}, resign=not args.stale, other_key=args.other_key,
        params=assignments(args.params, SEAMLDR_PARAMS),
        order=order,
        on={"lps": args.lps, "sockets": args.sockets, "addressable": args.addressable, "seamrr": number(args.seamrr),
            "seamdb": args.seamdb, "revision": args.seamldr},
    )


def _print(args: argparse.Namespace, session: Session) -> int:
    """Call by call, then what is left; 0 when a module was installed."""
    from seamref.commands._answer import hexed, print_json
    from seamref.experiments.loader.lab import identity_text, rdx_text
    from seamref.experiments.loader.memory import needs, table_pages_used

    if args.json:
        plan = session.plan if session.ok else None
        print_json("install", {
            "installed": session.ok, "old_module": session.survives, "module_range": session.memory,
            "calls": [{"lp": c.lp, "leaf": c.leaf, "returned": c.returned, "rax": hexed(c.rax), "answer": c.answer,
                       "rdx": hexed(c.rdx), "stopped_by": [row.id for row in reversed(c.rows)],
                       "seamextend": c.after} for c in session.calls],
            "seamextend_before": session.calls[0].before,
            "plan": plan and {"addressable": plan.num_addressable_lps, "needed": plan.minimum_size,
                              "have": plan.module_physlimit - plan.seamrr_base,
                              "parts": [{"name": n, "bytes": s} for n, s in needs(plan)]},
        })
        return 0 if session.ok else 1
    print(f"before: {identity_text(session.calls[0].before)}")
    for called in session.calls:
        print(f"LP {called.lp}: RAX = {_rax(called)}, RDX = {rdx_text(called.rdx)}")
        for row in reversed(called.rows):
            print(f"    stopped by {row.id}: {row.says} [{row.source}]")
        print(f"    SEAMEXTEND: {called.seamextend()}")
    print(f"module range: {session.memory}")
    print(f"the module that ran before: {session.survives}")
    if session.plan is not None and session.ok:
        plan = session.plan
        print(f"memory plan for {plan.num_addressable_lps} addressable processors:")
        for name, size in needs(plan):
            print(f"    {size // 4096:6} pages  {name}")
        have = (plan.module_physlimit - plan.seamrr_base) // 4096
        print(f"    {plan.minimum_size // 4096:6} pages in all, of {have}; "
              f"{table_pages_used(session.platform, session)} pages of tables are used")
    return 0 if session.ok else 1


def _rax(called: Any) -> str:
    return f"0x{called.rax:016X} {called.answer}" if called.returned else called.answer


def _every(args: argparse.Namespace) -> int:
    from seamref.commands._answer import Rows
    from seamref.experiments.loader.refusals import fatal_cases, refusals

    rows, unrecoverable = Rows(args, "install-refusals", "attempts"), args.unrecoverable
    for refusal in refusals():
        session = refusal.session
        if unrecoverable and session.last.rdx != 1:
            continue
        lines = [f"{refusal.row.id}: {refusal.case.brings}",
                 f"    {session.last.answer}, RDX = {session.last.rdx:X}; old module: {session.survives}; "
                 f"module range: {session.memory}"]
        if unrecoverable:
            lines += [f"    SEAMEXTEND: {session.last.seamextend()}",
                      f"    num_remaining_updates {refusal.remaining}, SEAMDB holds {len(session.platform.seamdb)}"]
        rows.add("\n".join(lines), clause=refusal.row.id, brings=refusal.case.brings, answer=session.last.answer,
                 rdx=session.last.rdx, old_module=session.survives, module_range=session.memory,
                 num_remaining_updates=refusal.remaining)
    for case in fatal_cases():
        session = case.attempt.run()
        rows.add(f"{case.row}: {case.brings}\n    {session.last.answer}; old module: {session.survives}",
                 clause=case.row, brings=case.brings, answer=session.last.answer, rdx=None,
                 old_module=session.survives, module_range=session.memory, num_remaining_updates=None)
    return rows.end()
