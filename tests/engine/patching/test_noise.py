"""Half precision: what is computed without hooks lies within the measured noise, and what is below it is not shown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import interp
import zoo
from engine.transformer.test_every_family import CASES, KNOWN, PAIRS
from interp.engine.circuits.eap import attribute_edges
from interp.engine.model.load import Options, load
from interp.engine.transformer import network

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

DIVISIONS = (("z", "head"), ("resid_pre", "position"), ("attn_out", "layer"), ("mlp_out", "position"), ("q", "head"))


def routed(family: str) -> bool:
    return "moe" in family or family in {"mixtral", "gpt_oss"}


@pytest.fixture
def use(clean_session: Any) -> Any:
    def give(family: str, dtype: torch.dtype) -> Any:
        hf = zoo.drawn(family).to(dtype)
        model = load(hf, tokenizer=zoo.tokenizer(family), name=family, options=Options(device="cpu"))
        clean_session.models[family] = model
        clean_session.current = family
        return model

    return give


@pytest.mark.parametrize("family", KNOWN)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_cells_lie_within_twice_the_noise(
    use: Any, monkeypatch: pytest.MonkeyPatch, family: str, dtype: torch.dtype
) -> None:
    assert use(family, dtype).doubt == ""
    lean = {each: interp.patch(pairs=PAIRS, site=each[0], by=each[1]) for each in DIVISIONS}
    assert {result.provenance.path for result in lean.values()} == {"replay"}
    monkeypatch.setattr(network, "FAMILIES", {})
    far: list[float] = []
    for (site, by), result in lean.items():
        hooked = interp.patch(pairs=PAIRS, site=site, by=by)
        assert hooked.provenance.path.startswith("hooked")
        assert result.noise > 0
        assert hooked.noise == result.noise
        far += (np.abs(result.patched - hooked.patched) / result.noise).ravel().tolist()
    # Where rounding chooses other experts, a run is another one: how often, a few copies of a prompt do not say.
    assert np.mean(np.array(far) <= 2) >= (0.9 if routed(family) else 0.999)


@pytest.mark.parametrize("family", [family for family in KNOWN if not routed(family)])
def test_estimates_of_edges_are_those_of_the_same_weights_in_single_precision(use: Any, family: str) -> None:
    scores: list[torch.Tensor] = []
    for dtype in (torch.bfloat16, torch.float32):
        model = use(family, torch.bfloat16)
        if dtype == torch.float32:
            model.hf_model.float()
        scores.append(model.operate("circuit", {}, lambda _, model=model: attribute_edges(model, CASES)).scores)
    there = ~scores[1].isnan()
    half, single = (found[there] for found in scores)
    assert float(torch.corrcoef(torch.stack([half, single]))[0, 1]) > 0.98


@pytest.mark.parametrize("family", [family for family in KNOWN if not routed(family)])
@pytest.mark.parametrize("steps", [1, 5])
def test_estimates_of_nodes_are_those_of_the_same_weights_in_single_precision(
    use: Any, family: str, steps: int
) -> None:
    found: list[np.ndarray] = []
    for dtype in (torch.bfloat16, torch.float32):
        model = use(family, torch.bfloat16)
        if dtype == torch.float32:
            model.hf_model.float()
        result = interp.patch(pairs=PAIRS, method="attribution", steps=steps)
        assert not result.provenance.path.startswith("hooked")
        found.append(np.concatenate([result.estimate.ravel(), *(each.ravel() for each in result.estimates.values())]))
    assert np.corrcoef(found)[0, 1] > 0.98


def test_what_is_below_the_noise_is_none(use: Any) -> None:
    use("llama", torch.bfloat16)
    result = interp.patch(pairs=PAIRS, site="q", by="head")
    quiet = np.abs(result.effect) < result.noise
    assert quiet.any()
    assert (result.below_noise == quiet).all()
    assert (result.above_noise(result.recovery)[quiet] == 0).all()
    assert (result.to_frame()["below noise"] == quiet.ravel()).all()
    names = [name for name, _, _ in result.top(int((~quiet).sum()))]
    assert set(names) == {result.name(tuple(cell)) for cell in np.argwhere(~quiet)}
    assert any(f"{int(quiet.sum())} of {quiet.size} effects are below" in note for note in result.notes)


def test_single_precision_has_no_noise(use: Any) -> None:
    use("llama", torch.float32)
    result = interp.patch(pairs=PAIRS)
    assert result.noise == 0
    assert not result.below_noise.any()
    assert "below noise" not in result.to_frame()


def test_noise_grows_with_the_unit_in_the_last_place(use: Any) -> None:
    found = {
        dtype: (use("gpt2", dtype), interp.patch(pairs=PAIRS).noise)[1] for dtype in (torch.bfloat16, torch.float16)
    }
    ratio = found[torch.bfloat16] / found[torch.float16]  # 2⁻⁷ over 2⁻¹⁰
    assert 4 < ratio < 16


def test_a_lean_way_that_is_wrong_by_more_than_the_noise_is_left(use: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    use("llama", torch.bfloat16)
    read = network.read

    def broken(model: Any, **options: Any) -> Any:
        net = read(model, **options)
        return replace(net, layers=tuple(replace(layer, scale=3 * layer.scale) for layer in net.layers))

    monkeypatch.setattr(network, "read", broken)
    assert interp.patch(pairs=PAIRS).provenance.path.startswith("hooked: the forward without hooks differed")
