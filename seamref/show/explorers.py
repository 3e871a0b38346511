"""Explorers: controls that a reader turns, and a page that already shows a useful turn of them.

An explorer is declared once, as data: named choices for each control, what is set at first, and the function from
choices to an answer.  Three forms read that declaration.  JupyterLab shows ipywidgets.  A rendered page carries the
declaration in its HTML, and a small script turns it with answers that were computed when the book was built
(:mod:`seamref.show.precomputed`), or with Python where the page has one.  Where no script runs there is a plain table:
the default settings, their answer, and some further turns.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import product
from math import prod
from typing import Any

from seamref.errors import SeamrefError
from seamref.show.html import Html, marked_up, slug
from seamref.show.tables import Table

RADIOS = 3
"""Up to so many choices stand side by side; more of them are a list to open."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """A control for whole numbers from ``least`` to ``most``; ``offered`` are those that a page can answer by itself.

    Where Python answers, the reader may type any number in between.
    """

    offered: tuple[int, ...]
    least: int
    most: int


class Explorer:
    """A function with a control for each of its arguments.

    ``function``  keyword arguments to something with ``_repr_html_`` (an :class:`Html`); its first paragraph or caption
                  is the answer in one line, which a screen reader hears after each turn
    ``controls``  argument -> its choices: a ``bool`` (a tick), a sequence (a list to choose from), a mapping of what
                  the list says to the value, or :class:`Numbers`; the first choice is the default
    ``defaults``  what the printed page shows, where it is not the first choice
    ``also``      further settings that the printed page shows below the default, each a mapping of changes
    ``key``       its name in the page and among the precomputed ones; the title's words where it is not given
    """

    def __init__(
        self, function: Callable[..., Any], controls: Mapping[str, Any], *, title: str = "", key: str = "",
        defaults: Mapping[str, Any] | None = None, also: Sequence[Mapping[str, Any]] = (),
        labels: Mapping[str, str] | None = None,
    ) -> None:
        self.function = function
        self.title = title
        self.key = key or slug(title) or "explorer"
        self.labels = dict(labels or {})
        self.also = tuple(also)
        self.options: dict[str, dict[str, Any]] = {}
        self.numbers: dict[str, Numbers] = {}
        for control, choices in controls.items():
            self.options[control] = self._choices(control, choices)
            if not self.options[control]:
                raise SeamrefError(f"explorer: control {control!r} has no choices")
        self.defaults: dict[str, Any] = {
            control: choices if isinstance(choices, bool) else next(iter(self.options[control].values()))
            for control, choices in controls.items()
        }
        for control, value in (defaults or {}).items():
            self._known(control)
            self.defaults[control] = value

    def _choices(self, control: str, choices: Any) -> dict[str, Any]:
        match choices:
            case bool():
                return {"yes": True, "no": False}
            case Mapping():
                return dict(choices)
            case Numbers():
                self.numbers[control] = choices
                return {str(choice): choice for choice in choices.offered}
        return {str(choice): choice for choice in choices}

    def _known(self, control: str) -> None:
        if control not in self.options:
            raise SeamrefError(f"explorer: no control {control!r}; there are {', '.join(self.options)}")

    # --- answers

    def at(self, **changes: Any) -> Any:
        """What the function shows with these settings, the others at their defaults."""
        for control in changes:
            self._known(control)
        return self.function(**{**self.defaults, **changes})

    def html_at(self, **changes: Any) -> str:
        """The same as HTML."""
        return html_of(self.at(**changes))

    @property
    def count(self) -> int:
        """How many settings there are, of the choices that are offered."""
        return prod(len(choices) for choices in self.options.values())

    def settings(self) -> Iterator[dict[str, Any]]:
        """Every setting of the choices that are offered; the last control turns fastest."""
        for values in product(*(choices.values() for choices in self.options.values())):
            yield dict(zip(self.options, values, strict=True))

    def chosen(self, marks: Mapping[str, Any]) -> dict[str, Any]:
        """Settings from what a page sends: the number of a choice, or {"value": n} for a number that was typed."""
        made: dict[str, Any] = {}
        for control, mark in marks.items():
            self._known(control)
            if isinstance(mark, Mapping):
                made[control] = self._typed(control, mark.get("value"))
                continue
            choices = list(self.options[control].values())
            if not isinstance(mark, int) or not 0 <= mark < len(choices):
                raise SeamrefError(f"explorer: {control} has choices 0 to {len(choices) - 1}, not {mark!r}")
            made[control] = choices[mark]
        return made

    def _typed(self, control: str, value: Any) -> int:
        range = self.numbers.get(control)
        if range is None:
            raise SeamrefError(f"explorer: {control} is chosen from a list, not typed")
        if not isinstance(value, int) or not range.least <= value <= range.most:
            raise SeamrefError(f"{self.label(control)}: a whole number from {range.least} to {range.most} is wanted")
        return value

    # --- the declaration

    def label(self, name: str) -> str:
        """What stands beside a control."""
        return self.labels.get(name, name)

    def is_tick(self, name: str) -> bool:
        """Whether a control is a yes or a no; two named values are not, also where they count as 1 and 0."""
        return set(map(type, self.options[name].values())) == {bool}

    def kind(self, name: str) -> str:
        """How a control looks: "tick", "number", "few" (side by side) or "pick" (a list)."""
        if self.is_tick(name):
            return "tick"
        if name in self.numbers:
            return "number"
        return "few" if len(self.options[name]) <= RADIOS else "pick"

    def _number(self, name: str, value: Any) -> int:
        held = list(self.options[name].values())
        if value not in held:
            raise SeamrefError(f"explorer: {name} = {value!r} is none of its choices")
        return held.index(value)

    def declaration(self) -> dict[str, Any]:
        """All that a page needs to draw the controls: choices by name, values by number."""
        controls = []
        for name, choices in self.options.items():
            made: dict[str, Any] = {"name": name, "label": self.label(name), "kind": self.kind(name),
                                    "choices": list(choices), "set": self._number(name, self.defaults[name])}
            if name in self.numbers:
                made |= {"least": self.numbers[name].least, "most": self.numbers[name].most}
            controls.append(made)
        also = [{name: self._number(name, value) for name, value in changes.items()} for changes in self.also]
        return {"key": self.key, "title": self.title, "controls": controls, "also": also}

    def _said(self, name: str, value: Any) -> str:
        return next((said for said, held in self.options[name].items() if held == value), str(value))

    # --- forms

    def static(self) -> Html:
        """The printed page's form: settings, their result, and the further settings."""
        SHOWN[self.key] = self
        rows = [
            (self.label(name), self._said(name, value), ", ".join(said for said in self.options[name]))
            for name, value in self.defaults.items()
        ]
        settings = Table(("setting", "here", "can be"), rows, self.title)
        first = self.at()
        parts = [f'<div class="seam-settings">{settings.html}</div>',
                 f'<div class="seam-answer">{html_of(first)}</div>']
        texts = [settings.text, repr(first)]
        for changes in self.also:
            words = ", ".join(f"{self.label(n)} = {self._said(n, v)}" for n, v in changes.items())
            shown = self.at(**changes)
            parts.append(f'<div class="seam-turned"><p class="seam-also">With {marked_up(words)}:</p>'
                         f"{html_of(shown)}</div>")
            texts += [f"With {words}:", repr(shown)]
        declared = escape(json.dumps(self.declaration(), separators=(",", ":"), ensure_ascii=False))
        return Html(f'<div class="seam-explorer" data-explorer="{escape(self.key)}" data-declared="{declared}">'
                    f'{"".join(parts)}</div>', "\n".join(texts))

    def widget(self) -> Any:
        """The live form: an ipywidgets box."""
        import ipywidgets

        def control_for(name: str) -> Any:
            wide = {"description": self.label(name), "style": {"description_width": "initial"}}
            match self.kind(name):
                case "tick":
                    return ipywidgets.Checkbox(value=self.defaults[name], description=self.label(name), indent=False)
                case "number":
                    held = self.numbers[name]
                    return ipywidgets.BoundedIntText(value=self.defaults[name], min=held.least, max=held.most, **wide)
            return ipywidgets.Dropdown(options=list(self.options[name].items()), value=self.defaults[name], **wide)

        controls = {name: control_for(name) for name in self.options}
        shown = ipywidgets.HTML(self.html_at())
        state = ipywidgets.HTML("")

        def turned(_: Any) -> None:
            state.value = '<span role="status">working ...</span>'
            try:
                shown.value = self.html_at(**{name: c.value for name, c in controls.items()})
                state.value = ""
            except Exception as error:  # whatever it is, a reader must not take the old result for the new one
                shown.value = ""
                state.value = f'<span role="alert">{marked_up(f"{type(error).__name__}: {error}")}</span>'

        for control in controls.values():
            control.observe(turned, names="value")
        grid = ipywidgets.Layout(display="flex", flex_flow="row wrap", grid_gap="4px 12px")
        return ipywidgets.VBox([ipywidgets.HBox(list(controls.values()), layout=grid), state, shown])

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        static = self.static()
        bundle: dict[str, Any] = {"text/plain": static.text, "text/html": static.html}
        if _in_kernel():
            live = self.widget()._repr_mimebundle_()
            live = live[0] if isinstance(live, tuple) else live
            bundle.update({mime: data for mime, data in live.items() if mime not in bundle})
        return bundle

    def __repr__(self) -> str:
        return self.static().text


