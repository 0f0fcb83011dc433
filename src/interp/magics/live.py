"""A result that is shown while it is computed, and stays as what it became."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from IPython.core.interactiveshell import InteractiveShell

from interp.magics.progress import Progress, settle
from interp.results import Result, has_page, resolve, views_of

_log = logging.getLogger(__name__)
_INTERVAL = 0.1  # seconds between two updates
_SHARE = 4  # an update may take one part in this and one of the time


class LiveView:
    """Shows what a command has so far in its cell's output, in place of the line that says how far it is.

    The line is not lost: the view is told it, and says it while there is nothing else to see.

    Parameters
    ----------
    shell
        Where the cell runs.
    progress
        The line; the view takes its place.
    """

    def __init__(self, shell: InteractiveShell, progress: Progress) -> None:
        self._shell = shell
        self._progress = progress
        self._possible = has_page()
        self._widget: Any = None
        self._output: Any = None
        self._latest: Result | None = None
        self._next = 0.0

    def offer(self, make: Callable[[], Result]) -> bool:
        """Show what `make` returns, and return whether; it may be too soon. A view that fails is given up."""
        from interp.engine.model.hooks import Interrupts

        began = time.monotonic()
        if not self._possible or began < self._next or self._progress.early:
            return False
        # An interrupt waits until the page has a message in whole.
        interrupts = Interrupts()
        interrupts.begin()
        try:
            self._show(make())
        except Exception:
            _log.exception("the view could not be shown while the command runs")
            self._possible = False
        finally:
            interrupts.end()
        now = time.monotonic()
        self._next = now + max(_INTERVAL, _SHARE * (now - began))
        return True

    def _show(self, result: Result) -> None:
        self._latest = result
        if self._widget is None:
            self._widget = result.widget
        self._widget.show(result, running=True)
        if self._output is None:
            place = self._progress.take(self._widget.say)
            self._output = resolve("interp.widgets._base:publish")(self._widget, result, place)

    def finish(self, result: Result, *, is_value: bool = True) -> bool:
        """Let the view become that of `result`, and return whether there is one.

        Parameters
        ----------
        is_value
            Whether `result` will be the value of the cell, which then does not show it once more.
        """
        if self._output is None:
            return False
        self._progress.take()
        try:
            self._widget.show(result)
            views_of(result).made = self._widget
            self._latest = None
            self._output.update(result)
        except Exception:
            _log.exception("the view of a finished command could not be shown")
            self.end()
            return False
        if is_value:
            settle(self._shell, result)
        return True

    def end(self) -> None:
        """Let a view whose command failed say that nothing more comes."""
        if self._widget is not None and self._latest is not None:
            self._progress.take()
            self._widget.show(self._latest)
            self._latest = None
