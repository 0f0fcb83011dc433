"""Gender bias: the pronoun that a profession brings to mind."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Literal

from interp.errors import InputError
from interp.spec import Pair
from interp.tasks import Vocabulary, combinations, make_pair, task
from interp.tasks._words import HE_JOBS, SHE_JOBS

_VERBS = {
    "that": ["said", "yelled", "whispered", "wanted", "wished", "thought", "knew", "hoped", "claimed"],
    "because": ["ate", "ran", "drove", "slept", "cried", "laughed", "left", "stayed", "stopped"],
}
_GENDERED = ["woman", "man"]
_NEUTRAL = ["person", "human", "student"]
Words = Sequence[str]


@task("gender-bias")
def gender_bias(
    vocabulary: Vocabulary,
    rng: random.Random,
    n: int,  # noqa: ARG001
    *,
    corruption: Literal["opposite", "gendered", "neutral"] = "opposite",
) -> Iterator[Pair | None]:
    """Gender bias: "The doctor said that" → " he" rather than " she".

    After Vig et al. (2020). The answer is the stereotype's pronoun, so a positive logit difference is bias, not skill.
    Slots: profession, verb, end. Professions of the commonest number of tokens are used.

    Parameters
    ----------
    vocabulary, rng, n
        The tokenizer, the source of chance, and how many pairs are wanted.
    corruption
        What stands in the profession's place: "opposite", one of the other stereotype; "gendered", woman or man,
        against the stereotype; "neutral", person (else human, else student, where its number of tokens does not fit).

    Yields
    ------
    Pair
        Alternately a profession thought of as his and one thought of as hers.
    """
    missing = [word for word in ("he", "she") if not vocabulary.one_token(f" {word}")]
    if missing:
        raise InputError(
            f"task gender-bias needs he and she as one token each, and this tokenizer splits {' and '.join(missing)}; "
            "load a model whose tokenizer knows them"
        )
    by_size: dict[int, list[str]] = {}
    for word in (*HE_JOBS, *SHE_JOBS, *_GENDERED, *_NEUTRAL):
        by_size.setdefault(len(vocabulary.continuation("The", f" {word}")), []).append(word)
    by_size.pop(0, None)
    # The most professions of one number of tokens that have something of that number to stand against them.
    his, hers, for_his, for_hers = max(
        (_sides(words, corruption) for words in by_size.values()),
        key=lambda sides: bool(all(sides)) * (len(sides[0]) + len(sides[1])),
        default=((), (), (), ()),
    )
    if not (his and hers and for_his and for_hers):
        raise InputError(
            f"task gender-bias with {corruption} needs professions of both stereotypes, and against them words, all of "
            "one number of tokens; this tokenizer has none; try another corruption"
        )
    verbs = set(vocabulary.alike([verb for group in _VERBS.values() for verb in group]))
    phrases = [(verb, link) for link, group in _VERBS.items() for verb in group if verb in verbs]
    streams = combinations(rng, his, phrases, for_his), combinations(rng, hers, phrases, for_hers)
    for drawn in zip(*streams, strict=False):
        for (job, (verb, link), other), (answer, wrong) in zip(drawn, ((" he", " she"), (" she", " he")), strict=True):
            words = {"profession": job, "verb": verb}
            template = f"The {{profession}} {{verb}} {link}"
            yield make_pair(vocabulary, template, words, words | {"profession": other}, (answer,), (wrong,))


def _sides(words: Words, corruption: str) -> tuple[Words, Words, Words, Words]:
    """Return his and her professions among `words`, and what stands against either."""
    his, hers = ([job for job in jobs if job in words] for jobs in (HE_JOBS, SHE_JOBS))
    if corruption == "opposite":
        return his, hers, hers, his
    if corruption == "gendered":
        woman, man = ([word] if word in words else [] for word in _GENDERED)
        return his, hers, woman, man
    neutral = [word for word in _NEUTRAL if word in words][:1]
    return his, hers, neutral, neutral
