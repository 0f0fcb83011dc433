"""Activation patching against the plain hooked forward, one cell at a time, and every number that is made of its cells.

The reference is written here from the definitions: one `run_with_hooks` for each cell, on logits, without anything of
the engine's. On small random models every site, division and direction is compared, and hypothesis draws the rest.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

import interp
import models
from interp.engine.model.load import Options, load
from interp.engine.model.loaded import LoadedModel
from interp.engine.transformer import network
from interp.engine.transformer.families._family import Family
from interp.errors import InputError
from interp.methods._shared.intervals import interval, of_ratio
from interp.sites import AXES, SITES
from interp.spec import Pair, Pairs, Prompt

pytestmark = pytest.mark.usefixtures("one_thread")

BOUND = 5e-5  # of a logit
HEADED = ("z", "q", "k", "v", "pattern")
TOKENIZER = models.tokenizer()
VOCABULARY = len(TOKENIZER)


@dataclass(frozen=True)
class Size:
    layers: int = 2
    kv_heads: int = 2
    group: int = 2
    d_head: int = 4
    d_mlp: int = 6
    seed: int = 0

    @property
    def heads(self) -> int:
        return self.kv_heads * self.group


def build(kind: str, size: Size = Size(), **extra: Any) -> LoadedModel:
    """Return a random model of `kind` whose heads differ from each other and whose biases are not zero."""
    many = {"num_attention_heads": size.heads, "num_hidden_layers": size.layers, "intermediate_size": size.d_mlp}
    many |= {"hidden_size": size.heads * size.d_head, "max_position_embeddings": 24, "vocab_size": VOCABULARY}
    shared = many | {"num_key_value_heads": size.kv_heads, "head_dim": size.d_head, "use_cache": False}
    if kind == "gpt2":
        named = {"n_layer": size.layers, "n_head": size.heads, "n_embd": many["hidden_size"], "n_inner": size.d_mlp}
        made = GPT2LMHeadModel(GPT2Config(**named, n_positions=24, vocab_size=VOCABULARY, **extra))
    elif kind == "neox":
        made = GPTNeoXForCausalLM(GPTNeoXConfig(**many | {"use_parallel_residual": True, "rotary_pct": 0.5} | extra))
    else:
        config, of = {
            "llama": (LlamaConfig, LlamaForCausalLM),
            "mistral": (MistralConfig, MistralForCausalLM),
            "qwen2": (Qwen2Config, Qwen2ForCausalLM),
            "qwen3": (Qwen3Config, Qwen3ForCausalLM),
        }[kind]
        made = of(config(**shared | extra))
    source = torch.Generator().manual_seed(size.seed)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            drawn = torch.empty_like(parameter, dtype=torch.float32).normal_(0.0, 0.4, generator=source)
            if parameter.dim() > 1 or name.endswith("bias"):
                parameter.copy_(drawn)
            else:  # a norm's gain
                parameter.copy_(1 + drawn / 2)
    return load(made.eval(), tokenizer=TOKENIZER, name=kind, options=Options(device="cpu"))


@pytest.fixture
def use(clean_session: Any) -> Callable[..., LoadedModel]:
    """Return ``use(model)``: the model becomes the session's current one."""

    def of(model: LoadedModel, name: str = "") -> LoadedModel:
        model.name = name or model.name
        clean_session.models[model.name] = model
        clean_session.current = model.name
        return model

    return of


# -- the reference ---------------------------------------------------------------------------------------------------


def logits_of(model: LoadedModel, ids: Sequence[int], hooks: Sequence[tuple[str, Any]] = ()) -> torch.Tensor:
    """Return the bridge's own logits at every position, ``[position, d_vocab]``."""
    with torch.no_grad():
        return model.bridge.run_with_hooks(torch.tensor([list(ids)]), fwd_hooks=list(hooks), return_type="logits")[0]


def hook_name(site: str, layer: int) -> str:
    inside = {"neuron": "mlp.hook_post"} | {name: f"attn.hook_{name}" for name in HEADED}
    return f"blocks.{layer}.{inside.get(site, f'hook_{site}')}"


def captured(model: LoadedModel, ids: Sequence[int], names: Sequence[str]) -> dict[str, torch.Tensor]:
    held: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Any:
        def hook(tensor: torch.Tensor, hook: Any) -> None:  # noqa: ARG001
            held[name] = tensor.detach().clone()

        return hook

    logits_of(model, ids, [(name, keep(name)) for name in names])
    return held


