"""Causal mediation against its definition on hooks, on a linear model, and where the mediator is planted."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import interp
from engine.features import made
from engine.features import naive as loop
from interp.engine import memory
from interp.engine.model import hooks
from interp.engine.model.load import Options, load
from interp.engine.model.loaded import LoadedModel
from interp.errors import InputError, Interrupted
from interp.interface.session import session
from interp.methods._shared.intervals import interval
from interp.methods._shared.permutation import sign_flips
from interp.spec import Pair, Prompt
from methods.patching.test_patch import TOKENIZER, VOCABULARY, build, captured, hook_name, logits_of, use

__all__ = ["use"]
pytestmark = pytest.mark.usefixtures("one_thread")

KINDS = ["gpt2", "llama", "neox"]


def pairs_of(count: int, length: int = 5, seed: int = 0) -> list[Pair]:
    """Return pairs of random ids that differ at one position before the last."""
    draw = np.random.default_rng(seed)
    made: list[Pair] = []
    for _ in range(count):
        ids = draw.integers(5, VOCABULARY, length).tolist()
        other = list(ids)
        other[1] = int((ids[1] - 4) % (VOCABULARY - 5) + 5)
        answer, wrong = draw.choice(VOCABULARY, 2, replace=False).tolist()
        made.append(Pair(Prompt(ids=tuple(ids)), Prompt(ids=tuple(other)), (answer,), (wrong,)))
    return made


def measured(model: LoadedModel, pair: Pair, ids: Any, functions: Any = ()) -> float:
    logits = logits_of(model, ids, functions)[-1]
    return float(logits[pair.answer[0]] - logits[pair.wrong[0]])


def naive(model: LoadedModel, pair: Pair, site: str, layer: int, head: int | None) -> tuple[float, float, float]:
    """Return the total, the indirect and the direct effect: three runs, and two with the mediator of the other one."""
    name = hook_name(site, layer)
    clean, corrupted = pair.clean.ids, pair.corrupted.ids
    assert clean is not None
    assert corrupted is not None

    def held(ids: Any) -> Any:
        value = captured(model, ids, [name])[name]

        def put(tensor: torch.Tensor, hook: Any) -> torch.Tensor:  # noqa: ARG001
            changed = tensor.clone()
            where = (slice(None), slice(None), head) if head is not None else ()
            changed[where] = value[where]
            return changed

        return [(name, put)]

    base = measured(model, pair, corrupted)
    total = measured(model, pair, clean) - base
    return (
        total,
        measured(model, pair, corrupted, held(clean)) - base,
        measured(model, pair, clean, held(corrupted)) - base,
    )


@pytest.mark.parametrize("site", ["z", "v", "mlp_out"])
@pytest.mark.parametrize("kind", KINDS)
def test_effects_are_those_of_the_definition(kind: str, site: str, use: Any) -> None:
    model = use(build(kind))
    pairs = pairs_of(3)
    result = interp.mediate(pairs=pairs, site=site)
    assert result.provenance.path == "replay"
    geometry = model.geometry
    heads = {"z": geometry.n_heads, "v": geometry.n_kv_heads}.get(site)
    assert result.indirect.shape == ((2,) if heads is None else (2, heads))
    for number, pair in enumerate(pairs):
        for cell in np.ndindex(result.indirect.shape):
            expected = naive(model, pair, site, cell[0], cell[1] if heads else None)
            assert result.per_pair_total[number] == pytest.approx(expected[0], abs=1e-4)
            assert result.per_pair_indirect[(number, *cell)] == pytest.approx(expected[1], abs=1e-4)
            assert result.per_pair_direct[(number, *cell)] == pytest.approx(expected[2], abs=1e-4)
    np.testing.assert_allclose(result.indirect, result.per_pair_indirect.mean(0))
    np.testing.assert_allclose(result.direct, result.per_pair_direct.mean(0))
    np.testing.assert_allclose(result.interaction, result.total - result.direct - result.indirect, atol=1e-12)
    np.testing.assert_allclose(result.indirect_interval, interval(result.per_pair_indirect))
    np.testing.assert_allclose(result.proportion, result.indirect / result.total)
    assert result.total == pytest.approx(result.clean_metric - result.corrupted_metric)
    # A model of norms, softmaxes and activation functions is not linear.
    assert np.abs(result.interaction).max() > 1e-3


@pytest.mark.parametrize("kind", ["stream", "heads", "transcoder", "clt"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "neox", "gemma2"])
def test_features_as_mediators(family: str, kind: str, lend: Any) -> None:
    """Both ways as a naive hooked loop, with features dense, has them."""
    model = lend(family)
    found = [made.every(model, layer)[kind] for layer in range(model.geometry.n_layers)]
    made.load(model, *found)
    ids = [([5, 11, 23, 31, 8, 40], [5, 11, 29, 31, 8, 40]), ([7, 12, 9, 21], [7, 3, 9, 21])]
    result: Any = interp.mediate(pairs=ids, site="features", metric=seventh)
    assert result.provenance.path == "replay"
    assert (result.axes, result.layers) == (("feature",), tuple(range(model.geometry.n_layers)))
    assert result.provenance.features == {"made": model.feature_sets["made"].digest}

    def run(base: Any, source: Any, one: Any, feature: int) -> float:
        there = loop.plain(model, source, one)

        def edit(now: torch.Tensor) -> torch.Tensor:
            now[:, feature] = there[:, feature]
            return now

        return float(loop.hooked(model, base, [(one, edit)])[-1, 7])

    for number, (clean, corrupted) in enumerate(ids):
        plain = [float(loop.hooked(model, one, [])[-1, 7]) for one in (clean, corrupted)]
        assert result.per_pair_total[number] == pytest.approx(plain[0] - plain[1], abs=1e-4)
        for cell in [*result.strongest(3), *np.ndindex(result.indirect.shape)][::5]:
            layer, feature = map(int, result.name(cell)[1:].split("."))
            one = found[layer]
            indirect = run(corrupted, clean, one, feature) - plain[1]
            direct = run(clean, corrupted, one, feature) - plain[1]
            assert result.per_pair_indirect[(number, *cell)] == pytest.approx(indirect, abs=1e-4)
            assert result.per_pair_direct[(number, *cell)] == pytest.approx(direct, abs=1e-4)
    assert np.abs(result.indirect).max() > 1e-3


def seventh(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, 7]


def test_some_features(lend: Any, tmp_path: Any) -> None:
    model = lend("llama")
    made.load(model, *(made.every(model, layer)["skip"] for layer in range(2)))
    pair = [([5, 11, 23, 31, 8, 40], [5, 11, 29, 31, 8, 40])]
    asked = dict[str, Any](pairs=pair, site="features", metric=seventh)
    whole: Any = interp.mediate(**asked)
    names = [whole.name(cell) for cell in whole.strongest(2)]
    some: Any = interp.mediate(**asked, feature=",".join(names), features="made")
    assert [some.name(tuple(cell)) for cell in np.argwhere(some.done)] == sorted(names)
    for name in names:
        assert some.indirect[some.index(name)] == pytest.approx(whole.indirect[whole.index(name)], abs=1e-5)
    one: Any = interp.mediate(**asked, layer=1)
    assert one.features == tuple(name for name in whole.features if name.startswith("F1."))
    drawn = some.save(tmp_path / "some.svg").read_text("utf-8")
    assert all(name in drawn for name in names)
    assert whole.html()
    assert whole.to_plotly().data
    told = interp.mediate(**asked, dry_run=True)
    assert told.path == "without hooks"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"feature": "1.99"}, "no feature 99 in layer 1; they are 0–23"),
        ({"feature": "x"}, "'x' names no feature; type its layer and its number, such as 2.417"),
        ({"feature": "1.3", "layer": 1}, "--feature names its layer already; leave --layer out"),
        ({"site": "z", "feature": "1.3"}, "--feature is about features, and z has none; add --site features"),
        ({"site": "z", "features": "made"}, "--features is about features, and z has none; add --site features"),
        ({"head": "0.1"}, "features has no heads; leave --head out"),
        ({"layer": 9}, "no layer 9"),
    ],
)
def test_what_cannot_be_asked_of_features(options: dict[str, Any], said: str, lend: Any) -> None:
    model = lend("gpt2")
    made.load(model, *(made.every(model, layer)["skip"] for layer in range(2)))
    with pytest.raises(InputError, match=said):
        interp.mediate(pairs=[([5, 11], [5, 29])], **dict[str, Any]({"site": "features", "metric": seventh}, **options))
    active = sum(loop.plain(model, [5, x], model.feature_sets["made"].at(1)).sum(0) for x in (11, 29))
    dead = int(torch.as_tensor(active).argmin())
    assert active[dead] == 0
    with pytest.raises(InputError, match=f"F1.{dead} is active in none of the prompts"):
        interp.mediate(pairs=[([5, 11], [5, 29])], site="features", feature=f"1.{dead}", metric=seventh)


def linear() -> LoadedModel:
    """Return a linear model: even attention, no activation function, and norms whose scale is that of a constant.

    Two dims of the residual stream hold ±1000 at every position; what stands in the others changes a norm's scale by
    one part in a million.
    """
    width, big = 16, 1000.0
    config = GPT2Config(
        n_layer=2,
        n_head=4,
        n_embd=width,
        n_positions=12,
        vocab_size=VOCABULARY,
        activation_function="linear",
        tie_word_embeddings=False,
    )
    made = GPT2LMHeadModel(config).eval()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            parameter.copy_(torch.empty_like(parameter).normal_(0, 0.3, generator=draw))
            if "ln_" in name:
                parameter.zero_()
                if name.endswith("weight"):
                    parameter[2:] = big * (2 / width) ** 0.5
            if "c_attn.weight" in name:
                parameter[:, : 2 * width] = 0  # queries and keys
            if name.endswith(("wte.weight", "c_proj.weight")):
                parameter[:, :2] = 0
            if name.endswith(("c_proj.bias", "c_attn.bias")):
                parameter.zero_()
        made.transformer.wpe.weight.zero_()
        made.transformer.wpe.weight[:, 0], made.transformer.wpe.weight[:, 1] = big, -big
    return load(made, tokenizer=TOKENIZER, name="linear", options=Options(device="cpu"))


@pytest.mark.parametrize("site", ["z", "v", "attn_out", "mlp_out", "resid_post", "neuron"])
def test_in_a_linear_model_total_is_direct_and_indirect(site: str, use: Any) -> None:
    use(linear())
    result = interp.mediate(pairs=pairs_of(4), site=site)
    assert np.abs(result.per_pair_total).max() > 0.1
    assert np.abs(result.indirect).max() > 1e-3
    total = result.per_pair_total.reshape(-1, *[1] * result.indirect.ndim)
    np.testing.assert_allclose(
        result.per_pair_indirect + result.per_pair_direct,
        np.broadcast_to(total, result.per_pair_direct.shape),
        atol=2e-4,
    )
    assert np.abs(result.interaction).max() < 2e-4


def planted() -> LoadedModel:
    """Return a random model in which layer 0's head 2 alone moves anything from one position to another."""
    model = build("gpt2")
    with torch.no_grad():
        for layer, block in enumerate(model.hf_model.transformer.h):
            own = block.attn.original_component if hasattr(block.attn, "original_component") else block.attn
            weight = (
                own.c_proj.original_component.weight if hasattr(own.c_proj, "original_component") else own.c_proj.weight
            )
            size = model.geometry.d_head
            for head in range(model.geometry.n_heads):
                if (layer, head) != (0, 2):
                    weight[head * size : (head + 1) * size] = 0
    return model


