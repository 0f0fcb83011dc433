"""The programs: each is one small circuit, with the prompts that call on it."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch

from interp.truth.language import Head, Lookup, Match, Program, ladder, lookup

BOS = 0
_LETTERS = tuple("abcdefghijklmnop")


def reverse() -> Program:
    """Spell backwards what stands before a separator: the separator's position and one's own say where to look."""
    vocabulary = ("BOS", *_LETTERS, "|")
    separator, length = len(vocabulary) - 1, 12
    mirrored = {(p, s): 2 * s - 1 - p for s in range(length) for p in range(s, length) if 0 < 2 * s - 1 - p < s}
    is_separator = torch.zeros(1, len(vocabulary))
    is_separator[0, separator] = 1.0
    steps = (
        Head("0.1", "separator", "position", (Match("token", is_separator),), torch.eye(length)),
        lookup(1, "mirrored", ("position", "separator"), (length, length, length), mirrored),
        Head("2.3", "said", "token", (Match("position", torch.eye(length), "mirrored"),), torch.eye(len(vocabulary))),
    )

    def answer(ids: Sequence[int]) -> int:
        return ids[2 * ids.index(separator) - len(ids)]

    def prompt(generator: random.Random, at: int) -> list[int]:
        letters = generator.sample(range(1, separator), at - 1)
        return [BOS, *letters, separator, *letters[::-1]][:length]

    def draw(generator: random.Random) -> tuple[list[int], list[int], int]:
        while True:
            clean, corrupted = (prompt(generator, at) for at in generator.sample(range(7, 11), 2))
            if answer(corrupted) not in clean:
                return clean, corrupted, answer(corrupted)

    return Program("reverse", _doc(reverse), vocabulary, length, 3, steps, "said", answer, draw)


def histogram() -> Program:
    """Say how often the last letter has occurred: the share of attention left for BOS is one over the count and one."""
    most, length, size = 4, 10, 4.0
    vocabulary = ("BOS", *_LETTERS[:8], *map(str, range(1, most + 1)))
    same = torch.zeros(len(vocabulary), len(vocabulary))
    same[range(1, 9), range(1, 9)] = same[1:9, BOS] = 1.0
    at_start = torch.zeros(length, 1)
    at_start[0] = size  # counts are then far enough apart to be told in what distractors leave
    counts = range(1, most + 1)
    steps = (
        Head("0.3", "share", "position", (Match("token", same, "token"),), at_start),
        ladder(0, "count", "share", {size / (1 + c): 8 + c for c in counts}, size, len(vocabulary)),
    )

    def answer(ids: Sequence[int]) -> int:
        return 8 + list(ids).count(ids[-1])

    def prompt(generator: random.Random, letter: int, count: int) -> list[int]:
        others = [generator.choice([n for n in range(1, 9) if n != letter]) for _ in range(length - 1 - count)]
        body = [letter] * (count - 1) + others
        generator.shuffle(body)
        return [BOS, *body, letter]

    def draw(generator: random.Random) -> tuple[list[int], list[int], int]:
        letters, numbers = generator.sample(range(1, 9), 2), generator.sample(counts, 2)
        clean, corrupted = (prompt(generator, *both) for both in zip(letters, numbers, strict=True))
        return clean, corrupted, answer(corrupted)

    return Program("histogram", _doc(histogram), vocabulary, length, 3, steps, "count", answer, draw)


def induction() -> Program:
    """Say what came after the last letter before: a previous-token head, and one whose keys are what it writes."""
    vocabulary, length = ("BOS", *_LETTERS), 12
    before = torch.zeros(length, length)
    before[range(1, length), range(length - 1)] = before[0, 0] = 1.0
    every = torch.eye(len(vocabulary))
    steps = (
        Head("0.2", "previous", "token", (Match("position", before, "position"),), every),
        Head("2.1", "said", "token", (Match("previous", every, "token"),), every),
    )

    def answer(ids: Sequence[int]) -> int:
        return ids[list(ids).index(ids[-1]) + 1]

    def draw(generator: random.Random) -> tuple[list[int], list[int], int]:
        while True:
            clean, corrupted = ([BOS, *generator.sample(range(1, len(vocabulary)), length - 2)] for _ in range(2))
            for ids, place in zip((clean, corrupted), generator.sample(range(1, length - 2), 2), strict=True):
                ids.append(ids[place])
            if clean[-1] != corrupted[-1] and answer(corrupted) not in {answer(clean), clean[-1]}:
                return clean, corrupted, answer(corrupted)

    return Program("induction", _doc(induction), vocabulary, length, 3, steps, "said", answer, draw)


def ioi() -> Program:
    """Say which of two names was not repeated: a duplicate-token, an S-inhibition and a name-mover head."""
    words = ("When", "and", "met", ",", "gave", "to")
    names = ("Anne", "Ben", "Carl", "Dora", "Emma", "Finn", "Gus", "Hana", "Ines", "Jack", "Kim", "Lea", "Max", "Nora")
    vocabulary = ("BOS", *words, *names)
    word = {text: n for n, text in enumerate(vocabulary)}
    first, length, slots, repeat = len(words) + 1, 10, (2, 4), 7
    is_name = torch.eye(len(vocabulary))
    is_name[range(first), range(first)] = 0.0
    to_slot = torch.zeros(length, 2)
    to_slot[slots, range(2)] = 1.0
    at_repeat, at_slots = torch.zeros(1, length), torch.zeros(1, length)
    at_repeat[0, repeat] = at_slots[0, slots] = 1.0
    steps = (
        Head(
            "0.0",
            "earlier",
            "position",
            (Match("token", is_name, "token"), Match("position", -torch.eye(length), "position")),
            to_slot,
        ),
        Head("1.2", "inhibited", "earlier", (Match("position", at_repeat),), torch.eye(2)),
        Head(
            "2.1",
            "said",
            "token",
            (Match("position", at_slots), Match("position", -to_slot.T, "inhibited")),
            torch.eye(len(vocabulary)),
        ),
    )

    def answer(ids: Sequence[int]) -> int:
        return next(ids[slot] for slot in slots if ids[slot] != ids[repeat])

    def prompt(who: Sequence[int], repeated: int) -> list[int]:
        texts = ("BOS", "When", None, "and", None, "met", ",", None, "gave", "to")
        named = iter([*who, who[repeated]])
        return [next(named) if text is None else word[text] for text in texts]

    def draw(generator: random.Random) -> tuple[list[int], list[int], int]:
        # The corrupted prompt repeats the name in the other slot. Half way from it to the clean one the mover turns
        # from slot to slot, and what EAP-IG gives embed → 2.1.v at the two cancels: a true edge that it may miss.
        people, repeated = generator.sample(range(first, len(vocabulary)), 4), generator.randrange(2)
        return prompt(people[:2], repeated), prompt(people[2:], 1 - repeated), people[repeated]

    return Program("ioi", _doc(ioi), vocabulary, length, 4, steps, "said", answer, draw)


def _doc(made: object) -> str:
    return (made.__doc__ or "").strip()


PROGRAMS = {"reverse": reverse, "histogram": histogram, "induction": induction, "ioi": ioi}

__all__ = ["PROGRAMS", "Lookup", "histogram", "induction", "ioi", "reverse"]
