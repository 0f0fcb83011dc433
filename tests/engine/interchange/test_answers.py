"""Interchanges: against a hooked loop of one swap at a time, written out, and against what a patch gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from interp.engine.interchange import changes
from interp.engine.interchange.changes import SameNorm, Subspace, Whole, random_basis
from interp.engine.interchange.places import Place, Swap
from interp.engine.interchange.run import answers, plain
from interp.errors import InputError
from interp.sites import Site

FAMILIES = ("gpt2", "llama", "neox")
CLASSES = (7, 12, 30, 31, 64)
PROMPTS = ((5, 11, 23, 31, 8, 40), (5, 11, 64, 31, 9, 41), (50, 3, 23, 30, 8, 40), (5, 17, 3, 60), (6, 17, 2, 61))
# Base, source, positions of each, where it is read: of one length, of two, a span, and one read before the end.
PAIRED = (
    (0, 1, (2,), (2,), 5),
    (1, 2, (4,), (3,), 5),
    (2, 0, (0, 3), (1, 5), 4),
    (0, 3, (1,), (3,), 5),
    (3, 2, (2, 3), (5, 0), 3),
    (4, 1, (1,), (1,), 2),
)
BOUND = 5e-5


def swaps(places: int = 1, shift: int = 0) -> list[Swap]:
    """Return the swaps, for several places each at positions of its own."""
    found: list[Swap] = []
    for base, source, at, taken, position in PAIRED:
        ids, other = PROMPTS[base], PROMPTS[source]
        moved = [tuple((a + shift * n) % len(ids) for a in at) for n in range(places)]
        found.append(Swap(ids, other, tuple(moved), (taken,) * places, position, 7))
    return found


def naive(model: Any, places: Sequence[Place], some: Sequence[Swap], new: Callable[..., Tensor]) -> Tensor:
    """Return the same by the bridge's own hooks, a swap at a time; `new` makes one position's vector."""
    names = [place.site.hook_name for place in places]
    return torch.stack([_one(model.bridge, names, places, swap, new) for swap in some])


def _one(bridge: Any, names: list[str], places: Sequence[Place], swap: Swap, new: Callable[..., Tensor]) -> Tensor:
    given: dict[str, Tensor] = {}

    def keep(tensor: Tensor, hook: Any) -> None:
        given[hook.name] = tensor.clone()

    def writing(number: int) -> Any:
        place = places[number]

        def write(tensor: Tensor, hook: Any) -> Tensor:
            out = tensor.clone()
            for at, taken in zip(swap.at[number], swap.taken[number], strict=True):
                source = given[hook.name][0, taken]
                if place.head is None:
                    vector = new(number, tensor[0, at].flatten(), source.flatten(), swap, at)
                    out[0, at] = vector.view(source.shape)
                else:
                    here = tensor[0, at, place.head]
                    out[0, at, place.head] = new(number, here, source[place.head], swap, at)
            return out

        return write

    with torch.no_grad():
        bridge.run_with_hooks(torch.tensor([swap.source]), fwd_hooks=[(name, keep) for name in set(names)])
        hooks = [(name, writing(number)) for number, name in enumerate(names)]
        logits = bridge.run_with_hooks(torch.tensor([swap.base]), fwd_hooks=hooks)
    return logits[0, swap.position, list(CLASSES)].double()


def whole(number: int, base: Tensor, source: Tensor, swap: Swap, at: int) -> Tensor:  # noqa: ARG001
    return source


PLACES = {
    "resid_pre": [Place(Site("resid_pre", 1))],
    "resid_post": [Place(Site("resid_post", 0))],
    "mlp_out": [Place(Site("mlp_out", 1))],
    "attn_out": [Place(Site("attn_out", 0))],
    "neuron": [Place(Site("neuron", 1))],
    "z": [Place(Site("z", 1))],
    "head": [Place(Site("z", 0), head=2)],
    "v": [Place(Site("v", 1), head=1)],
    "q": [Place(Site("q", 1), head=3)],
    "several": [Place(Site("z", 0), head=2), Place(Site("resid_post", 0)), Place(Site("z", 0), head=1)],
}


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_whole_place_is_what_the_source_has(family: str, name: str, lend: Callable[..., Any]) -> None:
    model, places = lend(family), PLACES[name]
    some = swaps(len(places), 1)
    expected = naive(model, places, some, whole)
    assert torch.allclose(answers(model, places, some, CLASSES, Whole()), expected, atol=BOUND)
    unpatched = plain(model, [swap.base for swap in some], [swap.position for swap in some], CLASSES)
    assert (unpatched - expected).abs().max() > 1e-3, "nothing was interchanged"


@pytest.mark.parametrize("name", ["resid_post", "head", "z", "several"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_subspace_leaves_what_is_outside(family: str, name: str, lend: Callable[..., Any]) -> None:
    model, places = lend(family), PLACES[name]
    g = model.geometry
    widths = [
        g.d_head if place.head is not None else g.n_heads * g.d_head if place.site.name == "z" else g.d_model
        for place in places
    ]
    bases = tuple(random_basis(width, 3, seed) for seed, width in enumerate(widths))
    some = swaps(len(places), 1)

    def new(number: int, base: Tensor, source: Tensor, swap: Swap, at: int) -> Tensor:  # noqa: ARG001
        basis = bases[number].to(base)
        return base - basis @ (basis.T @ base) + basis @ (basis.T @ source)

    found = answers(model, places, some, CLASSES, Subspace(bases))
    assert torch.allclose(found, naive(model, places, some, new), atol=BOUND)
    full = tuple(random_basis(width, width, 0) for width in widths)
    whole = answers(model, places, some, CLASSES, Whole())
    assert torch.allclose(answers(model, places, some, CLASSES, Subspace(full)), whole, atol=BOUND)
    with pytest.raises(InputError, match="dimensions"):
        answers(model, places, some, CLASSES, Subspace(tuple(basis[1:] for basis in bases)))


@pytest.mark.parametrize("part", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_control_moves_as_far_another_way(family: str, part: bool, lend: Callable[..., Any]) -> None:
    model, places, some = lend(family), PLACES["resid_post"], swaps()
    reference = Subspace((random_basis(model.geometry.d_model, 3, 0),)) if part else Whole()
    moved: list[tuple[float, float, float]] = []

    def new(number: int, base: Tensor, source: Tensor, swap: Swap, at: int) -> Tensor:
        row = [changes.Row(number, swap.base, swap.source, at)]
        as_far, is_moved = (of(base[None], source[None], row)[0] for of in (reference, SameNorm(reference, 3)))
        along = torch.cosine_similarity(as_far - base, is_moved - base, dim=0)
        moved.append((float((as_far - base).norm()), float((is_moved - base).norm()), float(along)))
        return is_moved

    expected = naive(model, places, some, new)
    found = answers(model, places, some, CLASSES, SameNorm(reference, 3))
    assert torch.allclose(found, expected, atol=BOUND)
    assert all(b == pytest.approx(a, rel=1e-5) and a > 0 and abs(c) < 0.9 for a, b, c in moved)
    assert torch.equal(found, answers(model, places, some, CLASSES, SameNorm(reference, 3)))
    assert not torch.allclose(found, answers(model, places, some, CLASSES, SameNorm(reference, 4)), atol=1e-4)
