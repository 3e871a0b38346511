"""The doctor drawn: the chain as a decision tree, and a diagnosis as a table."""

from __future__ import annotations

from seamref.diagnose.doctor import ORDER, SHOW, Diagnosis, Verdict
from seamref.diagnose.lines import FORMS, Link
from seamref.diagnose.reading import Kind
from seamref.show.html import Html
from seamref.show.svg import Board, wrap
from seamref.show.tables import Table, table

BOX, LEFT, STEP, TALL = 250, 20, 78, 44
RIGHT = LEFT + BOX + 90
COLOUR = {Verdict.RIGHT: "green", Verdict.WRONG: "red", Verdict.NOT_SHOWN: "amber", Verdict.SKIPPED: "quiet"}
QUESTIONS = {
    Link.BIOS: "are there TDX KeyIDs?", Link.MCHECK: "did the platform check accept?",
    Link.SEAMRR: "is SEAMRR valid?", Link.NP_SEAMLDR: "was it launched?", Link.P_SEAMLDR: "does it answer?",
    Link.MODULE: "is one loaded, and new enough?", Link.KERNEL: "is the module initialised?",
    Link.KVM: "may KVM make TDs?",
}


def signs(link: Link) -> str:
    """The first lines of the grammar that say "no" at a link."""
    found = [form.pattern for form in FORMS if form.link is link and form.kind is Kind.CAUSE]
    words = {Link.MCHECK: "rdmsr 0xa0 is not 0", Link.NP_SEAMLDR: "nothing in Linux shows it",
             Link.BIOS: "x86/tme: not enabled by BIOS; too few private KeyIDs",
             Link.SEAMRR: "tdx: not enabled by BIOS; 0x1401 bit 11 is 0", Link.P_SEAMLDR: "P-SEAMLDR is not loaded",
             Link.MODULE: "module not loaded; SEAMCALL (0x21, 0x22, 0x23) failed",
             Link.KERNEL: "initialization failed: ...; module initialization failed (-N)",
             Link.KVM: "kvm_intel.tdx is N; ... is required for TDX"}
    return words.get(link) or (found[0] if found else "")


def chain_picture(found: Diagnosis | None = None, title: str = "The chain, asked from the top") -> Html:
    """The links from top to bottom: "yes" goes down, "no" goes to the right, where the sign stands.

    With a diagnosis the links are coloured by what it says.
    """
    links = [link for link in ORDER if link is not Link.UPDATE]
    verdicts = {} if found is None else {f.link: f.verdict for f in found.findings}
    board = Board(RIGHT + 380, len(links) * STEP + 20)
    said = []
    for number, link in enumerate(links):
        y = 16 + number * STEP
        verdict = verdicts.get(link)
        colour = "blue" if verdict is None else COLOUR[verdict]
        board.rect(LEFT, y, BOX, TALL, fill=colour, stroke=colour)
        board.text(LEFT + 10, y + 18, link.name.replace("_", "-"), bold=True)
        board.text(LEFT + 10, y + 35, QUESTIONS[link] if verdict is None else f"{QUESTIONS[link]} {verdict.value}")
        if number + 1 < len(links):
            board.line([(LEFT + 40, y + TALL), (LEFT + 40, y + STEP - 2)], arrow=True)
            board.text(LEFT + 50, y + TALL + 22, "yes", fill="quiet")
        board.line([(LEFT + BOX, y + TALL / 2), (RIGHT - 8, y + TALL / 2)], arrow=True, dash="4 3")
        board.text(LEFT + BOX + 30, y + TALL / 2 - 6, "no", fill="quiet")
        lines = wrap(signs(link), 370)
        board.lines(RIGHT, y + TALL / 2 + 5 - 8 * (len(lines) - 1), lines)
        said.append(f"{link.name}: {QUESTIONS[link]}" + ("" if verdict is None else f" {verdict.value}")
                    + f"; no: {signs(link)}")
    return board.html(title, "\n".join(said))


def diagnosis_table(found: Diagnosis, caption: str = "") -> Table:
    """A diagnosis: link, verdict, by which line."""
    return table([(f.link.name.replace("_", "-"), f.verdict.value, f.by or f"ask: {f.show}" if f.verdict is not
                   Verdict.SKIPPED else f.by) for f in found.findings], "link | verdict | by which line",
                 caption=caption or found.sentence)


def commands_table(caption: str = "The command that shows a link") -> Table:
    """For each link the command that shows it."""
    return table([(link.value, SHOW[link]) for link in ORDER], "link | would be shown by", caption=caption)