def oriented(count: int) -> list[Pair]:
    """Return pairs whose answers are such that the clean prompt favours the right one."""
    asked = interp.mediate(pairs=pairs_of(count), head="0.0", correction="none")
    swap = asked.per_pair_total < 0
    made = pairs_of(count)
    return [Pair(p.clean, p.corrupted, p.wrong, p.answer) if s else p for p, s in zip(made, swap, strict=True)]


def test_the_planted_mediator_is_found(use: Any) -> None:
    use(planted())
    result = interp.mediate(pairs=oriented(10))
    assert result.top(1)[0][0] == "0.2"
    np.testing.assert_allclose(result.per_pair_indirect[:, 0, 2], result.per_pair_total, atol=1e-5)
    np.testing.assert_allclose(result.per_pair_direct[:, 0, 2], 0, atol=1e-5)
    assert result.proportion[0, 2] == pytest.approx(1, abs=1e-4)
    others = np.ones(result.indirect.shape, bool)
    others[0, 2] = False
    np.testing.assert_allclose(result.indirect[others], 0, atol=1e-6)
    np.testing.assert_allclose(result.direct[others], result.total, atol=1e-5)
    assert np.argwhere(result.significant).tolist() == [[0, 2]]
    assert result.p[0, 2] == pytest.approx(2 / 2**10)
    assert result.corrected[0, 2] == pytest.approx(8 * 2 / 2**10)  # Holm's first of eight


