"""Explorers: controls that a reader turns, and a page that already shows a useful turn of them.

Live, JupyterLab shows the controls; in the printed page the same bundle carries HTML with the default settings
and their result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from seamref.errors import SeamrefError
from seamref.show.html import Html, marked_up
from seamref.show.tables import Table


class Explorer:
    """A function with a control for each of its arguments.

    ``function``  keyword arguments to something with ``_repr_html_`` (an :class:`Html`)
    ``controls``  argument -> its choices: a ``bool`` (a tick), a sequence (a list to choose from), or a mapping of
                  what the list says to the value; the first choice is the default
    ``defaults``  what the printed page shows, where it is not the first choice
    ``also``      further settings that the printed page shows below the default, each a mapping of changes
    """

    def __init__(
        self, function: Callable[..., Any], controls: Mapping[str, Any], *, title: str = "",
        defaults: Mapping[str, Any] | None = None, also: Sequence[Mapping[str, Any]] = (),
        labels: Mapping[str, str] | None = None,
    ) -> None:
        self.function = function
        self.title = title
        self.labels = dict(labels or {})
        self.also = tuple(also)
        self.options: dict[str, dict[str, Any]] = {}
        for name, choices in controls.items():
            if isinstance(choices, bool):
                self.options[name] = {"yes": True, "no": False}
            elif isinstance(choices, Mapping):
                self.options[name] = dict(choices)
            else:
                self.options[name] = {str(choice): choice for choice in choices}
            if not self.options[name]:
                raise SeamrefError(f"explorer: control {name!r} has no choices")
        self.defaults: dict[str, Any] = {
            name: choices if isinstance(choices, bool) else next(iter(self.options[name].values()))
            for name, choices in controls.items()
        }
        for name, value in (defaults or {}).items():
            if name not in self.options:
                raise SeamrefError(f"explorer: a default for {name!r}, which is no control")
            self.defaults[name] = value

    def at(self, **changes: Any) -> Any:
        """What the function shows with these settings, the others at their defaults."""
        unknown = set(changes) - set(self.options)
        if unknown:
            raise SeamrefError(f"explorer: no control {sorted(unknown)[0]!r}")
        return self.function(**{**self.defaults, **changes})

    def label(self, name: str) -> str:
        """What stands beside a control."""
        return self.labels.get(name, name)

    def is_tick(self, name: str) -> bool:
        """Whether a control is a yes or a no; two named values are not, also where they count as 1 and 0."""
        return set(map(type, self.options[name].values())) == {bool}

    def _said(self, name: str, value: Any) -> str:
        return next((said for said, held in self.options[name].items() if held == value), str(value))

    def static(self) -> Html:
        """The printed page's form: settings, their result, and the further settings."""
        rows = [
            (self.label(name), self._said(name, value), ", ".join(said for said in self.options[name]))
            for name, value in self.defaults.items()
        ]
        settings = Table(("control", "set to", "choices"), rows, self.title)
        parts = [settings.html, _html_of(self.at())]
        texts = [settings.text, repr(self.at())]
        for changes in self.also:
            words = ", ".join(f"{self.label(n)} = {self._said(n, v)}" for n, v in changes.items())
            parts.append(f'<p class="seam-also">Turn {marked_up(words)}:</p>{_html_of(self.at(**changes))}')
            texts += [f"Turn {words}:", repr(self.at(**changes))]
        return Html(f'<div class="seam-explorer">{"".join(parts)}</div>', "\n".join(texts))

    def widget(self) -> Any:
        """The live form: an ipywidgets box."""
        import ipywidgets

        controls = {
            name: ipywidgets.Checkbox(value=self.defaults[name], description=self.label(name), indent=False)
            if self.is_tick(name)
            else ipywidgets.Dropdown(
                options=list(choices.items()), value=self.defaults[name], description=self.label(name),
                style={"description_width": "initial"},
            )
            for name, choices in self.options.items()
        }
        shown = ipywidgets.HTML(_html_of(self.at()))
        state = ipywidgets.HTML("")

        def turned(_: Any) -> None:
            state.value = '<span role="status">working ...</span>'
            try:
                shown.value = _html_of(self.function(**{name: c.value for name, c in controls.items()}))
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


def explorer(function: Callable[..., Any], *, title: str = "", defaults: Mapping[str, Any] | None = None,
             also: Sequence[Mapping[str, Any]] = (), labels: Mapping[str, str] | None = None,
             **controls: Any) -> Explorer:
    """An :class:`Explorer` with its controls as keyword arguments."""
    return Explorer(function, controls, title=title, defaults=defaults, also=also, labels=labels)


def _html_of(shown: Any) -> str:
    render = getattr(shown, "_repr_html_", None)
    return render() if render is not None else f"<pre>{marked_up(str(shown))}</pre>"


def _in_kernel() -> bool:
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    shell = get_ipython()  # type: ignore[no-untyped-call,unused-ignore]
    return shell is not None and hasattr(shell, "kernel")
