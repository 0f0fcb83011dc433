"""A command that is called as a Python function in a notebook's cell: it says how far it is as a typed one does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import Any

from IPython.core.getipython import get_ipython
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import DisplayHandle

from interp.interface.session import session
from interp.magics.progress import Progress
from interp.results import Result, views_of


class _Line:
    """The output in which a cell's calls say how far they are, one after the other: a loop of them has one.

    Attributes
    ----------
    place
        The output; ``None`` before there was anything to say in the cell that runs.
    """

    def __init__(self) -> None:
        self.place: DisplayHandle | None = None
        self._made: Any = None

    def keep(self, shell: InteractiveShell, place: DisplayHandle) -> None:
        """Remember an output until the cell has ended."""
        if place is self.place:
            return
        self.place = place

        def forget(*_: Any) -> None:
            self.place = self._made = None
            shell.events.unregister("post_run_cell", forget)

        shell.events.register("post_run_cell", forget)

    def end(self, result: Any) -> None:
        """Take what the last call has made: where the cell shows it, it takes the place of the line."""
        self._made = result
        if isinstance(result, Result):
            views_of(result).place = self.leave

    def leave(self, result: Result) -> DisplayHandle | None:
        """Return the output for `result`, if no later call has said anything in it; the next call gets a new one."""
        if self._made is not result:
            return None
        place, self.place = self.place, None
        return place


_line = _Line()


def telling(call: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Return `call`, which a cell calls; a line says how far it is, unless somebody is told that already.

    What it returns may be kept and never shown: the line then says how long it took.

    Parameters
    ----------
    call
        A command, as Python calls it.
    name
        What the command is called.
    """

    @wraps(call)
    def told(*given: Any, **named: Any) -> Any:
        shell = get_ipython()
        watched = session.on_step is not None or threading.current_thread() is not threading.main_thread()
        if shell is None or watched:
            return call(*given, **named)
        progress = Progress(shell, name, place=_line.place)
        try:
            with progress:
                session.on_step, session.on_phase = progress.step, progress.phase
                try:
                    result = call(*given, **named)
                finally:
                    session.on_step = session.on_phase = None
        finally:
            if progress.place is not None:
                _line.keep(shell, progress.place)
        if progress.told:
            _line.end(result)
        return result

    return told
