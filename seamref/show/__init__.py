"""How the machine is drawn: code with its clauses, tables, pictures, explorers.

The only room that knows pandas, ipywidgets, IPython and pygments.  Everything returns an :class:`Html`: HTML (with
SVG inside) for the page, text for a terminal.  What is set up, run and compared is in
``seamref.experiments``: the modules named for parts of the book give it forms, labels and colours.
"""

from __future__ import annotations

from seamref.show.explorers import Explorer, explorer
from seamref.show.html import Hex, Html, Id, clause_ref, paragraph, stack
from seamref.show.pictures import (
    Act,
    Message,
    Note,
    Region,
    Span,
    State,
    Transition,
    decision_path,
    memory_map,
    recording,
    sequence,
    size_text,
    state_machine,
)
from seamref.show.source import show
from seamref.show.svg import Board, text_width, wrap
from seamref.show.tables import (
    Table,
    check_table,
    clause_table,
    layout_table,
    msr_bits,
    msr_table,
    pairs,
    record_table,
    source_table,
    table,
)

__all__ = [
    # code and tables
    "show", "table", "pairs", "check_table", "clause_table", "layout_table", "msr_bits", "msr_table", "record_table",
    "source_table", "Table", "Hex", "Id",
    # pictures
    "memory_map", "Region", "sequence", "recording", "Act", "Message", "Note", "Span", "state_machine", "State",
    "Transition", "decision_path", "Board", "text_width", "wrap", "size_text",
    # explorers and plumbing
    "explorer", "Explorer", "Html", "paragraph", "stack", "clause_ref",
]
