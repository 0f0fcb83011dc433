"""What the model says with a cell patched, against the plain hooked forward of that cell."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.engine.model import hooks
from interp.errors import InputError
from interp.sites import SITES
from methods.patching.test_patch import ONE, VOCABULARY, build, divisions, has, logits_of, naive, swept, use

__all__ = ["use"]  # a fixture

pytestmark = pytest.mark.usefixtures("one_thread")


def nothing(*_: Any) -> None:
    """Be a hook of the user's own."""


def table(logits: torch.Tensor) -> np.ndarray:
    return logits.float().softmax(-1).numpy()


@pytest.mark.parametrize("kind", ["gpt2", "llama", "neox"])
def test_every_site_and_division_says_what_the_hooked_forward_says(kind: str, use: Any) -> None:
    model = use(build(kind))
    base = {"denoise": ONE.corrupted, "noise": ONE.clean}
    said = 0
    for site, direction in itertools.product(SITES, ("denoise", "noise")):
        if not has(model, site):
            continue
        before = table(logits_of(model, base[direction])[-1])
        for by in divisions(site):
            result = swept([ONE], site=site, by=by, direction=direction)
            expected = naive(model, [ONE], site=site, by=by, direction=direction).logits[0]
            # The last position of everything, and the cell that changes the most.
            strongest = np.unravel_index(int(np.abs(result.effect).argmax()), result.effect.shape)
            for cell in {tuple(int(n) for n in strongest), tuple(n - 1 for n in result.effect.shape)}:
                got = {string: both for string, *both in result.likeliest(cell, top=VOCABULARY)}
                found = np.array([got[model.tokens.string(token)] for token in range(VOCABULARY)])
                np.testing.assert_allclose(found, np.stack([before, table(expected[cell])], axis=1), atol=2e-5)
                falling = np.array([after for _, after in got.values()])
                assert (np.diff(falling) <= 0).all()
                said += 1
    assert said > 50


def test_it_holds_what_the_sweep_measured(use: Any) -> None:
    model = use(build("llama"))
    result = swept([ONE])
    cell = np.unravel_index(int(np.abs(result.effect).argmax()), result.effect.shape)
    probability = {string: after for string, _, after in result.likeliest(cell, top=VOCABULARY)}
    right, wrong = (probability[model.tokens.string(tokens[0])] for tokens in (ONE.answer, ONE.wrong))
    assert abs(np.log(right / wrong) - result.patched[cell]) < 1e-4


def test_the_tokens_of_both_runs_are_there_and_nothing_is_left_behind(use: Any) -> None:
    model = use(build("gpt2"))
    result = swept([ONE], site="resid_pre", by="position")
    before = hooks.census(model.modules())
    got = result.likeliest((1, 2), top=3)
    assert hooks.census(model.modules()) == before
    assert torch.is_grad_enabled()
    assert 3 <= len(got) <= 6
    unpatched = table(logits_of(model, ONE.corrupted)[-1])
    best = {model.tokens.string(int(n)) for n in np.argsort(-unpatched)[:3]}
    assert best <= {string for string, _, _ in got}
    after = [p for _, _, p in got]
    assert after == sorted(after, reverse=True)


def test_what_it_cannot_say(use: Any, clean_session: Any) -> None:
    model = use(build("gpt2"))
    result = swept([ONE])
    other = use(build("gpt2"), "other")
    clean_session.current = model.name
    foreign = swept([ONE], from_model=other.name)
    with pytest.raises(InputError, match="came from another model"):
        foreign.likeliest((0, 0))
    handle = next(iter(model.bridge.hook_dict.values())).register_forward_hook(nothing)
    try:
        with pytest.raises(InputError, match=r"has changed|without hooks"):
            result.likeliest((0, 0))
    finally:
        handle.remove()
    with torch.no_grad():
        next(model.hf_model.parameters()).mul_(1.01)
    with pytest.raises(InputError, match="has changed since"):
        result.likeliest((0, 0))
    interp.unload(model.name)
    del model