def test_chosen_heads_are_the_same_numbers(use: Any) -> None:
    use(build("llama"))
    pairs = pairs_of(3)
    whole = interp.mediate(pairs=pairs)
    some = interp.mediate(pairs=pairs, head="1.3,0.1")
    assert some.layers == (0, 1)
    assert np.argwhere(some.done).tolist() == [[0, 1], [1, 3]]
    for cell in ((0, 1), (1, 3)):
        assert some.indirect[cell] == pytest.approx(whole.indirect[cell], abs=1e-6)
        assert some.direct[cell] == pytest.approx(whole.direct[cell], abs=1e-6)
    assert np.isnan(some.indirect[0, 0])
    assert np.isnan(some.p[0, 0])
    assert len(some.to_frame()) == 2
    layer = interp.mediate(pairs=pairs, site="mlp_out", layer=1)
    assert layer.indirect.shape == (1,)
    assert layer.name((0,)) == "L1 mlp_out"


def brute(each: np.ndarray) -> float:
    means = [abs(float(np.mean(each * signs))) for signs in itertools.product((-1, 1), repeat=len(each))]
    return float(np.mean([mean >= abs(float(each.mean())) - 1e-12 for mean in means]))


def test_sign_flips_count_every_assignment_of_signs() -> None:
    draw = np.random.default_rng(0)
    each = draw.normal(0.4, 1, (7, 5))
    assert sign_flips(each, 9999).tolist() == pytest.approx([brute(column) for column in each.T])
    assert sign_flips(np.zeros((4, 1)), 9999).tolist() == [1.0]
    assert sign_flips(np.ones((6, 1)), 9999).tolist() == [2 / 64]
    drawn = sign_flips(each, 100)
    assert np.abs(drawn - sign_flips(each, 9999)).max() < 0.2
    assert sign_flips(np.ones((30, 1)), 9999).tolist() == [1 / 10000]
    again = sign_flips(draw.normal(0, 1, (20, 3)), 500, seed=1)
    assert ((again > 0) & (again <= 1)).all()


