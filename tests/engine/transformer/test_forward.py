"""The batched forward: every activation is the bridge's own, read and changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from interp.engine.transformer import network
from interp.engine.transformer.forward import forward
from interp.sites import SITES, Site

pytestmark = pytest.mark.usefixtures("one_thread")

IDS = torch.tensor([[5, 11, 23, 31, 8, 40], [7, 9, 23, 30, 41, 2]])
BOUND = 1e-5


@pytest.fixture(params=["gpt2", "llama", "neox"])
def model(request: pytest.FixtureRequest, lend: Callable[..., Any]) -> Any:
    return lend(request.param)


def _sites(model: Any) -> list[str]:
    return [site for site in SITES if Site(site, 0).hook_name in model.bridge.hook_dict]


def _halved(layer: int, tensor: torch.Tensor) -> torch.Tensor | None:
    return tensor * 0.5 if layer == 1 else None


@torch.no_grad()
def test_every_activation_is_the_bridges(model: Any) -> None:
    seen: dict[str, torch.Tensor] = {}

    def record(site: str) -> Callable[[int, torch.Tensor], None]:
        return lambda layer, tensor: seen.update({Site(site, layer).hook_name: tensor})

    sites = [site for site in _sites(model) if site != "resid_mid"]  # the bridge's is the norm's input
    net = network.read(model)
    end = net.unembed(net.final(forward(net, IDS, {site: record(site) for site in sites})))
    assert len(seen) == len(sites) * model.geometry.n_layers
    for row, ids in enumerate(IDS.tolist()):
        expected = model.activations_of(tuple(ids), [*seen, "logits"])
        assert (end[row] - expected["logits"][0]).abs().max() < BOUND
        for name, tensor in seen.items():
            assert (tensor[row].flatten() - expected[name].flatten()).abs().max() < BOUND, name


@torch.no_grad()
def test_a_change_reaches_the_logits_as_a_hooks_does(model: Any) -> None:
    net = network.read(model)
    for site in (site for site in _sites(model) if site != "resid_mid"):
        hook = (Site(site, 1).hook_name, lambda tensor, hook: tensor * 0.5)  # noqa: ARG005  # pyright: ignore
        expected = model.bridge.run_with_hooks(IDS, fwd_hooks=[hook])
        assert (net.unembed(net.final(forward(net, IDS, {site: _halved}))) - expected).abs().max() < BOUND, site


@torch.no_grad()
def test_cut_scores_take_their_weight_from_the_others(model: Any) -> None:
    net = network.read(model)

    def cut(layer: int, scores: torch.Tensor) -> torch.Tensor | None:
        if layer != 0:
            return None
        scores = scores.clone()
        scores[:, 1, 4, 2] = float("-inf")
        return scores

    patterns: list[torch.Tensor] = []
    whole: list[torch.Tensor] = []
    forward(net, IDS, {"scores": cut, "pattern": lambda layer, p: patterns.append(p)}, stop=1)  # noqa: ARG005
    forward(net, IDS, {"pattern": lambda layer, p: whole.append(p)}, stop=1)  # noqa: ARG005
    expected = whole[0][:, 1, 4].clone()
    expected[:, 2] = 0
    expected /= expected.sum(-1, keepdim=True)
    assert torch.allclose(patterns[0][:, 1, 4], expected, atol=1e-6)
    patterns[0][:, 1, 4] = whole[0][:, 1, 4]
    assert torch.equal(patterns[0], whole[0])


@torch.no_grad()
def test_it_goes_on_from_a_layer(model: Any) -> None:
    net = network.read(model)
    half = forward(net, IDS, stop=1)
    assert torch.equal(forward(net, resid=half, first=1), forward(net, IDS))
