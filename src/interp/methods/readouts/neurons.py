"""MLP neurons: where they are strongest in running text, what they read and write, and which are alike."""

from __future__ import annotations

import re
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from interp.errors import InputError, unless_interrupted
from interp.interface.registry import technique
from interp.methods._shared import favourites
from interp.methods._shared.clusters import Clusters, embedder
from interp.methods._shared.favourites import Favourite
from interp.methods._shared.names import words
from interp.results import Result, resolve
from interp.results.tables import frame_of, lines_of
from interp.spec import Components, Texts, resolve_indices

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from interp.engine.model.loaded import LoadedModel
    from interp.engine.readouts.neurons import Static
    from interp.results.tables import Float

_NEURON = re.compile(r"(\d+)\.(\d+|\*)")
_TOKENS = 8  # that a neuron reads, promotes and suppresses
_NOTED = 3
_OPTIMISED = 16  # neurons whose inputs are looked for
_STATIC = 512  # neurons whose weights are read as tokens


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class NeuronsResult(Result):
    """What neurons do in texts, and what their weights say.

    Attributes
    ----------
    neurons
        ``"5.123"`` is neuron 123 of layer 5.
    activations
        ``float32 [neuron, k]``: the strongest activations, strongest first (with `lowest`, the lowest first); NaN where
        there were fewer tokens.
    ids, around
        ``int64`` and ``float32 [neuron, k, 2 · context + 1]``: the tokens around each, itself in the middle, and their
        activations; −1 and NaN beyond a text's ends.
    place
        ``int64 [neuron, k, 2]``: which text, and which position in it.
    strings
        Token id → its string, for every id that is here.
    lowest
        Whether the lowest activations were looked for instead of the highest.
    stats
        ``mean``, ``std``, ``sparsity`` (1 − (mean |a|)² / mean a²), ``positive`` (the share of tokens above 0), ``min``
        and ``max``: ``float64 [neuron]`` each, over all tokens but BOS.
    inputs
        What a neuron has of input weights: ``("in",)``, or ``("gate", "up")`` in a gated MLP, whose activation is
        act(gate · x) (up · x) and has either sign; empty where the weights are not read as tokens.
    read, read_values
        ``int64`` and ``float32 [neuron, input, token]``: the tokens whose embeddings are furthest along the input
        weights, the norm's gain folded in.
    promoted, promoted_values, suppressed, suppressed_values
        ``[neuron, token]``: what a positive activation does to logits directly, through the final norm's gain.
    texts, tokens_read
        How many texts and tokens were read.
    source
        Where the texts came from.
    clusters
        A map of neurons or tokens; ``None`` where none was asked for.
    favourites
        With `--optimise`, the input that was found to drive each neuron most.
    """

    neurons: tuple[str, ...]
    activations: NDArray[np.float32]
    ids: NDArray[np.int64]
    around: NDArray[np.float32]
    place: NDArray[np.int64]
    strings: Mapping[int, str]
    lowest: bool
    stats: Mapping[str, Float]
    inputs: tuple[str, ...]
    read: NDArray[np.int64]
    read_values: NDArray[np.float32]
    promoted: NDArray[np.int64]
    promoted_values: NDArray[np.float32]
    suppressed: NDArray[np.int64]
    suppressed_values: NDArray[np.float32]
    texts: int
    tokens_read: int
    source: str = ""
    clusters: Clusters | None = field(default=None)
    favourites: tuple[Favourite, ...] = ()

    _html: ClassVar[str] = "interp.views.neurons:html"
    _svg: ClassVar[str | None] = "interp.views.neurons:svg"
    _plotly: ClassVar[str | None] = "interp.views.neurons:plotly"

    def summary(self) -> str:
        """Return which neurons, over how much text."""
        named = ", ".join(self.neurons[:4]) + (f" … ({len(self.neurons)})" if len(self.neurons) > 4 else "")
        found = f"; {self.clusters.count} clusters of {self.clusters.of}" if self.clusters is not None else ""
        return f"{self.provenance.model}: {named} over {self.texts} texts, {self.tokens_read:,} tokens{found}"

    def _lines(self) -> list[str]:
        visible = resolve("interp.views.kit.text:visible")
        rows: list[tuple[str, float, str]] = []
        for name in self.neurons[:5]:
            for value, before, token, after in self.contexts(name)[:2]:
                rows.append((name, value, visible("".join((*before[-6:], "«", *token, "»", *after[:3])))))
        return lines_of(("neuron", "activation", "where"), rows)

    def contexts(self, neuron: str) -> list[tuple[float, tuple[str, ...], tuple[str, ...], tuple[str, ...]]]:
        """Return a neuron's strongest activations: (activation, tokens before, the token, tokens after).

        Examples
        --------
        >>> result.contexts("1.5")[0]
        (..., (...), (...), (...))
        """
        if neuron not in self.neurons:
            raise InputError(f"{neuron!r} is not in this result; it has {', '.join(self.neurons[:8])}")
        row, middle = self.neurons.index(neuron), self.ids.shape[-1] // 2
        found: list[tuple[float, tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = []
        for value, ids in zip(self.activations[row].tolist(), self.ids[row], strict=True):
            if np.isfinite(value):
                before, own, after = (
                    tuple(self.strings[n] for n in part.tolist() if n >= 0)
                    for part in (ids[:middle], ids[middle : middle + 1], ids[middle + 1 :])
                )
                found.append((value, before, own, after))
        return found

    def to_frame(self) -> pd.DataFrame:
        """Return one row per strong activation: neuron, rank, activation, token, text, position, context."""
        rows = [
            (name, rank, value, own[0], *self.place[n, rank].tolist(), "".join((*before, *own, *after)))
            for n, name in enumerate(self.neurons)
            for rank, (value, before, own, after) in enumerate(self.contexts(name))
        ]
        return frame_of(rows, columns=["neuron", "rank", "activation", "token", "text", "position", "context"])


@technique(body=Texts, forecasts=True, changes=True)
def neurons(
    model: LoadedModel,
    texts: Texts,
    which: Components,
    *,
    top: int = 10,
    context: int = 8,
    lowest: bool = False,
    cluster: Literal["umap", "tsne"] | None = None,
    of: Literal["neurons", "tokens"] = "neurons",
    points: int = 2000,
    optimise: bool = False,
    length: int = 8,
    steps: int = 50,
    seed: int = 0,
) -> NeuronsResult:
    """MLP neurons over texts: the tokens that drive them most, what their weights read and write, and clusters.

    Parameters
    ----------
    texts
        Running text: a list, a table's column or a file.
    which
        Neurons, such as 5.123,5.7; all of a layer as 5.*.
    top
        How many of the strongest activations to keep for each.
    context
        How many tokens on either side to keep with them.
    lowest
        Keep the lowest activations instead: a gated neuron has either sign.
    cluster
        Lay neurons or tokens out in the plane by umap or tsne, and find clusters there.
    of
        What is clustered: neurons, by what they do over tokens, or tokens, by what the neurons do there.
    points
        Of how many tokens, drawn at random, the clusters are made.
    optimise
        Look for the input that drives each most, too, from random tokens by gradients.
    length, steps
        Tokens of that input, and steps of the search.
    seed
        Of the draw and the layout, and of the random tokens.

    Returns
    -------
    NeuronsResult
        Arrays over neurons. What is kept does not grow with the number of texts.

    Raises
    ------
    InputError
        A neuron that the model lacks, no text, clusters without their packages or of fewer than 10 points.
    Interrupted
        Stopped by Ctrl-C: what the texts so far gave is in its ``result``.

    Notes
    -----
    Activations are those after the activation function; of a gated MLP after the product with the other input. BOS is
    left out: what is there does not depend on the text. Weights as tokens: Geva et al. (2022), "Transformer
    Feed-Forward Layers Build Predictions by Promoting Concepts in the Vocabulary Space". Layouts: McInnes et al.
    (2018), "UMAP"; van der Maaten and Hinton (2008), "Visualizing Data using t-SNE"; clusters: HDBSCAN, Campello et al.
    (2013), in the plane. Inputs by gradients: Zou et al. (2023), "Universal and Transferable Adversarial Attacks on
    Aligned Language Models".

    Examples
    --------
    >>> interp.neurons(["1.5", "0.3"], ["Once upon a time", "The end"]).neurons
    ('1.5', '0.3')
    >>> interp.neurons("2.*", ["Once upon a time there was a cat"]).ids.shape[0]
    512
    """
    from interp.engine.forecast.costs import foresee
    from interp.engine.readouts import foreseen
    from interp.engine.readouts import neurons as engine
    from interp.engine.readouts.neuron_statistics import Asked
    from interp.engine.readouts.neuron_texts import read

    for name, value, least in (("top", top, 1), ("context", context, 0), ("points", points, 10)):
        if value < least:
            raise InputError(f"--{name} {value} is too few; use {least} or more")
    layout = None if cluster is None else embedder(cluster)
    names, chosen = _chosen(model, which)
    if optimise:
        _optimisable(model, names, length, steps, lowest)
    said, lengths = _checked(model, texts)

    reader = engine.Reader(model, chosen)
    static = len(names) if len(names) <= _STATIC else 0
    foresee(model, lambda: foreseen.of_neurons(model, reader, lengths, static=static))
    asked = Asked(top, context, lowest, points if cluster is not None else 0, seed)
    count = len(lengths)
    found, done = read(model, reader, (model.tokens.ids(prompt)[0] for prompt in texts.texts), count, asked)
    for path, extra in done.paths.items():
        model.note(path, extra)
    best, moments, sample = found.best, found.moments, found.sample
    lost, stopped = found.lost, done.interrupt
    if not moments.count:
        if stopped is not None:
            raise stopped
        raise InputError("no text has a token besides BOS; type longer ones")
    order = [f"{layer}.{neuron}" for layer, held in chosen.items() for neuron in held]
    back = [order.index(name) for name in names] if order != names else list(range(len(names)))
    weights: Static | None = None
    unread: list[str] = []
    clusters = None
    rest = [] if stopped is None or layout is None else ["without clusters"]
    try:
        weights, unread = _static(model, chosen)
        if layout is not None and sample is not None and stopped is None:
            rest = ["before the clusters were made"]
            rows = sample.rows[:, back].numpy()
            clusters = layout(rows, of, names, [model.tokens.string(n) for n in sample.ids.tolist()], seed)
    except KeyboardInterrupt as interrupt:
        stopped = interrupt
    partial = ", ".join([f"partial: interrupted after {found.texts} of {count} texts", *rest])
    notes = [partial] if stopped is not None else []
    inputs: tuple[Favourite, ...] = ()
    if optimise and stopped is None:
        inputs, stopped = favourites.of_neurons(model, names, length=length, steps=steps, seed=seed)
        notes += [favourites.partial(inputs[-1], steps)] if stopped is not None else []
    if lost:
        notes.append(f"activations are NaN or infinite in {lost} texts, which are left out")
    values, ids, around, place = (
        array[back].numpy().copy() for array in (best.values, best.ids, best.around, best.place)
    )
    none = ~np.isfinite(values)
    values[none], ids[none], around[none], place[none] = np.nan, -1, np.nan, -1
    arrays: dict[str, Any] = {} if weights is None else _tokens(weights, back)
    empty: dict[str, Any] = {name: np.zeros((len(names), 0), np.float32) for name in _FIELDS}
    known = {int(n) for array in (ids, *arrays.values()) if array.dtype == np.int64 for n in np.unique(array)}
    result = NeuronsResult(
        neurons=tuple(names),
        activations=-values if lowest else values,
        ids=ids,
        around=around,
        place=place,
        strings={n: model.tokens.string(n) for n in sorted(known - {-1})},
        lowest=lowest,
        stats={name: value[back].numpy().copy() for name, value in moments.statistics().items()},
        inputs=() if weights is None else weights.inputs,
        **{**empty, **arrays},
        texts=found.texts,
        tokens_read=moments.count,
        source=texts.source,
        clusters=clusters,
        favourites=inputs,
        notes=(*notes, *said, *unread),
    )
    return unless_interrupted(result, stopped)


def _optimisable(model: LoadedModel, names: list[str], length: int, steps: int, lowest: bool) -> None:
    favourites.check(model, length, steps)
    if len(names) > _OPTIMISED:
        raise InputError(
            f"--optimise looks for inputs of {_OPTIMISED} neurons at most, not of {len(names)}; name fewer"
        )
    if lowest:
        raise InputError("--optimise raises activations; leave --lowest out")


_FIELDS = ("read", "read_values", "promoted", "promoted_values", "suppressed", "suppressed_values")


def _tokens(weights: Static, order: list[int]) -> dict[str, Any]:
    return {name: getattr(weights, name)[order].numpy().copy() for name in _FIELDS}


def _chosen(model: LoadedModel, which: Any) -> tuple[list[str], dict[int, list[int]]]:
    """Return the neurons' names as they were asked for, and layer → neurons.

    Raises
    ------
    InputError
        What is no neuron, or one that is not there.
    """
    names: dict[str, None] = {}
    chosen: dict[int, list[int]] = {}
    for word in words(which, "which"):
        match = _NEURON.fullmatch(word)
        if match is None:
            raise InputError(
                f"{word!r} is no neuron; type its layer and number, such as 5.123, or 5.* for all of layer 5"
            )
        (layer,) = resolve_indices(int(match[1]), model.geometry.n_layers, "layer")
        model.require_site("neuron", [layer])
        width = model.neurons(layer)
        numbers = range(width) if match[2] == "*" else resolve_indices(int(match[2]), width, "neuron")
        for number in numbers:
            if f"{layer}.{number}" not in names:
                names[f"{layer}.{number}"] = None
                chosen.setdefault(layer, []).append(number)
    return list(names), chosen


def _checked(model: LoadedModel, texts: Texts) -> tuple[list[str], array[int]]:
    """Check every text before anything runs; return what is worth knowing, and how long they are: ids are not kept."""
    lengths = array("i")
    notes: dict[str, None] = {}
    several = len(texts.texts) > 1
    for number, prompt in enumerate(texts.texts):
        where = f"text {number}: " if several else ""
        try:
            ids, found = model.tokens.ids(prompt)
        except InputError as error:
            raise InputError(f"{where}{error}") from None
        lengths.append(len(ids))
        if len(notes) < _NOTED:
            notes |= dict.fromkeys(f"{where}{note}" for note in found)
    if not lengths:
        raise InputError("there are no texts; give at least one")
    return list(notes), lengths


def _static(model: LoadedModel, chosen: Mapping[int, list[int]]) -> tuple[Static | None, list[str]]:
    from interp.engine import exactness
    from interp.engine.readouts import neurons as engine
    from interp.engine.readouts.ov_qk import unmixed

    count = sum(map(len, chosen.values()))
    if count > _STATIC:
        return None, [f"what neurons read and write is left out for more than {_STATIC} at once"]
    g = model.geometry
    try:
        with unmixed(model.device):
            return engine.static(model, chosen, min(_TOKENS, g.d_vocab, g.d_vocab_out)), []
    except exactness.Unreadable as reason:
        return None, [f"what neurons read and write is left out: {reason}"]
