"""The lens: what every layer would predict if the model stopped there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from interp.errors import InputError, unless_interrupted
from interp.interface.registry import technique
from interp.methods._shared import answers, named_positions
from interp.methods._shared import interventions as edits
from interp.methods._shared.features import features_of
from interp.methods._shared.lens_layers import layers_of, moved, sites, translators
from interp.methods._shared.lens_layers import streams as streams_of
from interp.methods._shared.many import lens as many
from interp.methods._shared.many.lens_result import LensManyResult
from interp.methods._shared.models import predicted
from interp.results import Result, resolve
from interp.results.tables import frame_of
from interp.spans import Positions
from interp.spec import FeaturesName, Indices, Prompt, Prompts, TokenName, Variable, as_interventions

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from interp.engine.model.loaded import LoadedModel
    from interp.engine.readouts.lens import Projected
    from interp.results.tables import Float


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class LensResult(Result):
    """What each layer's residual stream predicts at each position.

    Attributes
    ----------
    kind, at
        ``logit``, ``tuned`` or ``jacobian``; ``pre``, ``mid`` or ``post``: where in each layer the stream was read.
    tokens
        The token strings at `positions`.
    layers, positions
        The layers and the positions of the arrays' axes; all of them unless some were chosen.
    ids
        ``int64 [layer, position, k]``: the likeliest tokens, likeliest first.
    probabilities
        ``float32 [layer, position, k]``: theirs.
    names
        Token id → string, of every id in `ids`.
    entropy
        ``float64 [layer, position]``, of the whole distribution, in nats.
    kl
        ``float64 [layer, position]``: divergence from the model's own end distribution, Σ p_end (ln p_end − ln p), in
        nats; 0 at the end itself.
    target
        (string, id) of the token that is followed.
    target_probability
        ``float32 [layer, position]``.
    target_rank
        ``int64 [layer, position]``; 0 is the top.
    wrong
        (string, id) of the token that the target is held against; ``None`` for none.
    difference
        ``float64 [layer, position]``: the target's logit less that of `wrong`; ``None`` without one.
    spans
        Name → the positions of the prompt's spans, as far as they were read.
    features
        The set of features whose account of the stream was read; empty where it was the stream itself.
    whole_kl, whole_target_probability, whole_target_rank
        With features, the same of the stream itself; else ``None``.
    interventions
        How many changes there were of the run.
    """

    kind: str
    at: str
    tokens: tuple[str, ...]
    layers: tuple[int, ...]
    positions: tuple[int, ...]
    ids: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    names: Mapping[int, str] = field(default_factory=dict[int, str])
    entropy: Float
    kl: Float
    target: tuple[str, int]
    target_probability: NDArray[np.float32]
    target_rank: NDArray[np.int64]
    wrong: tuple[str, int] | None = None
    difference: Float | None = None
    spans: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    features: str = ""
    whole_kl: Float | None = None
    whole_target_probability: NDArray[np.float32] | None = None
    whole_target_rank: NDArray[np.int64] | None = None
    interventions: int = 0

    _html: ClassVar[str] = "interp.views.lens:html"
    _svg: ClassVar[str | None] = "interp.views.lens:svg"
    _plotly: ClassVar[str | None] = "interp.views.lens:plotly"

    def __post_init__(self) -> None:
        layers, positions = self.kl.shape
        if len(self.tokens) != positions:
            raise InputError(f"{len(self.tokens)} tokens do not fit a lens over {positions} positions")
        if (len(self.layers), len(self.positions)) != (layers, positions):
            raise InputError(
                f"{len(self.layers)} layers × {len(self.positions)} positions are named, but the lens has "
                f"{layers} × {positions}"
            )

    def summary(self) -> str:
        """Return the kind of lens, its size, and what becomes of the target at the last position."""
        layers, positions, _ = self.ids.shape
        rank = int(self.target_rank[-1, -1])
        where = {"pre": "before", "mid": "in the middle of", "post": "after"}[self.at]
        of = f" of {self.features}" if self.features else ""
        over = ""
        if self.wrong is not None and self.difference is not None:
            over = f", {self.difference[-1, -1]:+.3f} over {self.wrong[0]!r}"
        return (
            f"{self.provenance.model}: {self.kind} lens{of}, {layers} layers × {positions} positions; "
            f"{self.target[0]!r} {self.target_probability[-1, -1]:.3f}, rank {rank}{over}, {where} layer "
            f"{self.layers[-1]}"
        )

    def text(self) -> str:
        """Return each layer's likeliest token at the last position."""
        visible = resolve("interp.views.kit.text:visible")
        lines = (
            f"L{layer:<3} {self.probabilities[n, -1, 0]:8.4f}  {visible(self.names[int(self.ids[n, -1, 0])]):20} "
            f"target {self.target_probability[n, -1]:8.4f}, rank {self.target_rank[n, -1]}"
            + ("" if self.difference is None else f", logit difference {self.difference[n, -1]:+.3f}")
            for n, layer in enumerate(self.layers)
        )
        return "\n".join([super().text(), *lines])

    def top(self, layer: int, position: int) -> list[tuple[str, int, float]]:
        """Return one layer's likeliest tokens at one position: (string, id, probability), likeliest first.

        Raises
        ------
        InputError
            A layer or a position that this result does not hold.

        Examples
        --------
        >>> result.top(3, 5)[0][0]
        ' Paris'
        """
        if layer not in self.layers or position not in self.positions:
            raise InputError(
                f"no layer {layer} at position {position} in this result; it holds layers {min(self.layers)}–"
                f"{max(self.layers)}, positions {min(self.positions)}–{max(self.positions)}"
            )
        at = self.layers.index(layer), self.positions.index(position)
        return [
            (self.names[int(i)], int(i), float(p)) for i, p in zip(self.ids[at], self.probabilities[at], strict=True)
        ]

    def to_frame(self) -> pd.DataFrame:
        """Return one row per layer and position: likeliest token, entropy, divergence, target, difference."""
        held = {} if self.difference is None else {"logit difference": self.difference.reshape(-1)}
        layer, place = (grid.reshape(-1) for grid in np.indices(self.kl.shape))
        best = self.ids[..., 0].reshape(-1).tolist()
        whole: dict[str, Any] = {
            "kl": self.whole_kl,
            "target probability": self.whole_target_probability,
            "target rank": self.whole_target_rank,
        }
        beside = {f"whole {name}": values.reshape(-1) for name, values in whole.items() if values is not None}
        return frame_of(
            {
                "layer": np.array(self.layers)[layer],
                "position": np.array(self.positions)[place],
                "token": [self.tokens[n] for n in place],
                "top": [self.names[index] for index in best],
                "probability": self.probabilities[..., 0].reshape(-1),
                "entropy": self.entropy.reshape(-1),
                "kl": self.kl.reshape(-1),
                "target probability": self.target_probability.reshape(-1),
                "target rank": self.target_rank.reshape(-1),
                **held,
            }
            | beside
        )


