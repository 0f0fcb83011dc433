"""Two results side by side: the differences are the arrays' own, whatever kind of result it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import interp
from interp.errors import InputError
from interp.spec import Pair, Prompt

ONE = Pair(Prompt(ids=(5, 11, 23, 31, 8, 40)), Prompt(ids=(5, 11, 64, 31, 8, 40)), (7,), (9,))
TWO = Pair(Prompt(ids=(5, 11, 23, 30, 8, 40)), Prompt(ids=(5, 11, 64, 30, 8, 40)), (7,), (9,))


@pytest.fixture
def sides(lend: Callable[..., Any]) -> tuple[Any, Any]:
    lend("gpt2")
    return interp.patch(pairs=[ONE]), interp.patch(pairs=[TWO])


def test_differences_are_those_of_the_arrays(sides: tuple[Any, Any]) -> None:
    a, b = sides
    made = interp.compare(a, b)
    table = made.to_frame()
    assert made.measure == "effect"
    assert np.allclose(table["effect difference"].to_numpy().reshape(a.effect.shape), b.effect - a.effect)
    assert np.allclose(table["recovery a"].to_numpy().reshape(a.effect.shape), a.recovery)
    top = made.top(1)
    layer, head = np.unravel_index(np.abs(b.effect - a.effect).argmax(), a.effect.shape)
    assert (top["layer"].item(), top["head"].item()) == (layer, head)
    swapped = interp.compare(b, a).top(1)
    assert swapped["effect difference"].item() == -top["effect difference"].item()


def test_rows_are_matched_by_what_they_are(lend: Callable[..., Any]) -> None:
    lend("llama")
    whole, part = interp.patch(pairs=[ONE]), interp.patch(pairs=[ONE], layer=1)
    table = interp.compare(whole, part).to_frame().set_index(["layer", "head"])
    assert table.loc[0, "effect b"].isna().all()
    assert (table.loc[1, "effect difference"].abs() < 1e-6).all()
    with pytest.raises(InputError, match="no row in common"):
        interp.compare(interp.patch(pairs=[ONE], layer=0), part)


def test_results_over_tokens_compare_where_the_tokens_differ(lend: Callable[..., Any]) -> None:
    lend("gpt2")
    a, b = interp.attention([5, 11, 23, 31]), interp.attention([5, 12, 23, 31])
    made = interp.compare(a, b, measure="entropy")
    assert np.allclose(
        made.to_frame()["entropy difference"].to_numpy().reshape(a.stats["entropy"].shape),
        b.stats["entropy"] - a.stats["entropy"],
    )


def test_what_was_found_names_no_row(lend: Callable[..., Any]) -> None:
    """Top tokens, ranks, texts and what a circuit kept differ between results: their rows are the same ones."""
    lend("gpt2")
    one, two = "Mary gave the drink to John and", "John gave the drink to Mary and"
    steering = {"layer": 1, "toward": "Mary", "against": "John", "sweep": [1, 2], "n": 4}
    made = {
        ("layer", "position"): (interp.lens(one), interp.lens(two)),
        ("strength",): (interp.steer(one, **steering), interp.steer(two, **steering)),
        ("position",): (interp.generate(one, n=5), interp.generate(two, n=5)),
        ("neuron", "rank"): (interp.neurons("1.3,0.5", [one]), interp.neurons("1.3,0.5", [one, two])),
        ("writer", "reader"): tuple(interp.circuit(pairs=[pair], edges=4) for pair in (ONE, TWO)),
        ("component",): (interp.dla(one), interp.dla(two)),
    }
    for keys, (a, b) in made.items():
        compared = interp.compare(a, b)
        table = compared.to_frame()
        assert compared.keys == keys
        assert len(table) == len(a.to_frame()) == len(b.to_frame()), keys
        assert table[f"{compared.measure} difference"].notna().all(), keys
    lenses = made["layer", "position"]
    table = interp.compare(*lenses).to_frame()
    difference = lenses[1].target_probability - lenses[0].target_probability
    assert np.allclose(table["target probability difference"].to_numpy().reshape(difference.shape), difference)


def test_what_differs_between_the_calls_is_said(sides: tuple[Any, Any]) -> None:
    assert any(note.startswith("pairs: ") for note in interp.compare(*sides).notes)


def test_refusals_say_what_to_give(sides: tuple[Any, Any]) -> None:
    with pytest.raises(InputError, match="of one kind; these are PatchingResult and AttentionResult"):
        interp.compare(sides[0], interp.attention([5, 11]))
    with pytest.raises(InputError, match="two results; int is none"):
        interp.compare(sides[0], 3)
    with pytest.raises(InputError, match="did you mean effect"):
        interp.compare(*sides, measure="efect")


def test_it_shows_and_saves(sides: tuple[Any, Any], tmp_path: Any) -> None:
    made = interp.compare(*sides)
    assert made.html().count('<div class="interp-frame ') == 3
    assert "largest difference of effect" in made.svg("dark")
    assert len(made.to_plotly().data[1].x) == sides[0].effect.size
    for suffix in ("html", "svg", "json", "npz", "png"):
        assert made.save(tmp_path / f"c.{suffix}").stat().st_size > 1000