def test_p_values_are_uniform_where_there_is_no_effect() -> None:
    p = sign_flips(np.random.default_rng(1).normal(size=(12, 2000)), 9999)
    for level in (0.05, 0.2, 0.5):
        assert abs((p <= level).mean() - level) < 0.03


def test_the_corrections(use: Any) -> None:
    use(build("gpt2"))
    pairs = pairs_of(8)
    found = {name: interp.mediate(pairs=pairs, correction=name) for name in ("none", "holm", "fdr_bh", "bonferroni")}
    p = found["none"].p.ravel()
    assert found["none"].corrected.ravel().tolist() == p.tolist()
    order, count = np.argsort(p, kind="stable"), len(p)
    holm = np.empty(count)
    holm[order] = np.minimum(1, np.maximum.accumulate(p[order] * (count - np.arange(count))))
    hochberg = np.empty(count)
    ranked = p[order] * count / (np.arange(count) + 1)
    hochberg[order] = np.minimum(1, np.minimum.accumulate(ranked[::-1])[::-1])
    np.testing.assert_allclose(found["holm"].corrected.ravel(), holm)
    np.testing.assert_allclose(found["fdr_bh"].corrected.ravel(), hochberg)
    np.testing.assert_allclose(found["bonferroni"].corrected.ravel(), np.minimum(1, p * count))


def test_too_few_pairs_to_be_sure_are_said(use: Any) -> None:
    use(build("gpt2"))
    few = interp.mediate(pairs=pairs_of(4), head="0.1")
    assert any("nothing can be significant" in note and "6 pairs" in note for note in few.notes)
    many = interp.mediate(pairs=pairs_of(7))
    assert any("8 tests" in note and "9 pairs" in note for note in many.notes)
    enough = interp.mediate(pairs=pairs_of(9))
    assert not any("significant" in note for note in enough.notes)