@technique(body=Prompt | Prompts)
def lens(
    model: LoadedModel,
    prompt: Prompt | Prompts,
    *,
    at: Literal["pre", "mid", "post"] = "post",
    target: TokenName | None = None,
    wrong: TokenName | None = None,
    kind: Literal["logit", "tuned", "jacobian"] = "logit",
    from_: str | None = None,
    layer: Indices = None,
    position: Positions = None,
    top: int = 5,
    features: FeaturesName | None = None,
    interventions: Variable = None,
    by: Literal["span", "position", "end"] | None = None,
) -> LensResult | LensManyResult:
    """The lens: each layer's residual stream read as a prediction, through the model's own final norm and unembedding.

    Parameters
    ----------
    prompt
        The text; or many: a list, a table's column, a file, a task's or pairs' clean prompts.
    at
        Where in a layer: before it, between its attention and its MLP, or after it.
    target
        The token that is followed, such as " Paris"; the model's own answer when not given, of a task or pairs theirs.
        Of many prompts it may be a list, one for each.
    wrong
        A token that the target is held against: the difference of their logits, layer by layer. Of a task or pairs it
        is theirs.
    kind
        logit reads the stream as it is; tuned and jacobian first map it to where the last layer would leave it.
    from_
        The tuned lens (a file of lens-train, a folder of the tuned-lens package) or the Jacobian lens (a .pt file).
    layer
        Layers to read, such as 5, 0-3 or 0,5,7; all when not given.
    position
        Positions to read, likewise, −1 for the last; or spans by their names, such as S2 or IO,END.
    top
        How many of the likeliest tokens to keep.
    features
        A loaded set of features whose account of each layer's stream is read, beside the stream itself; of one prompt.
    interventions
        A list of interp.Intervention, in whose run the streams are read; in a magic, the name of a variable that holds
        one.
    by
        How positions line up over many prompts: by span, of which the last token is read, by position where all have
        one length, or from the end. The first of span and position that there is when not given; where there is
        neither, the position of the answer alone is read.

    Returns
    -------
    LensResult
        ``ids`` is ``[layer, position, k]``; ``kl``, ``entropy``, ``target_probability``, ``target_rank`` and, with
        `wrong`, ``difference`` are ``[layer, position]``.
    LensManyResult
        Of many prompts: the same, ``[prompt, layer, place]``; ``spread("rank")`` is a mean over prompts, with standard
        error and 95 % interval.

    Raises
    ------
    InputError
        A prompt or target that cannot be used, a place that the model lacks, a lens of another model, or a model whose
        logits are not its final norm and unembedding.
    Interrupted
        Stopped by Ctrl-C once some positions, or some of many prompts, were read: they are in its ``result``.

    Notes
    -----
    Logit lens: nostalgebraist (2020), "interpreting GPT: the logit lens". Tuned lens: Belrose et al. (2023), "Eliciting
    Latent Predictions from Transformers with the Tuned Lens". Jacobian lens: transformer-lens'. After the last layer
    all of them are the model's own output. A BERT-type model is read through its whole prediction head.

    With features, what is read of a layer is its stream less what its dictionary does not explain: of a dictionary of
    the stream all that it gives back, x̂; of one of the MLP's or the attention's output (a transcoder, too) the stream
    with x̂ in the place of that output. Layers are taken one by one: lower ones are the model's own, and this says what
    would be predicted if the model stopped there, not what it would do with the dictionary in its forward (CE recovered
    of `features-load` is about that).

    Examples
    --------
    >>> interp.lens("The capital of France is", target=" Paris").target_rank[:, -1]
    array([269,   3,   0,   0])
    >>> features = interp.features_load("bundled")
    >>> account = interp.lens("The capital of France is", target=" Paris", features="bundled-features")
    >>> account.target_rank.shape, account.whole_target_rank[:, -1]
    ((4, 6), array([269,   3,   0,   0]))
    >>> interp.lens(task="ioi", n=4).difference.shape
    (4, 4, 4)
    """
    import torch

    from interp.engine.features import explained
    from interp.engine.model.each import activations
    from interp.engine.readouts import lens as engine

    if top < 1:
        raise InputError(f"--top {top} keeps nothing; use 1 or more")
    if kind == "logit" and from_ is not None:
        raise InputError("the logit lens is read from nothing; add --kind tuned or --kind jacobian, or drop --from")
    if features is not None and interventions is not None:
        raise InputError("--features reads the model's own run; leave --interventions out")
    if isinstance(prompt, Prompts):
        if features is not None:
            raise InputError("--features is read of one prompt; give one, or leave it out")
        asked = many.Asked(kind, at, from_, layer, position, top, by)
        return many.over(model, prompt, target, wrong, interventions, asked)
    if by is not None:
        raise InputError("--by is how many prompts line up; leave it out for one")
    given = None if features is None else features_of(model, features)
    encoded = model.encode(prompt)
    changes = as_interventions(interventions)
    (functions,) = edits.functions(model, changes, [encoded])
    named = answers.one(model, prompt, target, "target")
    against = answers.one(model, prompt, wrong, "wrong")
    found = engine.readout(model)
    maps = None if kind == "logit" else translators(model, kind, from_)
    layers = layers_of(model, given.layers if given is not None and layer is None else layer, at, maps)
    dictionaries = [] if given is None else [given.at(index) for index in layers]
    length = len(encoded.ids)
    spanned = named_positions.of_prompt(model, encoded)
    places = tuple(range(length)) if position is None else spanned.positions(position)
    streams, end, logits = streams_of(
        model, activations(model, encoded, sites(model, layers, at), functions), layers, at
    )
    engine.require(model, found, end[-1], logits)
    goal = named
    if goal is None:
        asked = predicted(model, encoded) if model.geometry.causal else places[-1]
        goal = int(engine.detached(lambda: found.logits(end[asked]).argmax()))
    if against == goal:
        raise InputError(f"--wrong is {model.tokens.string(goal)!r}, the target itself; name another token")
    if dictionaries:
        account = engine.detached(lambda: explained.explained(model, encoded, dictionaries, at))
        streams = torch.cat([account.to(streams), streams])
    if maps is not None:
        streams = engine.detached(lambda: moved(maps, [*layers, *layers][: len(streams)], at, streams))
    chosen = list(places)
    seen = engine.project(found, streams[:, chosen], end[chosen], goal, top, model.on_step)
    read = slice(len(layers))  # behind it, with features, stand the streams themselves
    ids, entropy = seen.ids[read], seen.entropy[read]
    reached = places[: ids.shape[1]]
    apart = None if against is None else engine.difference(found, streams[read][:, list(reached)], goal, against)
    other = () if named is None else answers.likelier(model, named, logits)
    lost = ~np.isfinite(entropy).all(1)
    notes = [f"partial: interrupted after {len(reached)} of {len(places)} positions"] if seen.interrupt else []
    if lost.any():
        notes.append(f"the predictions are NaN, first in layer {layers[int(lost.argmax())]}")
    result = LensResult(
        kind=kind,
        at=at,
        tokens=tuple(encoded.strings[n] for n in reached),
        layers=layers,
        positions=reached,
        ids=ids,
        probabilities=seen.probabilities[read],
        names={int(index): model.tokens.string(int(index)) for index in np.unique(ids)},
        entropy=entropy,
        kl=seen.kl[read],
        target=(model.tokens.string(goal), goal),
        target_probability=seen.target_probability[read],
        target_rank=seen.target_rank[read],
        **_whole(given.name, seen, len(layers)) if given is not None else {},
        wrong=None if against is None else (model.tokens.string(against), against),
        difference=apart,
        spans=spanned.within(reached, position),
        interventions=len(changes),
        notes=(*notes, *(maps.notes if maps is not None else ()), *other),
    )
    return unless_interrupted(result, seen.interrupt)


def _whole(name: str, seen: Projected, count: int) -> dict[str, Any]:
    """Return what stands beside the account of features: of the streams, which were read behind it."""
    return {
        "features": name,
        "whole_kl": seen.kl[count:],
        "whole_target_probability": seen.target_probability[count:],
        "whole_target_rank": seen.target_rank[count:],
    }