def patched(
    model: LoadedModel,
    base: Sequence[int],
    held: dict[str, torch.Tensor],
    own: dict[str, torch.Tensor],
    site: str,
    at: dict[str, int],
    where: int,
) -> torch.Tensor:
    """Return the logits at `where` of `base` with one cell of `site` from `held`."""
    layer = at["layer"]
    value = held[hook_name(site, layer)]
    name = hook_name(site, layer)
    if site == "resid_mid":  # what the attention must write for the residual stream to be the source's
        name = f"blocks.{layer}.hook_attn_out"
        value = value - own[f"blocks.{layer}.hook_resid_pre"]

    def write(tensor: torch.Tensor, hook: Any) -> torch.Tensor:  # noqa: ARG001
        new = tensor.clone()
        position = at.get("position", slice(None))
        if site == "pattern":
            new[:, at.get("head", slice(None)), position] = value[:, at.get("head", slice(None)), position]
        elif site in HEADED:
            new[:, position, at.get("head", slice(None))] = value[:, position, at.get("head", slice(None))]
        elif site == "neuron":
            new[:, position, at.get("neuron", slice(None))] = value[:, position, at.get("neuron", slice(None))]
        else:
            new[:, position] = value[:, position]
        return new

    return logits_of(model, base, [(name, write)])[where]


def closed_form(name: str, logits: torch.Tensor, right: Sequence[int], wrong: Sequence[int], clean: Any) -> float:
    """Return a metric of logits ``[d_vocab]`` from its definition, in float64."""
    raw = logits.double().numpy()
    p = np.exp(raw - raw.max())
    p = p / p.sum()
    if name == "logit-diff":
        return float(np.log(np.exp(raw[list(right)]).sum()) - np.log(np.exp(raw[list(wrong)]).sum()))
    if name == "logit":
        return float(np.log(np.exp(raw[list(right)]).sum()))
    if name == "prob":
        return float(p[list(right)].sum())
    if name == "logprob":
        return float(np.log(p[list(right)].sum()))
    if name == "rank":
        return float(min((raw > raw[index]).sum() for index in right))
    assert name == "kl"
    q = clean.double().softmax(-1).numpy()
    return float((q * (np.log(q) - np.log(p))).sum())


@dataclass(frozen=True)
class Asked:
    """One pair of token ids."""

    clean: tuple[int, ...]
    corrupted: tuple[int, ...]
    answer: tuple[int, ...] = (7,)
    wrong: tuple[int, ...] = (9,)

    @property
    def pair(self) -> Pair:
        return Pair(Prompt(ids=self.clean), Prompt(ids=self.corrupted), self.answer, self.wrong)


@dataclass
class Naive:
    """What a sweep should give."""

    per_pair: np.ndarray
    clean: np.ndarray
    corrupted: np.ndarray
    logits: list[dict[tuple[int, ...], torch.Tensor]]


def naive(
    model: LoadedModel,
    asked: Sequence[Asked],
    site: str = "z",
    by: str = "head",
    direction: str = "denoise",
    metric: str = "logit-diff",
    layers: Sequence[int] | None = None,
    other: LoadedModel | None = None,
    where: int = -1,
) -> Naive:
    """Run every cell of a sweep by itself."""
    geometry = model.geometry
    layers = range(geometry.n_layers) if layers is None else layers
    names = [hook_name(site, layer) for layer in layers]
    before = [f"blocks.{layer}.hook_resid_pre" for layer in layers]
    rows, cleans, corrupteds, kept = [], [], [], []
    for pair in asked:
        base, source = (pair.clean, pair.corrupted) if direction == "noise" else (pair.corrupted, pair.clean)
        if other is not None:
            base = pair.clean
        held, own = captured(other or model, source, names), captured(model, base, before)
        ends = {"base": logits_of(model, base)[where], "source": logits_of(other or model, source)[where]}
        clean = ends["base"] if direction == "noise" else ends["source"]
        heads = held[names[0]].shape[1 if site == "pattern" else 2] if site in HEADED else 0
        sizes = {"layer": len(layers), "head": heads, "position": len(base), "neuron": held[names[0]].shape[-1]}
        shape = [sizes[axis] for axis in AXES[by]]
        values, each = np.zeros(shape), {}
        for index in np.ndindex(*shape):
            at = dict(zip(AXES[by], index, strict=True))
            at["layer"] = layers[at["layer"]]
            each[index] = patched(model, base, held, own, site, at, where)
            values[index] = closed_form(metric, each[index], pair.answer, pair.wrong, clean)
        rows.append(values)
        kept.append(each)
        of = {k: closed_form(metric, v, pair.answer, pair.wrong, clean) for k, v in ends.items()}
        cleans.append(of["base"] if direction == "noise" else of["source"])
        corrupteds.append(of["source"] if direction == "noise" else of["base"])
    return Naive(np.stack(rows), np.array(cleans), np.array(corrupteds), kept)


def swept(asked: Sequence[Asked], **options: Any) -> Any:
    return interp.patch(pairs=[pair.pair for pair in asked], **options)


