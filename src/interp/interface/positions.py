"""The kinds of argument that are numbers, positions or heads: indices, names of spans, names of heads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from interp.errors import InputError
from interp.spans import END, NAME, UNMARKED, marks

_MOST = 10_000  # numbers that ranges name in all


class Loaded(Protocol):
    """What a name can be looked up in: the session, as far as a kind of argument needs to know it."""

    @property
    def models(self) -> Mapping[str, Any]: ...
    @property
    def current(self) -> str | None: ...
    @property
    def feature_names(self) -> Sequence[str]: ...
    def get(self, name: str | None = None) -> Any: ...


class Kind:
    """A text of any sort; the other kinds say what they do otherwise.

    Attributes
    ----------
    several
        Whether a value can be a list, typed with commas.
    rest
        Whether the last argument without a flag takes all words that are left.
    """

    several = False
    rest = False

    @property
    def choices(self) -> Sequence[str]:
        """All values that there are; empty where any is."""
        return ()

    def parse(self, text: str, flag: str) -> Any:  # noqa: ARG002
        """Return what a line's `text` after `flag` means; `InputError` where that is no such value."""
        return text

    def check(self, value: Any, name: str) -> Any:
        """Return what a Python call gives as the technique takes it; `InputError` where a line could not give it."""
        if not isinstance(value, str):
            raise InputError(f"{name} {value!r} is not a text")
        return value

    def named(self, value: Any, flag: str, variables: Mapping[str, Any]) -> Any:  # noqa: ARG002
        """Return what a typed `value` stands for in a notebook with `variables`; `InputError` where that is nothing."""
        return value

    def resolve(self, value: Any, session: Loaded) -> Any:  # noqa: ARG002
        """Return what a checked `value` names in `session`; `InputError` where that is nothing."""
        return value

    def complete(self, partial: str, session: Loaded, commands: Iterable[str]) -> Iterable[str]:  # noqa: ARG002
        """Return what could be typed, of which what begins with `partial` is offered."""
        return ()

    def of_notebook(self, variables: Mapping[str, Any]) -> Iterable[str]:  # noqa: ARG002
        """Return the names of `variables` of the notebook that could be typed."""
        return ()

    def in_cell(self, cell: str, session: Loaded) -> Iterable[str]:  # noqa: ARG002
        """Return what could be typed because of what else the `cell` says."""
        return ()


@dataclass(frozen=True)
class Open(Kind):
    """What Python may give as something else than the text that is typed; the technique checks it itself."""

    several: bool = True

    def check(self, value: Any, name: str) -> Any:  # noqa: ARG002
        return value


class Indices(Open):
    """Indices, whose range the technique knows."""

    def parse(self, text: str, flag: str) -> int | tuple[int, ...]:
        """Return a number, or the numbers of ranges and lists.

        Examples
        --------
        >>> Indices().parse("5", "--layer"), Indices().parse("0-2,5", "--layer")
        (5, (0, 1, 2, 5))
        """
        if re.fullmatch(r"-?\d{1,100}", text):
            return int(text)
        if named := re.fullmatch(r"L?(\d+)[.H](\d+)", text, re.IGNORECASE):
            raise InputError(f"{flag} {text!r} is one head of one layer: type --layer {named[1]} --head {named[2]}")
        chosen: list[int] = []
        for part in text.replace("–", "-").split(","):
            found = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", part.strip())
            if found is None or (found.group(2) and int(found.group(2)) < int(found.group(1))):
                raise InputError(f"{flag} {text!r} cannot be read; write a number, a range or a list: 5, 0-3 or 0,5,7")
            first, last = int(found.group(1)), int(found.group(2) or found.group(1))
            if len(chosen) + last - first >= _MOST:
                raise InputError(f"{flag} {text!r} names more than {_MOST} numbers; type what there is, such as 0-3")
            chosen.extend(range(first, last + 1))
        return tuple(chosen)

    def check(self, value: Any, name: str) -> Any:
        return self.parse(value, name) if isinstance(value, str) else value


