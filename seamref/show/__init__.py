"""How the machine is drawn: code with its clauses, tables, pictures, explorers.

By kind of picture: ``tables``, ``maps`` of memory, ``sequences`` in space and time, ``states``, ``paths`` through
checks, ``explorers``, ``source``; all of them made of ``html`` and ``svg``.  The modules named for parts of the book
give what ``seamref.experiments`` found these forms, with labels and colours.

The only room that knows pandas, ipywidgets, IPython and pygments.  Everything returns an :class:`Html`: HTML (with
SVG inside) for the page, text for a terminal.
"""

from __future__ import annotations

from seamref.show.explorers import Explorer, explorer
from seamref.show.html import Hex, Html, Id, clause_ref, paragraph, stack
from seamref.show.maps import Region, memory_map, size_text
from seamref.show.paths import decision_path
from seamref.show.sequences import Act, Message, Note, Span, recording, sequence
from seamref.show.source import show
from seamref.show.states import State, Transition, state_machine
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
