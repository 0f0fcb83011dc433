"""The steps of an investigation: commands run within it, each with the line by which it can be typed alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from interp.errors import InputError, Interrupted
from interp.results import Result

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel

_ANSWERS = ("answer", "wrong", "target", "against")
_PAIR = ("clean", "corrupted", "answer", "wrong")
# Steps that draw from chance, or whose pairs a task draws.
_SEEDED = ("validate",)


@dataclass
class Steps:
    """What has been run so far.

    Attributes
    ----------
    find
        A command's name → its function.
    count
        How many steps there are going to be.
    results, refused, cells
        Name → the step's result, why it was refused, and what is typed for it: an empty text where only Python can say
        it.
    interrupt
        What stopped them, where they were stopped.
    """

    model: LoadedModel
    find: Callable[[str], Callable[..., Result]]
    count: int
    results: dict[str, Result] = field(default_factory=dict[str, Result])
    refused: dict[str, str] = field(default_factory=dict[str, str])
    cells: dict[str, str] = field(default_factory=dict[str, str])
    interrupt: BaseException | None = None

    def take(
        self, name: str, technique: str, body: Any, where: Mapping[str, Any], options: Mapping[str, Any]
    ) -> Result | None:
        """Run a command as the step `name`; return its result, or ``None`` where it refuses or was stopped.

        Parameters
        ----------
        body
            What the command's function takes behind the model.
        where
            How a call says the same.
        options
            The call's other arguments.
        """
        if self.interrupt is not None:
            return None
        model, number = self.model, len(self.results) + len(self.refused) + 1
        model.alive(f"step {number} of {self.count}, {name}: {technique}")
        arguments = {**where, **options}
        self.cells[name] = typed(technique, arguments, name)
        function = self.find(technique)
        try:
            made = model.within(technique, arguments, lambda: function(model, body, **options))
        except Interrupted as stop:
            made, self.interrupt = stop.result, stop
        except KeyboardInterrupt as stop:
            self.interrupt = stop
            return None
        except InputError as error:
            self.refused[name] = str(error)
            return None
        seed = arguments.get("seed", 0) if "task" in arguments or technique in _SEEDED else None
        self.results[name] = replace(made, provenance=replace(made.provenance, seed=seed))
        return self.results[name]


def typed(technique: str, arguments: Mapping[str, Any], out: str) -> str:
    """Return the cell that makes a call, with its result bound to `out`; an empty text where none can.

    Examples
    --------
    >>> print(typed("patch", {"clean": "A is", "corrupted": "B is", "answer": "C", "layer": (1, 2)}, "heads"))
    %%interp patch --layer 1,2 -o heads
    clean: A is
    corrupted: B is
    answer: C
    >>> typed("lens", {"prompt": "A is", "target": " C"}, "lens"), typed("predict", {"prompt": [5, 6]}, "predict")
    ('%%interp lens --target " C" -o lens\\nA is', '')
    """
    rest = dict(arguments)
    body = ""
    if "prompt" in rest:
        body = rest.pop("prompt")
        if not isinstance(body, str) or not body.strip() or body.endswith("\n"):
            return ""
    elif "clean" in rest:
        given = {name: rest.pop(name) for name in _PAIR if name in rest}
        if not all(isinstance(one, str) and one == one.strip() and one.isprintable() for one in given.values()):
            return ""
        body = "\n".join(f"{name}: {one}" for name, one in given.items())
    elif "pairs" in rest:
        return ""
    words = [f"%{'%' * bool(body)}interp {technique}", *(_flag(name, value) for name, value in rest.items())]
    if not all(words):
        return ""
    return " ".join([*words, f"-o {out}"]) + (f"\n{body}" if body else "")


def _flag(name: str, value: Any) -> str:
    """Return an argument as a line has it; an empty text where a line cannot."""
    if isinstance(value, Result):
        return name  # the one positional argument, a variable of the notebook
    flag = "--" + name.replace("_", "-")
    if name in _ANSWERS and not isinstance(value, str):
        return ""  # a number that is typed is a word
    if isinstance(value, bool):
        return flag if value else f"--no-{flag[2:]}"
    if isinstance(value, list | tuple):
        return f"{flag} {','.join(map(str, value))}"
    text = str(value)
    if '"' in text or "\\" in text or not text.isprintable():
        return ""
    return f'{flag} "{text}"' if text != text.strip() or " " in text or not text else f"{flag} {text}"
