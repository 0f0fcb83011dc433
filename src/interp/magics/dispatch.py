"""From a typed cell to a result: parse, run, bind."""

from __future__ import annotations

from typing import Any

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

from interp.magics.parser import parse
from interp.magics.progress import Progress
from interp.session import session
from interp.spec import InputError, OutOfMemory


def dispatch(shell: InteractiveShell, line: str, cell: str | None) -> Any:
    """Run a magic's line and cell, and return its result, or ``None`` where the line ends in a semicolon.

    Raises
    ------
    UsageError
        A mistake of the user's, or memory that ran out, in one line; exactly this class, since IPython prints it
        without a traceback.
    """
    refused = ""
    try:
        return _run(shell, line, cell)
    except (InputError, OutOfMemory) as error:
        refused = str(error)
    # Outside the except block: an exception's context would keep the failed frames alive in sys.last_exc.
    raise UsageError(refused)


def _run(shell: InteractiveShell, line: str, cell: str | None) -> Any:
    call = parse(line)
    body: list[str] = []
    if call.command.body is not None:
        if cell is None:
            raise InputError(
                f"{call.command.name} needs a prompt: type %%interp {call.command.name} (two percent signs), "
                "and the text on the next line"
            )
        body = [cell.removesuffix("\n")]
    elif cell is not None and cell.strip():
        raise InputError(f"{call.command.name} takes no text below it: type %interp {line.strip()} (one percent sign)")
    with Progress(shell) as progress:
        session.on_step = progress.step
        try:
            result = session.call(call.command, *body, **call.arguments)
        finally:
            session.on_step = None
    if call.output is not None:
        shell.push({call.output: result})
    return None if call.silent else result