def compare(
    model: LoadedModel, asked: Sequence[Asked], *, path: str = "replay", bound: float = BOUND, **options: Any
) -> float:
    """Assert that a sweep is the naive one's, and return the largest difference."""
    result = swept(asked, **options)
    assert result.provenance.path.startswith(path), (options, result.provenance.path, result.notes)
    named = dict(options)
    if "layer" in named:
        named["layers"] = named.pop("layer")
    expected = naive(model, asked, **named)
    assert result.per_pair.shape == expected.per_pair.shape
    assert result.done.all()
    worst = float(np.abs(result.per_pair - expected.per_pair).max())
    assert worst < bound, (options, worst, np.argwhere(np.abs(result.per_pair - expected.per_pair) >= bound)[:5])
    assert abs(result.clean_metric - expected.clean.mean()) < bound, options
    assert abs(result.corrupted_metric - expected.corrupted.mean()) < bound, options
    return worst


def divisions(site: str) -> list[str]:
    return ["layer", "position", *(["head", "head-position"] if site in HEADED else [])] + (
        ["neuron"] if site == "neuron" else []
    )


def has(model: LoadedModel, site: str) -> bool:
    return hook_name(site, 0) in model.bridge.hook_dict


ONE = Asked((5, 11, 23, 31, 8, 40), (5, 11, 64, 31, 8, 40))
FIRST = Asked((50, 11, 23, 31, 8, 40), (51, 11, 23, 31, 9, 40), (7, 12), (9,))
LAST = Asked((5, 11, 23, 31, 8, 40), (5, 11, 23, 31, 8, 41))
SHORT = Asked((5, 17, 3), (6, 17, 3), (30,), (31, 32))


@pytest.mark.parametrize("kind", ["gpt2", "llama", "neox"])
def test_every_site_division_and_direction(kind: str, use: Any) -> None:
    model = use(build(kind))
    worst, cells = 0.0, 0
    for site in SITES:
        if not has(model, site):
            assert (kind, site) == ("neox", "resid_mid")
            with pytest.raises(InputError, match="neox has no resid_mid; it has resid_pre, resid_post"):
                swept([ONE], site=site, by="layer")
            continue
        for by, direction in itertools.product(divisions(site), ["denoise", "noise"]):
            # Pairs of different lengths go together where nothing is divided by position.
            asked = [FIRST, ONE] if "position" in by else [ONE, SHORT]
            worst = max(worst, compare(model, asked, site=site, by=by, direction=direction))
            cells += 1
    print(f"{kind}: {cells} sweeps, largest difference {worst:.1e}")
    assert cells == (66 if kind != "neox" else 62)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "neox"])
def test_each_layer_alone(kind: str, use: Any) -> None:
    model = use(build(kind, Size(layers=3)))
    for site in [site for site in SITES if has(model, site)]:
        whole = swept([ONE, FIRST], site=site, by="position")
        for layers in ([0], [1], [2], [2, 0]):
            part = swept([ONE, FIRST], site=site, by="position", layer=layers)
            assert part.provenance.path == "replay", (site, layers)
            assert part.layers == tuple(layers)
            assert np.abs(part.per_pair - whole.per_pair[:, layers]).max() < BOUND, (site, layers)
        assert np.abs(part.effect).max() > 1e-3


@st.composite
def questions(draw: Any) -> tuple[str, Size, dict[str, Any], list[Asked]]:
    kind = draw(st.sampled_from(["gpt2", "llama", "neox"]))
    size = Size(
        layers=draw(st.integers(1, 3)),
        kv_heads=draw(st.integers(1, 3)),
        group=draw(st.integers(1, 3)),
        d_head=draw(st.sampled_from([4, 8])),
        d_mlp=draw(st.integers(1, 7)),
        seed=draw(st.integers(0, 9)),
    )
    site = draw(st.sampled_from([s for s in SITES if (kind, s) != ("neox", "resid_mid")]))
    by = draw(st.sampled_from(divisions(site)))
    layers = draw(st.lists(st.integers(0, size.layers - 1), min_size=1, unique=True))
    options = {"site": site, "by": by, "direction": draw(st.sampled_from(["denoise", "noise"])), "layer": layers}
    tokens = st.integers(1, VOCABULARY - 1)
    length = draw(st.integers(1, 7))
    asked = []
    for _ in range(draw(st.integers(1, 3))):
        if "position" not in by:
            length = draw(st.integers(1, 7))
        clean = draw(st.lists(tokens, min_size=length, max_size=length))
        places = draw(st.sets(st.integers(0, length - 1)))
        corrupted = [draw(tokens) if n in places else token for n, token in enumerate(clean)]
        answers = draw(st.lists(tokens, min_size=2, max_size=5, unique=True))
        cut = draw(st.integers(1, len(answers) - 1))
        asked.append(Asked(tuple(clean), tuple(corrupted), tuple(answers[:cut]), tuple(answers[cut:])))
    return kind, size, options, asked


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(question=questions())
def test_random_models_and_random_pairs(question: Any, use: Any) -> None:
    kind, size, options, asked = question
    model = use(build(kind, size))
    compare(model, asked, **options)
    model.close()


