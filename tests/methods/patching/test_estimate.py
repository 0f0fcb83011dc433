"""`patch --method attribution`: what is estimated, what is verified, and what is said about the two."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from IPython.core.error import UsageError

import interp
from engine.patching.test_sweep import Failing
from interp.engine import memory
from interp.engine.model import hooks
from interp.engine.transformer import incremental, network
from interp.errors import InputError, Interrupted
from interp.methods._shared.patching import estimate
from interp.sites import SITES, Site
from interp.spec import Pair, Prompt
from methods.patching.test_patch import captured

pytestmark = pytest.mark.usefixtures("one_thread")

ONE = Pair(Prompt(ids=(5, 11, 23, 31, 8, 40)), Prompt(ids=(5, 11, 64, 31, 8, 40)), (7,), (9,))
FIRST = Pair(Prompt(ids=(50, 11, 23, 31, 8, 40)), Prompt(ids=(51, 11, 23, 31, 9, 40)), (7, 12), (9,))
SHORT = Pair(Prompt(ids=(5, 17, 3)), Prompt(ids=(6, 17, 3)), (30,), (31,))
HEADED = ("z", "q", "k", "v", "pattern")


def ask(**options: Any) -> Any:
    return interp.patch(**{"pairs": [ONE, FIRST], "method": "attribution"} | options)


@pytest.fixture(params=["gradients", "hooked"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "hooked":
        monkeypatch.setattr(network, "FAMILIES", {})
    return request.param


# -- what is estimated -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["denoise", "noise"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "neox"])
def test_every_site_and_division(family: str, direction: str, lend: Callable[..., Any]) -> None:
    model = lend(family)
    sites = [site for site in SITES if Site(site, 0).hook_name in model.hook_names]
    finest = {site: "head-position" if site in HEADED else "position" for site in sites}
    for site in sites:
        whole = ask(site=site, by=finest[site], direction=direction)
        assert (
            whole.estimate.shape == whole.effect.shape == ask(site=site, by=finest[site], method="exact").effect.shape
        )
        assert set(whole.estimates) == set(sites)
        divisions = [
            "layer",
            "position",
            *(["head"] if site in HEADED else []),
            *(["neuron"] if site == "neuron" else []),
        ]
        for by in divisions:
            part = ask(site=site, by=by, direction=direction).estimate
            summed = {"layer": (1, 2), "position": (1,), "head": (2,)} if site in HEADED else {"layer": (1,)}
            if by == "neuron":
                assert np.allclose(part.sum(-1), whole.estimate.sum(-1), atol=1e-5)
            else:
                assert np.allclose(part, whole.estimate.sum(summed.get(by, ())), atol=1e-5), (site, by)
        by = "head" if site in HEADED else "position"
        assert np.allclose(whole.estimates[site], ask(site=site, by=by, direction=direction).estimate, atol=1e-6)
        one = ask(site=site, by=finest[site], direction=direction, layer=1)
        assert np.allclose(one.estimate, whole.estimate[1:], atol=1e-5)
        assert all(len(values) == 1 for values in one.estimates.values())
        # Mean over pairs.
        alone = [ask(pairs=[pair], site=site, by=finest[site], direction=direction).estimate for pair in (ONE, FIRST)]
        assert np.allclose(whole.estimate, np.mean(alone, axis=0), atol=1e-5)


def test_pairs_of_different_lengths(lend: Any) -> None:
    lend("llama")
    result = ask(pairs=[ONE, SHORT], by="head", verify=3)
    assert set(result.estimates) == set(HEADED)
    both = [ask(pairs=[pair], by="head").estimate for pair in (ONE, SHORT)]
    assert np.allclose(result.estimate, np.mean(both, axis=0), atol=1e-5)
    with pytest.raises(InputError, match="by position they must have one length"):
        ask(pairs=[ONE, SHORT], by="head-position")


def test_the_estimate_is_the_slope_of_patching(lend: Any) -> None:
    """A hundredth of the way from base to source is where first order holds: finite differences of the real forward."""
    model = lend("llama")
    result = ask(pairs=[ONE], site="z", by="head")
    name = "blocks.{}.attn.hook_z"
    base, source = torch.tensor([ONE.corrupted.ids]), torch.tensor([ONE.clean.ids])
    with torch.no_grad():
        caches = [
            captured(model, ids[0].tolist(), [name.format(layer) for layer in range(2)]) for ids in (base, source)
        ]
        for layer, head in itertools.product(range(2), range(4)):
            at = name.format(layer)
            move = caches[1][at] - caches[0][at]
            values = []
            for share in (-0.01, 0.01):

                def shift(tensor: torch.Tensor, hook: Any, share: float = share, head: int = head) -> torch.Tensor:  # noqa: ARG001
                    new = tensor.clone()
                    new[:, :, head] += share * move[:, :, head]  # noqa: B023
                    return new

                logits = model.bridge.run_with_hooks(base, fwd_hooks=[(at, shift)], return_type="logits")[0, -1]
                values.append(float(logits[7] - logits[9]))
            slope = (values[1] - values[0]) / 0.02
            assert abs(slope - result.estimate[layer, head]) < 0.01 * np.abs(result.estimate).max() + 1e-3


# -- what is verified ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["denoise", "noise"])
def test_the_strongest_estimates_are_verified(direction: str, lend: Any, path: str) -> None:
    lend("gpt2")
    whole = interp.patch(pairs=[ONE, FIRST], by="head-position", direction=direction)
    result = ask(by="head-position", verify=7, direction=direction)
    assert result.provenance.path.startswith(path)
    strongest = np.argsort(-np.abs(result.estimate), axis=None, kind="stable")[:7]
    assert np.array_equal(np.flatnonzero(result.done), np.sort(strongest))
    for name in ("patched", "effect", "recovery"):
        mine, exact = getattr(result, name), getattr(whole, name)
        assert np.isnan(mine[~result.done]).all()
        assert np.abs(mine - exact)[result.done].max() < 1e-4, name
    assert np.allclose(result.interval[:, result.done], whole.interval[:, result.done], atol=1e-4, equal_nan=True)
    assert result.clean_metric == pytest.approx(whole.clean_metric, abs=1e-4)
    assert result.corrupted_metric == pytest.approx(whole.corrupted_metric, abs=1e-4)
    assert not any("NaN" in note or note.startswith("partial") for note in result.notes)
    assert "gpt2: z by head-position, 2 × 4 × 6, 2 pairs, estimated; 7 verified" in result.summary()
    assert ask().summary().endswith("2 pairs, estimated")
    everything = ask(verify=8)
    assert everything.done.all()
    assert np.abs(everything.effect - interp.patch(pairs=[ONE, FIRST], direction="denoise").effect).max() < 1e-4


def test_how_far_they_agree(lend: Any) -> None:
    lend("llama")
    result = ask(by="head-position", verify=20)
    found = result.agreement
    guessed, exact = result.estimate[result.done], result.effect[result.done]

    def ranks(values: np.ndarray) -> np.ndarray:
        return np.array([(values < v).sum() + ((values == v).sum() - 1) / 2 for v in values])

    assert found.verified == 20
    assert found.rank_correlation == pytest.approx(np.corrcoef(ranks(guessed), ranks(exact))[0, 1])
    worst = int(np.abs(guessed - exact).argmax())
    assert found.where == result.name(np.argwhere(result.done)[worst])
    assert (found.estimate, found.exact) == (guessed[worst], exact[worst])
    least = 0.05 * max(np.abs(guessed).max(), np.abs(exact).max())
    unsafe = [
        result.name(cell)
        for cell, a, b in zip(np.argwhere(result.done), guessed, exact, strict=True)
        if max(abs(a), abs(b)) >= least and not 0.5 <= a / b <= 2
    ]
    assert list(found.unsafe) == unsafe
    note = next(note for note in result.notes if note.startswith("estimate against exact over 20 verified cells"))
    assert f"furthest apart at {found.where}" in note
    assert bool(unsafe) == any("the estimate has the wrong sign" in note for note in result.notes)
    assert ask().agreement is None
    assert interp.patch(pairs=[ONE]).agreement is None
    assert np.isnan(ask(verify=2).agreement.rank_correlation)
    assert estimate.spearman(np.array([1.0, 2, 2, 3]), np.array([1.0, 2, 2, 3])) == pytest.approx(1)
    planted = replace(result, estimate=np.where(result.done, -result.effect, 0.0))
    assert planted.agreement.rank_correlation == pytest.approx(-1)
    assert len(planted.agreement.unsafe) == sum(np.abs(exact) >= 0.05 * np.abs(exact).max())


def test_top_and_table_say_which_is_which(lend: Any) -> None:
    lend("gpt2")
    result = ask(by="head-position", verify=5)
    best = np.where(result.done, result.effect, result.estimate)
    order = sorted(np.ndindex(*best.shape), key=lambda i: -abs(best[i]))
    top = result.top(9)
    assert [name for name, _, _ in top] == [result.name(i) + " (estimated)" * (not result.done[i]) for i in order[:9]]
    assert [effect for _, effect, _ in top] == [best[i] for i in order[:9]]
    span = result.clean_metric - result.corrupted_metric
    for _, effect, recovery in top:
        assert recovery == pytest.approx(effect / span, abs=1e-9)
    noise = ask(direction="noise", verify=2)
    span = noise.clean_metric - noise.corrupted_metric
    assert all(recovery == pytest.approx(1 + effect / span) for _, effect, recovery in noise.top(8))
    frame = result.to_frame()
    assert frame.columns[-1] == "estimate"
    assert np.array_equal(frame.estimate.to_numpy(), result.estimate.reshape(-1))
    assert frame.effect.notna().sum() == 5
    assert "estimate" not in interp.patch(pairs=[ONE]).to_frame().columns


def test_saving_keeps_everything(lend: Any, tmp_path: Any) -> None:
    lend("gpt2")
    result = ask(verify=3, steps=2)
    held = np.load(result.save(tmp_path / "a.npz"))
    assert np.array_equal(held["estimate"], result.estimate)
    assert np.array_equal(held["estimates_mlp_out"], result.estimates["mlp_out"])
    data = json.loads(result.save(tmp_path / "a.json").read_text("utf-8"))
    assert data["method"] == "attribution"
    assert data["provenance"]["arguments"]["steps"] == 2
    assert "method='attribution'" in result.code()
    for theme in ("light", "dark"):
        assert result.svg(theme).count("<circle") >= 4
        assert len(result.to_plotly(kind="scatter", theme=theme).data[1].x) == 3
    assert "Estimate against exact effect" in result.html()
    assert "Estimate against" not in ask().html()
    with pytest.raises(InputError, match="nothing was verified"):
        ask().to_plotly(kind="scatter")
    with pytest.raises(InputError, match="no figure 'bars'; use heatmap or scatter"):
        result.to_plotly(kind="bars")


# -- trust -----------------------------------------------------------------------------------------------------------


def test_saturation_is_noticed_without_verifying(lend: Any) -> None:
    lend("gpt2")

    plain = interp.patch(pairs=[ONE])
    middle = (plain.clean_metric + plain.corrupted_metric) / 2

    def saturated(logits: torch.Tensor) -> torch.Tensor:
        return (20 * (logits[:, 7] - logits[:, 9] - middle)).tanh()

    result = ask(pairs=[ONE], metric=saturated)
    assert abs(result.clean_metric - result.corrupted_metric) > 1.9
    note = next(note for note in result.notes if note.startswith("saturation: over the whole residual stream"))
    assert "in 2 of 2 layers" in note or "in layer" in note
    assert "--steps 5" in note
    smooth = ask(pairs=[ONE], metric="logit", steps=100)
    assert not any(note.startswith("saturation") for note in smooth.notes)
    assert not any("saturation" in note for note in interp.patch(pairs=[ONE]).notes)


def test_a_metric_at_its_minimum_has_no_slope(lend: Any) -> None:
    lend("llama")
    result = ask(metric="kl", direction="noise", verify=3)
    assert np.abs(result.estimate).max() < 1e-5
    assert any(note.startswith("saturation: over the whole") for note in result.notes)
    assert np.abs(ask(metric="kl", direction="noise", steps=9).estimate).max() > 1e-3


def test_another_models_activations(lend: Any, folder: Any, clean_session: Any) -> None:
    model = lend("gpt2")
    other = clean_session.load(str(folder("gpt2")), name="other")
    with torch.no_grad():
        other.bridge.blocks[0].mlp.out.original_component.weight.mul_(1.2)
    clean_session.current = model.name
    result = ask(pairs=[ONE], from_model="other", site="mlp_out", by="position", verify=6)
    exact = interp.patch(pairs=[ONE], from_model="other", site="mlp_out", by="position")
    assert np.abs(result.effect - exact.effect)[result.done].max() < 1e-4
    assert result.agreement.rank_correlation > 0.5
    assert not any("whole residual stream" in note for note in result.notes)
    with pytest.raises(InputError, match="with --from-model leave it out"):
        ask(pairs=[ONE], from_model="other", steps=3)


# -- input -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"steps": 0}, "--steps 0 integrates over nothing; use 1"),
        ({"steps": -1}, "--steps -1 integrates over nothing"),
        ({"verify": -1}, "--verify -1 is no number of cells"),
        ({"verify": 9}, "--verify 9 is more than the 8 cells; use --verify 8 or less"),
        (
            {"method": "exact", "verify": 3},
            "--verify is for estimates, and an exact sweep has none; add --method attri",
        ),
        ({"method": "exact", "steps": 3}, "--steps is for estimates"),
        ({"method": "atribution"}, "did you mean attribution"),
        ({"metric": "rank"}, "rank has no gradient to estimate from; use --metric logit-diff, or --method exact"),
    ],
)
def test_flags_that_make_no_sense(options: dict[str, Any], said: str, lend: Any, shell: Any) -> None:
    lend("gpt2")
    with pytest.raises(InputError, match=said.replace("(", "[(]")) as caught:
        ask(**options)
    assert len(str(caught.value).splitlines()) == 1
    line = " ".join(f"--{name} {value}" for name, value in ({"method": "attribution"} | options).items())
    body = "clean: Mary gave the drink to\ncorrupted: John gave the drink to\nanswer: Mary\nwrong: John\n"
    with pytest.raises(UsageError):
        shell.run_cell_magic("interp", f"patch {line}", body)


def counted(logits: torch.Tensor) -> Any:
    return [float(row.argmax()) for row in logits]


def detached(logits: torch.Tensor) -> torch.Tensor:
    return logits.detach()[:, 7]


def as_numpy(logits: torch.Tensor) -> Any:
    return logits.numpy()[:, 7]


def margin(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, 7] - logits[:, 9]


@pytest.mark.parametrize("metric", [counted, detached, as_numpy])
def test_functions_that_torch_cannot_differentiate(metric: Any, lend: Any) -> None:
    lend("gpt2")
    with pytest.raises(InputError, match=f"the metric {metric.__name__} has no gradient to estimate from") as caught:
        ask(metric=metric)
    assert "use --method exact" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert np.isfinite(ask(metric=metric, method="exact").effect).all()


def test_a_function_that_torch_can_differentiate(lend: Any, path: str) -> None:
    lend("neox")
    asked = {"pairs": [ONE], "verify": 4}
    assert np.allclose(ask(metric=margin, **asked).estimate, ask(**asked).estimate, atol=1e-5)
    assert ask(metric=margin, **asked).provenance.path.startswith(path)


def test_a_function_that_fails_on_the_way(lend: Any, path: str) -> None:
    lend("gpt2")
    expected = ask()
    calls: list[int] = []

    def fickle(logits: torch.Tensor) -> torch.Tensor:
        calls.append(len(logits))
        if len(calls) > 3:
            raise ValueError("no more")
        return margin(logits)

    with pytest.raises(InputError, match="the metric fickle failed on the way: ValueError: no more") as caught:
        ask(metric=fickle)
    assert len(str(caught.value).splitlines()) == 1
    assert torch.is_grad_enabled()
    assert np.array_equal(ask().estimate, expected.estimate)
    assert expected.provenance.path.startswith(path)


def test_the_magic(lend: Any, shell: Any) -> None:
    lend("gpt2")
    body = "clean: Mary gave the drink to\ncorrupted: John gave the drink to\nanswer: Mary\nwrong: John\n"
    shell.run_cell_magic("interp", "patch --method attribution --steps 3 --verify 2 -o est", body)
    result = shell.user_ns["est"]
    assert result.method == "attribution"
    assert result.done.sum() == 2


# -- interrupts ------------------------------------------------------------------------------------------------------


def test_an_interrupted_verification_keeps_the_estimate(lend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = lend("llama")
    whole = ask(by="head-position", verify=20)
    monkeypatch.setattr(memory, "WAVE_ROWS", 12)
    seen: set[int] = set()
    for at in range(1, 8):
        model.store.clear()
        failing = Failing(incremental.replay, lambda call, at=at: call == at, KeyboardInterrupt())
        with monkeypatch.context() as patch:
            patch.setattr(incremental, "replay", lambda *a, f=failing, **b: f(*a, **b))
            with pytest.raises(Interrupted) as caught:
                ask(by="head-position", verify=20)
        result = caught.value.result
        assert np.allclose(result.estimate, whole.estimate, atol=1e-5)
        assert 0 <= result.done.sum() < 20
        assert (~result.done | whole.done).all()
        assert np.abs(result.effect - whole.effect)[result.done].max(initial=0) < 1e-4
        note = next(note for note in result.notes if note.startswith("partial: interrupted after "))
        assert note.split()[3].rstrip(";").endswith("/40")  # twenty cells of two pairs
        assert torch.is_grad_enabled()
        result.html(), result.text(), result.to_frame(), result.top()
        seen.add(int(result.done.sum()))
    assert len(seen) > 1


def test_an_interrupted_estimate_leaves_nothing(lend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = lend("llama")
    expected = ask(verify=2)
    baseline = hooks.census(model.modules())
    with monkeypatch.context() as patch:
        patch.setattr(torch.autograd, "grad", Failing(torch.autograd.grad, lambda _: True, KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt) as caught:
            ask(verify=2)
    assert not isinstance(caught.value, Interrupted)
    assert torch.is_grad_enabled()
    assert hooks.census(model.modules()) == baseline
    assert np.array_equal(ask(verify=2).estimate, expected.estimate)


# -- a model that has learned something ------------------------------------------------------------------------------


def test_smollm2_is_estimated_and_verified(smollm2: Any) -> None:  # noqa: ARG001
    results = {steps: interp.patch(task="ioi", n=8, method="attribution", steps=steps, verify=20) for steps in (1, 5)}
    exact = interp.patch(task="ioi", n=8)
    strongest = {name for name, _, _ in exact.top(5)}
    for steps, result in results.items():
        found = result.agreement
        kept = len(strongest & {name for name, _, _ in result.top(5)})
        print(
            f"SmolLM2, {steps} step(s), {result.provenance.seconds:.1f} s: rank correlation "
            f"{found.rank_correlation:.3f} over 20 verified heads, furthest apart at {found.where} "
            f"({found.estimate:.2f} against {found.exact:.2f}), unsafe {found.unsafe}; {kept} of the 5 strongest found"
        )
        assert result.provenance.path == "gradients; verified by replay"
        assert np.abs(result.effect - exact.effect)[result.done].max() < 1e-3
        assert found.rank_correlation > 0.8
        assert kept >= 4
    # First order misses how much the last token's early heads carry, and says so; five steps do not.
    assert any(note.startswith("saturation: over the whole residual stream") for note in results[1].notes)
    assert not any(note.startswith("saturation: over the whole residual stream") for note in results[5].notes)
