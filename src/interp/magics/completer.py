"""What Tab offers inside an ``%interp`` line: commands, flags, models, hooks, choices, folders."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from IPython.core.completer import SimpleCompletion, SimpleMatcherResult
from IPython.core.getipython import get_ipython

from interp.interface import registry
from interp.interface.registry import Command, Parameter
from interp.interface.session import session
from interp.magics.parser import flags

_LINE = re.compile(r"\s*%%?interp(\s.*)?$")


def complete(context: Any) -> SimpleMatcherResult:
    """Return what could stand at the cursor; nothing outside an ``%interp`` line.

    Parameters
    ----------
    context
        IPython's `CompletionContext`, which holds the whole cell.
    """
    lines = context.full_text.split("\n")
    line = lines[context.cursor_line][: context.cursor_position]
    found = _LINE.match(line)
    if found is None or found.group(1) is None:
        return SimpleMatcherResult(completions=[])
    before, _, partial = found.group(1).rpartition(" ")
    words = before.split()
    cell = "\n".join(lines[context.cursor_line :])
    offered = sorted({word for word in _offered(words, partial, cell) if word.startswith(partial)})
    return SimpleMatcherResult(
        completions=[SimpleCompletion(text=word, type="keyword") for word in offered],
        matched_fragment=partial,
        suppress=True,
    )


def _offered(words: list[str], partial: str, cell: str) -> Iterable[str]:
    known = registry.commands()
    if not words:
        return known
    command = known.get(words[0])
    if command is None:
        return ()
    taking = flags(command)
    if words[-1] in taking and taking[words[-1]][1] is None and len(words) > 1:
        return _values(taking[words[-1]][0], partial, cell)
    if words[-1] in {"-o", "--out"}:
        return ()
    if partial.startswith("-"):
        return [*taking, "-o"]
    place = _next_positional(command, words[1:])
    return _values(place, partial, cell) if place is not None else [*taking, "-o"]


def _next_positional(command: Command, words: list[str]) -> Parameter | None:
    taking = flags(command)
    given = 0
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word.startswith("-"):
            skip = word in {"-o", "--out"} or (word in taking and taking[word][1] is None)
        else:
            given += 1
    places = [p for p in command.parameters if p.positional]
    return places[given] if given < len(places) else None


def _values(parameter: Parameter, partial: str, cell: str) -> Iterable[str]:
    values = parameter.values
    return [
        *values.complete(partial, session, registry.commands()),
        *values.of_notebook(_variables()),
        *values.in_cell(cell, session),
    ]


def _variables() -> dict[str, Any]:
    """Return what the user's cells have bound."""
    shell: Any = get_ipython()
    hidden = shell.user_ns_hidden
    return {name: value for name, value in shell.user_ns.items() if not name.startswith("_") and name not in hidden}
