"""What an answer means: the one token that a word, or an id, stands for where it goes on after a prompt.

1. A token id is that id.
2. A text that begins with a space is taken letter by letter.
3. Any other word after running text begins a new word: "John" is the token of " John", where that is one token.
4. Otherwise it is taken letter by letter: behind an open bracket or quote, after a space, as punctuation, in a task's
   own pairs, or because only so it is one token.

What the vocabulary lacks, or cuts into several tokens, is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from interp.errors import InputError
from interp.spec import Prompt, as_answers

if TYPE_CHECKING:
    from torch import Tensor

    from interp.engine.model.loaded import LoadedModel

# What a text can end in for a word to follow after a space; letters and digits besides.
_ENDS = frozenset(".,;:!?)]}>%”’…。、")


def token(
    model: LoadedModel,
    prompt: Prompt,
    given: str | int,
    which: str = "answer",
    where: str = "",
    *,
    literal: bool = False,
    whole: bool = False,
) -> int:
    """Return the token id that `given` means after `prompt`; `which` and `where` are for the message.

    With `whole`, the message says which metrics take answers of several tokens.

    The taken token is written into the result's ``tokens_taken``.

    Raises
    ------
    InputError
        It is empty, outside the vocabulary, or several tokens; how they are cut and what would be one is said.
    """
    found = _token(model, prompt, given, which, where, literal, whole)
    model.took(str(given), model.tokens.string(found), found)
    return found


def tokens(
    model: LoadedModel,
    prompt: Prompt,
    given: Sequence[str | int],
    which: str = "answer",
    where: str = "",
    *,
    literal: bool = False,
    whole: bool = False,
) -> tuple[int, ...]:
    """Return the ids of a set of answers, each once, as `token` takes them."""
    return tuple(dict.fromkeys(token(model, prompt, one, which, where, literal=literal, whole=whole) for one in given))


def one(model: LoadedModel, prompt: Prompt, given: object, which: str) -> int | None:
    """Return the id of the only answer in `given`, or ``None`` for none.

    Raises
    ------
    InputError
        There are several, or `token` refuses it.
    """
    listed = as_answers(given, which)
    if len(listed) > 1:
        raise InputError(f"{which} is one token here, and {len(listed)} were given; name one")
    return token(model, prompt, listed[0], which) if listed else None


def whole(model: LoadedModel, prompt: Prompt, given: object, which: str = "answer") -> tuple[int, ...]:
    """Return the token ids of an answer that may be several tokens, cut where it goes on after `prompt`.

    Whether it begins a new word is settled as for a single token. Each token is written into the result's
    ``tokens_taken``.

    Raises
    ------
    InputError
        There are several answers, it is empty, or the vocabulary lacks it.
    """
    listed = as_answers(given, which)
    if len(listed) != 1:
        raise InputError(f"{which} is one text here, and {len(listed)} were given; give one")
    return _whole(model, prompt, listed[0], which, "", literal=False)


def wholes(
    model: LoadedModel,
    prompt: Prompt,
    given: Sequence[str | int],
    which: str = "answer",
    where: str = "",
    *,
    literal: bool = False,
) -> tuple[tuple[int, ...], ...]:
    """Return the token ids of a set of answers, each once, as `whole` takes them.

    Raises
    ------
    InputError
        What `whole` refuses, or an answer that begins with all of another: their probabilities do not add up.
    """
    found = tuple(dict.fromkeys(_whole(model, prompt, one, which, where, literal=literal) for one in given))
    for one in found:
        for other in found:
            if one != other and one[: len(other)] == other:
                text = "".join(map(model.tokens.string, other))
                raise InputError(f"{where}one {which} begins with all of another, {text!r}; leave the longer one out")
    return found


def _whole(
    model: LoadedModel, prompt: Prompt, given: str | int, which: str, where: str, *, literal: bool
) -> tuple[int, ...]:
    found = _pieces(model, prompt, given, which, where, literal=literal)
    if not found:
        raise InputError(f"{where}the {which} {given!r} has no tokens; type a word, such as {which}: John")
    outside = next((index for index in found if not 0 <= index < model.geometry.d_vocab_out), None)
    if outside is not None:
        raise InputError(
            f"{where}{which} {given!r} has the token id {outside}; the model has logits of "
            f"0–{model.geometry.d_vocab_out - 1}"
        )
    for index in found:
        model.took(str(given), model.tokens.string(index), index)
    return tuple(found)


def _token(
    model: LoadedModel, prompt: Prompt, given: str | int, which: str, where: str, literal: bool, whole: bool
) -> int:
    held, logits = model.tokens, model.geometry.d_vocab_out
    found = _pieces(model, prompt, given, which, where, literal=literal)
    if len(found) == 1:
        if found[0] >= logits:
            raise InputError(f"{where}{which} {given!r} is id {found[0]}; the model has logits of 0–{logits - 1}")
        return found[0]
    given = str(given)
    split = "|".join(held.string(index) for index in found)
    spelled = f" {given.strip()}"
    alone = spelled != given and len(continued(model, before(model, prompt), spelled)) == 1
    hint = (
        f"; {spelled!r} with a space in front is one"
        if alone
        else f"; or take its first token, {held.string(found[0])!r}"
        if found
        else ""
    )
    taken = "; --metric logprob measures all of it" if whole else ""
    raise InputError(f"{where}{which} {given!r} is {len(found)} tokens ({split}), and must be one{hint}{taken}")


def _pieces(
    model: LoadedModel, prompt: Prompt, given: str | int, which: str, where: str, *, literal: bool
) -> list[int]:
    """Return the token ids that an answer is cut into after `prompt`."""
    held, logits = model.tokens, model.geometry.d_vocab_out
    if isinstance(given, str) and held.tokenizer is None:
        if not given.strip().isdecimal():
            raise InputError(f"{where}this model has no tokenizer; give the {which} as a token id, such as 5")
        given = int(given)
    if isinstance(given, int):
        if not 0 <= given < logits:
            raise InputError(f"{where}{which} {given} is outside the vocabulary; ids are 0–{logits - 1}")
        return [given]
    if not given.strip():
        raise InputError(f"{where}the {which} is empty; type a word, such as {which}: John")
    text = before(model, prompt)
    spaced = [] if literal or not begins_a_word(text, given) else continued(model, text, f" {given}")
    plain = continued(model, text, given)
    found = spaced if len(spaced) == 1 or (spaced and len(plain) != 1) else plain
    unknown: Any = getattr(held.tokenizer, "unk_token_id", None)
    if unknown is not None and unknown in found and given.strip() != getattr(held.tokenizer, "unk_token", ""):
        raise InputError(
            f"{where}{which} {given!r} is not in the vocabulary of {model.name}; name a word that it has, or an id"
        )
    return found


def begins_a_word(text: str, answer: str) -> bool:
    """Whether `answer`, typed without a space, is a new word after `text`.

    Examples
    --------
    >>> begins_a_word("gave a drink to", "John"), begins_a_word("He said (", "John"), begins_a_word("from 17", "32")
    (True, False, True)
    """
    if not text or not answer[:1].isalnum():
        return False
    return text[-1].isalnum() or text[-1] in _ENDS


def before(model: LoadedModel, prompt: Prompt) -> str:
    """Return a prompt's text; that of its ids, where it was given as ids."""
    if prompt.text is not None or model.tokens.tokenizer is None:
        return prompt.text or "" if prompt.second is None else f"{prompt.text} {prompt.second}"
    return str(model.tokens.tokenizer.decode(list(prompt.ids or ()), skip_special_tokens=True))


