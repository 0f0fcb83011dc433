"""The controls of a claim: the same interchanges, where they are not to give what it predicts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch

from interp.engine import exactness
from interp.engine.interchange.changes import SameNorm, Whole
from interp.engine.interchange.places import Place, Swap
from interp.engine.interchange.run import answers
from interp.engine.pool import sharing
from interp.errors import InputError, OutOfMemory, unknown
from interp.methods._shared.claims.verdict import Share
from interp.sites import FEATURES, Site

if TYPE_CHECKING:
    from interp.engine.interchange.changes import Subspace
    from interp.engine.model.loaded import LoadedModel

NAMES = ("labels", "model", "random", "below", "above")
STREAM = "stream"  # of claims that the answer stays


class Missing(Exception):
    """A control cannot be made; the message says why."""


@dataclass(frozen=True)
class Control:
    """One control.

    Attributes
    ----------
    name, said
        What it is called, and what it is in words.
    share
        How many interchanges gave what was predicted; ``None`` where it could not be made.
    missing
        Why not.
    """

    name: str
    said: str
    share: Share | None = None
    missing: str = ""


@dataclass(frozen=True)
class Test:
    """What is exchanged, between which prompts, and what of it is learned.

    Attributes
    ----------
    model
        The model.
    places
        What is exchanged.
    swaps, training
        The interchanges that count, and those that a subspace is found on; no prompt is in both.
    classes
        Token ids of which the likeliest is the answer.
    rank
        Dimensions of a subspace that is found; ``None`` for all that is there.
    seed
        Of what is drawn.
    stays
        Whether the claim is that the answer stays.
    """

    model: LoadedModel
    places: tuple[Place, ...]
    swaps: tuple[Swap, ...]
    training: tuple[Swap, ...]
    classes: tuple[int, ...]
    rank: int | None
    seed: int
    stays: bool

    def change(self) -> Whole | Subspace:
        """Return how the interchange is made, a subspace being found where one is meant."""
        if self.rank is None:
            return Whole()
        from interp.engine.interchange.das import fit

        targets = [swap.expected for swap in self.training]
        return fit(
            self.model,
            self.places,
            self.training,
            targets,
            self.classes,
            rank=self.rank,
            seed=self.seed,
            on_step=self.model.on_step,
        )

    def got(self, change: Whole | Subspace | SameNorm) -> list[int]:
        """Return the likeliest class after each interchange, by its number; −1 where the logits are no numbers."""
        if not self.swaps:
            return []
        logits = answers(self.model, self.places, self.swaps, self.classes, change, on_step=self.model.on_step)
        best = logits.argmax(1)
        best[~torch.isfinite(logits).all(1)] = -1
        return best.tolist()

    def share(self, got: Sequence[int]) -> Share:
        """Return how many of them are what is predicted."""
        wanted = [self.classes.index(swap.expected) for swap in self.swaps]
        return Share(sum(a == b for a, b in zip(got, wanted, strict=True)), len(wanted))

    def run(self) -> Share:
        """Return how many interchanges give what is predicted, all that is learned being learned anew."""
        return self.share(self.got(self.change()))


def chosen(given: object) -> tuple[str, ...]:
    """Return the controls that are asked for, in their order.

    Raises
    ------
    InputError
        There is none of that name.

    Examples
    --------
    >>> chosen("all") == NAMES, chosen("random,labels"), chosen("none")
    (True, ('labels', 'random'), ())
    """
    listed = given.split(",") if isinstance(given, str) else given
    if not isinstance(listed, list | tuple) or not all(isinstance(one, str) for one in listed):
        raise InputError(f"controls are {', '.join(NAMES)}, all or none; {given!r:.60} is none of them")
    asked = [str(one).strip().lower() for one in listed]
    if asked == ["all"]:
        return NAMES
    if asked == ["none"]:
        return ()
    for one in asked:
        if one not in NAMES:
            raise unknown("control", one, [*NAMES, "all", "none"], f"controls are {', '.join(NAMES)}, all or none")
    return tuple(name for name in NAMES if name in asked)


def control(name: str, test: Test, change: Whole | Subspace, got: Sequence[int]) -> Control:
    """Return one control of a claim whose interchange is `change`, and gave `got`."""
    said, make = _CONTROLS[name]
    words = said(test)
    try:
        return Control(name, words, make(test, change, got))
    except Missing as why:
        return Control(name, words, missing=str(why))
    except (InputError, OutOfMemory) as error:
        return Control(name, words, missing=f"cannot be made: {error}")


def run(names: Sequence[str], test: Test, change: Whole | Subspace, got: Sequence[int], into: list[Control]) -> None:
    """Append controls to `into`, in the order of their names; in the command's pool each is a shard.

    Raises
    ------
    KeyboardInterrupt
        Ctrl-C: those that are made are in `into`.
    """
    pool = None if _featured(test) else sharing.pool_of(test.model)
    if pool is None:
        for name in names:
            into.append(control(name, test, change, got))
        return
    asked = {one.name: getattr(test, one.name) for one in fields(test) if one.name != "model"}
    shards = [{"name": name, "test": asked, "change": change, "got": tuple(got)} for name in names]
    found: dict[int, Control] = {}

    def take(number: int, one: Control) -> None:
        found[number] = one
        test.model.on_step(len(found), len(names), "claim: controls")

    try:
        sharing.run(pool, "control", [test.model], shards, take, way=None)
    finally:
        into += [found[number] for number in sorted(found)]


def made(
    models: Sequence[LoadedModel],
    step: Callable[[], None],
    *,
    name: str,
    test: Mapping[str, Any],
    change: Whole | Subspace,
    got: Sequence[int],
) -> Control:
    """Return one control, as a worker makes it."""
    step()
    exactness.forget(models[0])  # what was compared before depends on who did what
    return control(name, Test(models[0], **test), change, got)


def label(swap: Swap, classes: Sequence[int], seed: int) -> int:
    """Return a class that has nothing to do with what a prompt says, the same for a prompt and a seed."""
    said = hashlib.blake2b(repr((seed, tuple(swap.source))).encode(), digest_size=8).digest()
    return classes[int.from_bytes(said, "big") % len(classes)]


def _labels(test: Test, change: Whole | Subspace, got: Sequence[int]) -> Share:  # noqa: ARG001
    """Score the same interchanges by arbitrary labels; a subspace is found on such labels, too."""
    if test.stays:
        raise Missing("of a claim that the answer stays there are no labels")
    own = replace(
        test,
        swaps=tuple(replace(swap, expected=label(swap, test.classes, test.seed)) for swap in test.swaps),
        training=tuple(replace(swap, expected=label(swap, test.classes, test.seed)) for swap in test.training),
    )
    return own.share(got) if test.rank is None else own.run()


def _model(test: Test, change: Whole | Subspace, got: Sequence[int]) -> Share:  # noqa: ARG001
    if test.stays:
        raise Missing("a random model has no answer that could stay")
    if _featured(test):
        raise Missing("a random model has no features")
    from interp.engine.interchange.untrained import untrained

    other = untrained(test.model, test.seed)
    try:
        return replace(test, model=other).run()
    finally:
        other.close()


def _random(test: Test, change: Whole | Subspace, got: Sequence[int]) -> Share:  # noqa: ARG001
    return test.share(test.got(SameNorm(change, test.seed)))


def _layer(step: int) -> Callable[[Test, Whole | Subspace, Sequence[int]], Share]:
    def made(test: Test, change: Whole | Subspace, got: Sequence[int]) -> Share:  # noqa: ARG001
        if _featured(test):
            raise Missing("the features of another layer are others")
        return replace(test, places=tuple(_moved(test.model, place, step) for place in test.places)).run()

    return made


def _moved(model: LoadedModel, place: Place, step: int) -> Place:
    """Return a place one layer below or above; beyond the ends of the stream there is the embedding, and its end."""
    name, layer, last = place.site.name, place.site.layer + step, model.geometry.n_layers - 1
    if layer < 0 and name == "resid_post":
        return replace(place, site=Site("resid_pre", 0))
    if layer > last and name == "resid_pre":
        return replace(place, site=Site("resid_post", last))
    if not 0 <= layer <= last:
        raise Missing(f"there is no layer {'below the first' if layer < 0 else 'above the last'}")
    return replace(place, site=Site(name, layer))


def _stream(test: Test, change: Whole | Subspace, got: Sequence[int]) -> Share:  # noqa: ARG001
    """Exchange all of the residual stream at the positions: in the layer where that moves the answer the most."""
    layers = sorted({place.site.layer for place in test.places})
    last = test.model.geometry.n_layers - 1
    tried = [Site("resid_pre", 0), Site("resid_post", layers[-1]), Site("resid_post", last)]
    swaps: list[Swap] = []
    for swap in test.swaps:
        places = zip(swap.at, swap.taken, strict=True)
        lined = {at: taken for own, other in places for at, taken in zip(own, other, strict=True)}
        swaps.append(replace(swap, at=(tuple(lined),), taken=(tuple(lined.values()),)))
    own = replace(test, swaps=tuple(swaps), training=(), rank=None)
    runs = [replace(own, places=(Place(site),)) for site in dict.fromkeys(tried)]
    return min((one.share(one.got(Whole())) for one in runs), key=lambda share: share.value)


def _featured(test: Test) -> bool:
    return any(place.site.kind is FEATURES for place in test.places)


def _of_random(test: Test) -> str:
    if _featured(test):
        return "as many other features"
    return "a random change of the same size" if test.rank is None else "a random subspace, moved as far"


_CONTROLS: dict[str, tuple[Callable[[Test], str], Callable[[Test, Whole | Subspace, Sequence[int]], Share]]] = {
    "labels": (lambda _: "arbitrary labels", _labels),
    "model": (lambda _: "a random model", _model),
    "random": (_of_random, _random),
    "below": (lambda _: "the layer below", _layer(-1)),
    "above": (lambda _: "the layer above", _layer(1)),
    STREAM: (lambda _: "the whole residual stream there", _stream),
}
