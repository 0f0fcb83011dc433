"""Direct logit attribution: what each component writes into a token's logit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from interp.errors import InputError
from interp.interface.registry import technique
from interp.methods._shared import answers
from interp.methods._shared.direct_effects import Run, attributed, frozen_note, of_features, sites
from interp.methods._shared.features import features_of
from interp.methods._shared.models import predicted
from interp.results import Result, resolve
from interp.results.tables import frame_of
from interp.spec import FeaturesName, Node, Prompt, TokenName

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from interp.engine.model.loaded import LoadedModel
    from interp.results.tables import Float

# Of the sum of the parts' sizes: what rounding in the model's own dtype can make the parts miss its logit by.
_EXACT = ("float32", "float64")
_ROUNDING, _ROUGH = 1e-5, 0.05


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


def place(name: str) -> tuple[str, int | None, int | None]:
    """Return a component's kind, layer and head.

    Examples
    --------
    >>> place("5.1"), place("mlp 3"), place("embed")
    (('head', 5, 1), ('mlp', 3, None), ('embed', None, None))
    """
    if "." in name:
        node = Node.parse(name)
        return node.kind, node.layer, node.head
    kind, space, number = name.partition(" ")
    return kind, int(number) if space else None, None


@technique(body=Prompt)
def dla(
    model: LoadedModel,
    prompt: Prompt,
    *,
    answer: TokenName | None = None,
    wrong: TokenName | None = None,
    position: int | None = None,
    top: int = 10,
    features: FeaturesName | None = None,
) -> DLAResult:
    """Direct logit attribution: what each head, MLP, embedding and bias adds to a logit, or to a difference of two.

    Parameters
    ----------
    prompt
        The text.
    answer
        The token, such as " Mary"; the model's own answer when not given.
    wrong
        The token whose logit is taken off, such as " John".
    position
        The position whose prediction is attributed, −1 for the last; the one that predict answers when not given.
    top
        How many neurons, and features, to keep.
    features
        A loaded set of features, whose parts are told too.

    Returns
    -------
    DLAResult
        ``contributions`` is component → part, and sums to ``total``, which is the model's ``logit``.

    Raises
    ------
    InputError
        A prompt, token or position that cannot be used, or a model whose layers do more than add to the residual
        stream.

    Notes
    -----
    Elhage et al. (2021), "A Mathematical Framework for Transformer Circuits". The final norm's scale is frozen at this
    run; LayerNorm's centering is part of the direction that the parts are measured along. So are frozen, where a model
    has them: norms behind a part (BERT, Gemma 2, BLOOM's embedding), the activation of BERT's head, and a soft cap or a
    scale of the logits (Gemma 2, Cohere), each part then in units of the logit that comes out.

    Examples
    --------
    >>> interp.dla("The capital of France is", answer=" Paris").top(2)
    [('mlp 3', 6.80...), ('1.0', 4.39...)]
    """
    from interp.engine.readouts import lens as engine

    if top < 1:
        raise InputError(f"--top {top} keeps no neuron; use 1 or more")
    given = None if features is None else features_of(model, features)
    encoded = model.encode(prompt)
    length = len(encoded.ids)
    if position is not None and not -length <= position < length:
        raise InputError(f"no position {position}; positions are 0–{length - 1}, and −1 is the last")
    at = predicted(model, encoded) if position is None else position % length
    ids = [answers.one(model, prompt, given, which) for which, given in (("answer", answer), ("wrong answer", wrong))]
    found = engine.readout(model)
    run = Run(model, model.activations(encoded, sites(model)), at)
    engine.require(model, found, run.end[-1], run.held["last_logits"][0])
    logits: Tensor = engine.detached(lambda: found.logits(run.end[at])).double()
    right = int(logits.argmax()) if ids[0] is None else ids[0]
    if right == ids[1]:
        raise InputError(f"answer and wrong answer are both {model.tokens.string(right)!r}; they must differ")
    parts = engine.detached(lambda: attributed(run, found, right, ids[1], top))
    total = float(sum(parts.contributions.values()))
    logit = float(logits[right] - (0.0 if ids[1] is None else logits[ids[1]]))
    return DLAResult(
        tokens=encoded.strings,
        position=at,
        answer=(model.tokens.string(right), right),
        wrong=None if ids[1] is None else (model.tokens.string(ids[1]), ids[1]),
        contributions=parts.contributions,
        heads=parts.heads,
        per_position=parts.per_position,
        neurons=parts.neurons,
        features=() if given is None else of_features(run, encoded.ids, given, parts.slopes, top),
        total=total,
        logit=logit,
        notes=(
            *_notes(model, frozen_note(run, found), parts.contributions, total, logit),
            *(answers.likelier(model, right, logits) if ids[0] is not None else ()),
        ),
    )


def _notes(model: LoadedModel, frozen: str, parts: Mapping[str, float], total: float, logit: float) -> tuple[str, ...]:
    """Return what is worth knowing; refuse a model whose parts do not add up to its logit.

    Raises
    ------
    InputError
        They do not, and neither hooks of the user's own nor rounding can be why.
    """
    if not np.isfinite(total):
        return (frozen, f"the parts are NaN or infinite, first in {_first(parts)}")
    gap = abs(total - logit)
    size = sum(abs(value) for value in parts.values())
    if gap <= 1e-4 + _ROUNDING * size:
        return (frozen,)
    said = f"the parts add up to {total:+.4f} and the model's own logit is {logit:+.4f}"
    if model.user_hooks():
        return (frozen, f"{said}: hooks of yours change the residual stream between them")
    import torch

    rough = torch.is_autocast_enabled(model.device.type) or model.dtype not in _EXACT
    if gap <= _ROUGH * size and rough:
        return (frozen, f"{said}: the model rounds in less than float32")
    raise InputError(f"{said}: {model.name} does more than add attention and MLPs, and dla would be wrong")


def _first(parts: Mapping[str, float]) -> str:
    lost = [name for name, value in parts.items() if not np.isfinite(value)]
    order: Sequence[str] = sorted(lost, key=lambda name: (place(name)[1] is None, place(name)[1] or 0))
    return order[0] if order else "their sum"
