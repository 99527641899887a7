"""The progress bar for notebooks: HTML in the colours of the page, without widgets."""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from apportion_plugins.progress.rates import State, Timing

__all__ = ["NotebookBar", "bar_html"]

UPDATE_SECONDS = 0.2
"""Minimum time between two updates: each one is a message to the browser and is saved in the notebook."""


@runtime_checkable
class Handle(Protocol):
    """IPython's handle for a displayed output."""

    def update(self, bundle: Mapping[str, str], *, raw: bool) -> None:
        """Replace the displayed output."""


Display = Callable[[Mapping[str, str]], Handle]


class NotebookBar:
    """A label, bar, count, rate and remaining time below the cell; empty once the run is over.

    The runs of one cell share one output, so that a loop over many runs leaves only one.

    Args:
        display: displays a MIME bundle; IPython's if ``None``.
        cell: returns the number of the running cell; IPython's if ``None``.
        clock: returns seconds.
    """

    def __init__(
        self,
        display: Display | None = None,
        cell: Callable[[], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._display = display or _displayed
        self._cell = cell or _running_cell
        self._clock = clock
        self._handle: Handle | None = None
        self._handle_cell: object = None
        self._timing = Timing(clock)
        self._updated = 0.0

    def show(self, state: State) -> None:
        """Draw the current state, at most five times a second. A new label or total restarts the clock."""
        now = self._clock()
        begins = self._timing.note(state)
        if begins or now - self._updated >= UPDATE_SECONDS:
            self._updated = now
            self._put(
                bar_html(state, self._timing.facts()),
                state.label if state.total is None else f"{state.label} {state.count}",
            )

    def remove(self) -> None:
        """Clear the output; a notebook cannot remove a single one."""
        self._timing = Timing(self._clock)
        if self._handle is not None:
            self._handle.update({"text/html": "", "text/plain": ""}, raw=True)

    def _put(self, page: str, text: str) -> None:
        bundle = {"text/html": page, "text/plain": text}
        cell = self._cell()
        if self._handle is None or cell != self._handle_cell:
            self._handle, self._handle_cell = self._display(bundle), cell
        else:
            self._handle.update(bundle, raw=True)


def bar_html(state: State, facts: Sequence[str] = ()) -> str:
    """HTML of one bar, in the page's text colour, so that it suits light and dark pages.

    Args:
        state: what the bar shows.
        facts: the rate and the remaining time.
    """
    done = state.done + state.share
    share = f"width:{100 * done / state.total:.1f}%" if state.total else "width:100%;opacity:0.35"
    texts = [html.escape(text) for text in (state.count, *facts, state.more) if text]
    return (
        '<div style="display:flex;align-items:center;gap:0.7em;max-width:44em;font-size:0.9em;color:inherit">'
        f"<span>{html.escape(state.label)}</span>"
        '<span style="flex:1;min-width:6em;height:0.5em;border-radius:0.25em;overflow:hidden;position:relative">'
        '<span style="position:absolute;inset:0;background:currentColor;opacity:0.15"></span>'
        f'<span style="position:absolute;top:0;bottom:0;left:0;background:currentColor;{share}"></span></span>'
        f'<span style="font-variant-numeric:tabular-nums;white-space:nowrap">{" · ".join(texts)}</span></div>'
    )


def _displayed(bundle: Mapping[str, str]) -> Handle:
    # Imported here: IPython is only certain to be installed in a notebook.
    from IPython.display import display  # type: ignore[import-not-found]

    handle: Handle = display(dict(bundle), raw=True, display_id=True)
    return handle


def _running_cell() -> Any:
    from IPython import get_ipython  # type: ignore[import-not-found]

    return getattr(get_ipython(), "execution_count", None)
