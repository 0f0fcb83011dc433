"""What an ablation takes away: heads, MLPs, directions, features and edges of attention, as they are named."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from interp.errors import InputError
from interp.lazy import each
from interp.methods._shared import directions, named_positions, names
from interp.methods._shared.features import features_of
from interp.sites import Site
from interp.spans import Positions
from interp.spec import Components, Indices, Texts, resolve_indices

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.patching.ablation import Part, Sample
    from interp.methods._shared.named_positions import Spanned


@dataclass(frozen=True)
class Away:
    """What is taken away.

    Attributes
    ----------
    parts
        All of it, as the engine takes it.
    components
        The numbers of the parts of each component.
    names
        What the components are called.
    asked
        The positions where outputs and coordinates are taken away, as they were named; ``None`` for everywhere.
    notes
        On directions.
    """

    parts: tuple[Part, ...]
    components: tuple[tuple[int, ...], ...]
    names: tuple[str, ...]
    asked: Any = None
    notes: tuple[str, ...] = ()

    @property
    def replaces(self) -> bool:
        """Whether anything but edges is taken away."""
        return any(part.site != "scores" for part in self.parts)

    @property
    def at(self) -> str:
        """What the positions are called; empty for everywhere."""
        return "" if self.asked is None else named_positions.named(self.asked)

    @property
    def named(self) -> bool:
        """Whether positions are asked for that every prompt has at places of its own."""
        return self.asked is not None or bool(self._ends)

    def read(self, data: Texts) -> Texts:
        """Return texts with their marks read, where names are asked for."""
        names = named_positions.is_named(self.asked) or any(isinstance(end, str) for end in self._ends)
        return replace(data, texts=each(data.texts, named_positions.read)) if names else data

    @property
    def _ends(self) -> set[int | str]:
        ends = {end for part in self.parts if part.site == "scores" for end in (part.query, part.key)}
        return {end for end in ends if isinstance(end, str) or (end is not None and end < 0)}

    def where(self, prompts: Sequence[Spanned]) -> list[tuple[int, ...]]:
        """Return where in each prompt outputs and coordinates are taken away; empty for everywhere."""
        return [] if self.asked is None else [one.positions(self.asked) for one in prompts]

    def placed(
        self, model: LoadedModel, samples: Sequence[Sample], prompts: Sequence[Spanned], *, first: int = 0
    ) -> list[Sample]:
        """Return the prompts, numbered from `first` on, with what ends of edges mean in each.

        Raises
        ------
        InputError
            An end that a prompt does not have, edges that cut nothing, or that leave a query without any key.
        """
        ends = self._ends
        if ends:
            samples = [
                replace(sample, ends={end: one.positions(end) for end in ends})
                for sample, one in zip(samples, prompts, strict=True)
            ]
        self._check(model, samples, first)
        return list(samples)

    def _check(self, model: LoadedModel, samples: Sequence[Sample], first: int) -> None:
        causal = model.geometry.causal
        edges = [
            (self.parts[numbers[0]], numbers, name)
            for numbers, name in zip(self.components, self.names, strict=True)
            if self.parts[numbers[0]].site == "scores"
        ]
        for number, sample in enumerate(samples if edges else (), first):
            length = len(sample.ids)
            where = f"prompt {number}" if first or len(samples) > 1 else "the prompt"
            gone: dict[tuple[int, int | None, int], set[int]] = defaultdict(set)
            for part, numbers, name in edges:
                given = [end for end in (part.query, part.key) if isinstance(end, int) and end not in sample.ends]
                later = causal and part.query is None  # the queries behind the key
                if max(given, default=0) + later >= length:
                    raise InputError(f"--knockout {name!r} is beyond {where}, whose positions are 0–{length - 1}")
                cut = [(query, key) for queries, key in sample.edges(part, causal) for query in queries]
                if not cut:
                    raise InputError(
                        f"--knockout {name!r} cuts nothing in {where}: no token of {part.query or 'it'} comes after "
                        f"{part.key}"
                    )
                for n in numbers:
                    for query, key in cut:
                        gone[self.parts[n].layer, self.parts[n].head, query].add(key)
            for (layer, head, query), keys in gone.items():
                if len(keys | gone.get((layer, None, query), set())) == (query + 1 if causal else length):
                    which = f"layer {layer}" if head is None else f"{layer}.{head}"
                    shown = ", ".join(f"{which}:{query}->{key}" for key in sorted(keys)[:3])
                    raise InputError(
                        f"--knockout cuts every key of query {query} in {which}: something must be left; leave out "
                        f"one of {shown}"
                    )


def asked(
    model: LoadedModel,
    heads: Components | None,
    mlps: Indices,
    knockout: Components | None,
    direction: tuple[Any, Indices, str | None],
    feature: tuple[Any, str | None],
    at: Positions = None,
) -> Away:
    """Return what the arguments of an ablation mean.

    Parameters
    ----------
    direction
        A direction, its layers and its site.
    feature
        Features, and the name of their set.

    Raises
    ------
    InputError
        Nothing is named, or something that is not there.
    """
    directed = direction[0] is not None or feature[0] is not None
    components, named = _parts(model, heads, mlps, knockout, directed=directed)
    along, notes = _along(model, *direction)
    of_features = _features(model, *feature)
    components += [[part] for part in (*along, *of_features)]
    named += [f"{part.layer}.direction" for part in along]
    named += [f"F{part.layer}.{part.feature}" for part in of_features]
    parts = [part for some in components for part in some]
    for part in parts:
        if part.dictionary is None:
            model.require_site("pattern" if part.site == "scores" else part.site, [part.layer])
    if at is not None and all(part.site == "scores" for part in parts):
        raise InputError("--at says where outputs are taken away, and edges are cut where they are; leave it out")
    numbers = iter(range(len(parts)))
    groups = tuple(tuple(next(numbers) for _ in some) for some in components)
    return Away(tuple(parts), groups, tuple(named), at, tuple(notes))


def _parts(
    model: LoadedModel, heads: Components | None, mlps: Indices, knockout: Components | None, *, directed: bool
) -> tuple[list[list[Part]], list[str]]:
    """Return the parts of each component, and what these are called."""
    from interp.engine.patching.ablation import Part

    geometry = model.geometry
    if heads is None and mlps is None and knockout is None and not directed:
        raise InputError(
            "say what to ablate: --heads 9.9,10.0, --mlps 3, or --knockout 9.9:14->2, or --feature 2.417, or "
            "--direction NAME --layer 5"
        )
    nodes = names.heads(heads, geometry) if heads is not None else []
    layers = resolve_indices(mlps, geometry.n_layers, "mlp") if mlps is not None else ()
    cuts = names.cuts(knockout, geometry) if knockout is not None else []
    parts = [
        *([Part("z", node.layer, node.head)] for node in nodes),
        *([Part("mlp_out", layer)] for layer in layers),
        *([Part("scores", layer, head, cut.query, cut.key) for layer, head in cut.heads] for cut in cuts),
    ]
    return parts, [*(node.name for node in nodes), *(f"{n}.mlp" for n in layers), *(cut.name for cut in cuts)]


def _along(model: LoadedModel, value: Any, layer: Indices, site: str | None) -> tuple[list[Part], list[str]]:
    """Return the direction as what is taken away at each of its layers, and notes on it."""
    from interp.engine.patching.ablation import Part

    if value is None:
        for flag, one in (("layer", layer), ("site", site)):
            if one is not None:
                raise InputError(f"--{flag} says where a direction is taken out: name it with --direction")
        return [], []
    found_in, found_at = directions.place_of(model, value)
    if layer is None and found_at is None:
        raise InputError("say at which layers the direction is taken out: --layer 5, or 3-6")
    parts: list[Part] = []
    notes: list[str] = []
    for at in resolve_indices(found_at if layer is None else layer, model.geometry.n_layers, "layer"):
        place = Site(site or found_in, at)
        vector, _, said = directions.given(model, place, value)
        notes += [note for note in said if note not in notes]
        parts.append(Part(place.name, at, direction=vector / vector.norm()))
    return parts, notes


def _features(model: LoadedModel, named: Any, name: str | None) -> list[Part]:
    """Return features as what is taken away."""
    from interp.engine.features.edits import sites_of
    from interp.engine.patching.ablation import Part

    if named is None:
        if name is not None:
            raise InputError("--features names the set that features are of: say which with --feature 2.417")
        return []
    given = features_of(model, name)
    listed = [given.feature(one) for one in names.words(named, "--feature")]
    parts = [Part(sites_of(one)[0].name, one.layer, feature=number, dictionary=one) for one, number in listed]
    return list(dict.fromkeys(parts))


def replacement(mode: str, references: Sequence[tuple[int, ...]], seed: int) -> str:
    """Return in words what is put in the place of what is taken away."""
    from interp.engine.patching.ablation import by_position

    over = f"{len(references)} prompt{'s' * (len(references) != 1)}"
    if mode == "zero":
        return "zero"
    if mode == "mean":
        way = "position by position" if by_position(references) else "and all positions, the first apart"
        return f"mean over {over}, {way}" if by_position(references) else f"mean over {over} {way}"
    if mode == "resample":
        return f"another prompt's, drawn from {over}, seed {seed}"
    return f"itself and Gaussian noise of its own standard deviation over {over}, seed {seed}"
