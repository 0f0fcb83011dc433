"""One line under a cell that says what a long command is doing."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self

from IPython.core.interactiveshell import InteractiveShell
from IPython.display import DisplayHandle

_INTERVAL = 0.1  # seconds between two updates


class Progress:
    """Shows ``step`` calls on one display, at most ten times a second, and empties it at the end.

    A terminal has no displays to update: nothing is shown there.
    """

    def __init__(self, shell: InteractiveShell) -> None:
        self._shown = hasattr(shell, "kernel")
        self._handle: DisplayHandle | None = None
        self._last = 0.0

    def __enter__(self) -> Self:
        return self

    def step(self, done: int, total: int, what: str) -> None:
        """Say that `done` of `total` steps are over and `what` is being done."""
        now = time.monotonic()
        if not self._shown or now - self._last < _INTERVAL:
            return
        self._last = now
        bundle: dict[str, Any] = {"text/plain": f"{what} ({done}/{total})"}
        if self._handle is None:
            self._handle = DisplayHandle()
            self._handle.display(bundle, raw=True)
        else:
            self._handle.update(bundle, raw=True)

    def leave(self) -> None:
        """Show nothing any more: something else says how far it is."""
        self._shown = False
        if self._handle is not None:
            self._handle.update({"text/plain": ""}, raw=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()
