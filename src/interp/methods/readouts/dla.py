"""Direct logit attribution: what each component writes into a token's logit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from interp.errors import InputError
from interp.interface.registry import technique
from interp.methods._shared import answers
from interp.methods._shared import interventions as edits
from interp.methods._shared.direct_effects import Run, of_features, place, sites
from interp.methods._shared.features import features_of
from interp.methods._shared.many import dla as many
from interp.methods._shared.many.dla_result import DLAManyResult
from interp.methods._shared.many.reading import at as at_position
from interp.methods._shared.models import predicted
from interp.results import Result, resolve
from interp.results.tables import frame_of
from interp.spec import FeaturesName, Prompt, Prompts, TokenName, Variable, as_interventions

if TYPE_CHECKING:
    import pandas as pd

    from interp.engine.model.loaded import LoadedModel
    from interp.results.tables import Float


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class DLAResult(Result):
    """What each component adds to a logit, or to the difference of two.

    Attributes
    ----------
    tokens
        The prompt's token strings.
    position
        Whose prediction this is; counted from 0.
    answer, wrong
        (string, id); `wrong` is ``None`` where a single logit is attributed.
    contributions
        Component → its part, in logits. Disjoint: ``embed``, ``pos_embed``, every head (``"5.1"``), ``attn_bias 5``,
        ``mlp 5``, ``norm_bias``, ``unembed_bias``, those that the model has. They sum to `total`.
    heads
        ``float64 [layer, head]``: the heads' parts.
    per_position
        ``float64 [layer, head, position]``: a head's part by the position that it read it from, α · (v W_O), with the
        value's own bias; sums over positions to `heads`.
    neurons
        (``"L5 neuron 123"``, part) of the neurons with the largest parts, strongest first; each is inside its MLP's.
    features
        (``"F5.417"``, part) of the features with the largest parts, strongest first, where a set of them was named;
        each is inside of what stands where its dictionary writes.
    total
        Sum of the contributions.
    logit
        The model's own logit, or difference.
    interventions
        How many changes there were of the run; what they add to the stream themselves is the part ``interventions``.
    """

    tokens: tuple[str, ...]
    position: int
    answer: tuple[str, int]
    wrong: tuple[str, int] | None = None
    contributions: Mapping[str, float] = field(default_factory=dict[str, float])
    heads: Float
    per_position: Float
    neurons: tuple[tuple[str, float], ...] = ()
    features: tuple[tuple[str, float], ...] = ()
    total: float
    logit: float
    interventions: int = 0

    _html: ClassVar[str] = "interp.views.dla:html"
    _svg: ClassVar[str | None] = "interp.views.dla:svg"
    _plotly: ClassVar[str | None] = "interp.views.dla:plotly"

    def __post_init__(self) -> None:
        if len(self.tokens) != self.per_position.shape[-1]:
            raise InputError(f"{len(self.tokens)} tokens do not fit {self.per_position.shape[-1]} positions")

    def summary(self) -> str:
        """Return the logit and its largest part."""
        over = f" over {self.wrong[0]!r}" if self.wrong else ""
        name, value = self.top(1)[0]
        return (
            f"{self.provenance.model}: {self.answer[0]!r}{over} at position {self.position}: {self.logit:+.3f}, "
            f"most of it from {name} {value:+.3f}"
        )

    def text(self) -> str:
        """Return the ten largest parts, one to a line."""
        shown = resolve("interp.errors:printable")
        return "\n".join([super().text(), *(f"{value:+9.3f}  {shown(name)}" for name, value in self.top(10))])

    def top(self, n: int = 10) -> list[tuple[str, float]]:
        """Return the `n` largest parts either way: (component, part), strongest first.

        Examples
        --------
        >>> result.top(1)
        [('mlp 3', 6.80...)]
        """
        order = sorted(self.contributions.items(), key=lambda item: -abs(np.nan_to_num(item[1], nan=-1.0)))
        return order[:n]

    def to_frame(self) -> pd.DataFrame:
        """Return one row per component: component, kind, layer, head, contribution."""
        rows: list[tuple[str, str, int | None, int | None, float]] = []
        for name, value in self.contributions.items():
            kind, layer, head = place(name)
            rows.append((name, kind, layer, head, value))
        table = frame_of(rows, columns=["component", "kind", "layer", "head", "contribution"])
        return table.astype({"layer": "Int64", "head": "Int64"})


@technique(body=Prompt | Prompts)
def dla(
    model: LoadedModel,
    prompt: Prompt | Prompts,
    *,
    answer: TokenName | None = None,
    wrong: TokenName | None = None,
    position: int | None = None,
    top: int = 10,
    features: FeaturesName | None = None,
    interventions: Variable = None,
    by: Literal["span", "position", "end"] | None = None,
) -> DLAResult | DLAManyResult:
    """Direct logit attribution: what each head, MLP, embedding and bias adds to a logit, or to a difference of two.

    Parameters
    ----------
    prompt
        The text; or many: a list, a table's column, a file, a task's or pairs' clean prompts.
    answer
        The token, such as " Mary"; the model's own answer when not given, of a task or pairs theirs. Of many prompts
        it may be a list, one for each.
    wrong
        The token whose logit is taken off, such as " John"; of a task or pairs theirs.
    position
        The position whose prediction is attributed, −1 for the last; the one that predict answers when not given.
    top
        How many neurons, and features, to keep.
    features
        A loaded set of features, whose parts are told too; of one prompt.
    interventions
        A list of interp.Intervention, in whose run the parts are measured; in a magic, the name of a variable that
        holds one. What they add to the stream themselves is a part of its own.
    by
        How the positions that heads read from line up over many prompts: by span, by position where all have one
        length, or from the end; the first of these that there is when not given.

    Returns
    -------
    DLAResult
        ``contributions`` is component → part, and sums to ``total``, which is the model's ``logit``.
    DLAManyResult
        Of many prompts: ``contributions`` is ``float64 [prompt, component]``, and ``spread`` its mean over prompts
        with standard error and 95 % interval.

    Raises
    ------
    InputError
        A prompt, token or position that cannot be used, or a model whose layers do more than add to the residual
        stream.
    Interrupted
        Stopped by Ctrl-C over many prompts: those that were read are in its ``result``.

    Notes
    -----
    Elhage et al. (2021), "A Mathematical Framework for Transformer Circuits". The final norm's scale is frozen at this
    run; LayerNorm's centering is part of the direction that the parts are measured along. So are frozen, where a model
    has them: norms behind a part (BERT, Gemma 2, BLOOM's embedding), the activation of BERT's head, and a soft cap or a
    scale of the logits (Gemma 2, Cohere), each part then in units of the logit that comes out. Over many prompts the
    parts are averaged, each frozen at its own run.

    Examples
    --------
    >>> interp.dla("The capital of France is", answer=" Paris").top(2)
    [('mlp 3', 6.80...), ('1.0', 4.39...)]
    >>> interp.dla(task="ioi", n=4).contributions.shape
    (4, 27)
    """
    if top < 1:
        raise InputError(f"--top {top} keeps no neuron; use 1 or more")
    if features is not None and interventions is not None:
        raise InputError("--features reads the model's own run; leave --interventions out")
    if isinstance(prompt, Prompts):
        if features is not None:
            raise InputError("--features tells the parts of one prompt's features; give one prompt, or leave it out")
        return many.over(model, prompt, answer, wrong, position, top, interventions, by)
    if by is not None:
        raise InputError("--by is how many prompts line up; leave it out for one")
    from interp.engine.model.each import activations
    from interp.engine.readouts import lens as engine

    given = None if features is None else features_of(model, features)
    encoded = model.encode(prompt)
    at = predicted(model, encoded) if position is None else at_position(position, len(encoded.ids))
    ids = [answers.one(model, prompt, given, which) for which, given in (("answer", answer), ("wrong answer", wrong))]
    changes = as_interventions(interventions)
    (functions,) = edits.functions(model, changes, [encoded])
    run = Run(model, activations(model, encoded, sites(model), functions), at)
    found = engine.readout(model)
    one = many.measured(run, found, ids[0], ids[1], top, changed=bool(changes))
    return DLAResult(
        tokens=encoded.strings,
        position=at,
        answer=(model.tokens.string(one.right), one.right),
        wrong=None if ids[1] is None else (model.tokens.string(ids[1]), ids[1]),
        contributions=one.contributions,
        heads=one.parts.heads,
        per_position=one.parts.per_position,
        neurons=one.parts.neurons,
        features=() if given is None else of_features(run, encoded.ids, given, one.parts.slopes, top),
        total=one.total,
        logit=one.logit,
        interventions=len(changes),
        notes=(*one.notes, *(answers.likelier(model, one.right, one.logits) if ids[0] is not None else ())),
    )
