"""Text token by token, greedy or sampled, with interventions on the prompt, on what is generated, or on both."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
import xxhash
from torch import Tensor

from interp.engine import memory
from interp.engine.model.hooks import Hook
from interp.engine.model.interventions import composed, functions_of, loaded_set
from interp.errors import InputError, printable
from interp.sites import FEATURES
from interp.spec import Intervention

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint

    from interp.engine.model.loaded import LoadedModel

AT = ("all", "prompt", "new")
_COLDEST = 1e-4  # a logit divided by less is no number any more
# Modes whose change of a position depends on that position alone.
_LOCAL = frozenset({"replace", "zero", "add", "scale"})

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


@dataclass(frozen=True)
class Changes:
    """Interventions on a text that grows, and where in it they apply.

    Attributes
    ----------
    interventions
        As `LoadedModel.run` takes them. One that names a position applies there alone, whatever `at` says.
    at
        ``"prompt"``: at the prompt's positions; ``"new"``: at those of generated tokens, once they are read, so that
        the first of them, which the prompt's last position predicts, is as without; ``"all"``: at both. A function is
        given the activation at these positions.
    """

    interventions: tuple[Intervention, ...] = ()
    at: str = "all"

    def functions(self, model: LoadedModel, prompt: int, start: int, stop: int) -> dict[str, Hook]:
        """Return hook name → function for a run that reads the positions from `start` to `stop`.

        Parameters
        ----------
        prompt
            How many tokens the prompt has.
        """
        first, last = {"prompt": (0, prompt), "new": (prompt, stop)}.get(self.at, (0, stop))
        first, last = max(first, start) - start, min(last, stop) - start
        found: dict[str, list[Hook]] = {}
        features: list[Intervention] = []
        for one in self.interventions:
            at = None if one.position is None else one.position - start
            where = slice(first, last) if at is None else slice(at, at + 1)
            if not 0 <= where.start < min(where.stop, stop - start):
                continue
            if one.site.kind is FEATURES:  # those of one dictionary are made together
                features.append(replace(one, position=at))
                continue
            alone = replace(one, position=None)
            for name, function in functions_of(model, [alone], stop - start).items():
                found.setdefault(name, []).append(_within(function, where, one.site.kind.heads_first))
        for name, function in functions_of(model, features, stop - start, slice(first, last)).items():
            found.setdefault(name, []).append(function)
        return {name: composed(functions) for name, functions in found.items()}

    @property
    def stepwise(self) -> bool:
        """Whether a position's change is the same however the text goes on, so that its keys and values stay."""
        return all(_is_local(one) for one in self.interventions)

    def signature(self, model: LoadedModel, prompt: int) -> str:
        """Return a name for the changes that holds all that they depend on; an empty string where there is none."""
        if any(one.mode == "function" for one in self.interventions):
            return ""
        hasher = xxhash.xxh3_128()
        for one in self.interventions:
            value = one.value
            if value is not None:
                tensor = torch.as_tensor(value).detach().cpu().double()
                hasher.update(repr(tuple(tensor.shape)).encode() + tensor.contiguous().numpy().tobytes())
            hasher.update(repr((one.site, one.head, one.position, one.neuron, one.mode)).encode())
            if one.site.kind is FEATURES:
                hasher.update(repr((one.feature, loaded_set(model, one.features).digest)).encode())
        scope = (self.at, prompt if self.at != "all" else 0) if self.interventions else ()
        return f"next:{scope}:{hasher.hexdigest()}"


def _is_local(one: Intervention) -> bool:
    if one.mode not in _LOCAL or one.site.kind.heads_first:
        return False
    if one.site.kind is FEATURES:
        return one.value is None or torch.as_tensor(one.value).dim() == 0
    inside = 1 + one.site.kind.headed - (one.head is not None) - (one.neuron is not None)
    return one.value is None or torch.as_tensor(one.value).dim() <= inside


def _is_numeric(value: Any) -> bool:
    try:
        return not torch.as_tensor(value).is_complex()
    except (TypeError, ValueError, RuntimeError):
        return False


def _within(function: Hook, where: slice, is_pattern: bool) -> Hook:
    """Return a function that changes some positions (a pattern's queries) and leaves the others."""

    def run(tensor: Tensor, hook: HookPoint) -> Tensor:
        axis = 2 if is_pattern else 1
        count = where.stop - where.start
        if count == tensor.shape[axis]:
            changed = function(tensor, hook)
            return tensor if changed is None else changed
        part = tensor.narrow(axis, where.start, count).clone()
        changed = function(part, hook)
        whole = tensor.clone()
        whole.narrow(axis, where.start, count).copy_(part if changed is None else changed)
        return whole

    return run


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


