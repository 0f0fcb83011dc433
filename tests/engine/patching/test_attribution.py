"""Estimates from gradients against the definition: hooks and autograd on the bridge, one activation at a time."""

from __future__ import annotations

import itertools
import random
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import models
from engine.model.test_interrupts import Alarm
from engine.patching.test_sweep import CUDA, SIGNS, Failing
from interp.engine import exactness, memory
from interp.engine.metrics import Scorer
from interp.engine.model import forward as passes
from interp.engine.model import hooks
from interp.engine.model.load import Options, load
from interp.engine.model.loaded import LoadedModel
from interp.engine.patching import attribution, recorded, sweep, waves
from interp.engine.patching.cases import Case
from interp.engine.transformer import network
from interp.engine.transformer.families._family import Family
from interp.errors import InputError, OutOfMemory
from interp.sites import SITES, Site
from interp.spec import Metric

pytestmark = pytest.mark.usefixtures("one_thread")

ONE = ((5, 11, 64, 31, 8, 40), (5, 11, 23, 31, 8, 40))
FIRST = ((51, 11, 23, 31, 9, 40), (50, 11, 23, 31, 8, 40))
SHORT = ((6, 17, 3), (5, 17, 3))
BOUND = 1e-4  # of the largest
HEADED = ("z", "q", "k", "v", "pattern")


PLAIN = Metric()


def case(
    ids: tuple[tuple[int, ...], tuple[int, ...]],
    metric: Metric = PLAIN,
    noise: bool = False,
    answer: tuple[int, ...] = (7, 12),
) -> Case:
    base, source = reversed(ids) if noise else ids
    return Case(base, source, Scorer(metric, answer, (9,)), len(base) - 1, clean_base=noise)


def asked(model: LoadedModel, cases: Sequence[Case], **options: Any) -> attribution.Attributed:
    return model.operate("patch", {}, lambda _: attribution.attribute(model, cases, **options))


def sites_of(model: LoadedModel) -> list[str]:
    return [site for site in SITES if Site(site, 0).hook_name in model.bridge.hook_dict]


@pytest.fixture(params=["gpt2", "llama", "neox"])
def model(request: pytest.FixtureRequest, lend: Callable[..., Any]) -> Any:
    return lend(request.param)