@dataclass(frozen=True)
class Positions(Open):
    """Positions of a prompt: numbers, or names of its spans.

    Attributes
    ----------
    words
        What may stand there instead.
    """

    words: tuple[str, ...] = ()

    def parse(self, text: str, flag: str) -> Any:
        """Return a number or a name, or those of a list.

        Examples
        --------
        >>> kind = Positions()
        >>> kind.parse("S2", "--at"), kind.parse("-1", "--at"), kind.parse("IO,4-6", "--at")
        ('S2', -1, ('IO', 4, 5, 6))
        """
        if text.lower() in self.words:
            return text.lower()
        parts = [part.strip() for part in text.split(",")]
        if not any(NAME.fullmatch(part) or re.fullmatch(r"-\d+", part) for part in parts):
            return Indices().parse(text, flag)
        found: list[Any] = []
        for part in parts:
            one = part if NAME.fullmatch(part) else Indices().parse(part, flag)
            found.extend(one if isinstance(one, tuple) else (one,))
        return found[0] if len(found) == 1 else tuple(found)

    def check(self, value: Any, name: str) -> Any:
        return self.parse(value, name) if isinstance(value, str) else value

    def complete(self, partial: str, session: Loaded, commands: Iterable[str]) -> Iterable[str]:  # noqa: ARG002
        return self.words

    def in_cell(self, cell: str, session: Loaded) -> Iterable[str]:
        """Return the names of the spans that the cell's prompts have: what they mark, or their task's slots."""
        found = [mark.name for mark in marks(cell)[1]]
        asked = re.search(r"--task[ =](\S+)", cell.partition("\n")[0])
        if not found and asked is not None and session.current is not None:
            found = _slots(asked[1], session.get().tokens.tokenizer)
        elif not found and re.search(r"^clean:", cell, re.MULTILINE):
            found = list(UNMARKED)
        return found if END.lower() in map(str.lower, found) else [*found, END]


def _slots(task: str, tokenizer: Any) -> list[str]:
    """Return the names of a task's slots; none where there is no such task for the tokenizer."""
    from interp import tasks

    try:
        vocabulary = tasks.Vocabulary(lambda text: tuple(tokenizer(text, add_special_tokens=False)["input_ids"]))
        return list(tasks.build(task, vocabulary, n=1).pairs[0].slots) if tokenizer is not None else []
    except InputError:
        return []


def _heads(session: Loaded) -> list[str]:
    """Return the names of the current model's heads."""
    if session.current is None:
        return []
    g = session.get().geometry
    return [f"{layer}.{head}" for layer in range(g.n_layers) for head in range(g.n_heads)]


class Head(Kind):
    """A head; (1, 0) and 1,0 are other ways to write 1.0."""

    def parse(self, text: str, flag: str) -> Any:
        return self.check(text, flag)

    def check(self, value: Any, name: str) -> Any:
        """Return the head's name.

        Examples
        --------
        >>> Head().check((1, 0), "head"), Head().check("1,0", "head"), Head().check("L1H0", "head")
        ('1.0', '1.0', 'L1H0')
        """
        if isinstance(value, tuple | list):
            value = ".".join(map(str, cast("list[Any]", value)))
        pair = re.fullmatch(r"\(?(\d+), ?(\d+)\)?", super().check(value, name))
        return f"{pair[1]}.{pair[2]}" if pair else value

    def complete(self, partial: str, session: Loaded, commands: Iterable[str]) -> Iterable[str]:  # noqa: ARG002
        return _heads(session)


class Heads(Open):
    """Heads, and whatever else a technique takes away; behind a comma goes another one."""

    def complete(self, partial: str, session: Loaded, commands: Iterable[str]) -> Iterable[str]:  # noqa: ARG002
        before, comma, _ = partial.rpartition(",")
        return [f"{before}{comma}{name}" for name in _heads(session)]
