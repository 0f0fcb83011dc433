"""Patches of spans: what a naive hooked loop gives, whatever the lengths, and what by position gives for one token."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.engine import exactness
from interp.errors import InputError
from interp.sites import SITES

FAMILIES = ("gpt2", "llama", "neox", "gemma2", "cohere", "bloom", "granite")
SITES_OF = [name for name, kind in SITES.items() if not kind.heads_first]
CLEAN = "[Mary]{IO} gave the [book]{OBJ} to John, and"
LONGER = "The old [Alice Smith]{IO} gave the [green pen]{OBJ} to John, and"
ANSWERS = {"answer": "Mary", "wrong": "John"}
TOLERANCE = 5e-5


def naive(model: Any, base: Any, source: Any, site: str, layer: int, aligned: Any, answer: int) -> float:
    """Return the answer's logit with a span patched, by one forward with one hook."""
    kind = SITES[site]
    name = kind.hook(layer)
    held = model.run(list(source)).activations[name][0]
    through = model.run(list(base)).activations[f"blocks.{layer}.hook_resid_pre"][0] if kind.through else None
    point = SITES[kind.through].hook(layer) if kind.through else name

    def write(tensor: torch.Tensor, hook: Any) -> torch.Tensor:  # noqa: ARG001
        patched = tensor.clone()
        for at, taken in aligned:
            value = sum(held[one] for one in taken) / len(taken)
            patched[0, at] = value if through is None else value - through[at]
        return patched

    logits = model.bridge.run_with_hooks(torch.tensor([list(base)]), fwd_hooks=[(point, write)], return_type="logits")
    return float(logits[0, -1, answer].detach())


@pytest.mark.parametrize("align", ["last", "mean"])
@pytest.mark.parametrize("direction", ["denoise", "noise"])
@pytest.mark.parametrize("family", FAMILIES)
def test_spans_of_pairs_of_two_lengths_are_those_of_the_naive_loop(
    family: str, direction: str, align: str, lend: Any
) -> None:
    model = lend(family)
    for site in [site for site in SITES_OF if site in model.sites]:
        found = interp.patch(
            CLEAN, LONGER, site=site, by="span", metric="logit", answer=" John", direction=direction, align=align
        )
        assert found.provenance.path == "replay", site
        assert found.positions == ("IO", "OBJ", "END")
        clean, corrupted = found.provenance.prompts[:2]
        into_clean = direction == "noise"
        base, source = (clean, corrupted) if into_clean else (corrupted, clean)
        ((_, answer),) = found.checks.answer[0]
        for number, (own, other) in enumerate(found.checks.spans[0].values()):
            here, there = (own, other) if into_clean else (other, own)
            if len(here) == len(there):
                aligned = [(a, (b,)) for a, b in zip(here, there, strict=True)]
            else:
                aligned = [(here[-1], (there[-1],))] if align == "last" else [(a, there) for a in here]
            for layer in range(model.geometry.n_layers):
                expected = naive(model, base, source, site, layer, aligned, answer)
                assert found.patched[layer, number] == pytest.approx(expected, abs=TOLERANCE), (site, layer, number)


@pytest.mark.parametrize("family", FAMILIES)
def test_spans_of_one_token_are_positions_to_the_last_bit(family: str, lend: Any, every_sweep_runs: None) -> None:  # noqa: ARG001
    model = lend(family)
    words = model.tokens.encode(interp.Prompt("to Mary gave John the", bos=False)).strings
    # All positions, so that the same runs go together: their last bits depend on that.
    every = "".join(f"[{word}]{{P{n}}}" if word.strip() else word for n, word in enumerate(words))
    clean, corrupted = every, every.replace("[ Mary]", "[ John]")
    for site in [site for site in SITES_OF if site in model.sites]:
        spans, positions = (
            interp.patch(clean, corrupted, site=site, by=by, metric="logit", answer=" John")
            for by in ("span", "position")
        )
        places = [own[0] for own, _ in spans.checks.spans[0].values()]
        assert len(places) > 5
        same = np.array_equal if len(places) == len(words) else partial(np.allclose, rtol=0, atol=1e-6)
        assert same(spans.patched, positions.patched[:, places]), site


