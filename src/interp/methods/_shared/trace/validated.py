"""What `validate` finds of an attribution graph: features changed in the model, and the graphs of other prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.engine.forecast.costs import foresee
from interp.errors import InputError, unless_interrupted
from interp.methods._shared import answers
from interp.methods._shared import texts as running
from interp.methods._shared.intervals import too_few
from interp.methods._shared.trace import foreseen, making, stability
from interp.methods._shared.trace.checked import checked
from interp.methods._shared.trace.parts import FIGURES, TraceStability
from interp.methods._shared.trace.result import TraceResult
from interp.spec import Prompt

if TYPE_CHECKING:
    from interp.engine.features.dictionary import Dictionary
    from interp.engine.features.held import FeatureSet
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.model.tokens import Encoded
    from interp.results.tables import Float

_DRAWS = 20  # orders of a prompt's tokens that are tried for one that is not its own


def asked(
    model: LoadedModel, graph: TraceResult, top: int, others: Mapping[str, Any], prompts: Mapping[str, Any]
) -> TraceResult:
    """Return what the command `validate` gives of a graph.

    Parameters
    ----------
    others
        Its arguments that are for circuits alone.
    prompts
        ``paraphrases``, ``control`` and ``seed``.

    Raises
    ------
    InputError
        One of the `others` is given, or `validated` refuses.
    """
    given = next((name for name, value in others.items() if value is not None), None)
    if given is not None:
        raise InputError(f"a graph is of one prompt: --{given} is for circuits; --top says how many features to change")
    for ids in graph.provenance.prompts[:1]:  # the result says of which prompt it is
        model.encode(Prompt(ids=ids))
    return validated(model, graph, top, **prompts)


def validated(
    model: LoadedModel,
    graph: TraceResult,
    features: int,
    *,
    paraphrases: Any = None,
    control: Any = None,
    seed: int | None = None,
) -> TraceResult:
    """Return a graph with its strongest features changed in the model, and beside the graphs of other prompts.

    Raises
    ------
    InputError
        It has no features, they are gone or others now, or prompts that cannot be compared.
    Interrupted
        Stopped by Ctrl-C: what the prompts so far gave is in its ``result``.
    """
    if paraphrases is None:
        given = next((name for name, value in (("control", control), ("seed", seed)) if value is not None), None)
        if given is not None:
            raise InputError(f"--{given} is of a comparison with other prompts; give --paraphrases too")
        return checked(model, graph, features)
    beside = _beside(model, graph, paraphrases, control, seed or 0)
    prompts = [*beside.paraphrases, *beside.controls]
    foresee(model, lambda: foreseen.of_validation(model, graph, features, prompts, beside.dictionaries))
    if features:
        graph = checked(model, graph, features)
    return beside.compared(model, graph)


@dataclass(frozen=True)
class _Beside:
    """The prompts whose graphs are to be compared, and with which features these are made."""

    paraphrases: Sequence[Encoded]
    controls: Sequence[Encoded]
    shuffled: bool
    given: FeatureSet
    dictionaries: Mapping[int, Dictionary]
    notes: Sequence[str]

    def compared(self, model: LoadedModel, graph: TraceResult) -> TraceResult:
        """Return the graph with how alike the others are to it."""
        found: dict[bool, list[Float]] = {True: [], False: []}
        values: list[float] = []
        # A paraphrase and a control take turns, so that an interrupt leaves some of both.
        order = [(n, own) for own, some in ((True, self.paraphrases), (False, self.controls)) for n in range(len(some))]
        stopped: BaseException | None = None
        try:
            for done, (n, own) in enumerate(sorted(order, key=lambda one: (one[0], not one[1])), 1):
                other = _graph(model, graph, (self.paraphrases if own else self.controls)[n], self)
                found[own].append(stability.alike(graph, other))
                if own:
                    logits = other.preactivations[[kind == "logit" for kind in other.kinds]]
                    values.append(float(logits[0]) if graph.target is not None else float("nan"))
                model.on_step(done, len(order), f"{done}/{len(order)} prompts")
        except KeyboardInterrupt as interrupt:
            if not found[True]:
                raise
            stopped = interrupt
        whole = TraceStability(
            paraphrases=_texts(self.paraphrases[: len(found[True])]),
            controls=_texts(self.controls[: len(found[False])]),
            paraphrased=_rows(found[True]),
            control=_rows(found[False]),
            values=np.array(values),
            shuffled=self.shuffled,
        )
        notes = [*graph.notes, *self.notes, *_notes(graph, whole)]
        if stopped is not None:
            notes.insert(
                0, f"partial: interrupted after {len(whole.paraphrases)} of {len(self.paraphrases)} paraphrases"
            )
        return unless_interrupted(replace(graph, stability=whole, notes=tuple(dict.fromkeys(notes))), stopped)


def _beside(model: LoadedModel, graph: TraceResult, paraphrases: Any, control: Any, seed: int) -> _Beside:
    """Return the prompts to compare with, as tokens.

    Raises
    ------
    InputError
        The graph is of another position or state of the model, a prompt is empty, there twice or the graph's own, or
        what is traced is another token there.
    """
    given = making.set_of(model, graph)
    if graph.position != len(graph.tokens) - 1:
        raise InputError(
            f"the graph is of position {graph.position}, which other prompts have not: trace the prompt up to there"
        )
    if graph.provenance.fingerprint and graph.provenance.fingerprint != model.fingerprint():
        raise InputError(f"the graph was traced on another model than {model.name} is now; trace it again")
    own = graph.provenance.prompts[0]
    known = {own: "the graph's own prompt"}
    encoded = _encoded(model, graph, "paraphrase", paraphrases, known)
    controls: list[Encoded] = []
    notes: list[str] = []
    if control is not None:
        controls = _encoded(model, graph, "control", control, known)
    else:
        for number, one in enumerate(encoded):
            ids = _shuffled(one.ids, model.tokens.bos_id, set(known), np.random.default_rng([seed, number]))
            if ids is None:
                notes.append(f"paraphrase {number} has too few different tokens to be shuffled: no control for it")
            else:
                known[ids] = ""
                controls.append(model.encode(Prompt(ids=ids)))
    return _Beside(encoded, controls, control is None, given, making.standing(model, given), notes)


def _encoded(
    model: LoadedModel, graph: TraceResult, which: str, given: Any, known: dict[tuple[int, ...], str]
) -> list[Encoded]:
    """Return prompts as tokens, and add them to those that are `known`."""
    texts = running.of_argument("paraphrases" if which == "paraphrase" else which, given).texts
    if len(texts) == 1 and texts[0].text is not None and "\n" in texts[0].text.strip():
        texts = tuple(Prompt(line) for line in texts[0].text.splitlines() if line.strip())  # one to a line
    bos, begins = None, graph.provenance.prompts[0][:1] == (model.tokens.bos_id,)
    if model.tokens.bos_id is not None:
        bos = begins
    found: list[Encoded] = []
    for number, text in enumerate(texts):
        try:
            if text.text is not None and not text.text.strip():
                raise InputError("it is blank; leave it out")
            prompt = text if text.ids is not None or text.bos is not None else replace(text, bos=bos)
            encoded = model.encode(prompt)
            _same_tokens(model, graph, prompt)
        except InputError as error:
            raise InputError(f"{which} {number}: {error}") from None
        if encoded.ids in known:
            raise InputError(f"{which} {number} is {known[encoded.ids]}; leave it out")
        known[encoded.ids] = f"the same as {which} {number}"
        found.append(encoded)
    return found


def _same_tokens(model: LoadedModel, graph: TraceResult, prompt: Prompt) -> None:
    """Refuse a prompt behind which what was typed as target or against is another token, or none."""
    for which in ("target", "against"):
        held: tuple[str, int] | None = getattr(graph, which)
        typed = graph.provenance.arguments.get(which)
        if held is None or typed is None:
            continue
        found = answers.one(model, prompt, typed, which)
        if found is not None and found != held[1]:
            raise InputError(
                f"{which} {typed!r} is the token {model.tokens.string(found)!r} behind it, and the graph is of "
                f"{held[0]!r}; trace with {which} {held[0]!r}, or end the text otherwise"
            )


def _shuffled(
    ids: tuple[int, ...], bos: int | None, taken: set[tuple[int, ...]], draw: np.random.Generator
) -> tuple[int, ...] | None:
    """Return a prompt's tokens in an order that is not taken, the BOS where it is; ``None`` where none is found."""
    first = ids[:1] if ids[:1] == (bos,) else ()
    rest = np.array(ids[len(first) :])
    for _ in range(_DRAWS):
        found = (*first, *draw.permutation(rest).tolist())
        if found not in taken:
            return found
    return None