def continued(model: LoadedModel, text: str, answer: str) -> list[int]:
    """Return the token ids of `answer` where it goes on after `text`.

    Where it changes how the text itself is cut, they are those after a text of one letter or line.
    """
    for front in (text, "a" if answer[:1].isspace() else "\n"):
        start, whole = pieces(model, front), pieces(model, front + answer)
        if front and whole[: len(start)] == start:
            return whole[len(start) :]
    return pieces(model, answer)


def pieces(model: LoadedModel, text: str) -> list[int]:
    """Return the token ids of a piece of text, without BOS.

    Raises
    ------
    InputError
        The model has no tokenizer.
    """
    if model.tokens.tokenizer is None:
        raise InputError("this model has no tokenizer; give answers as token ids")
    return list(model.tokens.tokenizer(text, add_special_tokens=False)["input_ids"])


def likelier(model: LoadedModel, taken: int, logits: Tensor) -> tuple[str, ...]:
    """Return a note where the other spelling of a token, with or without its space, has the larger logit.

    Parameters
    ----------
    taken
        The token's id.
    logits
        ``[d_vocab]``, of the prediction in question.
    """
    if model.tokens.tokenizer is None:
        return ()
    string = model.tokens.string(taken)
    other = string[1:] if string.startswith(" ") else f" {string}"
    spelled = continued(model, "", other) if other.strip() else []
    if len(spelled) != 1 or spelled[0] >= len(logits) or model.tokens.string(spelled[0]) != other:
        return ()
    if float(logits[spelled[0]]) <= float(logits[taken]):
        return ()
    return (f"{other!r} is likelier than {string!r} on the prompt; was that the answer you meant?",)
