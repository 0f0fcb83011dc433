"""On a real model: interchanges by both ways, a subspace that is learned, and a model that was never trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from interp.engine.interchange.changes import SameNorm, Whole
from interp.engine.interchange.das import fit
from interp.engine.interchange.places import Place, Swap
from interp.engine.interchange.run import answers, plain
from interp.engine.interchange.untrained import untrained
from interp.sites import Site
from interp.spec import Prompt

CAPITALS = {"France": " Paris", "Italy": " Rome", "Japan": " Tokyo", "Spain": " Madrid"}


@pytest.mark.slow
def test_the_country_is_where_it_is_named_and_then_at_the_end(smollm2: Any) -> None:
    model, last = smollm2, smollm2.geometry.n_layers - 1
    ids = {land: model.encode(Prompt(f"The capital of {land} is the city of")).ids for land in CAPITALS}
    at = next(n for n, (a, b) in enumerate(zip(ids["France"], ids["Italy"], strict=True)) if a != b)
    classes = [model.encode(Prompt(f"It is{city}")).ids[-1] for city in CAPITALS.values()]
    of = dict(zip(CAPITALS, classes, strict=True))
    end = len(ids["France"]) - 1
    unpatched = plain(model, list(ids.values()), [end] * 4, classes)
    assert unpatched.argmax(1).tolist() == [0, 1, 2, 3]

    def swaps(where: int) -> list[Swap]:
        pairs = [(a, b) for a in CAPITALS for b in CAPITALS if a != b]
        return [Swap(ids[a], ids[b], ((where,),), ((where,),), end, of[b]) for a, b in pairs]

    def accuracy(layer: int, where: int, change: Any) -> float:
        found = answers(model, [Place(Site("resid_post", layer))], swaps(where), classes, change).argmax(1).tolist()
        return sum(classes[n] == swap.expected for n, swap in zip(found, swaps(where), strict=True)) / len(found)

    early, late = 2, last - 1
    assert (accuracy(early, at, Whole()), accuracy(late, end, Whole())) == (1.0, 1.0)
    assert (accuracy(early, end, Whole()), accuracy(late, at, Whole())) == (0.0, 0.0)
    assert accuracy(early, at, SameNorm(Whole(), 0)) < 0.5
    # The same by the model's own hooks, one interchange at a time.
    swap = swaps(at)[0]
    name = Site("resid_post", early).hook_name
    given = model.activations_of(swap.source, [name])[name][0, at].clone()

    def write(tensor: Any, hook: Any) -> Any:  # noqa: ARG001
        tensor = tensor.clone()
        tensor[0, at] = given
        return tensor

    with torch.no_grad():
        logits = model.bridge.run_with_hooks(torch.tensor([swap.base]), fwd_hooks=[(name, write)])[0, -1, classes]
    found = answers(model, [Place(Site("resid_post", early))], [swap], classes, Whole())[0]
    assert torch.allclose(found, logits.double(), atol=1e-3)
    # A subspace of four dimensions does it as well, and less than that is not needed of three differences.
    train = swaps(at)
    place = [Place(Site("resid_post", early))]
    subspace = fit(model, place, train, [one.expected for one in train], classes, rank=4, seed=0, steps=12)
    assert subspace.losses[-1] < subspace.losses[0] / 2
    other = untrained(model, 0)
    assert other.geometry == model.geometry
    guessed = plain(other, list(ids.values()), [end] * 4, classes).argmax(1).tolist()
    assert guessed != [0, 1, 2, 3]
    other.close()
