"""Every family whose block is known: what is computed without hooks is what the hooked forward gives, to rounding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

import interp
import zoo
from interp.engine import exactness
from interp.engine.circuits.eap import attribute_edges
from interp.engine.circuits.edges import ABLATIONS, EdgeScores
from interp.engine.circuits.exact import exact_edges
from interp.engine.circuits.subgraph import Subset
from interp.engine.metrics import Scorer
from interp.engine.model.interventions import unread
from interp.engine.model.load import Options, load
from interp.engine.patching.cases import Case
from interp.engine.patching.driver import silent
from interp.engine.patching.path import PathPlan, Paths
from interp.engine.patching.waves import Sweep, unfinished
from interp.engine.transformer import network
from interp.engine.transformer.forward import forward
from interp.errors import InputError
from interp.sites import AXES, SITES, Site, axes
from interp.spec import Metric, Node, Pair, Pairs, Prompt

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

IDS, OTHER = (5, 9, 12, 33, 7, 50, 61, 90), (5, 9, 13, 33, 7, 50, 61, 90)  # longer than every window of the zoo
PAIRS = Pairs((Pair(Prompt(ids=IDS), Prompt(ids=OTHER), (3,), (4,)),))
FAMILIES = sorted(
    name for name, (kind, *_) in zoo._MADE.items() if kind in network.FAMILIES and "For" in zoo._MADE[name][1]
)
# transformer-lens' own forward of this one adds the distances twice; interp says so when it loads it.
WRONG = {"falcon_alibi"}
KNOWN = [name for name in FAMILIES if "CausalLM" in zoo._MADE[name][1] and name not in WRONG] + ["gpt2"]
CASES = [Case(IDS, OTHER, Scorer(Metric("logit-diff"), (3,), (4,)), len(IDS) - 1, clean_base=True)]
MORE = Case((8, 9, 12, 30, 7, 51, 60, 20), (8, 9, 12, 30, 9, 51, 60, 20), CASES[0].scorer, 7, clean_base=True)
BOUND = 5e-5


@pytest.fixture(scope="module", params=KNOWN)
def model(request: pytest.FixtureRequest) -> Any:
    return load(
        zoo.drawn(request.param),
        tokenizer=zoo.tokenizer(request.param),
        name=request.param,
        options=Options(device="cpu"),
    )


@pytest.fixture
def by_hooks(monkeypatch: pytest.MonkeyPatch) -> Any:
    def without() -> None:
        monkeypatch.setattr(network, "FAMILIES", {})

    return without


@pytest.fixture(autouse=True)
def current(model: Any, clean_session: Any) -> None:
    clean_session.models[model.name] = model
    clean_session.current = model.name


def test_its_forward_is_hugging_faces(model: Any) -> None:
    assert model.doubt == ""
    net = network.read(model)
    with torch.no_grad():
        expected = zoo.drawn(model.name)(torch.tensor([IDS])).logits
        _, held = model.bridge.run_with_cache(torch.tensor([IDS]))
        patterns: list[torch.Tensor] = []
        end = forward(net, torch.tensor([IDS]), {"pattern": lambda layer, tensor: patterns.append(tensor)})  # noqa: ARG005
        fused = forward(net, torch.tensor([IDS]))
    assert apart(net.unembed(net.final(end)), expected) < BOUND
    assert apart(end, fused) < BOUND
    for layer, found in enumerate(patterns):
        assert apart(found, held[f"blocks.{layer}.attn.hook_pattern"]) < BOUND


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max())


def divisions() -> list[tuple[str, str]]:
    """Return every site and what it can be divided by."""
    found: list[tuple[str, str]] = []
    for site in SITES:
        for by in AXES:
            try:
                axes(site, by)
            except InputError:
                continue
            found.append((site, by))
    return found


def test_sweeps_are_the_hooked_ones(model: Any, by_hooks: Any) -> None:
    here = [(site, by) for site, by in divisions() if SITES[site].within(model.bridge.hook_dict, 0)]
    # Some bridges show a pattern beside the forward that goes on: there it is refused, both ways.
    asked = [each for each in here if not unread(model, Site(each[0], 0))]
    assert {site for site, _ in here} - {site for site, _ in asked} <= {"pattern"}
    lean = {each: interp.patch(pairs=PAIRS, site=each[0], by=each[1]) for each in asked}
    assert {each: result.provenance.path for each, result in lean.items()} == dict.fromkeys(asked, "replay")
    by_hooks()
    for each, result in lean.items():
        hooked = interp.patch(pairs=PAIRS, site=each[0], by=each[1])
        assert hooked.provenance.path.startswith("hooked")
        assert np.abs(result.patched - hooked.patched).max() < BOUND, each


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize("steps", [1, 3])
def test_estimates_of_sites_are_the_hooked_ones(by_hooks: Any, steps: int) -> None:
    def estimates() -> list[Any]:
        asked = {"method": "attribution", "steps": steps}
        return [
            interp.patch(pairs=PAIRS, site=site, by=by, **asked) for site, by in (("z", "head"), ("mlp_out", "layer"))
        ]

    lean = estimates()
    assert {result.provenance.path for result in lean} == {"gradients"}
    by_hooks()
    for one, hooked in zip(lean, estimates(), strict=True):
        assert hooked.provenance.path.startswith("hooked")
        assert np.abs(one.estimate - hooked.estimate).max() < BOUND


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize("freeze", ["all", "heads", "none"])
def test_paths_are_the_hooked_ones(by_hooks: Any, freeze: str) -> None:
    lean = interp.path(pairs=PAIRS, freeze=freeze)
    assert lean.provenance.path == "replay"
    by_hooks()
    hooked = interp.path(pairs=PAIRS, freeze=freeze)
    assert np.nanmax(np.abs(lean.patched - hooked.patched)) < BOUND


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_circuits_run_with_any_of_their_edges(model: Any, ablation: str) -> None:
    def run(_: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        subset = Subset(model, cases, ablation)
        chosen = subset.exists.nonzero()[::7]
        masks = subset.whole.repeat(2 + len(chosen), 1, 1)
        masks[1] = subset.nothing
        masks[range(2, len(masks)), chosen[:, 0], chosen[:, 1]] = False
        scores = exact_edges(model, cases, ablation=ablation)
        assert scores.path == "replay"
        return subset.run(masks)[:, 0], chosen, scores.per_pair[0]

    cases = [*CASES, MORE]  # a mean is of several prompts
    found, chosen, scores = model.operate("circuit", {}, run)
    whole, nothing = (float(model.run(ids).logits[0, -1, 3] - model.run(ids).logits[0, -1, 4]) for ids in (IDS, OTHER))
    assert float(found[0]) == pytest.approx(whole, abs=BOUND)
    if ablation == "corrupted":
        assert float(found[1]) == pytest.approx(nothing, abs=BOUND)
    assert float((found[0] - found[2:] - scores[chosen[:, 0], chosen[:, 1]].double()).abs().max()) < BOUND


class Slightly(PathPlan):
    """Edges of which a very small part is ablated."""

    PART = 1e-6
    ROUTED = 1e-3  # routers choose in float32, whatever the model's dtype

    @classmethod
    def part(cls, net: network.Network) -> float:
        return cls.PART if net.layers[0].experts is None else cls.ROUTED

    def _difference(self, node: Node, heads: Sequence[int]) -> torch.Tensor:
        base, source, layer, part = self.base, self.source, self.network.layers[node.layer], self.part(self.network)
        if node.kind == "embed":
            return part * (source.resid[0] - base.resid[0])[None, self.start :]
        if node.kind == "mlp":
            own, other = (run.resid[node.layer + 1] - run.mid[node.layer] for run in (base, source))
            return part * (other - own)[None, self.start :]
        change = (source.z[node.layer] - base.z[node.layer])[self.start :, heads]
        raw = part * torch.einsum("phd,mhd->hpm", change, layer.head_weights(heads))
        return layer.rewritten(base.z[node.layer][self.start :], raw)


def test_an_estimate_of_edges_is_the_slope_of_the_exact_value(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exactness, "TOLERANCE", float("inf"))  # hooks ablate the whole edge
    double = zoo.drawn(model.name).double()
    double.set_experts_implementation("eager")  # the fast ones know no float64
    model = load(double, tokenizer=model.tokens.tokenizer, name="double", options=Options(device="cpu"))

    def run(_: Any) -> tuple[EdgeScores, torch.Tensor]:
        estimate = attribute_edges(model, CASES, steps=1)
        planner = Paths(model, estimate.writers, estimate.readers, "all", make=Slightly)
        planner.key = ("slightly",)
        swept = unfinished(1, estimate.exists.shape)
        Sweep(model, CASES, planner, swept, silent).run()
        assert swept.path == "replay"
        return estimate, (swept.base[:, None, None] - swept.values)[0] / Slightly.part(network.read(model))

    estimate, slopes = model.operate("circuit", {}, run)
    found = estimate.per_pair[0][estimate.exists]
    close = 1e-4 if Slightly.part(network.read(model)) == Slightly.PART else 0.02
    assert apart(found, slopes[estimate.exists].float()) < close * float(found.abs().max())
