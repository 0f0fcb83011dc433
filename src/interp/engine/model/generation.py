"""Text token by token, greedy or sampled, with interventions on the prompt, on what is generated, or on both."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from interp.engine import memory
from interp.engine.model.changes import AT, LOCAL, Changes, is_local
from interp.engine.model.interventions import composed, functions_of, is_numeric
from interp.engine.model.sampling import Sampling
from interp.errors import InputError, printable
from interp.spec import Intervention

if TYPE_CHECKING:
    from interp.engine.model.hooks import Hook
    from interp.engine.model.loaded import LoadedModel


# What Hugging Face's search does to logits before it takes the largest → the value at which it does nothing.
_SETTINGS: dict[str, Any] = {
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "min_length": 0,
    "min_new_tokens": 0,
    "guidance_scale": 1.0,
} | dict.fromkeys(
    (
        "bad_words_ids",
        "begin_suppress_tokens",
        "exponential_decay_length_penalty",
        "forced_bos_token_id",
        "forced_eos_token_id",
        "sequence_bias",
        "suppress_tokens",
    )
)

OnToken = Callable[[list[int]], None]


class Watch(Protocol):
    """What looks at the runs that write a text: by functions on hooks, and at the end of each run."""

    def functions(self) -> Mapping[str, Hook]: ...
    def step(self, length: int, logits: Tensor) -> None: ...


@dataclass
class Generated:
    """What was generated.

    Attributes
    ----------
    ids
        The new tokens; the one that ended the text is the last of them.
    logprobs
        The log-probability of each in the model as it was changed, at temperature 1, in nats.
    first
        The logits after the prompt, ``[d_vocab]``.
    stopped
        Why it ended: ``"length"``, ``"eos"``, ``"window"``, or what went wrong.
    interrupt
        The interrupt that ended it, to be raised again when the result is in order.
    """

    ids: list[int] = field(default_factory=list[int])
    logprobs: list[float] = field(default_factory=list[float])
    first: Tensor | None = None
    stopped: str = ""
    interrupt: BaseException | None = None

    @property
    def whole(self) -> bool:
        """Whether nothing went wrong."""
        return self.stopped in {"length", "eos", "window"}


def check(model: LoadedModel, prompt: int, n: int, sampling: Sampling, changes: Changes, *, samples: int = 1) -> None:
    """Refuse what cannot be generated, before anything runs.

    Raises
    ------
    InputError
        A bidirectional model, no language-model head, a number of tokens below 1, what `Sampling.check` refuses, or an
        intervention on what is not there.
    """
    if not model.geometry.causal:
        raise InputError(
            f"{model.name} reads in both directions and generates nothing; load a causal model, or predict"
        )
    if model.lacks_head:
        raise InputError(f"the checkpoint of {model.name} holds no language-model head: it generates nothing")
    if model.geometry.d_vocab_out > model.geometry.d_vocab:
        g = model.geometry
        raise InputError(
            f"{model.name} predicts {g.d_vocab_out} tokens and reads {g.d_vocab}: it cannot go on with what it predicts"
        )
    if n < 1:
        raise InputError(f"--n {n} generates nothing; use 1 or more")
    sampling.check(samples)
    needed, free = _bytes_of(model, prompt, n, samples), memory.free_bytes(model.device)
    if needed > free:
        texts = f", {samples} times" if samples > 1 else ""
        less = "ask for fewer samples" if _bytes_of(model, prompt, n) <= free else "shorten the prompt"
        raise InputError(
            f"this needs {memory.readable(needed)} for {prompt} tokens and {n} more{texts}, and "
            f"{memory.readable(free)} is free on {model.device}; {less}, or free some with %interp clear"
        )
    if changes.at not in AT:
        raise InputError(f"--at {changes.at!r} is not one of {', '.join(AT)}")
    for one in changes.interventions:
        if not isinstance(one, Intervention):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(f"interventions are interp.Intervention objects; {type(one).__name__} is none")
        if one.mode != "function" and one.value is not None and not is_numeric(one.value):
            raise InputError(f"{one.mode} takes a number, an array or a tensor; {type(one.value).__name__} is none")
    functions_of(model, changes.interventions, prompt + n - 1)
    for one in changes.interventions:
        listed = one.mode in LOCAL and one.site.name != "pattern" and not is_local(one)
        if listed and one.position is None and changes.at != "prompt":
            raise InputError(
                f"a value with an axis of positions fits the prompt alone; use at='prompt' for {one.site.name}"
            )


def _bytes_of(model: LoadedModel, prompt: int, n: int, samples: int = 1) -> int:
    """Return the bytes of the keys and values that are kept and of the largest layer's work on the prompt."""
    g = model.geometry
    kept = 2 * g.n_layers * g.n_kv_heads * g.d_head * min(prompt + n, g.n_ctx)
    scores = 3 * g.n_heads * prompt * prompt
    return (scores + samples * (kept + 3 * g.d_vocab_out)) * next(model.hf_model.parameters()).element_size()


