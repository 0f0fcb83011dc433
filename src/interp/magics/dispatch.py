"""From a typed cell to a result: parse, run, bind."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import display

from interp.claim_language import Claimed
from interp.errors import InputError, Interrupted, OutOfMemory
from interp.interface.body import are_pairs, divided, pairs, spells_pairs
from interp.interface.kinds import KINDS, TASK
from interp.interface.session import session
from interp.magics.live import LiveView
from interp.magics.parser import Call, parse
from interp.magics.progress import Progress
from interp.results import Result
from interp.spec import Pairs, Prompt, Prompts, Texts

# A body that is one text in quotes, or a Python assignment of one.
_QUOTED = re.compile(r"""\s*(?:\w+\s*=\s*)?(?:"[^"\n]+"|'[^'\n]+')\s*""")


def dispatch(shell: InteractiveShell, line: str, cell: str | None, began: float) -> Any:
    """Run a magic's line and cell, and return its result, or ``None`` where the line ends in a semicolon.

    `began` is when it was called, by ``time.monotonic``.

    Raises
    ------
    UsageError
        A mistake of the user's, or memory that ran out, in one line; exactly this class, since IPython prints it
        without a traceback.
    """
    refused = ""
    try:
        return _run(shell, line, cell, began)
    except (InputError, OutOfMemory) as error:
        refused = str(error)
    # Outside the except block: an exception's context would keep the failed frames alive in sys.last_exc.
    raise UsageError(refused)


def _run(shell: InteractiveShell, line: str, cell: str | None, began: float) -> Any:
    if not line.strip() and cell is not None and cell.strip():
        raise InputError("say what to do with the text: %%interp COMMAND; %interp help lists the commands")
    call = parse(line)
    empty = cell is not None and not cell.strip("\r\n")
    if empty:
        cell = None  # two percent signs and nothing below: the line says it all, or what is missing is named
    if call.prompt is not None:
        if cell is not None:
            raise InputError("the prompt stands on the line and below it; leave one of them out")
        cell = call.prompt
    body: list[Any] = []
    bodies = call.command.bodies
    if cell is None and _named_elsewhere(call):
        pass
    elif cell is not None and _spells_pairs(bodies, cell):
        body = [pairs(cell, _reads_pairs(call, cell))]
    elif Pairs in bodies and cell is None:
        if not {"task", "pairs"} & set(call.arguments):
            file = ", a --text FILE" if Texts in bodies else ""
            raise InputError(
                f"{call.command.name} needs pairs: name a --task ({', '.join(TASK.names)}), --pairs FILE{file}, or "
                f"type %%interp {call.command.name} (two percent signs) with clean:, corrupted:, answer: and wrong: "
                "lines below"
            )
    elif Claimed in bodies and cell is not None:
        body = [cell]
    elif Claimed in bodies:
        raise InputError(
            f"the claim is missing: type it below %%interp {call.command.name}: variable: name = {{IO}}, "
            "carried by: resid_post layer 2 at {S2}, and swap name -> the answer becomes the other name"
        )
    elif call.command.body is not None:
        if cell is None:
            missing = "the prompt is empty" if empty else f"{call.command.name} needs a prompt"
            many = ", or name a --task or a --text FILE of prompts" if Prompts in bodies else ""
            raise InputError(
                f"{missing}: type it on the line below %%interp {call.command.name}, or in "
                f'quotes: %interp {call.command.name} "The cat sat"{many}'
            )
        body = [_prompt(cell.removesuffix("\n"), call)]
    elif cell is not None and cell.strip():
        raise InputError(f"{call.command.name} takes no text below it: type %interp {line.strip()} (one percent sign)")
    with Progress(shell, call.command.name, began=began) as progress:
        live = LiveView(shell, progress)
        session.on_step, session.on_phase = progress.step, progress.phase
        session.on_partial = None if call.silent else live.offer
        try:
            result = session.call(call.command, *body, **_resolved(shell, call))
            if cell is not None and call.prompt is None and isinstance(result, Result) and _QUOTED.fullmatch(cell):
                result = replace(
                    result, notes=(*result.notes, "the quotes are part of the prompt; it is typed without")
                )
        except Interrupted as stop:
            if call.output is not None:
                shell.push({call.output: stop.result})
            if not live.finish(stop.result, is_value=False) and not progress.become(stop.result, is_value=False):
                display(stop.result)
            raise
        except BaseException:
            live.end()
            raise
        finally:
            session.on_step = session.on_phase = session.on_partial = None
        if call.output is not None:
            shell.push({call.output: result})
            session.named(result, call.output)
        if not call.silent and not live.finish(result):
            progress.become(result)
    return None if call.silent else result


def _named_elsewhere(call: Call) -> bool:
    """Whether the line names where texts or prompts come from."""
    names = {"text"} if Texts in call.command.bodies else {"text", "task"} if Prompts in call.command.bodies else set()
    return bool(names & set(call.arguments))


def _spells_pairs(bodies: tuple[type, ...], cell: str) -> bool:
    """Whether a body is pairs: of a command that takes texts or prompts, too, as far as it cannot be these."""
    if Pairs in bodies:
        return Texts not in bodies or spells_pairs(cell)
    return Prompts in bodies and are_pairs(cell)


def _reads_pairs(call: Call, text: str) -> bool:
    """Whether bars in a typed text divide two sentences: they do for an encoder, and are text for every other model."""
    return (
        "|||" in text
        and call.command.needs_model
        and session.get(call.arguments.get(call.command.model)).tokens.bidirectional
    )


def _prompt(text: str, call: Call) -> str | Prompt:
    found = divided(text, _reads_pairs(call, text))
    return found if isinstance(found, str) else Prompt(found[0], second=found[1])


def _resolved(shell: InteractiveShell, call: Call) -> dict[str, Any]:
    """Return the call's arguments, with the user's own metric or variable for its name."""
    of = {parameter.name: parameter for parameter in call.command.parameters}
    found = {name: of[name].values.named(value, of[name].flag, shell.user_ns) for name, value in call.arguments.items()}
    typed = {name: value for name, value in found.items() if of[name].values is KINDS["prompt"]}
    return found | {name: divided(value, _reads_pairs(call, value)) for name, value in typed.items()}
