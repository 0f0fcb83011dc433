"""What a cell shows of a command that takes long: one output, a line that says how far it is, which becomes the result.

The rules are those of the strictest front end. VS Code forgets an output that is made while it still clears the cell,
and keeps an empty row for one that is emptied: so nothing is shown in the first half second, what is shown is never
emptied, and the result takes its place.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from types import TracebackType
from typing import Any, Self

from IPython.core.interactiveshell import InteractiveShell
from IPython.display import DisplayHandle

from interp.results import Result, resolve, views_of

_log = logging.getLogger(__name__)
FIRST = 0.45  # seconds before which a command shows nothing
_INTERVAL = 0.25  # seconds between two looks at how far it is


class Progress:
    """The output of one command while it runs; a thread of its own keeps it up to date, whatever the command does.

    Whoever takes the output over, such as a live view, is told the line from then on, and shows it while it has nothing
    better. A terminal has no outputs to update: nothing is shown there.

    Parameters
    ----------
    shell
        Where the cell runs.
    name
        The command's.
    clock
        In seconds.
    began
        When it was called, by `clock`; now where not given.
    place
        An output that the cell has for this already; where not given it gets one when there is something to show.

    Attributes
    ----------
    place
        The output, until somebody takes it over; ``None`` while there is none.
    """

    def __init__(
        self,
        shell: InteractiveShell,
        name: str,
        clock: Callable[[], float] = time.monotonic,
        *,
        began: float | None = None,
        place: DisplayHandle | None = None,
    ) -> None:
        self._shell = shell
        self._name = name
        self._clock = clock
        self._began = clock() if began is None else began
        self._lock = threading.Lock()
        self._over = threading.Event()
        self.place = place
        self._say: Callable[[str], None] = self._display
        self._shown = ""
        self._what = name if "torch" in sys.modules else f"{name}: importing torch"
        self._done = self._total = self._from = 0
        self._since = self._began

    def __enter__(self) -> Self:
        if hasattr(self._shell, "kernel"):
            # In a context of its own a thread would not know to which cell it belongs.
            run = copy_context().run
            threading.Thread(target=run, args=(self._watch,), name="interp-progress", daemon=True).start()
        return self

    @property
    def told(self) -> bool:
        """Whether anything was shown."""
        return bool(self._shown)

    @property
    def early(self) -> bool:
        """Whether it is too soon to show anything."""
        return self._clock() - self._began < FIRST

    def step(self, done: int, total: int, what: str) -> None:
        """Say that `done` of `total` steps are over (0 of 0 where nobody knows) and `what` is being done."""
        with self._lock:
            if total != self._total or done < self._done:  # something else is counted
                self._from, self._since = done, self._clock()
            self._done, self._total, self._what = done, total, what

    def phase(self, what: str) -> None:
        """Say that `what` is being done, of which nobody knows how much there is."""
        self.step(0, 0, what)

    def line(self) -> str:
        """Return what is done, of how much, for how long already, and how long it may still take."""
        now = self._clock()
        parts = [self._what if not self._total else f"{self._what} ({self._done}/{self._total})"]
        parts.append(f"{now - self._began:.0f} s")
        counted = self._done - self._from
        if counted > 0 and self._done < self._total:
            left = (now - self._since) * (self._total - self._done) / counted
            parts.append(f"about {_duration(left)} left")
        return " · ".join(parts)

    def take(self, say: Callable[[str], None] | None = None) -> DisplayHandle | None:
        """Return the output of the line, where it has one, to whoever shows something else there from now on.

        Parameters
        ----------
        say
            Is called with the line from now on, by a thread of its own; without it there are no more lines.
        """
        with self._lock:
            if say is None:
                self._over.set()
            else:
                self._say = say
            handle, self.place = self.place, None
        return handle

    def become(self, result: Any, *, is_value: bool = True) -> bool:
        """Let the line become `result`, and return whether there was one.

        Parameters
        ----------
        is_value
            Whether `result` will be the value of the cell, which then does not show it once more.
        """
        if not isinstance(result, Result):
            return False
        handle = self.take()
        if handle is None:
            return False
        try:
            resolve("interp.widgets._base:show")(result, handle)
        except Exception:
            _log.exception("a result could not be shown in place of the line that said how far it was")
            handle.update({"text/plain": result.text()}, raw=True)
        if is_value:
            settle(self._shell, result)
        return True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.place = self.take()
        if self.place is not None and self.told:
            count = f" {self._done} of {self._total}" if self._total else ""
            spent = f"{self._clock() - self._began:.1f} s"
            said = f"done in {spent}" if kind is None else f"stopped after{count and f'{count},'} {spent}"
            self.place.update({"text/plain": f"{self._name}: {said}"}, raw=True)

    def _watch(self) -> None:
        wait = max(0.0, FIRST - (self._clock() - self._began))
        while not self._over.wait(wait):
            wait = _INTERVAL
            with self._lock:
                line = self.line()
                if self._over.is_set() or line == self._shown:
                    continue
                self._shown = line
                self._say(line)

    def _display(self, line: str) -> None:
        bundle: dict[str, Any] = {"text/plain": line}
        if self.place is None:
            self.place = DisplayHandle()
            self.place.display(bundle, raw=True)
        else:
            self.place.update(bundle, raw=True)


def settle(shell: InteractiveShell, result: Result) -> None:
    """Let `result`, which is shown already, not be shown once more as the value of its cell; later it is again."""
    views_of(result).settled = True

    def once(*_: Any) -> None:
        views_of(result).settled = False
        shell.events.unregister("post_run_cell", once)

    shell.events.register("post_run_cell", once)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