def generate(
    model: LoadedModel,
    prompt: Sequence[int],
    n: int,
    *,
    sampling: Sampling | None = None,
    samples: int = 1,
    changes: Changes | None = None,
    watch: Watch | None = None,
    turn_end: int | None = None,
    on_token: OnToken = lambda ids: None,  # noqa: ARG005
) -> list[Generated]:
    """Generate texts of up to `n` tokens; what `check` refuses is not checked here.

    Keys and values of what was read are kept, unless a change can alter those of earlier positions as the text grows
    (a function, noise, a mean over positions, an attention pattern, hooks of the user's own): then the whole text is
    read anew for every token. The last token is not read, so that a full window still predicts one.

    Parameters
    ----------
    prompt
        Token ids.
    sampling
        How tokens are drawn; the likeliest ones when not given.
    samples
        How many texts, which are read side by side. The k-th is the one that its own seed, that of `sampling` and k
        more, gives alone.
    watch
        Looks at every run, which none is spared then by the store; of one text only.
    turn_end
        A token that ends a text beside the model's own: that of a turn in a chat, which `Tokens.turn_end` gives.
    on_token
        Called after every step with all new tokens of a text that went on.

    Examples
    --------
    >>> generate(model, model.tokens.encode(interp.Prompt("The capital of France is")).ids, 1)[0].ids
    [975]
    """
    texts = [Generated() for _ in range(samples)]
    changes, sampling = changes or Changes(), sampling or Sampling()
    going = dict(enumerate(texts))
    try:
        ends = end_ids(model) | ({turn_end} if turn_end is not None else set())
        _extend(model, prompt, n, sampling, _Reader(model, len(prompt), changes, watch), on_token, going, ends)
    except KeyboardInterrupt as interrupt:
        for made in going.values():
            made.stopped, made.interrupt = f"interrupted after {len(made.ids)} of {n} tokens", interrupt
    except InputError:
        raise
    except Exception as error:
        reason = printable(f"{type(error).__name__}: {error}".partition("\n")[0])
        out_of_memory = memory.is_out_of_memory(error)
        any_ids = any(made.ids for made in texts)
        if not any_ids or not (out_of_memory or any(one.mode == "function" for one in changes.interventions)):
            raise
        traceback.clear_frames(error.__traceback__)
        what = "out of memory" if out_of_memory else f"an intervention failed ({reason})"
        for made in going.values():
            made.stopped = f"{what} after {len(made.ids)} of {n} tokens"
    return texts


def _extend(
    model: LoadedModel,
    prompt: Sequence[int],
    n: int,
    sampling: Sampling,
    reader: _Reader,
    on_token: OnToken,
    going: dict[int, Generated],
    ends: frozenset[int],
) -> None:
    """Extend texts, by their numbers, up to a token of `ends`, and take out of `going` those that ended."""
    sources = sampling.sources(len(going))
    room = model.geometry.n_ctx - len(prompt) + 1
    for _ in range(min(n, room)):
        logits = reader.next({number: [*prompt, *made.ids] for number, made in going.items()})
        logits = logits if logits.dtype == torch.float64 else logits.float()
        lost = logits.isnan().any(-1).tolist()
        tokens = sampling.next(logits.nan_to_num(), [sources[number] for number in going])
        taken = logits.log_softmax(-1).gather(-1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0].tolist()
        ended: list[int] = []
        for row, (number, made) in enumerate(going.items()):
            if made.first is None:
                made.first = logits[row]
            if lost[row]:
                made.stopped = f"the logits are NaN after {len(made.ids)} of {n} tokens"
                ended.append(number)
                continue
            made.logprobs.append(taken[row])
            made.ids.append(tokens[row])
            if tokens[row] in ends:
                ended.append(number)
        on = [made for number, made in going.items() if number not in ended]
        if on or not all(lost):
            on_token((on or [made for row, made in enumerate(going.values()) if not lost[row]])[0].ids)
        for number in ended:
            made = going.pop(number)
            made.stopped = made.stopped or "eos"
        if not going:
            return
    for made in going.values():
        made.stopped = "length" if len(made.ids) == n else "window"