def check(model: LoadedModel, prompt: int, n: int, temperature: float, changes: Changes) -> None:
    """Refuse what cannot be generated, before anything runs.

    Raises
    ------
    InputError
        A bidirectional model, no language-model head, a number of tokens below 1, a temperature below 0, or an
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
    if temperature != 0 and not _COLDEST <= temperature < float("inf"):
        raise InputError(f"--temperature {temperature} is none; use 0 (the likeliest token) or more, such as 0.7")
    needed, free = _bytes_of(model, prompt, n), memory.free_bytes(model.device)
    if needed > free:
        raise InputError(
            f"this needs {memory.readable(needed)} for {prompt} tokens and {n} more, and {memory.readable(free)} is "
            f"free on {model.device}; shorten the prompt, or free some with %interp clear"
        )
    if changes.at not in AT:
        raise InputError(f"--at {changes.at!r} is not one of {', '.join(AT)}")
    for one in changes.interventions:
        if not isinstance(one, Intervention):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(f"interventions are interp.Intervention objects; {type(one).__name__} is none")
        if one.mode != "function" and one.value is not None and not _is_numeric(one.value):
            raise InputError(f"{one.mode} takes a number, an array or a tensor; {type(one.value).__name__} is none")
    functions_of(model, changes.interventions, prompt + n - 1)
    for one in changes.interventions:
        listed = one.mode in _LOCAL and one.site.name != "pattern" and not _is_local(one)
        if listed and one.position is None and changes.at != "prompt":
            raise InputError(
                f"a value with an axis of positions fits the prompt alone; use at='prompt' for {one.site.name}"
            )


def _bytes_of(model: LoadedModel, prompt: int, n: int) -> int:
    """Return the bytes of the keys and values that are kept and of the largest layer's work on the prompt."""
    g = model.geometry
    kept = 2 * g.n_layers * g.n_kv_heads * g.d_head * min(prompt + n, g.n_ctx)
    scores = 3 * g.n_heads * prompt * prompt
    return (kept + scores + 3 * g.d_vocab_out) * next(model.hf_model.parameters()).element_size()


def generate(
    model: LoadedModel,
    prompt: Sequence[int],
    n: int,
    *,
    temperature: float = 0.0,
    seed: int = 0,
    changes: Changes | None = None,
    on_token: OnToken = lambda ids: None,  # noqa: ARG005
) -> Generated:
    """Generate up to `n` tokens; what `check` refuses is not checked here.

    Keys and values of what was read are kept, unless a change can alter those of earlier positions as the text grows
    (a function, noise, a mean over positions, an attention pattern, hooks of the user's own): then the whole text is
    read anew for every token. The last token is not read, so that a full window still predicts one.

    Parameters
    ----------
    prompt
        Token ids.
    temperature
        0 takes the likeliest token; above, one is drawn.
    seed
        Of the draws.
    on_token
        Called after every token with all new ones.

    Examples
    --------
    >>> generate(model, model.tokens.encode(interp.Prompt("The capital of France is")).ids, 1).ids
    [975]
    """
    made = Generated()
    changes = changes or Changes()
    try:
        _extend(model, prompt, n, temperature, seed, changes, on_token, made)
    except KeyboardInterrupt as interrupt:
        made.stopped, made.interrupt = f"interrupted after {len(made.ids)} of {n} tokens", interrupt
    except InputError:
        raise
    except Exception as error:
        reason = printable(f"{type(error).__name__}: {error}".partition("\n")[0])
        out_of_memory = memory.is_out_of_memory(error)
        if not made.ids or not (out_of_memory or any(one.mode == "function" for one in changes.interventions)):
            raise
        traceback.clear_frames(error.__traceback__)
        what = "out of memory" if out_of_memory else f"an intervention failed ({reason})"
        made.stopped = f"{what} after {len(made.ids)} of {n} tokens"
    return made


def _extend(
    model: LoadedModel,
    prompt: Sequence[int],
    n: int,
    temperature: float,
    seed: int,
    changes: Changes,
    on_token: OnToken,
    made: Generated,
) -> None:
    reader = _Reader(model, len(prompt), changes)
    ends = end_ids(model)
    draw = torch.Generator().manual_seed(seed)
    room = model.geometry.n_ctx - len(prompt) + 1
    while len(made.ids) < min(n, room):
        logits = reader.next([*prompt, *made.ids])
        logits = logits if logits.dtype == torch.float64 else logits.float()
        if made.first is None:
            made.first = logits
        if logits.isnan().any():
            made.stopped = f"the logits are NaN after {len(made.ids)} of {n} tokens"
            return
        logs = logits.log_softmax(-1)
        if temperature:
            chances = (logits.cpu() / temperature).softmax(-1)
            token = int(torch.multinomial(chances, 1, generator=draw))
        else:
            token = int(logits.argmax())
        made.logprobs.append(float(logs[token]))
        made.ids.append(token)
        on_token(made.ids)
        if token in ends:
            made.stopped = "eos"
            return
    made.stopped = "length" if len(made.ids) == n else "window"


class _Reader:
    """The logits of the next token of a growing text."""

    def __init__(self, model: LoadedModel, prompt: int, changes: Changes) -> None:
        self.model, self.prompt, self.changes = model, prompt, changes
        self.name = changes.signature(model, prompt)
        hf: Any = model.hf_model
        takes_past = "past_key_values" in inspect.signature(hf.forward).parameters
        self.past: Any = None
        if takes_past and changes.stepwise and not model.user_hooks():
            from transformers import DynamicCache

            self.past = DynamicCache(config=hf.config)
        self.read = 0

    def next(self, ids: list[int]) -> Tensor:
        """Return the logits after `ids`, ``[d_vocab]``, from the store where it has them."""
        held = self.model.recall(ids, [self.name]) if self.name else None
        if held is not None:
            return held[self.name]
        start = self.read if self.past is not None else 0
        functions = self.changes.functions(self.model, self.prompt, start, len(ids))
        logits = self.model.forward([ids[start:]], functions, past=self.past)[0, -1].clone()
        self.read = len(ids)
        if self.model.user_hooks():
            self.model.note("hooked: hooks of the user's own")
        else:
            self.model.note("hooked: interventions" if self.changes.interventions else "forward")
        if self.name:
            self.model.keep(ids, {self.name: logits})
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