@pytest.mark.parametrize(
    ("kind", "extra"),
    [
        ("qwen3", {}),  # norms of q and k per head
        ("qwen2", {}),  # biases of q, k and v
        ("mistral", {"sliding_window": 24}),  # a window that holds every prompt
        ("neox", {"use_parallel_residual": False}),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
        ("llama", {"attention_bias": True, "mlp_bias": True}),
    ],
    ids=str,
)
def test_relatives(kind: str, extra: dict[str, Any], use: Any) -> None:
    model = use(build(kind, **extra))
    worst = 0.0
    for site in [site for site in SITES if has(model, site)]:
        worst = max(worst, compare(model, [FIRST], site=site, by=divisions(site)[-1]))
        worst = max(worst, compare(model, [ONE, SHORT], site=site, by="layer"))
    print(f"{kind} {extra}: largest difference {worst:.1e}")


@pytest.mark.parametrize("by", ["head", "position"])
def test_attention_over_a_window(use: Any, by: str) -> None:
    use(build("mistral", sliding_window=3))
    compare(interp.model, [ONE], path="replay", site="z" if by == "head" else "resid_pre", by=by)


def test_double_precision(use: Any) -> None:
    for kind in ("gpt2", "llama", "neox"):
        model = use(build(kind))
        model.bridge.original_model.double()
        for site, by in (("z", "head"), ("v", "head-position"), ("resid_pre", "position"), ("neuron", "neuron")):
            compare(model, [FIRST, ONE], bound=5e-6, site=site, by=by)  # the bridge's softmax is in single precision


@pytest.mark.parametrize("kind", ["gpt2", "llama", "neox"])
def test_compatibility_mode(kind: str, use: Any) -> None:
    model = use(build(kind))
    before = swept([ONE]).provenance.fingerprint
    model.bridge.enable_compatibility_mode(disable_warnings=True)
    assert swept([ONE]).provenance.fingerprint != before
    for site, by in (("z", "head"), ("k", "head-position"), ("resid_pre", "position"), ("mlp_out", "position")):
        compare(model, [FIRST, ONE], path="", site=site, by=by)


def test_edited_weights_are_read_anew(use: Any) -> None:
    model = use(build("llama"))
    first = compare(model, [ONE], site="z", by="head")
    kept = swept([ONE])
    with torch.no_grad():
        model.bridge.blocks[1].attn.o.original_component.weight.data.mul_(1.5)
        model.bridge.blocks[0].mlp.original_component.gate_proj.weight.data[0] += 1
    compare(model, [ONE], site="z", by="head")
    changed = swept([ONE])
    assert np.abs(changed.patched - kept.patched).max() > 100 * max(first, 1e-6)
    assert changed.provenance.fingerprint != kept.provenance.fingerprint


# -- metrics and numbers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["logit-diff", "logit", "logprob", "prob", "rank", "kl"])
@pytest.mark.parametrize("direction", ["denoise", "noise"])
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_metrics(metric: str, direction: str, kind: str, use: Any) -> None:
    model = use(build(kind))
    asked = [Asked(FIRST.clean, FIRST.corrupted, (7, 80, 90), (9, 10)), ONE]
    compare(model, asked, metric=metric, direction=direction, site="resid_pre", by="position")


def test_a_function_of_the_users_own(use: Any) -> None:
    model = use(build("gpt2"))

    def margin(logits: torch.Tensor) -> torch.Tensor:
        best = logits.topk(2).values
        return best[:, 0] - best[:, 1]

    result = swept([ONE, SHORT], metric=margin)
    assert result.metric == "margin"
    expected = naive(model, [ONE, SHORT])
    for number, each in enumerate(expected.logits):
        for index, logits in each.items():
            best = logits.double().topk(2).values
            assert abs(result.per_pair[number][index] - float(best[0] - best[1])) < BOUND
    # A function may return a list or a numpy array as well.
    for form in (lambda x: x[:, 7].tolist(), lambda x: x[:, 7].numpy(), lambda x: x[:, 7].half()):
        assert np.allclose(swept([ONE], metric=form).patched, swept([ONE], metric="logit").patched, atol=3e-2)