class _Reader:
    """The logits of the next token of growing texts, which all begin with one prompt."""

    def __init__(self, model: LoadedModel, prompt: int, changes: Changes, watch: Watch | None) -> None:
        self.model, self.prompt, self.changes, self.watch = model, prompt, changes, watch
        self.name = changes.signature(model, prompt)
        hf: Any = model.hf_model
        takes_past = "past_key_values" in inspect.signature(hf.forward).parameters
        self.past: Any = None
        if takes_past and changes.stepwise and not model.altered():
            from transformers import DynamicCache

            self.past = DynamicCache(config=hf.config)
        self.read = 0
        self.rows: list[int] = []  # the texts whose keys and values the cache holds; empty while one row is all texts'

    def next(self, texts: Mapping[int, list[int]]) -> Tensor:
        """Return the logits after each text, ``[text, d_vocab]``, from the store where it has them.

        As long as all texts are the same one they are read once; what several of their own have is not stored.
        """
        first, *others = texts.values()
        if all(ids == first for ids in others) and not self.rows:
            return self._of_one(first).expand(len(texts), -1)
        if self.past is None:  # what reads whole texts may look at all rows
            logits = torch.stack([self._read([ids], 0)[0] for ids in texts.values()])
        else:
            self._select(list(texts))
            logits = self._read(list(texts.values()), self.read)
        self.read = len(first)
        return logits

    def _of_one(self, ids: list[int]) -> Tensor:
        held = self.model.recall(ids, [self.name]) if self.name and self.watch is None else None
        if held is not None:
            return held[self.name]
        logits = self._read([ids], self.read if self.past is not None else 0)[0].clone()
        self.read = len(ids)
        if self.watch is not None:
            self.watch.step(len(ids), logits)
        if self.name:
            self.model.keep(ids, {self.name: logits})
        return logits

    def _select(self, texts: list[int]) -> None:
        """Leave in the cache the keys and values of these texts, in their order."""
        if self.read and self.rows != texts:
            rows = [self.rows.index(number) for number in texts] if self.rows else [0] * len(texts)
            self.past.reorder_cache(torch.tensor(rows, device=self.model.device))
        self.rows = texts

    def _read(self, rows: list[list[int]], start: int) -> Tensor:
        stop = len(rows[0])
        functions = self.changes.functions(self.model, self.prompt, start, stop)
        for name, look in ({} if self.watch is None else self.watch.functions()).items():
            functions[name] = composed([functions[name], look]) if name in functions else look
        logits = self.model.forward([ids[start:] for ids in rows], functions, past=self.past)[:, -1]
        if why := self.model.altered():
            self.model.note(f"hooked: {why}")
        else:
            self.model.note("hooked: interventions" if self.changes.interventions else "forward")
        return logits


def end_ids(model: LoadedModel) -> frozenset[int]:
    """Return the tokens that end a text: those of the model's generation settings, else the tokenizer's."""
    settings = getattr(model.hf_model, "generation_config", None)
    ends = getattr(settings, "eos_token_id", None)
    if ends is None:
        ends = getattr(model.tokens.tokenizer, "eos_token_id", None)
    if ends is None:
        return frozenset()
    return frozenset(ends if isinstance(ends, list | tuple) else [ends])


def settings(model: LoadedModel) -> dict[str, Any]:
    """Return those of the model's own generation settings that change what Hugging Face's greedy search takes.

    Nothing here applies them: what is generated is what the logits say.
    """
    held = getattr(model.hf_model, "generation_config", None)
    found = {name: getattr(held, name, None) for name in _SETTINGS}
    return {name: value for name, value in found.items() if value is not None and value not in (_SETTINGS[name], [])}


def decoded(model: LoadedModel, ids: Sequence[int]) -> str:
    """Return tokens as one text, special ones spelled out; a model without a tokenizer has ids for words."""
    tokenizer: Any = model.tokens.tokenizer
    if tokenizer is None:
        return " ".join(map(str, ids))
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def written(model: LoadedModel, made: Generated, *, turn: bool) -> str:
    """Return what was generated as one text; of a `turn` in a chat without the token that ended it."""
    return decoded(model, made.ids[:-1] if turn and made.stopped == "eos" else made.ids)


def logprobs(model: LoadedModel, prompt: Sequence[int], new: Sequence[int]) -> list[float]:
    """Return the log-probability that the model as it is gives each of the `new` tokens after `prompt`, in nats."""
    if not new:
        return []
    ids = [*prompt, *new][:-1]
    name = f"logprobs:{len(prompt)}:{new[-1]}"
    held = model.recall(ids, [name])
    if held is None:
        logits = model.forward([ids], {}, last_only=False)[0, len(prompt) - 1 :]
        logs = (logits if logits.dtype == torch.float64 else logits.float()).log_softmax(-1)
        held = {name: logs.gather(-1, torch.tensor(new, device=logs.device)[:, None])[:, 0].clone()}
        model.keep(ids, held)
    return held[name].tolist()
