"""What an investigation is of: the pairs, the answer and what it is held against, and how a call says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from interp.errors import InputError
from interp.methods._shared import answers
from interp.methods._shared.investigation import twin
from interp.methods._shared.investigation.twin import Candidate
from interp.spec import Pair, Pairs, Prompt, Texts, as_prompt

if TYPE_CHECKING:
    from torch import Tensor

    from interp.engine.model.loaded import LoadedModel

_SAID = (
    "task",
    "n",
    "seed",
    "corruption",
    "pairs",
    "clean",
    "corrupted",
    "answer",
    "wrong",
    "bos",
    "template",
    "model",
)


@dataclass(frozen=True)
class Prediction:
    """One prompt's answer and what it is held against.

    Attributes
    ----------
    target, against
        Token ids.
    margin
        The logit of the one less that of the other.
    given
        Whether the answer was given, and is not the model's own.
    top
        Whether it is the likeliest of all tokens.
    """

    target: int
    against: int
    margin: float
    given: bool
    top: bool


def one_prompt(texts: Texts) -> Prompt:
    """Return the prompt that texts are.

    Raises
    ------
    InputError
        There are several.
    """
    if len(texts.texts) != 1:
        raise InputError(
            f"investigate takes one prompt; {len(texts.texts)} were given: several are pairs, with clean: and "
            "corrupted: lines, or a --task"
        )
    return texts.texts[0]


def prediction(model: LoadedModel, prompt: Prompt, target: Any, against: Any, logits: Tensor) -> Prediction:
    """Return what is explained of a prompt: its given answer, else its likeliest token.

    Raises
    ------
    InputError
        An answer that is not one token, or the same token twice.
    """
    ranked: list[int] = logits.topk(2).indices.tolist()
    taken = answers.one(model, prompt, target, "target")
    right = ranked[0] if taken is None else taken
    held = answers.one(model, prompt, against, "against")
    other = next(index for index in ranked if index != right) if held is None else held
    if other == right:
        raise InputError(f"target and against are the same token, {model.tokens.string(right)!r}; they must differ")
    margin = float(logits[right] - logits[other])
    return Prediction(right, other, margin, taken is not None, right == ranked[0])


def given_twin(model: LoadedModel, prompt: Prompt, text: str, found: Prediction, against: Any) -> Candidate:
    """Return a twin that was typed, measured.

    Raises
    ------
    InputError
        It has another number of tokens than the prompt, or the same ones.
    """
    encoded = model.encode(prompt)
    other = model.encode(replace(as_prompt(text), bos=prompt.bos))
    if len(other.ids) != len(encoded.ids):
        raise InputError(
            f"the prompt has {len(encoded.ids)} tokens and the twin {len(other.ids)}; they must line up: exchange "
            "words for others of as many tokens (%%interp tokens shows them)"
        )
    if other.ids == encoded.ids:
        raise InputError("the twin is the prompt itself; exchange a word in it")
    held = found.against if against is not None else None
    return twin.measured(model, encoded, [("given", other.ids)], found.target, held)[0]


def pair_of(model: LoadedModel, prompt: Prompt, chosen: Candidate, target: int) -> tuple[Pairs, dict[str, Any]]:
    """Return a prompt and its twin as a pair, and what a call says for it."""
    encoded = model.encode(prompt)
    other = twin.text_of(model, prompt, encoded, chosen.ids) or Prompt(ids=chosen.ids)
    if not twin.is_plain(prompt) or other.ids is not None:
        prompt, other = Prompt(ids=encoded.ids), Prompt(ids=chosen.ids)
    right, wrong = (spelled(model, prompt, index) for index in (target, chosen.against[1]))
    said: dict[str, Any] = {"clean": prompt.plain, "corrupted": other.plain, "answer": right, "wrong": wrong}
    if prompt.bos is not None:
        said["bos"] = prompt.bos
    return Pairs((Pair(prompt, other, (right,), (wrong,)),)), said


def said_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a call over pairs says which they are."""
    return {name: arguments[name] for name in _SAID if arguments.get(name) is not None}


def of_prompts(pairs: Pairs, said: Mapping[str, Any]) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Return the clean prompts as a command over prompts takes them, how a call says so, and the answers' arguments.

    Of one pair it is the prompt, and its answers are arguments; several bring their own.
    """
    from interp.methods._shared import prompts

    if len(pairs.pairs) == 1 and "clean" in said:
        only = pairs.pairs[0]
        where = {"prompt": said["clean"], **{name: said[name] for name in ("bos", "template", "model") if name in said}}
        return only.clean, where, {"answer": said.get("answer"), "wrong": said.get("wrong")}
    return prompts.of_pairs(pairs), {name: value for name, value in said.items() if name != "corruption"}, {}


def first_prompt(model: LoadedModel, pairs: Pairs, said: Mapping[str, Any]) -> tuple[Prompt, dict[str, Any]]:
    """Return the first clean prompt, and how a call says it."""
    if len(pairs.pairs) == 1 and "clean" in said:
        prompt, where, _ = of_prompts(pairs, said)
        return prompt, where
    prompt = pairs.pairs[0].clean
    if not twin.is_plain(prompt):
        prompt = Prompt(ids=model.encode(prompt).ids)
    where = {"prompt": prompt.plain} | ({} if prompt.bos is None else {"bos": prompt.bos})
    return prompt, where | ({"model": said["model"]} if "model" in said else {})


def spelled(model: LoadedModel, prompt: Prompt, index: int) -> str | int:
    """Return how a token is typed as an answer: as a word, as it is, or else its id."""
    if model.tokens.tokenizer is None or prompt.text is None:
        return index
    string = model.tokens.string(index)
    for text in (string.strip(), string):
        try:
            if text.strip() and answers.token(model, prompt, text) == index:
                return text
        except InputError:
            continue
    return index