def test_the_runs_of_a_mediator(use: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    use(build("gpt2"))
    result = interp.mediate(pairs=pairs_of(6), correction="none")
    at = result.strongest(1)[0]
    runs = result.runs(at)
    means = runs.groupby(["prompt", "mediator"])["metric"].mean()
    assert means[0, 0] == 0
    assert means[0, 1] == pytest.approx(result.indirect[at])
    assert means[1, 0] == pytest.approx(result.direct[at])
    assert means[1, 1] == pytest.approx(result.total)
    # What regression on both, DoWhy's backdoor estimate, gives.
    columns = np.stack([runs["mediator"], runs["prompt"], np.ones(len(runs))], 1)
    slope = np.linalg.lstsq(columns, runs["metric"].to_numpy(), rcond=None)[0][0]
    assert slope == pytest.approx((result.indirect[at] + result.total - result.direct[at]) / 2)
    name = result.name(at)
    for given in (name, f"L{name.replace('.', 'H')}", list(at), np.array(at)):
        assert result.index(given) == at
        assert result.runs(given).equals(runs)
    for wrong in (2, "9.9", (0, 99), None, "mlp"):
        with pytest.raises(InputError, match="mediator"):
            result.to_dowhy(wrong)
    monkeypatch.setitem(sys.modules, "dowhy", None)
    with pytest.raises(InputError, match=r"pip install 'interp\[dowhy\]'"):
        result.to_dowhy(at)
    some = interp.mediate(pairs=pairs_of(6), head="0.1", correction="none")
    with pytest.raises(InputError, match=r"0\.2 was not computed"):
        some.runs((0, 2))


def test_without_statsmodels_one_line_says_what_to_install(use: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = use(build("gpt2"))
    monkeypatch.setitem(sys.modules, "statsmodels.stats.multitest", None)
    before = model.forwards
    with pytest.raises(InputError, match=r"pip install 'interp\[mediate\]'"):
        interp.mediate(pairs=pairs_of(2))
    assert model.forwards == before
    assert interp.mediate(pairs=pairs_of(2), correction="none").total != 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"head": "9.9"}, "layers are 0–1"),
        ({"head": "0.9"}, "heads are 0–3"),
        ({"head": "x"}, "is no head"),
        ({"head": "0.1", "layer": 0}, "leave --layer out"),
        ({"head": "0.1", "site": "mlp_out"}, "no heads"),
        ({"head": "0.3", "site": "k"}, "keys and values"),
        ({"site": "zz"}, "no site"),
        ({"layer": 7}, "layers are 0–1"),
        ({"correction": "hochberg"}, "holm"),
        ({"metric": "logitdiff"}, "logit-diff"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(options: dict[str, Any], words: str, use: Any) -> None:
    model = use(build("llama"))
    before = model.forwards
    with pytest.raises(InputError, match=words):
        interp.mediate(pairs=pairs_of(2), **options)
    assert model.forwards == before


@pytest.mark.parametrize(("after", "left"), [(4, 0), (20, 4)])
def test_an_interrupt_keeps_whole_mediators(after: int, left: int, use: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there is there both ways and for every pair: two layers of four heads, 24 runs each, 16 at a time."""
    model = use(build("gpt2"))
    pairs = pairs_of(3)
    whole = interp.mediate(pairs=pairs)
    model.store.clear()
    census = hooks.census(model.modules())
    monkeypatch.setattr(memory, "WAVE_ROWS", 16)

    def stop(done: int, total: int, said: str) -> None:  # noqa: ARG001
        assert total == 2 * 3 * 8
        if done > after:
            raise KeyboardInterrupt

    session.on_step = stop
    with pytest.raises(Interrupted) as caught:
        interp.mediate(pairs=pairs)
    session.on_step = None
    kept = caught.value.result
    assert "partial: interrupted" in kept.notes[0]
    assert kept.done.sum() == left == len(kept.to_frame())
    for part in ("indirect", "direct", "interaction", "p"):
        assert (np.isfinite(getattr(kept, part)) == kept.done).all()
    for part in ("per_pair_indirect", "per_pair_direct"):
        np.testing.assert_allclose(getattr(kept, part)[:, kept.done], getattr(whole, part)[:, kept.done], atol=1e-6)
    for picture in (kept.html(), kept.svg(), kept.text(), repr(kept)):
        assert picture
    assert hooks.census(model.modules()) == census
    monkeypatch.undo()
    np.testing.assert_allclose(interp.mediate(pairs=pairs).indirect, whole.indirect, atol=1e-6)


def test_magic_pictures_and_files(shell: Any, lend: Any, tmp_path: Path) -> None:
    lend("llama")
    cell = "clean: Mary gave the drink to\ncorrupted: John gave the drink to\nanswer: Mary\nwrong: John"
    shell.run_cell(f"%%interp mediate --site z --head 0.1,1.2 --correction fdr_bh -o out\n{cell}\n")
    result = shell.user_ns["out"]
    assert result.correction == "fdr_bh"
    assert len(result.top()) == 2
    whole = interp.mediate("Mary gave the drink to", "John gave the drink to", answer=" Mary", wrong=" John")
    assert whole.indirect[0, 1] == pytest.approx(result.indirect[0, 1], abs=1e-6)
    assert len(whole.to_plotly().data) == 2
    for suffix in ("json", "npz", "html", "svg", "png"):
        assert whole.save(tmp_path / f"mediate.{suffix}").stat().st_size > 500


def test_smollm2_name_movers_carry_ioi(smollm2: Any) -> None:
    pairs = interp.task("ioi", n=4)
    assert smollm2.geometry.n_heads == 9
    result = interp.mediate(task="ioi", n=4, head="23.3,20.0,5.1")
    assert pairs is not None
    assert result.total > 3
    assert {name for name, *_ in result.top(2)} == {"23.3", "20.0"}
    assert abs(result.indirect[result.layers.index(5), 1]) < 0.1 * result.total
    assert 0.2 < result.proportion[result.layers.index(23), 3] < 0.9
