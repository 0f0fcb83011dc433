"""Subspaces that are learned: they find what is planted, nothing where nothing is, and leave the model as it was."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from interp import truth
from interp.engine import exactness
from interp.engine.interchange.changes import SameNorm, Subspace, random_basis
from interp.engine.interchange.das import fit
from interp.engine.interchange.places import Place, Swap
from interp.engine.interchange.run import answers
from interp.engine.interchange.untrained import untrained
from interp.engine.model import load
from interp.engine.transformer import network
from interp.errors import InputError
from interp.sites import Site

END, SLOTS, REPEAT = 9, (2, 4), 7
CLASSES = tuple(range(7, 21))  # the names


@pytest.fixture(scope="module")
def ioi() -> tuple[truth.Compiled, Any]:
    made = truth.build("ioi")
    return made, load.load(made.bridge(), options=load.Options(device="cpu"))


def slot(ids: Sequence[int]) -> int:
    """Return where the repeated name stood first: the program's variables `earlier` and `inhibited`."""
    return next(at for at in SLOTS if ids[at] == ids[REPEAT])


def swaps(made: truth.Compiled, first: int, stop: int, at: int = END) -> list[Swap]:
    """Return swaps between prompts that repeat names of different slots: the answer becomes the repeated name."""
    prompts = [pair.clean.ids for pair in made.pairs(48, seed=1).pairs][first:stop]
    generator = random.Random(0)
    found: list[Swap] = []
    for base in prompts:
        assert base is not None
        source = generator.choice([ids for ids in prompts if ids is not None and slot(ids) != slot(base)])
        found.append(Swap(base, source, ((at,),), ((at,),), END, base[REPEAT]))
    return found


def accuracy(model: Any, places: Sequence[Place], some: Sequence[Swap], change: Any) -> float:
    best = answers(model, places, some, CLASSES, change).argmax(1).tolist()
    return sum(CLASSES[n] == swap.expected for n, swap in zip(best, some, strict=True)) / len(some)


def learned(model: Any, places: Sequence[Place], some: Sequence[Swap], **options: Any) -> Subspace:
    given: dict[str, Any] = {"rank": 1, "seed": 0, "steps": 60} | options
    return fit(model, places, some, [swap.expected for swap in some], CLASSES, **given)


def angle(basis: Tensor, directions: Tensor) -> float:
    """Return the cosine of the smallest principal angle between a subspace and that of a variable's differences."""
    planted = torch.linalg.svd(directions - directions.mean(0)).Vh[: len(directions) - 1]
    return float(torch.linalg.svdvals(planted @ basis.to(planted))[0])


@pytest.mark.parametrize(
    ("site", "layer", "at", "variable"),
    [("resid_post", 1, END, "inhibited"), ("resid_pre", 2, END, "inhibited"), ("resid_post", 0, REPEAT, "earlier")],
)
def test_a_planted_variable_is_found(site: str, layer: int, at: int, variable: str, ioi: Any) -> None:
    made, model = ioi
    places, train, held_out = [Place(Site(site, layer))], swaps(made, 0, 24, at), swaps(made, 24, 48, at)
    subspace = learned(model, places, train, steps=150)
    assert accuracy(model, places, held_out, subspace) == 1.0
    assert accuracy(model, places, held_out, SameNorm(subspace, 1)) < 0.2
    assert angle(subspace.bases[0], made.directions[variable]) > 0.75
    assert angle(random_basis(len(made.directions[variable].T), 1, 0), made.directions[variable]) < 0.3
    assert subspace.losses[-1] < 0.1 < subspace.losses[0]


# The slot of the name is written by head 0.0 where it is repeated, and by head 1.2 at the end: a layer before there is
# none at the end, nor is there in what the MLP adds where the name is repeated.
@pytest.mark.parametrize(
    ("site", "layer", "at"), [("resid_pre", 1, END), ("resid_post", 0, END), ("mlp_out", 0, REPEAT)]
)
def test_nothing_is_found_where_it_is_not_written(site: str, layer: int, at: int, ioi: Any) -> None:
    made, model = ioi
    places = [Place(Site(site, layer))]
    for rank in (1, 3):
        subspace = learned(model, places, swaps(made, 0, 24, at), rank=rank)
        assert accuracy(model, places, swaps(made, 24, 48, at), subspace) < 0.2


def test_arbitrary_answers_do_not_generalise(ioi: Any) -> None:
    """A subspace of many dimensions learns arbitrary answers of some prompts, and says nothing of others."""
    made, model = ioi
    places = [Place(Site("resid_post", 1))]

    def arbitrary(some: Sequence[Swap]) -> list[Swap]:
        drawn = [hashlib.blake2b(repr(swap.source).encode()).digest()[0] % len(CLASSES) for swap in some]
        return [
            Swap(swap.base, swap.source, swap.at, swap.taken, swap.position, CLASSES[n])
            for swap, n in zip(some, drawn, strict=True)
        ]

    train, held_out = arbitrary(swaps(made, 0, 24)), arbitrary(swaps(made, 24, 48))
    subspace = learned(model, places, train, rank=8, steps=100)
    assert accuracy(model, places, held_out, subspace) < 0.3
    assert subspace.losses[-1] < subspace.losses[0]


