"""A corrupted twin of a prompt: of many exchanges of words, measured exactly, the one that moves the answer most.

1. Names, numbers and words that come again are exchanged for others of the prompt, and two of them for each other
   everywhere; numbers for others of as many digits, and tokens for their nearest neighbours in the embedding. What is
   put in has the shape of what was there: a capital letter, a space in front, a number; so that the twin has the same
   tokens but for those.
2. Each such prompt is run. With t the answer and w the token that it is held against – where none is given, the
   likeliest after the changed prompt that has the answer's shape and is not t – it moves the answer by (l_t − l_w) of
   the prompt less that of the changed one, l being logits. A word of another kind in the answer's place would be no
   other answer: it is what a broken sentence goes on with.
3. The largest is taken; all are in the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from interp.errors import InputError
from interp.prompts import as_prompt
from interp.spec import Prompt

if TYPE_CHECKING:
    from torch import Tensor

    from interp.engine.model.loaded import LoadedModel
    from interp.engine.model.tokens import Encoded

_NEIGHBOURS = 6  # of each token in the embedding, of its shape
_LOOKED = 400  # neighbours among which those of its shape are looked for
_NUMBERS = 6  # of as many digits, evenly spaced over those that there are

Ids = tuple[int, ...]
Shape = tuple[bool, str, int]


@dataclass(frozen=True)
class Candidate:
    """One prompt with some words exchanged, and how far that moves the answer.

    Attributes
    ----------
    kind
        ``word`` (another word of the prompt), ``exchange`` (two words for each other, everywhere), ``number``,
        ``neighbour`` (in the embedding), or ``given``.
    positions
        Where its tokens are others.
    before, after
        The tokens there, of the prompt and of this one.
    ids
        All its tokens.
    against
        (string, id) of the token that the answer is held against.
    clean, changed
        The answer's logit less that token's, after the prompt and after this one.
    """

    kind: str
    positions: tuple[int, ...]
    before: tuple[str, ...]
    after: tuple[str, ...]
    ids: Ids
    against: tuple[str, int]
    clean: float
    changed: float

    @property
    def moved(self) -> float:
        """How far it moves the logit difference: above 0 is away from the answer."""
        return self.clean - self.changed


@dataclass(frozen=True)
class Found:
    """The candidates, the one that moves the answer most first, and how many more there were."""

    candidates: tuple[Candidate, ...]
    left_out: int


def search(model: LoadedModel, prompt: Prompt, target: int, against: int | None, most: int) -> Found:
    """Return the exchanges of `prompt` by how far each moves the answer, the largest first; at most `most` are run.

    Raises
    ------
    InputError
        Nothing in the prompt can be exchanged.
    """
    encoded = model.encode(prompt)
    every = [(kind, ids) for kind, ids in _changes(model, encoded) if _can_be_typed(model, prompt, encoded, ids)]
    if not every:
        raise InputError(
            "no word of the prompt can be exchanged for another of the same shape: give a twin with --twin, or a pair "
            "with clean: and corrupted: lines"
        )
    found = measured(model, encoded, every[:most], target, against)
    return Found(tuple(sorted(found, key=lambda one: -one.moved)), max(0, len(every) - most))


def measured(
    model: LoadedModel, encoded: Encoded, changed: list[tuple[str, Ids]], target: int, against: int | None
) -> list[Candidate]:
    """Return changed prompts with how far they move the answer, each by its own exact run; some are run together."""
    from interp.engine.model.each import each
    from interp.methods._shared.models import logits_of

    clean = logits_of(model, encoded).float()
    rivals = _rivals(model, target, len(clean))
    found: list[Candidate] = []

    def keep(number: int, held: dict[str, Tensor]) -> None:
        kind, ids = changed[number]
        logits = held["last_logits"][0].float()
        wrong = against
        if wrong is None:
            wrong = next(index for index in logits.argsort(descending=True).tolist() if rivals(index))
        places = tuple(n for n, (a, b) in enumerate(zip(encoded.ids, ids, strict=True)) if a != b)
        found.append(
            Candidate(
                kind=kind,
                positions=places,
                before=tuple(encoded.strings[n] for n in places),
                after=tuple(model.tokens.string(ids[n]) for n in places),
                ids=ids,
                against=(model.tokens.string(wrong), wrong),
                clean=float(clean[target] - clean[wrong]),
                changed=float(logits[target] - logits[wrong]),
            )
        )

    each(model, [replace(encoded, ids=ids) for _, ids in changed], ["last_logits"], keep)
    return found


def _rivals(model: LoadedModel, target: int, count: int) -> Callable[[int], bool]:
    """Return whether a token could be another answer: one of the answer's shape, where there is any."""
    if model.tokens.tokenizer is None:
        return lambda index: index != target
    shape = _shape(model.tokens.string(target))
    there = any(index != target and _shape(model.tokens.string(index)) == shape for index in range(count))
    return lambda index: index != target and (not there or _shape(model.tokens.string(index)) == shape)