def test_a_bidirectional_model_too(lend: Any) -> None:
    lend("bert")
    found = interp.patch(
        "[Mary]{A} gave the [MASK] to John",
        "[Old Alice]{A} gave the [MASK] to John",
        site="resid_pre",
        by="span",
        metric="logit",
        answer="John",
        align="mean",
    )
    assert found.provenance.path == "replay"
    assert found.positions == ("A",)
    hooked = _hooked(found, lend)
    assert found.patched == pytest.approx(hooked.patched, abs=TOLERANCE)


def _hooked(found: Any, lend: Any) -> Any:
    """Return the same sweep by hooks, which a hook of the user's own that does nothing makes it take."""
    model = lend("bert")
    remove = model.hf_model.register_forward_hook(lambda *_: None)
    try:
        again = interp.patch(
            "[Mary]{A} gave the [MASK] to John",
            "[Old Alice]{A} gave the [MASK] to John",
            site="resid_pre",
            by="span",
            metric="logit",
            answer="John",
            align="mean",
        )
    finally:
        remove.remove()
    assert again.provenance.path.startswith("hooked")
    assert again.positions == found.positions
    return again


@pytest.mark.parametrize("site", SITES_OF)
def test_by_hooks_it_is_the_same(site: str, lend: Any) -> None:
    model = lend("llama")
    asked = {"site": site, "by": "span", "metric": "logit", "answer": " John", "align": "mean"}
    found = interp.patch(CLEAN, LONGER, **asked)
    handle = model.hf_model.register_forward_hook(lambda *_: None)
    try:
        hooked = interp.patch(CLEAN, LONGER, **asked)
    finally:
        handle.remove()
    assert hooked.provenance.path.startswith("hooked")
    assert found.patched == pytest.approx(hooked.patched, abs=TOLERANCE)


def test_what_a_broken_reading_would_give_is_not_given(lend: Any) -> None:
    model = lend("llama")
    exactness.forget(model)
    interp.patch(CLEAN, LONGER, site="v", by="span", metric="logit", answer=" John")
    assert any("span" in key for (_, key) in exactness._trusted[model]), "no sample was compared"


def test_pairs_of_many_lengths_go_together_and_as_alone(lend: Any) -> None:
    lend("gpt2")
    pairs = [
        ("[Mary]{A} ran to [John]{B}", "[Old Alice]{A} ran to [John]{B}", " John"),
        ("The [dog]{A} saw [Mary]{B}", "The [big black cat]{A} saw [Mary]{B}", " Mary"),
    ]
    together = interp.patch(pairs=pairs, site="resid_pre", by="span", metric="logit")
    for number, pair in enumerate(pairs):
        alone = interp.patch(pairs=[pair], site="resid_pre", by="span", metric="logit")
        assert together.per_pair[number] == pytest.approx(alone.per_pair[0], abs=TOLERANCE)


@pytest.mark.parametrize(
    ("clean", "corrupted", "more", "said"),
    [
        ("[A]{X} b", "A big [C]{Y} b", {}, "has no span X"),
        ("[A]{X} b", "[A big]{X} b", {"align": "each"}, "--align last or mean"),
        ("[A b]{X} [c]{Y} d", "[A b]{X} [c]{Y} d", {"site": "pattern"}, "cannot be patched by span"),
        ("[ ]{X} b c", "[A]{X} b c d", {}, "marks no token"),
    ],
)
def test_what_cannot_be_is_one_line(clean: str, corrupted: str, more: dict[str, Any], said: str, lend: Any) -> None:
    lend("gpt2")
    asked = {"site": "resid_pre", "by": "span", "metric": "logit", "answer": " John"} | more
    with pytest.raises(InputError, match=said) as refused:
        interp.patch(clean, corrupted, **asked)
    assert "\n" not in str(refused.value)