def test_numbers_made_of_the_cells(use: Any) -> None:
    model = use(build("llama"))
    asked = [ONE, FIRST, LAST, Asked((5, 17, 3, 8, 2, 9), (6, 17, 3, 8, 2, 9), (30,), (31, 32))]
    for direction in ("denoise", "noise"):
        result = swept(asked, site="z", by="head-position", direction=direction, layer=[1])
        expected = naive(model, asked, "z", "head-position", direction, layers=[1])
        base = expected.clean if direction == "noise" else expected.corrupted
        mean = expected.per_pair.mean(0)
        span = expected.clean.mean() - expected.corrupted.mean()
        assert np.allclose(result.patched, mean, atol=BOUND)
        assert np.allclose(result.effect, mean - base.mean(), atol=BOUND)
        # A ratio of means, which is not the mean of ratios.
        recovery = (mean - expected.corrupted.mean()) / span
        assert np.allclose(result.recovery, recovery, atol=10 * BOUND / abs(span))
        each = (expected.per_pair - expected.corrupted[:, None, None, None]) / (
            expected.clean - expected.corrupted
        ).reshape(-1, 1, 1, 1)
        assert np.abs(each.mean(0) - recovery).max() > 0.01
        low, high = result.interval
        assert (low <= result.effect + 1e-12).all()
        assert (result.effect <= high + 1e-12).all()
        assert np.allclose(result.interval, interval(result.per_pair - base[:, None, None, None]), atol=10 * BOUND)
        assert (high > low).any()
        again = swept(asked, site="z", by="head-position", direction=direction, layer=[1])
        assert np.array_equal(again.interval, result.interval)
        assert np.array_equal(again.per_pair, result.per_pair)


def test_the_table_and_the_strongest_cells(use: Any) -> None:
    use(build("gpt2"))
    result = swept([FIRST], site="z", by="head-position", layer=[1])
    frame = result.to_frame()
    assert list(frame.columns) == [
        *("layer", "head", "position", "token", "patched", "effect", "recovery", "low", "high"),
    ]
    assert len(frame) == result.patched.size == 4 * 6
    for row in frame.itertuples():
        index = (0, row.head, row.position)
        assert row.layer == 1
        assert row.token == result.positions[row.position]
        assert (row.patched, row.effect, row.recovery) == (
            result.patched[index],
            result.effect[index],
            result.recovery[index],
        )
    assert frame.low.isna().all()
    order = sorted(np.ndindex(*result.effect.shape), key=lambda i: -abs(result.effect[i]))
    top = result.top(5)
    assert [name for name, _, _ in top] == [f"1.{h} position {p}" for _, h, p in order[:5]]
    assert [effect for _, effect, _ in top] == [result.effect[i] for i in order[:5]]
    assert len(result.top(1000)) == 24
    assert swept([ONE], site="neuron", by="neuron").name((1, 3)) == "L1 neuron 3"
    assert swept([ONE], site="resid_pre", by="position").name((1, 3)) == "L1 position 3"
    assert swept([ONE], site="resid_pre", by="layer").name((1,)) == "L1"


def test_fewer_than_four_pairs_have_no_interval_and_one_note_says_so(use: Any) -> None:
    use(build("gpt2"))
    for pairs in ([ONE], [ONE, FIRST], [ONE, FIRST, LAST]):
        result = swept(pairs)
        assert result.interval.shape == (2, 2, 4)
        assert np.isnan(result.interval).all()
        assert np.isnan(result.recovery_interval).all()
        assert sum("interval" in note for note in result.notes) == (len(pairs) > 1)
        assert "95 % interval over" not in result.html()
    enough = swept([ONE, FIRST, LAST, ONE])
    assert np.isfinite(enough.interval).all()
    assert not any("interval" in note for note in enough.notes)


@pytest.mark.parametrize("direction", ["denoise", "noise"])
def test_a_recoverys_interval_is_that_of_a_ratio_of_means(use: Any, direction: str) -> None:
    use(build("gpt2"))
    result = swept([ONE, FIRST, LAST, ONE], direction=direction)
    clean, corrupted = np.array(result.checks.clean_metric), np.array(result.checks.corrupted_metric)
    expected = of_ratio(result.per_pair - corrupted[:, None, None], clean - corrupted)
    assert np.allclose(result.recovery_interval, expected)
    assert (result.recovery_interval[0] <= result.recovery + 1e-9).all()
    assert (result.recovery <= result.recovery_interval[1] + 1e-9).all()


def test_every_cell_of_the_right_kind_restores_the_clean_run(use: Any) -> None:
    """The stream before layer 0, whole or at the one token that differs, is the clean run; a shared one is not."""
    use(build("llama"))
    result = swept([ONE, FIRST], site="resid_pre", by="layer")
    assert np.allclose(result.recovery, 1, atol=1e-3)
    result = swept([ONE], site="resid_pre", by="position")
    assert abs(result.recovery[0, 2] - 1) < 1e-3
    assert np.abs(result.effect[:, :2]).max() == 0
    assert np.abs(result.effect[0, 3:]).max() < BOUND
    assert swept([Asked(ONE.clean, ONE.clean)], site="z", by="head").effect.tolist() == [[0.0] * 4] * 2


