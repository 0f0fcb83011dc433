"""Help: what commands there are and what each takes, for people and, as JSON, for programs."""

from __future__ import annotations

from dataclasses import dataclass
from json import dumps
from typing import TYPE_CHECKING, Any, ClassVar

from interp.errors import printable
from interp.interface import catalogue, registry
from interp.interface.commands import Table
from interp.interface.registry import command
from interp.results import Result
from interp.spec import CommandName

if TYPE_CHECKING:
    import pandas as pd

    from interp.interface.session import Session


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Help(Table):
    """What a command takes, and cells that show it.

    Attributes
    ----------
    cells
        Each can be typed as it is, one after the other, on the bundled model.
    """

    cells: tuple[str, ...] = ()

    _html: ClassVar[str] = "interp.views.help:html"

    def text(self) -> str:
        """Return the table, and the cells below it."""
        return "\n\n".join([super().text(), *self.cells])

    def __repr__(self) -> str:
        return f"Help({printable(self.title)})"


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class CommandList(Result):
    """All commands as plain data.

    Attributes
    ----------
    commands
        Of each its ``name``, ``group``, ``summary``, how it is ``typed`` and called in ``python``, what its ``body``
        can be, its ``arguments`` (``name``, ``flag``, ``type``, ``required``, ``default``, ``choices``, ``help``),
        ``cells`` that show it and ``examples`` in Python.
    """

    commands: tuple[dict[str, Any], ...]

    def summary(self) -> str:
        """Return how many there are."""
        return f"{len(self.commands)} command{'' if len(self.commands) == 1 else 's'} as JSON: print(r.text())"

    def text(self) -> str:
        """Return them as JSON."""
        return dumps(list(self.commands), indent=1, ensure_ascii=False)

    def to_frame(self) -> pd.DataFrame:
        """Return a row for each."""
        import pandas as pd

        names = ("group", "name", "typed", "summary")
        return pd.DataFrame([[one[name] for name in names] for one in self.commands], columns=list(names))


@command
def help(session: Session, command: CommandName | None = None, *, json: bool = False) -> Result:  # noqa: ARG001
    """What commands there are, or what one of them takes, with a cell that shows it.

    Parameters
    ----------
    command
        A command's name; all are listed when not given.
    json
        All of it as data, for programs and agents: the text of the result is JSON.

    Raises
    ------
    InputError
        No such command; the closest one is named.

    Examples
    --------
    >>> interp.help("attention")
    Help(%%interp attention: Attention patterns of a prompt: who looks at whom, in every head.)
    >>> interp.help("attention", json=True).commands[0]["group"]
    'look'
    """
    found = None if command is None else registry.find(command)
    if json:
        known = catalogue.described()
        return CommandList(commands=tuple(one for one in known if found is None or one["name"] == found.name))
    if found is None:
        rows = [
            ("" if number else group, catalogue.short(one), one.summary)
            for group, held in catalogue.grouped().items()
            for number, one in enumerate(held)
        ]
        return Table(
            title="%interp COMMAND, or %%interp COMMAND with the prompt below it",
            columns=("to", "command", "what it gives"),
            rows=tuple(rows),
            notes=(
                "%interp help COMMAND lists what a command takes, with a cell to try; -o NAME binds a result to a name",
            ),
        )
    return Help(
        title=f"{catalogue.short(found)}: {found.summary}",
        columns=("argument", "what it is"),
        rows=tuple((_spelled(p), f"{p.help}{_default(p)}") for p in found.parameters),
        notes=tuple(f"in Python: {example}" for example in found.examples),
        cells=tuple(catalogue.cells(found.name)),
    )


def usage(found: registry.Command) -> str:
    """Return how a command is typed, with its flags.

    Examples
    --------
    >>> usage(registry.find("compose"))
    '%interp compose [--kind q | k | v]'
    """
    hidden = {"bos", "template", "truncate", "dry_run", "model", "over"} if found.needs_model else set[str]()
    flags = [p for p in found.parameters if p.name not in hidden and not (p.positional and p.required)]
    return " ".join([catalogue.short(found), *(f"[{_spelled(p)}]" for p in flags)])


def _spelled(parameter: registry.Parameter) -> str:
    flag = parameter.flag
    if parameter.positional:
        return parameter.name.upper()
    if parameter.kind is bool:
        spellings = {None: f"{flag}, --no-{flag[2:]}", True: f"--no-{flag[2:]}", False: flag}
        return spellings[parameter.default]
    value = " | ".join(parameter.values.choices) or {"int": "N", "float": "X"}.get(
        parameter.kind.__name__, flag[2:].upper()
    )
    return f"{flag} {value}"


def _default(parameter: registry.Parameter) -> str:
    if parameter.required:
        return " (must be given)"
    # What a switch is without its flag, the flag tells.
    return "" if parameter.default in {None, False, True} else f" ({parameter.default} when not given)"


__all__ = ["CommandList", "Help", "help", "usage"]