SHOWN: dict[str, Explorer] = {}
"""Explorers by key, as they were shown last: what a page with Python turns."""


def turn(key: str, marks: Mapping[str, Any]) -> str:
    """The answer of an explorer that was shown, for what a page sends (:meth:`Explorer.chosen`)."""
    if key not in SHOWN:
        raise SeamrefError(f"no explorer {key!r} was shown; run its cell")
    made = SHOWN[key]
    return made.html_at(**made.chosen(marks))


def explorer(function: Callable[..., Any], *, title: str = "", key: str = "", defaults: Mapping[str, Any] | None = None,
             also: Sequence[Mapping[str, Any]] = (), labels: Mapping[str, str] | None = None,
             **controls: Any) -> Explorer:
    """An :class:`Explorer` with its controls as keyword arguments."""
    return Explorer(function, controls, title=title, key=key, defaults=defaults, also=also, labels=labels)


def html_of(shown: Any) -> str:
    """What an output shows of something, as HTML."""
    render = getattr(shown, "_repr_html_", None)
    return render() if render is not None else f"<pre>{marked_up(str(shown))}</pre>"


def _in_kernel() -> bool:
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    shell = get_ipython()  # type: ignore[no-untyped-call,unused-ignore]
    return shell is not None and hasattr(shell, "kernel")
