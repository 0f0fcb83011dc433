"""The interpreter of programs: it says what they answer, and what an interchange anywhere in their models does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from interp import truth
from interp.engine.interchange.changes import Whole
from interp.engine.interchange.places import Place, Swap
from interp.engine.interchange.run import answers
from interp.engine.model import load
from interp.errors import InputError
from interp.sites import Site
from interp.truth.interpret import Exchange, answer, interchanged, values
from interp.truth.language import Program
from interp.truth.programs import PROGRAMS

NAMES = list(PROGRAMS)
PAIRS = 3


@pytest.fixture(scope="module")
def models() -> dict[str, tuple[truth.Compiled, Any]]:
    made = {name: truth.build(name) for name in NAMES}
    return {name: (one, load.load(one.bridge(), options=load.Options(device="cpu"))) for name, one in made.items()}


def places(program: Program) -> Iterator[Place]:
    for layer in range(program.layers):
        for site in ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "neuron"):
            yield Place(Site(site, layer))
        for site in ("z", "q", "k", "v"):
            yield from (Place(Site(site, layer), head=head) for head in range(program.heads))


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_s_answer_is_the_program_s(name: str) -> None:
    made = truth.build(name)
    for pair in made.pairs(100, seed=3).pairs:
        for prompt in (pair.clean, pair.corrupted):
            assert prompt.ids is not None
            found = values(made.program, prompt.ids)
            assert answer(made.program, found) == made.program.answer(prompt.ids)
            assert all(len(tensor) == len(prompt.ids) for tensor in found.values())
            assert set(found) == set(made.program.sizes)


@pytest.mark.parametrize("name", NAMES)
def test_an_interchange_gives_what_the_compiled_model_gives(name: str, models: Any) -> None:
    """At every place that there is, and at every position: where the program says an answer, the model gives it."""
    made, model = models[name]
    program = made.program
    classes = list(range(len(program.vocabulary)))
    pairs = [(pair.clean.ids, pair.corrupted.ids) for pair in made.pairs(PAIRS, seed=5).pairs]
    same = said = moved = 0
    wrong: list[str] = []
    for place in places(program):
        swaps = [
            Swap(base, source, ((at,),), ((at,),), len(base) - 1, 0)
            for base, source in pairs
            for at in range(len(base))
        ]
        got = answers(model, [place], swaps, classes, Whole()).argmax(1).tolist()
        for swap, token in zip(swaps, got, strict=True):
            exchange = Exchange(place.site, swap.at[0], swap.taken[0], place.head)
            expected = answer(program, interchanged(program, swap.base, swap.source, [exchange]))
            if expected is None:
                continue
            said += 1
            same += expected == token
            moved += expected != program.answer(swap.base)
            if expected != token:
                wrong.append(f"{place.name} at {swap.at[0][0]}")
    assert moved > 20  # interchanges that do something, by construction
    assert same / said > 0.99, wrong
    assert said > 0.9 * PAIRS * program.length * len(list(places(program)))


def test_places_together_and_positions_that_differ(models: Any) -> None:
    """Reverse: the separator's place and the letters together make the source's answer; each alone does not."""
    made, model = models["reverse"]
    program = made.program
    every = tuple(range(program.length))
    pairs = [(p.clean.ids, p.corrupted.ids) for p in made.pairs(12, seed=2).pairs]
    before, both = Place(Site("z", 0), head=1), Place(Site("resid_pre", 2))
    for chosen in ([before], [both], [before, both]):
        exchanges = [Exchange(place.site, every, every, place.head) for place in chosen]
        at = (every,) * len(chosen)
        swaps = [Swap(base, source, at, at, len(base) - 1, 0) for base, source in pairs]
        got = answers(model, chosen, swaps, range(len(program.vocabulary)), Whole()).argmax(1).tolist()
        expected = [answer(program, interchanged(program, *pair, exchanges)) for pair in pairs]
        assert got == expected
        assert (expected == [program.answer(source) for _, source in pairs]) == (both in chosen)
    # An earlier position's query, one further on, points one further back or finds what stands there.
    shifted = Exchange(Site("resid_post", 1), (11,), (10,))
    swaps = [Swap(base, source, ((11,),), ((10,),), 11, 0) for base, source in pairs]
    got = answers(model, [Place(Site("resid_post", 1))], swaps, range(len(program.vocabulary)), Whole()).argmax(1)
    assert got.tolist() == [answer(program, interchanged(program, *pair, [shifted])) for pair in pairs]


def test_what_a_program_does_not_say() -> None:
    program = PROGRAMS["induction"]()
    base, source = [0, 1, 2, 3, 1], [0, 5, 6, 7, 6]
    with pytest.raises(InputError, match="does not say what a pattern holds"):
        interchanged(program, base, source, [Exchange(Site("pattern", 0), (1,), (1,))])
    # Nothing before it is the last letter: all positions are as good, and no token stands out.
    assert answer(program, interchanged(program, base, source, [Exchange(Site("resid_pre", 2), (4,), (4,))])) is None
    assert torch.equal(values(program, base)["said"], interchanged(program, base, base, [])["said"])