@pytest.mark.parametrize(("site", "by"), [("z", "head"), ("resid_post", "position"), ("v", "head-position")])
@pytest.mark.parametrize("kind", ["llama", "neox"])
def test_activations_of_another_model(kind: str, site: str, by: str, use: Any) -> None:
    other = use(build(kind, Size(seed=1)), "other")
    model = use(build(kind), "own")
    for direction in ("denoise", "noise"):
        result = swept([ONE], site=site, by=by, direction=direction, from_model="other")
        assert result.provenance.path == "replay"
        expected = naive(model, [ONE], site, by, direction, other=other)
        assert np.abs(result.per_pair - expected.per_pair).max() < BOUND
        assert abs(result.clean_metric - expected.clean[0]) < BOUND
        assert abs(result.corrupted_metric - expected.corrupted[0]) < BOUND
        if "position" in by:  # the run that is patched is the clean prompt's
            assert result.positions == model.encode(Prompt(ids=ONE.clean)).strings
    # The same prompt for both is what base against fine-tuned asks: no warning that nothing changes.
    same = swept([Asked(ONE.clean, ONE.clean)], site=site, by=by, from_model="other")
    assert np.abs(same.effect).max() > 0
    assert not any("the same prompt" in warning for warning in same.checks.warnings)
    model.bridge.add_hook("blocks.0.hook_resid_pre", lambda *_, **__: None)
    try:
        hooked = swept([ONE], site=site, by=by, from_model="other")
        assert hooked.provenance.path.startswith("hooked: hooks of the user's own")
        assert np.abs(hooked.per_pair - naive(model, [ONE], site, by, other=other).per_pair).max() < BOUND
    finally:
        model.bridge.reset_hooks()
    use(build(kind, Size(layers=1)), "small")
    with pytest.raises(InputError, match="not of the shape of own"):
        swept([ONE], model="own", from_model="small")
    with pytest.raises(InputError, match=r"'othr' is not loaded \(did you mean other\?\)"):
        swept([ONE], model="own", from_model="othr")


# -- the hooked forward ----------------------------------------------------------------------------------------------

FINEST = [("z", "head"), ("k", "head-position"), ("pattern", "head"), ("resid_mid", "position"), ("neuron", "neuron")]


