"""Pairs of two lengths: estimates by span are the derivative of the exact patch, and equal it where all is linear."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

import interp
import models
from engine.patching.test_attribution import linear_model
from interp.engine.metrics import Scorer
from interp.engine.model.load import Options, load
from interp.engine.model.loaded import LoadedModel
from interp.engine.patching import attribution, sweep
from interp.engine.patching.aligned import put
from interp.engine.patching.cases import Aligned, Case
from interp.engine.transformer import network
from interp.methods._shared.patching.estimate import spearman
from interp.methods._shared.span_places import aligned
from interp.sites import SITES
from interp.spec import Metric

pytestmark = pytest.mark.usefixtures("one_thread")

FAMILIES = ("gpt2", "llama", "neox", "gemma2", "cohere", "bloom", "granite")
SITES_OF = [name for name, kind in SITES.items() if not kind.heads_first]
SHORT, LONG = (5, 11, 64, 31, 8, 40), (5, 50, 11, 23, 64, 9, 31, 8, 40)
# A name of one token and of three, of two and of three, a token that has moved, and the end.
PLACES = {"name": ((1,), (1, 2, 3)), "thing": ((2, 3), (4, 5, 6)), "moved": ((4,), (7,)), "END": ((5,), (8,))}
# All of their forward is in double precision; the code of others takes norms in single precision all the same, which
# asks for larger steps.
DOUBLE = ("gpt2", "neox")
WAYS = [("last", "noise"), ("last", "denoise"), ("mean", "noise"), ("mean", "denoise")]
BOUND = 1e-4  # of the largest


def case(align: str, direction: str) -> Case:
    into_clean = direction == "noise"
    base, source = (SHORT, LONG) if into_clean else (LONG, SHORT)
    spans = tuple(aligned(place, align, name, into_clean=into_clean) for name, place in PLACES.items())
    whole = tuple(sorted(own for span in spans for own in span))
    scorer = Scorer(Metric(), (7,), (9,))
    return Case(base, source, scorer, len(base) - 1, into_clean, len(source) - 1, spans, whole)


def asked(model: LoadedModel, cases: Sequence[Case], **options: Any) -> attribution.Attributed:
    return model.operate("patch", {}, lambda _: attribution.attribute(model, cases, **options))


def by_span(nodes: torch.Tensor, spans: Sequence[Aligned]) -> torch.Tensor:
    """Return ``[layer, span]`` of a site's nodes, ``[layer, (head,) position]``."""
    rows = nodes.sum(1) if nodes.dim() == 3 else nodes
    return torch.stack([rows[:, [at for at, _ in span]].sum(1) for span in spans], 1)


