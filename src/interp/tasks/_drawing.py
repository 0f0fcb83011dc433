"""Pairs of a task drawn so that they line up under a tokenizer."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from interp.errors import InputError
from interp.spec import Pair, Prompt
from interp.tasks._fitting import Vocabulary
from interp.tasks._registry import Task, find

if TYPE_CHECKING:
    import pandas as pd

# A task that repeats itself is stopped after so many candidates in a row, and so many more for each pair asked for.
_PATIENCE = (1000, 20)


@dataclass(frozen=True, repr=False)
class TaskSet:
    """Pairs that line up: one length, and slots at the same positions throughout.

    Attributes
    ----------
    pairs
        Their slots' positions do not count a BOS; where one is put in front, they move by one. In a task that says so
        (``ioi``, whose ABBA and BABA are mixed) two slots may have exchanged their places.
    metric
        The name of the metric that the task is measured with.
    seed, options
        What the set was drawn with.
    length
        Tokens of every prompt, without BOS.
    notes
        What was left out, and why.
    """

    name: str
    pairs: tuple[Pair, ...]
    metric: str
    seed: int
    length: int
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"TaskSet({self.name!r}, {len(self.pairs)} pairs of {self.length} tokens, seed {self.seed})"

    def __len__(self) -> int:
        return len(self.pairs)

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each pair: prompts, answers, and where each slot is.

        Several answers, and several positions of a slot, are a tuple.
        """
        import pandas as pd

        def plain(values: tuple[Any, ...]) -> Any:
            return values[0] if len(values) == 1 else values

        rows: list[dict[str, Any]] = []
        for pair in self.pairs:
            row = {"clean": _content(pair.clean), "corrupted": _content(pair.corrupted)}
            row |= {"answer": plain(pair.answer), "wrong": plain(pair.wrong)}
            rows.append(row | {f"slot_{name}": plain(places) for name, places in pair.slots.items()})
        return pd.DataFrame(rows)


def build(name: str, vocabulary: Vocabulary, n: int = 32, seed: int = 0, **options: Any) -> TaskSet:
    """Draw `n` pairs of a task that line up under a tokenizer, the same ones for the same seed.

    Parameters
    ----------
    name
        One of `names()`; ``facts:landmarks`` is ``facts`` with the option that has that choice.
    vocabulary
        The tokenizer.
    n
        How many. Where the task gave `n` pairs and not all of them line up, there are fewer, and a note says so.
    seed
        Of the random choices.
    **options
        The task's own.

    Returns
    -------
    TaskSet
        The pairs.

    Raises
    ------
    InputError
        No such task or option, more pairs than there are, or no pair that fits the tokenizer.
    """
    plain, colon, choice = name.partition(":")
    declared = find(plain)
    if colon:
        chosen = declared.chosen(choice)
        for twice in chosen.keys() & options.keys():
            raise InputError(f"{name} says its {twice}, and {twice}={options[twice]!r} says it again; leave one out")
        options |= chosen
    for called, value, least in (("n", n, 1), ("seed", seed, None)):
        if isinstance(value, bool) or not isinstance(value, int):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(f"{called} {value!r} is not a whole number")
        if least is not None and value < least:
            raise InputError(f"{called} must be at least {least}, not {value}")
    declared.check(options)
    candidates = declared.function(vocabulary, random.Random(seed), n, **options)
    found = _Collected(declared, vocabulary)
    for candidate in candidates:
        if found.add(candidate) == n or found.fruitless > _PATIENCE[0] + _PATIENCE[1] * n:
            break
    pairs = found.largest()
    others = found.usable - len(pairs) + found.faults.total()
    if len(pairs) < n and len(pairs) + others < n:
        raise InputError(
            f"task {declared.name} has {len(pairs)} different pairs for this tokenizer, not {n}; ask for fewer"
        )
    notes: list[str] = []
    if others:
        reasons = [fault for fault, _ in found.faults.most_common(1)]
        reasons += ["slots or lengths differ from the rest"] if found.usable > len(pairs) else []
        notes.append(f"{others} of {len(pairs) + others} pairs were left out: {'; '.join(reasons)}")
    length = len(_ids(vocabulary, pairs[0].clean))
    return TaskSet(
        declared.name + colon + choice, tuple(pairs), declared.metric, seed, length, dict(options), tuple(notes)
    )


