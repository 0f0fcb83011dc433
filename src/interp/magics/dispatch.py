"""From a typed cell to a result: parse, run, bind."""

from __future__ import annotations

from typing import Any

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import display

from interp.errors import InputError, Interrupted, OutOfMemory
from interp.interface.session import session
from interp.magics.body import pairs, spells_pairs
from interp.magics.live import LiveView
from interp.magics.parser import Call, parse
from interp.magics.progress import Progress
from interp.spec import Pairs, Texts


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
    body: list[Any] = []
    bodies = call.command.bodies
    if cell is None and Texts in bodies and "text" in call.arguments:
        pass
    elif Pairs in bodies and cell is not None and (Texts not in bodies or spells_pairs(cell)):
        body = [pairs(cell)]
    elif Pairs in bodies and cell is None:
        if "task" not in call.arguments:
            file = ", a --text FILE" if Texts in bodies else ""
            raise InputError(
                f"{call.command.name} needs pairs: name a --task{file}, or type %%interp {call.command.name} (two "
                "percent signs) with clean:, corrupted:, answer: and wrong: lines below"
            )
    elif call.command.body is not None:
        if cell is None:
            raise InputError(
                f"{call.command.name} needs a prompt: type %%interp {call.command.name} (two percent signs), "
                "and the text on the next line"
            )
        body = [cell.removesuffix("\n")]
    elif cell is not None and cell.strip():
        raise InputError(f"{call.command.name} takes no text below it: type %interp {line.strip()} (one percent sign)")
    with Progress(shell) as progress:
        live = LiveView(shell, progress)
        session.on_step = progress.step
        session.on_partial = None if call.silent else live.offer
        try:
            result = session.call(call.command, *body, **_resolved(shell, call))
        except Interrupted as stop:
            if call.output is not None:
                shell.push({call.output: stop.result})
            if not live.finish(stop.result, is_value=False):
                display(stop.result)
            raise
        except BaseException:
            live.end()
            raise
        finally:
            session.on_step = session.on_partial = None
    if call.output is not None:
        shell.push({call.output: result})
    live.finish(result)
    return None if call.silent else result


def _resolved(shell: InteractiveShell, call: Call) -> dict[str, Any]:
    """Return the call's arguments, with the user's own metric or variable for its name."""
    of = {parameter.name: parameter for parameter in call.command.parameters}
    return {name: of[name].values.named(value, of[name].flag, shell.user_ns) for name, value in call.arguments.items()}