def text_of(model: LoadedModel, prompt: Prompt, encoded: Encoded, ids: Ids) -> Prompt | None:
    """Return the prompt that is cut into `ids`: a text where `prompt` is one; ``None`` where no text is."""
    if not is_plain(prompt):
        return Prompt(ids=ids)
    tokenizer: Any = model.tokens.tokenizer
    front = next((n for n in range(len(encoded.ids)) if not _special(model, encoded.ids[n])), 0)
    text = str(tokenizer.decode(list(ids[front:]), clean_up_tokenization_spaces=False))
    try:
        found = replace(as_prompt(text), bos=prompt.bos)
        return found if found.text == text and model.tokens.encode(found).ids == ids else None
    except InputError:
        return None


def is_plain(prompt: Prompt) -> bool:
    """Whether a prompt is a text that is given to a command as it is."""
    if prompt.text is None or prompt.second is not None or prompt.roles or prompt.truncate or prompt.marks:
        return False
    return as_prompt(prompt.text) == replace(prompt, bos=None)


def _can_be_typed(model: LoadedModel, prompt: Prompt, encoded: Encoded, ids: Ids) -> bool:
    return text_of(model, prompt, encoded, ids) is not None


def _changes(model: LoadedModel, encoded: Encoded) -> Iterator[tuple[str, Ids]]:
    """Yield changed prompts, each once, in turns of every kind, so that a limit leaves some of all."""
    words = _words(model, encoded)
    kinds = (_other_words(encoded, words), _exchanges(encoded, words), *_of_vocabulary(model, encoded, words))
    seen = {encoded.ids}
    for turn in zip_longest(*kinds):
        for one in turn:
            if one is not None and one[1] not in seen:
                seen.add(one[1])
                yield one


@dataclass(frozen=True)
class _Word:
    start: int
    ids: Ids
    shape: Shape


def _words(model: LoadedModel, encoded: Encoded) -> list[_Word]:
    """Return the prompt's words and numbers as runs of tokens, without special tokens and punctuation."""
    if model.tokens.tokenizer is None:
        return [_Word(n, (index,), (False, "", 0)) for n, index in enumerate(encoded.ids)]
    starts: list[int] = []
    strings = encoded.strings
    for n, string in enumerate(strings):
        inner = bool(n) and string[:1].isalnum() and strings[n - 1][-1:].isalpha() and string[:1].isalpha()
        if not inner:
            starts.append(n)
    ends = [*starts[1:], len(strings)]
    found: list[_Word] = []
    for start, end in zip(starts, ends, strict=True):
        shape = _shape("".join(strings[start:end]))
        if shape is not None and not _special(model, encoded.ids[start]):
            found.append(_Word(start, encoded.ids[start:end], shape))
    return found


def _special(model: LoadedModel, index: int) -> bool:
    return index in getattr(model.tokens.tokenizer, "all_special_ids", ())


def _shape(text: str) -> Shape | None:
    """Return what a word looks like; ``None`` for what is none.

    Examples
    --------
    >>> _shape(" Mary") == _shape(" John"), _shape(" 17") == _shape(" 234"), _shape(",")
    (True, False, None)
    """
    bare = text[1:] if text.startswith(" ") else text
    if bare.isdecimal():
        return text != bare, "number", len(bare)
    if not bare.isalpha():
        return None
    return text != bare, "name" if bare[0].isupper() else "word", 0


def _with(ids: Ids, start: int, put: Ids) -> Ids:
    return (*ids[:start], *put, *ids[start + len(put) :])