@pytest.mark.parametrize(("site", "by"), FINEST)
def test_an_unknown_family(site: str, by: str, use: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = use(build("llama"))
    replayed = swept([FIRST, ONE], site=site, by=by)
    monkeypatch.setattr(network, "FAMILIES", {"gpt2": network.FAMILIES["gpt2"]})
    compare(model, [FIRST, ONE], path="hooked: the replay does not know llama", site=site, by=by)
    for metric in ("kl", "logit", "rank"):
        compare(model, [FIRST, ONE], path="hooked: ", site=site, by=by, metric=metric)
    assert np.abs(swept([FIRST, ONE], site=site, by=by).per_pair - replayed.per_pair).max() < BOUND


def test_a_bidirectional_model(lend: Any) -> None:
    model = lend("bert")
    ids = {name: model.tokens.tokenizer.convert_tokens_to_ids(name) for name in ("[CLS]", "[SEP]", models.MASK)}
    inside = (20, 30, ids[models.MASK], 40, 50)
    clean = (ids["[CLS]"], *inside, ids["[SEP]"])
    asked = [Asked(clean, (*clean[:4], 77, *clean[5:]))]  # what differs comes after the mask
    for site, by in (("z", "head"), ("resid_pre", "position")):
        result = swept(asked, site=site, by=by)
        assert result.provenance.path == "replay"
        expected = naive(model, asked, site, by, where=3)
        assert np.abs(result.per_pair - expected.per_pair).max() < BOUND
        assert np.abs(result.effect).max() > 1e-3


def test_hooks_of_the_users_own_take_part(use: Any) -> None:
    model = use(build("gpt2"))
    plain = swept([ONE])
    model.bridge.add_hook("blocks.0.hook_mlp_out", lambda tensor, hook: tensor * 0.5)  # noqa: ARG005
    try:
        compare(model, [ONE, SHORT], path="hooked: hooks of the user's own")
        result = swept([ONE])
        assert len(result.provenance.user_hooks) == 1
        assert np.abs(result.per_pair - plain.per_pair).max() > 1e-3
    finally:
        model.bridge.reset_hooks()
    assert np.array_equal(swept([ONE]).per_pair, plain.per_pair)


def test_a_model_turned_to_half_precision_is_within_the_noise(use: Any) -> None:
    model = use(build("llama"))
    assert swept([ONE]).noise == 0
    model.bridge.original_model.to(torch.bfloat16)
    result = swept([ONE])
    assert result.provenance.path == "replay"
    assert 0 < result.noise < 0.2
    assert np.abs(result.per_pair - naive(model, [ONE]).per_pair).max() < 2 * result.noise


def test_autocast_is_left_to_the_hooked_forward(use: Any) -> None:
    model = use(build("llama"))
    assert swept([ONE]).provenance.path == "replay"
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = swept([ONE])
        assert result.provenance.path == "hooked: autocast rounds differently from one batch to the next"
        expected = naive(model, [ONE])
        assert np.abs(result.per_pair - expected.per_pair).max() < 0.03 * max(np.abs(expected.per_pair).max(), 1)
    assert swept([ONE]).provenance.path == "replay"


class Halved(torch.nn.Linear):
    """Stands for a quantised layer, or one with an adapter beside it: its weight is not all that it does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) / 2


@pytest.mark.parametrize("name", ["q", "o"])
def test_layers_that_are_more_than_their_weight_are_not_read(name: str, use: Any) -> None:
    model = use(build("llama"))
    part = getattr(model.bridge.blocks[1].attn, name)
    plain = part.original_component
    odd = Halved(plain.in_features, plain.out_features, bias=plain.bias is not None)
    odd.load_state_dict(plain.state_dict())
    part.set_original_component(odd)
    with pytest.raises(network.Unreadable, match="it holds Halved where a plain linear layer is known"):
        network.weights(model)


def broken_scale(self: Any, attention: Any, index: int, d_head: int) -> float:  # noqa: ARG001
    return 1.1 * d_head**-0.5


def not_a_number(self: Any, attention: Any, index: int, d_head: int) -> float:  # noqa: ARG001
    return float("nan")


@pytest.mark.parametrize("wrong", [broken_scale, not_a_number])
@pytest.mark.parametrize("metric", ["logit-diff", "kl"])
@pytest.mark.parametrize(("site", "by"), [("z", "head"), ("k", "head-position"), ("resid_pre", "position")])
def test_a_wrong_replay_is_noticed(
    site: str, by: str, metric: str, wrong: Any, use: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = use(build("llama"))
    late = Asked((*ONE.clean[:-2], 3, 4), (*ONE.clean[:-2], 3, 5))  # hardly a cell is reached at all
    monkeypatch.setattr(Family, "scale", wrong)
    for asked in ([ONE, FIRST], [late]):
        result = swept(asked, site=site, by=by, metric=metric)
        assert result.provenance.path.startswith("hooked: the forward without hooks differed by"), (
            result.provenance.path
        )
        assert any("differed" in note and "was not used" in note for note in result.notes)
        expected = naive(model, asked, site, by, metric=metric)
        assert np.abs(result.per_pair - expected.per_pair).max() < BOUND
        assert abs(result.clean_metric - expected.clean.mean()) < BOUND


# -- pairs -----------------------------------------------------------------------------------------------------------

GIFT = "When Mary and John went to the store, John gave a drink to"
SWAP = "When Mary and John went to the store, Mary gave a drink to"


def test_lint_says_what_was_taken(lend: Any) -> None:
    model = lend("gpt2")
    result = interp.patch(GIFT, SWAP, answer=" Mary", wrong=[" John", " the"])
    checks = result.checks
    string = model.tokens.string
    encoded = model.encode(Prompt(GIFT)), model.encode(Prompt(SWAP))
    assert checks.clean == (encoded[0].strings,)
    assert checks.corrupted == (encoded[1].strings,)
    both = enumerate(zip(checks.clean[0], checks.corrupted[0], strict=True))
    assert checks.differing == (tuple(n for n, (one, other) in both if one != other),)
    assert len(checks.differing[0]) == 1
    assert [name for name, _ in checks.answer[0]] == [" Mary"]
    assert [name for name, _ in checks.wrong[0]] == [" John", " the"]
    assert all(string(index) == name for name, index in (*checks.answer[0], *checks.wrong[0]))
    logits = logits_of(model, encoded[0].ids)[-1]
    right, wrong = [i for _, i in checks.answer[0]], [i for _, i in checks.wrong[0]]
    assert abs(checks.clean_metric[0] - closed_form("logit-diff", logits, right, wrong, None)) < BOUND
    frame = checks.to_frame()
    assert frame.answer[0] == "' Mary'"
    assert frame.wrong[0] == "' John', ' the'"


def warned(result: Any, words: str) -> bool:
    assert set(result.checks.warnings) <= set(result.notes)
    return any(words in warning for warning in result.checks.warnings)


def test_lint_warns(lend: Any) -> None:
    model = lend("gpt2")
    logits = {text: logits_of(model, model.encode(Prompt(text)).ids)[-1] for text in (GIFT, SWAP)}
    order = [int(i) for i in logits[GIFT].argsort(descending=True)]
    best, worst = order[0], order[-1]
    good = interp.patch(pairs=[Pair(Prompt(GIFT), Prompt(SWAP), (best,), (worst,))])
    assert not warned(good, "prefers the wrong answer")
    bad = interp.patch(pairs=[Pair(Prompt(GIFT), Prompt(SWAP), (worst,), (best,))])
    assert warned(bad, "the model prefers the wrong answer on clean in pair 0")
    assert bad.clean_metric == pytest.approx(-good.clean_metric)
    turn = logits[GIFT] - logits[SWAP]
    up, down = int(turn.argmax()), int(turn.argmin())
    flips = interp.patch(pairs=[Pair(Prompt(GIFT), Prompt(SWAP), (up,), (down,))])
    assert warned(flips, "does not turn the answer") == (flips.corrupted_metric >= 0)
    assert warned(good, "does not turn the answer") == (good.corrupted_metric >= 0)
    assert good.corrupted_metric >= 0 or flips.corrupted_metric >= 0
    same = interp.patch(pairs=[Pair(Prompt(GIFT), Prompt(GIFT), (best,), (worst,))])
    assert warned(same, "are the same prompt in pair 0")
    assert warned(same, "differ by less than 0.1 in pair 0")
    many = [Pair(Prompt(GIFT), Prompt(SWAP), (worst,), (best,))] * 5
    assert warned(interp.patch(pairs=many), "in 5 pairs (0, 1, 2 …)")


def test_lint_names_the_likelier_spelling(lend: Any) -> None:
    model = lend("gpt2")
    tokens = model.tokens
    logits = logits_of(model, model.encode(Prompt(GIFT)).ids)[-1]
    both = {}
    for index in range(VOCABULARY):
        string = tokens.string(index)
        plain = TOKENIZER(string[1:], add_special_tokens=False)["input_ids"] if string.startswith(" ") else []
        if string[1:].isalpha() and len(plain) == 1 and tokens.string(plain[0]) == string[1:]:
            both[index] = plain[0]
    assert both
    seen = set()
    for spaced, plain in both.items():
        likelier, less = sorted((spaced, plain), key=lambda i: -float(logits[i]))
        result = interp.patch(pairs=[Pair(Prompt(GIFT), Prompt(SWAP), (less,), (0,))], layer=0)
        assert warned(result, f"{tokens.string(likelier)!r} is likelier than {tokens.string(less)!r}")
        result = interp.patch(pairs=[Pair(Prompt(GIFT), Prompt(SWAP), (likelier,), (0,))], layer=0)
        assert not warned(result, "is likelier than")
        seen.add(likelier == spaced)
        if len(seen) == 2:
            break


# -- models that have learned something ------------------------------------------------------------------------------


@pytest.fixture
def bundled(clean_session: Any) -> LoadedModel:
    return clean_session.load()


def test_the_bundled_model_does_its_task(bundled: LoadedModel) -> None:
    result = interp.patch(task="ioi", n=8)
    assert result.task == "ioi"
    assert result.provenance.path == "replay"
    assert result.patched.shape == (bundled.geometry.n_layers, bundled.geometry.n_heads)
    assert len(result.per_pair) == 8
    print(f"bundled: clean {result.clean_metric:.2f}, corrupted {result.corrupted_metric:.2f}, {result.top(3)}")
    assert result.clean_metric > 0
    assert result.corrupted_metric < result.clean_metric


def ranks(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1).argsort().argsort().astype(float)


def test_smollm2_does_the_task_by_the_same_heads(smollm2: LoadedModel) -> None:
    results = [interp.patch(task="ioi", n=8, seed=seed) for seed in (0, 1)]
    for result in results:
        assert result.provenance.path == "replay"
        assert result.clean_metric > 0
        assert result.patched.shape == (smollm2.geometry.n_layers, smollm2.geometry.n_heads) == (30, 9)
        assert result.done.all()
    one, other = (result.recovery.reshape(-1) for result in results)
    # Most of the 270 heads do nothing here, and their order is chance: the strongest of one seed are compared.
    strongest = np.argsort(-np.abs(one))[:30]
    spearman = float(np.corrcoef(ranks(one[strongest]), ranks(other[strongest]))[0, 1])
    whole = float(np.corrcoef(ranks(one), ranks(other))[0, 1])
    pearson = float(np.corrcoef(one, other)[0, 1])
    print(
        f"SmolLM2: clean {[round(r.clean_metric, 2) for r in results]}, Spearman {spearman:.3f} over the 30 strongest "
        f"heads, {whole:.3f} over all, Pearson {pearson:.3f}, {[round(r.provenance.seconds, 1) for r in results]} s"
    )
    assert spearman > 0.8
    assert pearson > 0.9


def test_clean_and_corrupted_may_be_pairs_of_a_body(lend: Any) -> None:
    lend("gpt2")
    direct = interp.patch(GIFT, SWAP, answer=" Mary", wrong=" John")
    listed = interp.patch(Pairs((Pair(Prompt(GIFT), Prompt(SWAP), (" Mary",), (" John",)),)))
    assert np.array_equal(direct.per_pair, listed.per_pair)
    assert direct.provenance.tokens == [list(direct_ids(GIFT)), list(direct_ids(SWAP))]


def direct_ids(text: str) -> Sequence[int]:
    return interp.model.encode(Prompt(text)).ids