class _Collected:
    """Candidates so far, by what has to agree: the length, the slots' names, and the places that they take together."""

    def __init__(self, declared: Task, vocabulary: Vocabulary) -> None:
        self.task = declared
        self.vocabulary = vocabulary
        self.groups: dict[Any, list[Pair]] = {}
        self.seen: set[Any] = set()
        self.faults: Counter[str] = Counter()
        self.usable = 0
        self.fruitless = 0
        self._single: dict[tuple[str, str], bool] = {}

    def add(self, candidate: Any) -> int:
        """Take a candidate and return the size of the group that it went to; 0 where it was not taken."""
        self.fruitless += 1
        if candidate is None:
            self.faults["the tokenizer splits clean and corrupted differently"] += 1
            return 0
        if not isinstance(candidate, Pair):
            raise InputError(f"task {self.task.name} gave a {type(candidate).__name__}, not an interp.spec.Pair")
        key = (candidate.clean, candidate.corrupted)
        if key in self.seen:
            return 0
        self.seen.add(key)
        fault, length = self._fault(candidate)
        if fault:
            self.faults[fault] += 1
            return 0
        self.fruitless = 0
        self.usable += 1
        shape = (length, frozenset(candidate.slots), frozenset(map(tuple, candidate.slots.values())))
        group = self.groups.setdefault(shape, [])
        group.append(candidate)
        return len(group)

    def largest(self) -> list[Pair]:
        """Return the largest group.

        Raises
        ------
        InputError
            There is none; the commonest reason is given.
        """
        if not self.groups:
            why = self.faults.most_common(1)[0][0] if self.faults else "the task gave none"
            raise InputError(f"task {self.task.name} has no pair for this tokenizer: {why}")
        return max(self.groups.values(), key=len)

    def _fault(self, pair: Pair) -> tuple[str, int]:
        clean, corrupted = _ids(self.vocabulary, pair.clean), _ids(self.vocabulary, pair.corrupted)
        length = len(clean)
        if length != len(corrupted) or not length:
            return f"clean and corrupted have {length} and {len(corrupted)} tokens ({_excerpt(pair.clean)})", length
        if clean == corrupted:
            return f"clean and corrupted have the same tokens ({_excerpt(pair.clean)})", length
        for slot, places in pair.slots.items():
            if not all(0 <= place < length for place in places):
                return f"slot {slot} is outside the prompt's {length} tokens", length
        for answer in (*pair.answer, *pair.wrong):
            if isinstance(answer, str) and not self._is_one_token(pair.clean, answer):
                return f"{answer!r} is not one token after {_excerpt(pair.clean)}", length
        return "", length

    def _is_one_token(self, prompt: Prompt, answer: str) -> bool:
        # How an answer splits depends on the word before it and on no more: sets of answers are looked up once.
        last = (prompt.text or "The").rpartition(" ")
        key = ("".join(last[1:]), answer)
        if key not in self._single:
            self._single[key] = self.vocabulary.one_token(answer, key[0])
        return self._single[key]


def _ids(vocabulary: Vocabulary, prompt: Prompt) -> tuple[int, ...]:
    return prompt.ids if prompt.ids is not None else tuple(vocabulary.encode(prompt.text or ""))


def _content(prompt: Prompt) -> Any:
    return prompt.text if prompt.text is not None else prompt.ids


def _excerpt(prompt: Prompt) -> str:
    return repr(_content(prompt))[-60:]
