"""From a typed cell to a result: parse, run, bind."""

from __future__ import annotations

from typing import Any

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import display

from interp.errors import InputError, Interrupted, OutOfMemory, closest
from interp.interface.session import session
from interp.magics.body import pairs, spells_pairs
from interp.magics.live import LiveView
from interp.magics.parser import Call, parse
from interp.magics.progress import Progress
from interp.spec import METRICS, Pairs, Texts


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
    arguments = dict(call.arguments)
    for parameter in call.command.parameters:
        value = arguments.get(parameter.name)
        if parameter.names == "metric" and value is not None and value not in METRICS:
            function = shell.user_ns.get(value)
            if not callable(function):
                raise InputError(
                    f"there is no metric {value!r}{closest(value, METRICS)}; use {', '.join(METRICS)}, "
                    "or the name of a function that this notebook defines"
                )
            arguments[parameter.name] = function
        elif parameter.names == "variable" and value is not None:
            if value not in shell.user_ns:
                near = closest(value, [name for name in shell.user_ns if not name.startswith("_")])
                raise InputError(f"{parameter.flag} {value!r} is no variable of this notebook{near}; name one that is")
            arguments[parameter.name] = shell.user_ns[value]
    return arguments