def test_a_random_model_has_no_such_subspace(ioi: Any) -> None:
    made, model = ioi
    other = untrained(model, 0)
    places = [Place(Site("resid_post", 1))]
    subspace = learned(other, places, swaps(made, 0, 24))
    assert accuracy(other, places, swaps(made, 24, 48), subspace) < 0.4
    other.close()


def test_a_seed_gives_the_same_bits_and_nothing_else_is_touched(ioi: Any) -> None:
    made, model = ioi
    places, train = [Place(Site("resid_post", 1)), Place(Site("z", 1), head=2)], swaps(made, 0, 12)
    train = [Swap(s.base, s.source, s.at * 2, s.taken * 2, s.position, s.expected) for s in train]
    parameters = list(model.hf_model.parameters())
    parameters[0].requires_grad_(False)
    flags = [parameter.requires_grad for parameter in parameters]
    state, before, hooks = torch.random.get_rng_state(), model.fingerprint(), model.user_hooks()
    with torch.no_grad():  # whatever the cell around it has set
        subspaces = [learned(model, places, train, rank=2, seed=seed, steps=8) for seed in (0, 0, 1)]
        assert not torch.is_grad_enabled()
    assert all(torch.equal(a, b) for a, b in zip(subspaces[0].bases, subspaces[1].bases, strict=True))
    assert subspaces[0].losses == subspaces[1].losses
    assert not torch.allclose(subspaces[0].bases[0], subspaces[2].bases[0], atol=1e-3)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (model.fingerprint(), model.user_hooks()) == (before, hooks)
    assert [parameter.requires_grad for parameter in parameters] == flags
    assert all(parameter.grad is None for parameter in parameters)
    assert not any(module.training for _, module in model.modules())
    for basis in subspaces[0].bases:
        assert torch.allclose(basis.T @ basis, torch.eye(2, dtype=basis.dtype), atol=1e-12)
        assert not basis.requires_grad
    parameters[0].requires_grad_(True)


@pytest.mark.parametrize("family", ["gpt2", "llama", "neox"])
def test_without_hooks_it_is_what_it_is_with_them(
    family: str, lend: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = lend(family)
    prompts = ((5, 11, 23, 31, 8, 40), (5, 11, 64, 31, 9, 41), (50, 3, 23, 30, 8), (5, 17, 3, 60, 9))
    pairs = [(a, b) for a in prompts for b in prompts if a != b]
    some = [Swap(a, b, ((2, 3), (1,)), ((1, 4), (2,)), len(a) - 1, CLASSES[len(b) % 3]) for a, b in pairs]
    places = [Place(Site("resid_post", 0)), Place(Site("z", 1), head=1)]
    exactness.forget(model)
    lean = learned(model, places, some, rank=2, steps=5)

    def unreadable(*_: object, **__: object) -> None:
        raise exactness.Unreadable("of the test")

    monkeypatch.setattr(network, "read", unreadable)
    hooked = learned(model, places, some, rank=2, steps=5)
    assert lean.losses == pytest.approx(hooked.losses, rel=1e-4)
    assert all(torch.allclose(a, b, atol=1e-3) for a, b in zip(lean.bases, hooked.bases, strict=True))
    assert lean.losses[-1] < lean.losses[0]


def test_what_cannot_be_learned_is_refused(ioi: Any) -> None:
    made, model = ioi
    places, some = [Place(Site("resid_post", 1))], swaps(made, 0, 8)
    with pytest.raises(InputError, match="the rank is 1"):
        learned(model, places, some, rank=1000)
    with pytest.raises(InputError, match="the target 3 is none of the classes"):
        fit(model, places, some, [3] * len(some), CLASSES, rank=1, seed=0)
    with pytest.raises(InputError, match="from swaps with a target each"):
        fit(model, places, [], [], CLASSES, rank=1, seed=0)
    with torch.inference_mode(), pytest.raises(InputError, match=r"inference_mode"):
        learned(model, places, some)


def test_weights_that_are_not_finite_end_no_process(ioi: Any) -> None:
    """LAPACK ends the process where what it decomposes is not finite."""
    made, _ = ioi
    model = load.load(made.bridge(), options=load.Options(device="cpu"))
    with torch.no_grad():
        model.bridge.blocks[2].attn.o.weight[0, 0] = float("nan")
    with pytest.raises(InputError, match="NaN or infinity"):
        learned(model, [Place(Site("resid_post", 1))], swaps(made, 0, 24))