def _alike(words: list[_Word], one: _Word, other: _Word) -> bool:
    """Whether one word of a prompt can stand for another: both names or numbers, or both there more than once."""
    if other.ids == one.ids or len(other.ids) != len(one.ids) or other.shape != one.shape:
        return False
    again = all(sum(word.ids == own.ids for word in words) > 1 for own in (one, other))
    return again or one.shape[1] != "word"


def _other_words(encoded: Encoded, words: list[_Word]) -> Iterator[tuple[str, Ids]]:
    """Yield the prompt with one word in place of another of as many tokens and the same shape."""
    for one in reversed(words):
        for other in words:
            if _alike(words, one, other):
                yield "word", _with(encoded.ids, one.start, other.ids)


def _exchanges(encoded: Encoded, words: list[_Word]) -> Iterator[tuple[str, Ids]]:
    """Yield the prompt with two words exchanged for each other, wherever they stand."""
    for n, one in enumerate(words):
        for other in words[:n]:
            if _alike(words, one, other):
                ids = encoded.ids
                for word in words:
                    if word.ids in {one.ids, other.ids}:
                        ids = _with(ids, word.start, other.ids if word.ids == one.ids else one.ids)
                yield "exchange", ids


def _of_vocabulary(
    model: LoadedModel, encoded: Encoded, words: list[_Word]
) -> tuple[Iterator[tuple[str, Ids]], Iterator[tuple[str, Ids]]]:
    """Return the prompt with single tokens of the vocabulary: numbers of as many digits, and nearest neighbours."""
    single = [word for word in words if len(word.ids) == 1]
    if single and single[-1].start == len(encoded.ids) - 1 and model.tokens.tokenizer is not None:
        # What the last word asks for is another question, unless it is a name, a number or comes again.
        last = single[-1]
        if last.shape[1] == "word" and sum(word.ids == last.ids for word in words) == 1:
            single = single[:-1]
    nearest = _neighbours(model, [word.ids[0] for word in single], [word.shape for word in single])
    numbers = _numbers(model) if any(word.shape[1] == "number" for word in single) else {}

    def put(kind: str, options: list[list[int]]) -> Iterator[tuple[str, Ids]]:
        for rank in range(max(map(len, options), default=0)):
            for word, own in zip(reversed(single), reversed(options), strict=True):
                if rank < len(own):
                    yield kind, _with(encoded.ids, word.start, (own[rank],))
                    again = tuple(own[rank] if index == word.ids[0] else index for index in encoded.ids)
                    yield kind, again  # wherever the word stands

    digits = [numbers.get(word.shape, []) for word in single]
    return put("number", digits), put("neighbour", nearest)


def _numbers(model: LoadedModel) -> dict[Shape, list[int]]:
    """Return some of the numbers of the vocabulary that are one token, by shape."""
    found: dict[Shape, list[int]] = {}
    for index in range(min(model.geometry.d_vocab, len(model.tokens.tokenizer))):
        shape = _shape(model.tokens.string(index))
        if shape is not None and shape[1] == "number":
            found.setdefault(shape, []).append(index)
    for shape, own in found.items():
        own.sort(key=lambda index: int(model.tokens.string(index)))
        step = max(1, len(own) // _NUMBERS)
        found[shape] = own[step // 2 :: step]
    return found


def _neighbours(model: LoadedModel, ids: list[int], shapes: list[Shape]) -> list[list[int]]:
    """Return the nearest tokens of the same shape by the cosine of their embeddings, nearest first."""
    from torch.nn import functional

    bare: Any = model.hf_model
    weight = bare.get_input_embeddings().weight
    if not ids or weight.device.type == "meta":  # its weights are in their files
        return [[] for _ in ids]
    rows = functional.normalize(weight.detach()[: model.geometry.d_vocab].float(), dim=-1)
    near = (rows[ids] @ rows.T).topk(min(_LOOKED, len(rows)), dim=-1).indices.tolist()
    found: list[list[int]] = []
    for own, shape, listed in zip(ids, shapes, near, strict=True):
        fits: list[int] = []
        for index in listed:
            alike = model.tokens.tokenizer is None or _shape(model.tokens.string(index)) == shape
            if index != own and alike and not _special(model, index):
                fits.append(index)
            if len(fits) == _NEIGHBOURS:
                break
        found.append(fits)
    return found