def _graph(model: LoadedModel, graph: TraceResult, encoded: Encoded, beside: _Beside) -> TraceResult:
    """Return the graph of another prompt, made as `graph` was."""
    target, against = (None if held is None else held[1] for held in (graph.target, graph.against))
    asked = making.Asked(target, against, len(encoded.ids) - 1, *graph.kept, graph.most)
    frozen = making.frozen_run(model, encoded, beside.dictionaries)
    reads, outputs = making.readings(model, frozen, asked)
    traced = making.traced_of(model, frozen, reads, asked, beside.given)
    return making.graph(model, encoded, traced, outputs, asked, beside.given)


def _texts(prompts: Sequence[Encoded]) -> tuple[str, ...]:
    return tuple("".join(one.strings) for one in prompts)


def _rows(found: Sequence[Float]) -> Float:
    return np.array(found, np.float64).reshape(-1, len(FIGURES))


def _notes(graph: TraceResult, found: TraceStability) -> list[str]:
    notes = too_few(len(found.paraphrases), "paraphrases")
    if graph.target is None:
        notes.append("of each prompt its own likeliest tokens are traced; one --target is the same for all")
    elif graph.against is not None:
        failing = int((found.values <= 0).sum())
        if failing:
            notes.append(
                f"in {failing} of {len(found.values)} paraphrases the model prefers {graph.against[0]!r} to "
                f"{graph.target[0]!r}"
            )
    return notes