@pytest.fixture(params=["gradients", "hooked"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "hooked":
        monkeypatch.setattr(network, "FAMILIES", {})
    return request.param


# -- the reference ---------------------------------------------------------------------------------------------------


def metric_of(logits: torch.Tensor, metric: Metric, clean: torch.Tensor) -> torch.Tensor:
    if metric.function is not None:
        return metric.function(logits[None])[0]
    p = logits.log_softmax(-1)
    if metric.name == "kl":
        q = clean.log_softmax(-1)
        return (q.exp() * (q - p)).sum()
    right, wrong = torch.stack([logits[7], logits[12]]).logsumexp(0), logits[9]
    return {
        "logit-diff": right - wrong,
        "logit": right,
        "logprob": torch.stack([p[7], p[12]]).logsumexp(0),
        "prob": p[7].exp() + p[12].exp(),
    }[metric.name]


def gradient(
    model: LoadedModel, ids: Sequence[int], name: str, metric: Metric, clean: Any, start: Any = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return an activation and the metric's gradient: that of a zero that is added to it."""
    held: list[torch.Tensor] = []
    hook_list: list[Any] = []
    if start is not None:
        hook_list.append(("blocks.0.hook_resid_pre", lambda tensor, hook: start))  # noqa: ARG005

    def add(tensor: torch.Tensor, hook: Any) -> torch.Tensor:  # noqa: ARG001
        held.append(tensor.detach().clone())
        held.append(torch.zeros_like(tensor, requires_grad=True))
        return tensor + held[1]

    hook_list.append((name, add))
    logits = model.bridge.run_with_hooks(torch.tensor([list(ids)]), fwd_hooks=hook_list, return_type="logits")[0, -1]
    (found,) = torch.autograd.grad(metric_of(logits, metric, clean), held[1:])
    return held[0][0], found[0]


def naive(model: LoadedModel, asked: Case, site: str, layer: int) -> torch.Tensor:
    """Return one layer's nodes, ``[head, position]`` or ``[position]``, at first order."""
    metric = asked.scorer.metric
    with torch.no_grad():
        clean = model.bridge(torch.tensor([asked.base if asked.clean_base else asked.source]))[0, -1]
    # A change of what attention writes is a change of the stream after it; the bridge has no hook there that writes.
    name = Site("attn_out" if site == "resid_mid" else site, layer).hook_name
    here, slope = gradient(model, asked.base, name, metric, clean)
    there, _ = gradient(model, asked.source, name, metric, clean)
    move = there - here
    if site == "resid_mid":
        before = Site("resid_pre", layer).hook_name
        ends = [gradient(model, ids, before, metric, clean)[0] for ids in (asked.source, asked.base)]
        move = move + ends[0] - ends[1]
    product = (move * slope).double()
    return product.sum(-1) if site not in HEADED or site == "pattern" else product.sum(-1).T


def worst(model: LoadedModel, given: Case, found: dict[str, torch.Tensor]) -> float:
    """Return the largest error, as a part of the site's largest node."""
    errors = []
    for site in sites_of(model):
        expected = torch.stack([naive(model, given, site, layer) for layer in range(model.geometry.n_layers)])
        assert found[site].shape == expected.shape, site
        errors.append(float((found[site] - expected).abs().max() / expected.abs().max().clamp(min=1e-9)))
    return max(errors)


def margin(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, 3] ** 2 - logits[:, 5].exp()


METRICS = [Metric(name) for name in ("logit-diff", "logit", "logprob", "prob", "kl")] + [Metric("margin", margin)]


@pytest.mark.parametrize("noise", [False, True])
def test_every_node_of_every_site(model: Any, path: str, noise: bool) -> None:
    cases = [case(ids, noise=noise) for ids in (ONE, FIRST, SHORT)]
    found = asked(model, cases)
    assert found.path == ("gradients" if path == "gradients" else found.path)
    assert found.path.startswith(path)
    error = max(worst(model, given, nodes) for given, nodes in zip(cases, found.nodes, strict=True))
    print(f"{model.name}, {path}: largest error {error:.1e} of the largest node")
    assert error < BOUND
    for number, given in enumerate(cases):
        for ids, value in ((given.base, found.base[number]), (given.source, found.source[number])):
            with torch.no_grad():
                logits = model.bridge(torch.tensor([ids]))[0, -1]
            assert abs(float(value) - float(metric_of(logits, Metric(), logits))) < 1e-4


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_metrics(metric: Metric, lend: Any, path: str) -> None:
    model = lend("llama")
    given = case(FIRST, metric)
    assert worst(model, given, asked(model, [given]).nodes[0]) < BOUND
    backwards = case(FIRST, metric, noise=True)
    nodes = asked(model, [backwards]).nodes[0]
    if metric.name == "kl":  # at its own minimum
        assert max(float(values.abs().max()) for values in nodes.values()) < 1e-5
    else:
        assert worst(model, backwards, nodes) < BOUND
    assert path in {"gradients", "hooked"}


@pytest.mark.parametrize("act", ["silu", "relu", "gelu", "gelu_new", "sigmoid", "tanh", "relu2"])
def test_gated_mlps_of_any_activation_function(act: str) -> None:
    config = LlamaConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=16,
        vocab_size=70,
        hidden_act=act,
    )
    torch.manual_seed(1)
    made = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(0, 0.4)
    model = load(made, name=act, options=Options(device="cpu"))
    given = case(FIRST)
    found = asked(model, [given])
    assert found.path == "gradients"
    assert worst(model, given, found.nodes[0]) < BOUND


def test_neurons(model: Any, path: str) -> None:
    cases = [case(ONE), case(FIRST)]
    found = asked(model, cases, neurons=True)
    assert found.path.startswith(path)
    for given, neurons, nodes in zip(cases, found.neurons, found.nodes, strict=True):
        assert torch.allclose(neurons.sum(-1), nodes["neuron"].sum(-1), atol=1e-6)
        name = Site("neuron", 1).hook_name
        here, slope = gradient(model, given.base, name, Metric(), None)
        there, _ = gradient(model, given.source, name, Metric(), None)
        expected = ((there - here) * slope).sum(0).double()
        assert (neurons[1] - expected).abs().max() < BOUND * expected.abs().max()


# -- integrated gradients --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [2, 5])
def test_the_way_is_from_embeddings_to_embeddings(model: Any, path: str, steps: int) -> None:
    given = case(ONE)
    found = asked(model, [given], steps=steps)
    assert found.path.startswith(path)
    ends = []
    for ids in (given.base, given.source):
        ends.append(gradient(model, ids, "blocks.0.hook_resid_pre", Metric(), None)[0][None])
    for site, layer in (("z", 1), ("mlp_out", 0), ("pattern", 1), ("k", 0)):
        name, runs = Site(site, layer).hook_name, []
        for share in np.linspace(0, 1, steps):
            start = ends[0] + float(share) * (ends[1] - ends[0])
            runs.append(gradient(model, given.base, name, Metric(), None, start))
        total = torch.zeros_like(runs[0][0])
        for (a, slope_a), (b, slope_b) in itertools.pairwise(runs):
            total += (b - a) * (slope_a + slope_b) / 2
        expected = total.sum(-1) if site not in HEADED or site == "pattern" else total.sum(-1).T
        assert (found.nodes[0][site][layer] - expected).abs().max() < BOUND * expected.abs().max(), site


def test_complete_cuts_sum_to_the_true_difference(model: Any) -> None:
    cases = [case(FIRST), case(ONE, Metric("logprob"))]
    errors: list[float] = []
    for steps in (1, 4, 16, 64):
        found = asked(model, cases, steps=steps)
        true = (found.source - found.base)[:, None]
        cuts = torch.stack([nodes["resid_pre"].sum(-1) for nodes in found.nodes])
        last = torch.stack([nodes["resid_post"].sum(-1) for nodes in found.nodes])
        errors.append(float((torch.cat([cuts, last], 1) - true).abs().max() / true.abs().max()))
    print(f"{model.name}: error of the sums over a cut {errors}")
    assert errors[3] < 0.01
    assert errors[3] < errors[2] < errors[1]
    assert errors[0] > 0.05  # the first order alone is not there


def test_heads_sum_to_what_attention_writes(lend: Any) -> None:
    model = lend("gpt2")
    for steps in (1, 6):
        nodes = asked(model, [case(FIRST)], steps=steps).nodes[0]
        assert torch.allclose(nodes["z"].sum(1), nodes["attn_out"], atol=1e-5)
        assert nodes["z"].abs().max() > 1e-2


# -- a model in which everything is linear ---------------------------------------------------------------------------


def linear_model() -> LoadedModel:
    """Return a GPT-2 whose norms are linear (their epsilon dwarfs all), which attends evenly and has no MLP."""
    huge = 1e12
    config = GPT2Config(n_layer=3, n_head=2, n_embd=16, n_positions=16, vocab_size=70, layer_norm_epsilon=huge)
    made = GPT2LMHeadModel(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
            if ".ln_" in name and name.endswith("weight"):
                parameter.fill_(huge**0.5)
        for block in made.transformer.h:
            block.attn.c_attn.weight[:, :32] = 0
            block.attn.c_attn.bias[:32] = 0
            block.mlp.c_proj.weight.zero_()
    return load(made, name="linear", options=Options(device="cpu"))


@pytest.mark.parametrize("steps", [1, 4])
def test_where_all_is_linear_the_estimate_is_exact(steps: int) -> None:
    model = linear_model()
    cases = [case(ids, answer=(7,)) for ids in (ONE, FIRST)]  # of one token: a set's log of sums is not linear
    found = asked(model, cases, steps=steps)
    largest = 0.0
    for site, by in (
        ("resid_pre", "position"),
        ("z", "head-position"),
        ("v", "head-position"),
        ("attn_out", "position"),
    ):
        exact = model.operate(
            "patch",
            {},
            lambda _, site=site, by=by: sweep.sweep(model, cases, site=site, by=by, layers=range(3)).run(),
        )
        for number in range(len(cases)):
            effect = exact.values[number] - exact.base[number]
            error = (found.nodes[number][site] - effect).abs().max()
            largest = max(largest, float(effect.abs().max()))
            assert error < BOUND * effect.abs().max(), (site, float(error))
    assert largest > 0.1
    for number, nodes in enumerate(found.nodes):
        assert torch.allclose(nodes["resid_pre"].sum(-1), found.source[number] - found.base[number], rtol=1e-4)


# -- batches and memory ----------------------------------------------------------------------------------------------


def flat(found: attribution.Attributed) -> torch.Tensor:
    return torch.cat([nodes[site].flatten() for nodes in found.nodes for site in nodes])


@pytest.mark.parametrize("steps", [1, 5])
def test_batches_are_of_any_size(model: Any, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [case(ids) for ids in (ONE, SHORT, FIRST, ONE[::-1], SHORT[::-1])]
    whole = asked(model, cases, steps=steps, neurons=True)
    for number, given in enumerate(cases):
        alone = asked(model, [given], steps=steps)
        for site, nodes in alone.nodes[0].items():
            assert torch.allclose(whole.nodes[number][site], nodes, atol=1e-5), site
    for rows in (1, 13, 30):
        monkeypatch.setattr(memory, "ROWS", rows)
        told: list[tuple[int, int]] = []
        parts = asked(model, cases, steps=steps, neurons=True, on_step=lambda *at, told=told: told.append(at))
        assert torch.allclose(flat(parts), flat(whole), atol=1e-5)
        assert torch.allclose(torch.stack(parts.neurons), torch.stack(whole.neurons), atol=1e-5)
        assert torch.equal(parts.base, whole.base) or torch.allclose(parts.base, whole.base, atol=1e-5)
        assert told[-1] == (5, 5)
        assert told == sorted(told)


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("steps", [1, 4])
def test_memory_runs_out_once_at_every_step(
    sign: str, steps: int, lend: Any, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = lend("llama")
    cases = [case(ONE), case(FIRST), case(SHORT)]
    expected = asked(model, cases, steps=steps)
    baseline = hooks.census(model.modules())
    places = [(torch.autograd, "grad"), (attribution, "_by_head"), (Scorer, "of_residual")]
    places.append((recorded, "paired") if path == "gradients" else (passes, "forward"))
    injected = 0
    for owner, name in places:
        for k in range(0, 200, 5 if name == "_by_head" else 1):
            failing = Failing(getattr(owner, name), lambda call, k=k: call == k, SIGNS[sign])
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, lambda *a, f=failing, **b: f(*a, **b))
                try:
                    found = asked(model, cases, steps=steps)
                except OutOfMemory:  # one short pair alone, which nothing can halve
                    assert steps == 1
                    found = None
            if failing.calls <= k:
                break
            injected += found is not None
            assert found is None or torch.allclose(flat(found), flat(expected), atol=1e-5), (name, k)
            assert found is None or torch.allclose(found.source, expected.source, atol=1e-5)
    assert injected > 5
    assert hooks.census(model.modules()) == baseline


def test_nothing_fits(lend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = lend("gpt2")
    with monkeypatch.context() as patch:
        patch.setattr(recorded, "paired", Failing(recorded.paired, lambda _: True, CUDA))
        with pytest.raises(OutOfMemory, match="out of memory in patch"):
            asked(model, [case(ONE), case(FIRST)], steps=3)
    assert torch.is_grad_enabled()
    assert asked(model, [case(ONE)]).path == "gradients"


# -- what is left behind ---------------------------------------------------------------------------------------------


def test_gradients_of_the_users_own_stay(folder: Any, path: str) -> None:
    model = load(folder("llama"), options=Options(device="cpu"))
    parameters = list(model.hf_model.parameters())
    for n, parameter in enumerate(parameters):
        parameter.requires_grad_(n % 3 != 0)
        if n % 3 == 1:
            parameter.grad = torch.full_like(parameter, float(n))
    before = [(p.requires_grad, None if p.grad is None else p.grad.clone()) for p in parameters]
    state, baseline = model.fingerprint(), hooks.census(model.modules())
    for mode in (torch.enable_grad, torch.no_grad):
        with mode():
            enabled = torch.is_grad_enabled()
            found = asked(model, [case(ONE), case(SHORT)], steps=3)
            assert torch.is_grad_enabled() == enabled
    assert found.path.startswith(path)
    assert not any(values.requires_grad for nodes in found.nodes for values in nodes.values())
    for parameter, (wanted, own) in zip(parameters, before, strict=True):
        assert parameter.requires_grad == wanted
        assert (parameter.grad is None) == (own is None)
        assert own is None or torch.equal(parameter.grad, own)
    assert model.fingerprint() == state
    assert hooks.census(model.modules()) == baseline
    model.close()


def test_there_are_no_gradients_in_inference_mode(lend: Any) -> None:
    model = lend("gpt2")
    with torch.inference_mode(), pytest.raises(InputError, match="no gradients inside"):
        asked(model, [case(ONE)])


def test_a_wrong_forward_is_noticed(lend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = lend("llama")
    expected = asked(model, [case(ONE)])
    exactness.forget(model)
    monkeypatch.setattr(Family, "scale", lambda self, attention, index, d_head: 1.1 * d_head**-0.5)  # noqa: ARG005
    found = asked(model, [case(ONE)])
    assert found.path.startswith("hooked: the forward without hooks differed by")
    assert "was not used" in found.notes[0]
    assert torch.allclose(flat(found), flat(expected), atol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("interrupts_in_collections")
def test_interrupts_leave_nothing_behind(lend: Any, path: str) -> None:
    model = lend("llama")
    cases = [case(ONE), case(FIRST), case(SHORT)]
    dice = random.Random(path)
    handler, baseline = signal.getsignal(signal.SIGINT), hooks.census(model.modules())
    expected = flat(asked(model, cases, steps=3))
    alarm, before = Alarm(), signal.getsignal(signal.SIGALRM)
    signal.signal(signal.SIGALRM, alarm.ring)
    landed = 0

    def can_lock() -> bool:
        taken = model.lock.acquire(blocking=False)
        if taken:
            model.lock.release()
        return taken

    try:
        with ThreadPoolExecutor(1) as other:
            for turn in range(120):
                try:
                    try:
                        alarm.start([dice.uniform(1e-5, 0.02)])
                        asked(model, cases, steps=3)
                    except KeyboardInterrupt:
                        landed += 1
                    alarm.stop()
                except KeyboardInterrupt:
                    alarm.stop()
                assert signal.getsignal(signal.SIGINT) is handler
                assert model._operation is None
                assert other.submit(can_lock).result(), f"turn {turn}: the lock was left taken"
                assert hooks.census(model.modules()) == baseline, f"turn {turn}: a hook was left behind"
                assert torch.is_grad_enabled()
                if turn % 10 == 0:
                    assert torch.equal(flat(asked(model, cases, steps=3)), expected)
    finally:
        alarm.stop()
        signal.signal(signal.SIGALRM, before)
    assert landed > 30


# -- sweeps of chosen cells ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("site", "by"),
    [("z", "head"), ("k", "head-position"), ("pattern", "head"), ("resid_pre", "position"), ("neuron", "neuron")],
)
def test_chosen_cells_are_those_of_the_whole_sweep(site: str, by: str, model: Any, path: str) -> None:
    cases = [case(ONE), case(FIRST)]

    def swept(**options: Any) -> waves.Swept:
        asked = {"site": site, "by": by, "layers": range(2)} | options
        return model.operate("patch", {}, lambda _: sweep.sweep(model, cases, **asked).run())

    whole = swept()
    size = whole.values[0].numel()
    dice = random.Random(site)
    for count in (1, 3, size // 2, size):
        cells, told = dice.sample(range(size), count), []
        part = swept(cells=cells, on_step=lambda done, total, told=told: told.append((done, total)))
        chosen = torch.zeros(size, dtype=torch.bool)
        chosen[cells] = True
        assert torch.equal(part.done.view(2, -1), chosen.expand(2, -1))
        assert torch.isnan(part.values.view(2, -1)[:, ~chosen]).all()
        apart = (part.values - whole.values).view(2, -1)[:, chosen].abs().max()
        assert apart < 5e-5
        assert all(total == 2 * count for _, total in told)
        assert not told or told[-1] == (2 * count, 2 * count)
    assert path in {"gradients", "hooked"}
    assert models.LAYERS == 2