@pytest.fixture(params=["gradients", "hooked"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "hooked":
        monkeypatch.setattr(network, "FAMILIES", {})
    return request.param


class Naive:
    """The exact patch of a span, or a part of it, by one forward with one hook."""

    def __init__(self, model: LoadedModel, given: Case) -> None:
        self.model, self.case = model, given
        self.held = [dict(self._run(ids)[1].items()) for ids in (given.base, given.source)]

    def _run(self, ids: Sequence[int], writing: Sequence[Any] = ()) -> tuple[torch.Tensor, Any]:
        bridge = self.model.bridge
        if not writing:
            return bridge.run_with_cache(torch.tensor([list(ids)]))
        return bridge.run_with_hooks(torch.tensor([list(ids)]), fwd_hooks=list(writing)), None

    def moved(self, site: str, layer: int, span: Aligned) -> torch.Tensor:
        """Return what a patch adds at a site, ``[1, position, …]``: token by token, or the mean."""
        name = SITES[site].hook(layer)
        own, given = (held[name][0] for held in self.held)
        change = torch.zeros_like(own)
        for at, taken in span:
            change[at] = sum(given[one] for one in taken) / len(taken) - own[at]
        return change[None]

    def part(self, site: str, layer: int, span: Aligned, share: float) -> float:
        """Return the metric where that part of what a patch adds is added."""
        kind, change = SITES[site], share * self.moved(site, layer, span)
        point = SITES[kind.through].hook(layer) if kind.through else kind.hook(layer)

        def add(tensor: torch.Tensor, hook: Any) -> torch.Tensor:  # noqa: ARG001
            return tensor + change

        with torch.no_grad():
            logits = self._run(self.case.base, [(point, add)])[0][0, -1]
        return float(logits[7] - logits[9])


@pytest.mark.parametrize(("align", "direction"), WAYS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_estimate_is_the_derivative_of_the_exact_patch(family: str, align: str, direction: str, path: str) -> None:
    model = load(models.FAMILIES[family](70).double(), name=family, options=Options(device="cpu"))
    given = case(align, direction)
    naive = Naive(model, given)
    found = asked(model, [given])
    assert found.path.startswith(path)
    step, bound = (1e-5, 1e-6) if family in DOUBLE else (3e-3, 1e-3)
    for site in [site for site in SITES_OF if site in model.sites]:
        estimates = by_span(found.nodes[0][site], given.spans)
        expected = torch.zeros_like(estimates)
        for layer in range(model.geometry.n_layers):
            for number, span in enumerate(given.spans):
                ends = [naive.part(site, layer, span, share) for share in (step, -step)]
                expected[layer, number] = (ends[0] - ends[1]) / (2 * step)
        assert expected.abs().max() > 1e-6, site
        assert (estimates - expected).abs().max() < bound * expected.abs().max().clamp(min=1.0), site
    # What is no part of a span, or is left as it is, has no effect.
    rest = sorted(set(range(len(given.base))) - {at for span in given.spans for at, _ in span})
    assert all(not nodes[..., rest].any() for nodes in found.nodes[0].values())
    assert "pattern" not in found.nodes[0]
    model.close()


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize(("align", "direction"), WAYS)
def test_where_all_is_linear_the_estimate_is_the_exact_patch(
    align: str, direction: str, steps: int, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = linear_model()
    cases = [case(align, direction), case("last", direction)]
    found = asked(model, cases, steps=steps)
    assert found.path.startswith(path)
    monkeypatch.undo()
    for site in ("resid_pre", "z", "v", "attn_out"):
        exact = model.operate(
            "patch",
            {},
            lambda _, site=site: sweep.sweep(model, cases, site=site, by="span", layers=range(3)).run(),
        )
        for number, given in enumerate(cases):
            effect = exact.values[number] - exact.base[number]
            assert effect.abs().max() > 0.01
            error = (by_span(found.nodes[number][site], given.spans) - effect).abs().max()
            assert error < BOUND * effect.abs().max(), (site, float(error))
            assert found.base[number] == pytest.approx(float(exact.base[number]), abs=1e-4)
            assert found.source[number] == pytest.approx(float(exact.source[number]), abs=1e-4)


def _naive_way(model: LoadedModel, given: Case, site: str, layer: int, steps: int) -> torch.Tensor:
    """Return one layer's nodes on the way to the aligned embeddings, by hooks and autograd, ``[position, …]``."""
    begin, name = "blocks.0.hook_resid_pre", SITES[site].hook(layer)
    whole = given.aligned or ()

    def run(ids: Sequence[int], start: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        held: list[torch.Tensor] = []
        hooks: list[Any] = [] if start is None else [(begin, lambda tensor, hook: start)]  # noqa: ARG005

        def add(tensor: torch.Tensor, hook: Any) -> torch.Tensor:  # noqa: ARG001
            held.extend([tensor.detach().clone(), torch.zeros_like(tensor, requires_grad=True)])
            return tensor + held[1]

        logits = model.bridge.run_with_hooks(torch.tensor([list(ids)]), fwd_hooks=[*hooks, (name, add)])[0, -1]
        (slope,) = torch.autograd.grad(logits[7] - logits[9], held[1:])
        return held[0][0], slope[0]

    first, last = (model.run(list(ids)).activations[begin][0] for ids in (given.base, given.source))
    end = put(first, last, whole)
    shares = torch.linspace(0, 1, steps)
    points = [run(given.base, (first + share * (end - first))[None]) for share in shares]
    source = put(points[-1][0], run(given.source, None)[0], whole)
    values = [value + share * (source - points[-1][0]) for share, (value, _) in zip(shares, points, strict=True)]
    total = torch.zeros_like(values[0])
    for n in range(steps - 1):
        total += (values[n + 1] - values[n]) * (points[n][1] + points[n + 1][1]) / 2
    keep = torch.zeros(len(given.base), dtype=torch.bool)
    keep[[at for at, _ in whole]] = True
    total[~keep] = 0
    return total


@pytest.mark.parametrize(("align", "direction"), WAYS)
@pytest.mark.parametrize("family", ["gpt2", "llama", "neox"])
def test_the_way_is_to_the_aligned_embeddings_and_on_to_what_is_put_in(
    family: str, align: str, direction: str, path: str, lend: Callable[..., Any]
) -> None:
    model, given = lend(family), case(align, direction)
    found = asked(model, [given], steps=4)
    assert found.path.startswith(path)
    for site, layer in (("resid_pre", 0), ("z", 1), ("mlp_out", 0), ("k", 1), ("q", 1), ("resid_post", 1)):
        total = _naive_way(model, given, site, layer, 4).double()
        nodes = found.nodes[0][site][layer]
        expected = total.sum(-1).T if nodes.dim() == 2 else total.sum(-1)
        assert expected.abs().max() > 1e-6
        assert (nodes - expected).abs().max() < BOUND * expected.abs().max(), site


@pytest.mark.parametrize("steps", [1, 5])
def test_many_pairs_together_are_as_each_alone_and_in_pieces(
    steps: int, path: str, lend: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from interp.engine import memory

    model = lend("llama")
    plain = Case((5, 11, 64, 31, 8, 41), SHORT, Scorer(Metric(), (7,), (9,)), 5)
    cases = [plain, *(case(*way) for way in WAYS), plain]
    alone = [asked(model, [one], steps=steps).nodes[0] for one in cases]
    for rows in (512, 13):
        monkeypatch.setattr(memory, "GRADIENT_ROWS", rows)
        found = asked(model, cases, steps=steps)
        assert found.path.startswith(path)
        for nodes, expected in zip(found.nodes, alone, strict=True):
            assert nodes.keys() == expected.keys()
            assert all(torch.allclose(nodes[site], expected[site], atol=1e-5) for site in nodes)
    assert "pattern" in found.nodes[0]


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_spans_of_one_token_are_positions_to_the_last_bit(family: str, steps: int, lend: Callable[..., Any]) -> None:
    model = lend(family)
    words = model.tokens.encode(interp.Prompt("to Mary gave John the", bos=False)).strings
    every = "".join(f"[{word}]{{P{n}}}" if word.strip() else word for n, word in enumerate(words))
    clean, corrupted = every, every.replace("[ Mary]", "[ John]")
    asked_ = {"metric": "logit", "answer": " John", "method": "attribution", "steps": steps}
    for site in [site for site in SITES_OF if site in model.sites]:
        spans, positions = (interp.patch(clean, corrupted, site=site, by=by, **asked_) for by in ("span", "position"))
        places = [own[0] for own, _ in spans.checks.spans[0].values()]
        assert len(places) > 5
        assert np.array_equal(spans.estimate, positions.estimate[:, places]), site
        assert all(np.array_equal(spans.estimates[name], positions.estimates[name]) for name in positions.estimates)


def test_the_command_sums_heads_and_verifies_and_says_nothing_of_cuts(lend: Callable[..., Any]) -> None:
    model = lend("llama")
    clean = "[Mary]{IO} gave the [book]{OBJ} to John, and"
    longer = "The old [Alice Smith]{IO} gave the [green pen]{OBJ} to John, and"
    found = interp.patch(
        clean,
        longer,
        site="z",
        by="span",
        metric="logit",
        answer=" John",
        method="attribution",
        align="mean",
        verify=3,
    )
    exact = interp.patch(clean, longer, site="z", by="span", metric="logit", answer=" John", align="mean")
    assert found.provenance.path == "gradients; verified by replay"
    assert found.done.sum() == 3
    assert found.patched[found.done] == pytest.approx(exact.patched[found.done], abs=1e-5)
    assert found.estimates["z"].shape == (model.geometry.n_layers, model.geometry.n_heads)
    assert found.estimates["z"].sum(1) == pytest.approx(found.estimate.sum(1), abs=1e-6)
    assert "pattern" not in found.estimates
    assert not any("residual stream" in note for note in found.notes)
    assert any("--align mean" in note for note in found.notes)


@pytest.mark.parametrize("align", ["last", "mean"])
def test_of_names_of_several_tokens_estimates_go_with_the_exact_effects(align: str, smollm2: Any) -> None:  # noqa: ARG001
    names = [("Mary", "John", "Mr Alexander Whitcombe"), ("Sarah", "Tom", "Bartholomew"), ("Anna", "Paul", "Dr Xavier")]
    pairs = [
        (
            f"When [{io}]{{IO}} and [{s}]{{S1}} went to the store, [{s}]{{S2}} gave a drink to",
            f"When [{io}]{{IO}} and [{s}]{{S1}} went to the store, [{other}]{{S2}} gave a drink to",
            f" {io}",
            f" {s}",
        )
        for io, s, other in names
    ]
    lengths = {
        len(span)
        for places in [interp.patch(pairs=pairs, site="resid_pre", by="span", layer=0, align=align)]
        for own in places.checks.spans
        for span in own["S2"]
    }
    assert max(lengths) > 2
    for site, bound in (("resid_pre", 0.9), ("mlp_out", 0.8), ("attn_out", 0.7)):
        options = {"pairs": pairs, "site": site, "by": "span", "align": align, "direction": "noise"}
        exact = interp.patch(**options).effect
        found = interp.patch(**options, method="attribution", steps=5).estimate
        together = np.corrcoef(exact.ravel(), found.ravel())[0, 1]
        print(f"{site}, {align}: correlation {together:.3f}, ranks {spearman(exact.ravel(), found.ravel()):.3f}")
        assert together > bound
