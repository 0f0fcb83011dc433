"""Pairs as a model sees them: tokens, answers, and what is worth warning about before anything is concluded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from interp.errors import InputError
from interp.ids import differing
from interp.methods._shared import answers, span_places
from interp.methods._shared import several as measured
from interp.methods._shared.models import logits_of
from interp.methods._shared.span_places import Places
from interp.metric import OF_WHOLE
from interp.results.effects import PairChecks
from interp.spec import Metric, Pair, Pairs, Prompt

if TYPE_CHECKING:
    from torch import Tensor

    from interp.engine.forecast.costs import Foresight
    from interp.engine.forecast.work import Stored, Work
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.model.tokens import Encoded
    from interp.engine.patching.cases import Aligned, Case
    from interp.engine.patching.waves import Sweep
    from interp.tasks import Vocabulary

_WARNED = 3  # pairs that are named where many have the same fault


@dataclass(frozen=True)
class Encodings:
    """One pair, tokenised.

    Attributes
    ----------
    clean, corrupted
        The prompts.
    answer, wrong
        Token ids.
    spans
        Name → the positions of a span in clean and in corrupted, where pairs line up by spans.
    answers, wrongs
        Whole answers as tokens, where one of them is several; `answer` and `wrong` are then the first of each.
    slots
        Name → positions of the parts that the pair was made from.
    """

    clean: Encoded
    corrupted: Encoded
    answer: tuple[int, ...]
    wrong: tuple[int, ...]
    spans: Mapping[str, Places] = field(default_factory=dict[str, "Places"])
    answers: tuple[tuple[int, ...], ...] = ()
    wrongs: tuple[tuple[int, ...], ...] = ()
    slots: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])

    @property
    def token(self) -> int | None:
        """The answer where it is one token, and there is no other."""
        return self.answer[0] if len(self.answer) == 1 and not self.answers else None

    @property
    def differing(self) -> tuple[int, ...]:
        """The positions at which the two prompts have different tokens, or tokens of different types."""
        return differing(self.clean.ids, self.corrupted.ids)

    def runs(self, direction: str, *, foreign: bool = False) -> tuple[Encoded, Encoded]:
        """Return the run that is changed, the base, and the run whose activations are put into it, the source.

        ``denoise`` puts the clean run's into the corrupted one, ``noise`` the corrupted run's into the clean one. Where
        the source is another model's run (`foreign`), denoising changes the same prompt's, which is the clean one.
        """
        source = self.corrupted if direction == "noise" else self.clean
        return (self.clean if direction == "noise" or foreign else self.corrupted), source


def encode(
    model: LoadedModel,
    pairs: Pairs,
    metric: Metric,
    *,
    spans: bool = False,
    lengths: bool = False,
    any_length: bool = False,
    known: Sequence[Mapping[str, Places]] = (),
    several: bool = False,
) -> list[Encodings]:
    """Return the pairs as tokens; with `spans` they line up by these, and may be of different lengths.

    Parameters
    ----------
    lengths
        Whether some pairs may be of different lengths, and line up by spans then, each by its own.
    any_length
        Whether they may be so without lining up.
    known
        The pairs' spans, where they are known.
    several
        Whether several positions can be measured: answers may then be of several tokens.

    Raises
    ------
    InputError
        Prompts of different lengths, a missing, empty, many-token or doubled answer; what to type instead is said.
    """
    if not pairs.pairs:
        raise InputError("there are no pairs; give clean and corrupted prompts, or --task")
    apart, count = spans or lengths or any_length, len(pairs.pairs)
    found = [_encoded(model, pair, metric, number, count, apart, several) for number, pair in enumerate(pairs.pairs)]
    if any(e.answers for e in found):  # one-token answers of other pairs are whole answers too
        found = [e if e.answers else _as_whole(e) for e in found]
        measured.say(model, metric)
    if several:
        measured.require(model, found, metric)
    if known:
        return [replace(e, spans=own) for e, own in zip(found, known, strict=True)]
    if not (spans or lengths):
        return found
    every: list[dict[str, Places]] = []
    for number, (pair, e) in enumerate(zip(pairs.pairs, found, strict=True)):
        if not spans and len(e.clean.ids) == len(e.corrupted.ids):
            every.append({})
            continue
        where = f"pair {number}: " if len(found) > 1 else ""
        ends = (len(e.clean.ids) - 1, len(e.corrupted.ids) - 1) if model.geometry.causal else None
        every.append(span_places.places(e.clean, e.corrupted, pair.slots, where, ends=ends))
    every = span_places.common(every) if spans else every
    return [replace(e, spans=own) for e, own in zip(found, every, strict=True)]


def _as_whole(e: Encodings) -> Encodings:
    return replace(e, answers=tuple((one,) for one in e.answer), wrongs=tuple((one,) for one in e.wrong))


def _encoded(
    model: LoadedModel, pair: Pair, metric: Metric, number: int, count: int, apart: bool, several: bool
) -> Encodings:
    where = f"pair {number}: " if count > 1 else ""
    clean, corrupted = model.encode(pair.clean), model.encode(pair.corrupted)
    if len(clean.ids) != len(corrupted.ids) and not apart:
        raise InputError(
            f"{where}clean has {len(clean.ids)} tokens and corrupted {len(corrupted.ids)}; they must line up: "
            f"{aligned(clean, corrupted)}; %interp patch --by span takes any lengths"
        )
    several = several and model.geometry.causal
    given = (("answer", pair.answer), ("wrong", pair.wrong))
    options: Any = {"where": where, "literal": pair.literal}
    whole: list[tuple[tuple[int, ...], ...]] = [(), ()]
    if several and metric.function is None and metric.name in OF_WHOLE:
        found = [answers.wholes(model, pair.clean, those, which, **options) for which, those in given]
        whole = found if any(len(ids) > 1 for side in found for ids in side) else whole
    if any(whole):
        answer, wrong = (tuple(ids[0] for ids in side) for side in whole)
    else:
        options["whole"] = several
        answer, wrong = (answers.tokens(model, pair.clean, those, which, **options) for which, those in given)
    if metric.needs_answer and not answer:
        raise InputError(f"{where}{metric.name} needs an answer: add a line answer: …, or answer=… in Python")
    if metric.needs_wrong and not wrong:
        raise InputError(
            f"{where}{metric.name} needs a wrong answer: add a line wrong: …, or use --metric logprob, which needs none"
        )
    if set(whole[0]) & set(whole[1]):
        raise InputError(f"{where}answer and wrong are the same tokens; they must differ")
    shared = set(answer) & set(wrong)
    if shared and not any(whole):
        raise InputError(
            f"{where}answer and wrong share the token {model.tokens.string(min(shared))!r}; they must differ"
        )
    return Encodings(clean, corrupted, answer, wrong, answers=whole[0], wrongs=whole[1], slots=pair.slots)


def cases(
    model: LoadedModel,
    encoded: Sequence[Encodings],
    metric: Metric,
    direction: str,
    *,
    foreign: bool = False,
    align: str = "last",
    whole: bool = False,
    padding: int = 0,
) -> list[Case]:
    """Return the pairs ready to run: one case for each, or of whole answers one for each of these.

    `Encodings.runs` says which prompt is changed, `span_places.aligned` what `align` is, `several.rows` the `padding`.
    Where `whole` the corrupted run stands in for all of the clean one: pairs of one length line up token by token,
    others as `span_places.whole` says.
    """
    from interp.engine.patching.cases import Case

    def asked(run: Encoded, e: Encodings) -> int:
        return measured.asked(model, metric, run if e.spans else e.clean)

    made: list[Case] = []
    for number, e in enumerate(encoded):
        base, source = e.runs(direction, foreign=foreign)
        ends = asked(base, e), asked(source, e)
        spans: tuple[Aligned, ...] = ()
        every: Aligned | None = None
        if not whole:
            spans = tuple(
                span_places.aligned(span, align, name, into_clean=direction == "noise", same=foreign)
                for name, span in e.spans.items()
            )
            every = span_places.joined(spans, base, source)
        elif len(base.ids) != len(source.ids):
            where = f"pair {number}: " if len(encoded) > 1 else ""
            every = span_places.whole(base, source, e.spans, align, where, ends=ends)
        for more, position, scorer in measured.rows(model, e, metric, base if e.spans else e.clean, padding):
            made.append(
                Case(
                    base=base.ids + more,
                    source=source.ids + more,
                    scorer=scorer,
                    position=position,
                    clean_base=direction == "noise",
                    source_position=position + ends[1] - ends[0],
                    spans=spans,
                    aligned=every,
                )
            )
    return made


def aligned(clean: Encoded, corrupted: Encoded) -> str:
    """Return both prompts around the first token that differs."""
    both = zip(clean.ids, corrupted.ids, strict=False)
    at = next((n for n, (a, b) in enumerate(both) if a != b), min(len(clean.ids), len(corrupted.ids)))
    shown = slice(max(0, at - 2), at + 4)
    return " against ".join("|".join(e.strings[shown]) for e in (clean, corrupted)) + f" (from token {shown.start})"


def check(
    model: LoadedModel,
    encoded: Sequence[Encodings],
    metric: Metric,
    clean: Sequence[float],
    corrupted: Sequence[float],
    *,
    warn: bool = True,
    other: str = "",
) -> PairChecks:
    """Return the pairs with what each run's own metric says about them; `warn` may run the model.

    With `other`, the name of another model, `clean` is what that one says and `corrupted` what this one does.
    """

    def taken(ids: Sequence[int], whole: Sequence[tuple[int, ...]]) -> tuple[tuple[str, int], ...]:
        every = whole or [(index,) for index in ids]
        return tuple(("".join(map(model.tokens.string, own)), own[0]) for own in every)

    return PairChecks(
        clean=tuple(e.clean.strings for e in encoded),
        corrupted=tuple(e.corrupted.strings for e in encoded),
        differing=tuple(e.differing for e in encoded),
        answer=tuple(taken(e.answer, e.answers) for e in encoded),
        wrong=tuple(taken(e.wrong, e.wrongs) for e in encoded),
        clean_metric=tuple(clean),
        corrupted_metric=tuple(corrupted),
        warnings=tuple(_warnings(model, encoded, metric, clean, corrupted, other)) if warn else (),
        spans=tuple(e.spans for e in encoded) if any(e.spans for e in encoded) else (),
    )


def _warnings(
    model: LoadedModel,
    encoded: Sequence[Encodings],
    metric: Metric,
    clean: Sequence[float],
    corrupted: Sequence[float],
    other: str,
) -> list[str]:
    found: list[str] = []
    same = [n for n, e in enumerate(encoded) if not e.differing]
    if same and not other:
        found.append(f"clean and corrupted are the same prompt in {_pairs(same)}: patching changes nothing there")
    if metric.name == "logit-diff":
        failing = [n for n, value in enumerate(clean) if value <= 0]
        if failing:
            found.append(
                f"{other or 'the model'} prefers the wrong answer on clean in {_pairs(failing)}: "
                "what it does there is not the task"
            )
        unharmed = [n for n, value in enumerate(corrupted) if value >= 0]
        if unharmed and not other:
            found.append(f"the corrupted prompt does not turn the answer in {_pairs(unharmed)}: recovery is partial")
    close = [n for n, (a, b) in enumerate(zip(clean, corrupted, strict=True)) if abs(a - b) < 0.1]
    if close and metric.function is None:
        both = f"{other} and {model.name}" if other else "clean and corrupted"
        found.append(f"{both} differ by less than 0.1 in {_pairs(close)}: recovery divides by that")
    found.extend(_likelier(model, encoded))
    return found


def looked_at(model: LoadedModel, encoded: Sequence[Encodings], stored: Stored, own: Foresight | None = None) -> Work:
    """Return the work of `check`, where the store is to be as `stored` has it: the runs of the first clean prompts."""
    before = stored.work
    if own is not None and own.net is not None and model.geometry.causal:  # the technique's own runs are looked at
        return before.less(before)
    for pair in encoded[:_WARNED]:
        if pair.token is not None:
            stored.plain(pair.clean.ids, "last_logits" if model.geometry.causal else "logits")
    return stored.work.less(before)


def swept(model: LoadedModel, job: Sweep, encoded: Sequence[Encodings]) -> tuple[Foresight, Work]:
    """Return the work of a sweep and of `check` after it."""
    from interp.engine.forecast.work import Stored
    from interp.engine.patching import foreseen

    stored = Stored(model)
    sight, work = foreseen.of_sweep(job, stored=stored)
    return sight, work + looked_at(model, encoded, stored, sight)


def _likelier(model: LoadedModel, encoded: Sequence[Encodings]) -> list[str]:
    """Warn where the other spelling of an answer, with or without its space, is likelier on the clean prompt."""
    from interp.engine import memory
    from interp.engine.patching.runs import logits_after

    def after(clean: Encoded) -> Tensor:
        known = logits_after(model, clean.ids) if model.geometry.causal else None
        return logits_of(model, clean) if known is None else known

    found: list[str] = []
    for pair in encoded[:_WARNED]:
        if pair.token is not None:
            logits = memory.retried(lambda clean=pair.clean: after(clean), model.device)
            found.extend(answers.likelier(model, pair.token, logits))
    return found


def _pairs(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:_WARNED]))
    return (
        f"pair {shown}"
        if len(numbers) == 1
        else f"{len(numbers)} pairs ({shown}{' …' if len(numbers) > _WARNED else ''})"
    )


def with_bos(pair: Pair, bos: bool) -> Pair:
    """Return `pair` with or without BOS in front of both prompts."""
    return replace(pair, clean=replace(pair.clean, bos=bos), corrupted=replace(pair.corrupted, bos=bos))


def from_task(
    model: LoadedModel, task: str, *, n: int, seed: int, corruption: str | None = None, bos: bool | None = None
) -> Pairs:
    """Return a task's pairs for the tokenizer of `model`.

    Raises
    ------
    InputError
        No such task, or more pairs than it can make.
    """
    from interp import tasks

    options = {} if corruption is None else {"corruption": corruption}
    made = tasks.build(task, vocabulary(model), n=n, seed=seed, **options)
    pairs = tuple(pair if bos is None else with_bos(pair, bos) for pair in made.pairs)
    return Pairs(
        tuple(replace(pair, slots=counted(model, pair.clean, pair.slots), literal=True) for pair in pairs),
        task=made.name,
        metric=made.metric,
    )


def vocabulary(model: LoadedModel) -> Vocabulary:
    """Return the tokenizer of `model` as tasks use it; what it spells raises InputError where there is none."""
    from interp.tasks import Vocabulary

    def encode(text: str) -> tuple[int, ...]:
        if model.tokens.tokenizer is None:
            raise InputError("this model has no tokenizer, and tasks are texts; give pairs of token ids")
        return tuple(model.tokens.tokenizer(text, add_special_tokens=False)["input_ids"])

    return Vocabulary(encode, getattr(model.tokens.tokenizer, "unk_token_id", None))


def counted(model: LoadedModel, prompt: Prompt, slots: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Return a text's slots counted as the model counts: after what the tokenizer puts in front."""
    if prompt.text is None or not slots:
        return dict(slots)
    ids, plain = model.tokens.encode(prompt).ids, tuple(vocabulary(model).encode(prompt.text))
    front = next((n for n in range(len(ids)) if ids[n : n + len(plain)] == plain), 0)
    return {name: tuple(p + front for p in places) for name, places in slots.items()}
