"""OV and QK circuits and composition, against the dense formulas, the model's own forward and real models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.engine.readouts import ov_qk
from interp.engine.transformer import network
from interp.errors import InputError, Interrupted
from methods.patching.test_patch import Size, build, use

__all__ = ["use"]

pytestmark = pytest.mark.usefixtures("one_thread")

FAMILIES = ["gpt2", "llama", "neox"]


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest, folder: Callable[..., Any], clean_session: Any) -> Any:
    """Return a small model whose norms have gains, so that folding them is seen."""
    loaded = clean_session.load(folder(request.param), device="cpu")
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in loaded.hf_model.named_parameters():
            if parameter.dim() == 1 and name.endswith("weight"):
                parameter.copy_(0.5 + torch.rand(parameter.shape, generator=generator))
    return loaded


def gain(component: Any, width: int) -> torch.Tensor:
    """Return what a norm does to a residual stream of size 1, but for its bias, as a matrix ``[d_model, d_model]``."""
    module = component.original_component
    centre = torch.eye(width)
    if isinstance(module, torch.nn.LayerNorm):
        centre = centre - 1 / width
    return (centre @ torch.diag(module.weight.detach())).double()


def head(model: Any, layer: int, number: int) -> dict[str, torch.Tensor]:
    """Return W_Q, W_K, W_V ``[d_model, d_head]`` with the norm in front, and W_O ``[d_head, d_model]``, densely."""
    block, g = model.bridge.blocks[layer], model.geometry
    shared = number // (g.n_heads // g.n_kv_heads)
    before = gain(block.ln1, g.d_model)
    own = {"W_Q": number, "W_K": shared, "W_V": shared}
    read = {name: before @ getattr(block.attn, name)[index].detach().double() for name, index in own.items()}
    return {**read, "W_O": block.attn.W_O[number].detach().double()}


def dense_ov(model: Any, layer: int, number: int) -> torch.Tensor:
    h = head(model, layer, number)
    out = gain(model.bridge.ln_final, model.geometry.d_model) @ model.bridge.W_U.detach().double()
    full = model.bridge.W_E.detach().double() @ h["W_V"] @ h["W_O"] @ out
    return full - full.mean(-1, keepdim=True)


def dense_qk(model: Any, layer: int, number: int) -> torch.Tensor:
    h, words = head(model, layer, number), model.bridge.W_E.detach().double()
    return words @ h["W_Q"] @ h["W_K"].T @ words.T


@pytest.mark.parametrize("name", ["0.0", "1.3"])
def test_ov_is_the_dense_product(model: Any, name: str) -> None:
    layer, number = map(int, name.split("."))
    full = dense_ov(model, layer, number).numpy()
    result = interp.ov(name, top=5, svd=3)
    assert [row.id for row in result.rows] == np.argsort(-full.std(-1))[:5].tolist()
    for row in result.rows:
        assert row.spread == pytest.approx(full[row.id].std(), rel=1e-3)
        assert [i for _, i, _ in row.top] == np.argsort(-full[row.id])[:5].tolist()
        assert [i for _, i, _ in row.bottom] == np.argsort(full[row.id])[:5].tolist()
        assert np.allclose([v for _, _, v in row.top], np.sort(full[row.id])[::-1][:5], atol=1e-4)
    values = np.linalg.eigvals(full)
    assert result.positivity == pytest.approx(values.real.sum() / np.abs(values).sum(), abs=1e-4)
    left, sizes, right = np.linalg.svd(full)
    for n, direction in enumerate(result.directions):
        assert direction.value == pytest.approx(sizes[n], rel=1e-4)
        sign = np.sign(left[np.abs(left[:, n]).argmax(), n])
        assert direction.source_top[0][1] == (sign * left[:, n]).argmax()
        assert direction.target_top[0][1] == (sign * right[n]).argmax()
        assert direction.target_bottom[0][1] == (sign * right[n]).argmin()
        assert direction.source_top[0][2] == pytest.approx((sign * left[:, n]).max(), abs=1e-4)
        h = head(model, layer, number)
        written = sign * left[:, n] @ (model.bridge.W_E.detach().double() @ h["W_V"] @ h["W_O"]).numpy()
        assert np.allclose(result.vectors[n], written / np.linalg.norm(written), atol=1e-4)
    steered = interp.steer([5, 6, 7], layer=1, direction=result.vectors[0], strength=0.0, n=2)
    assert steered.provenance.technique == "steer"


@pytest.mark.parametrize("name", ["0.1", "1.3"])
def test_qk_is_the_dense_product(model: Any, name: str) -> None:
    layer, number = map(int, name.split("."))
    full = dense_qk(model, layer, number).numpy()
    tokens = [" Mary", "the", " a"]  # a word is the one that begins in a text
    ids = [model.tokens.tokenizer(f" {t.strip()}", add_special_tokens=False)["input_ids"][0] for t in tokens]
    result = interp.qk(name, tokens=",".join(tokens), top=4)
    assert [row.id for row in result.rows] == ids
    assert np.allclose(result.matrix, full[np.ix_(ids, ids)], atol=1e-4)
    for row in result.rows:
        assert [i for _, i, _ in row.top] == np.argsort(-full[row.id])[:4].tolist()
    values = np.linalg.eigvals(full)
    assert result.positivity == pytest.approx(values.real.sum() / np.abs(values).sum(), abs=1e-3)


def test_qk_gives_the_scores_of_the_first_layer(model: Any) -> None:
    """Without positions and biases a first layer's scores are the circuit's, over the norms' sizes, at every offset."""
    with torch.no_grad():
        for name, parameter in model.hf_model.named_parameters():
            if name.endswith("bias") or "wpe" in name:
                parameter.zero_()
    ids = (9, 40, 17, 120, 77)
    scores = model.activations_of(ids, ["blocks.0.attn.hook_attn_scores"])["blocks.0.attn.hook_attn_scores"][0]
    net = network.read(model)
    layer = net.layers[0]
    sizes = layer.norm1.size(ov_qk.embedding(net)[list(ids)])
    for number in range(net.n_heads):
        for query in range(len(ids)):
            for key in range(query + 1):
                offset = query - key if net.rotary is not None else 0
                circuit = ov_qk.qk(net, 0, number, offset)
                expected = circuit.left[ids[query]] @ circuit.right[ids[key]] * layer.scale / sizes[query] / sizes[key]
                assert float(scores[number, query, key]) == pytest.approx(float(expected), abs=1e-4)


def test_qk_with_norms_of_queries_and_keys_is_the_models_own_score(use: Any) -> None:
    """What a per-head norm divides by is each token's own: at layer 0 the circuit is the score, at every offset."""
    model = use(build("qwen3"))
    words = [" Mary", " the"]
    mary, the = (model.tokens.tokenizer(t, add_special_tokens=False)["input_ids"][0] for t in words)
    ids = (9, mary, 17, the, 77)
    name = "blocks.0.attn.hook_attn_scores"
    scores = model.activations_of(ids, [name])[name][0].double().numpy()
    net = network.read(model)
    plain = torch.tensor(0.0)
    for number in range(net.n_heads):
        for query in range(len(ids)):
            for key in range(query + 1):
                circuit = ov_qk.qk(net, 0, number, query - key)
                found = float(circuit.left[ids[query]] @ circuit.right[ids[key]]) * net.layers[0].scale
                assert found == pytest.approx(scores[number, query, key], abs=1e-4)
        folded = ov_qk.heads(net, net.layers[0])
        left, right = (ov_qk.embedding(net)[list(ids)] @ w.T for w in (folded.q[number], folded.k[number // 2]))
        plain = plain + (left @ right.T - circuit.left[list(ids)] @ circuit.right[list(ids)].T).abs().max()
    assert plain > 0.1  # gains alone would not do
    result = interp.qk("0.1", tokens=",".join(words), offset=2)
    expected = scores[1, 3, 1] / net.layers[0].scale  # " the" looks two back at " Mary"
    assert result.matrix[1, 0] == pytest.approx(expected, abs=1e-3)
    assert "are normed" in interp.qk("0.1", top=2).notes[0]


def test_some_rows_of_the_unembedding_are_those_of_all(model: Any) -> None:
    net = network.weights(model)
    ids = torch.tensor([[3, 7], [0, 3]])
    torch.testing.assert_close(ov_qk.unembedding(net, ids), ov_qk.unembedding(net)[ids], atol=1e-6, rtol=1e-5)


def test_copying_of_every_head_is_that_of_its_circuit(model: Any) -> None:
    scores = ov_qk.copying(network.weights(model))
    for layer in range(model.geometry.n_layers):
        for number in range(model.geometry.n_heads):
            values = np.linalg.eigvals(dense_ov(model, layer, number).numpy())
            assert float(scores[layer, number]) == pytest.approx(values.real.sum() / np.abs(values).sum(), abs=1e-4)


def test_composition_is_the_dense_ratio(model: Any) -> None:
    result = interp.compose()
    g = model.geometry
    norm = torch.linalg.matrix_norm
    for sender in range(g.n_heads):
        one = head(model, 0, sender)
        written = one["W_V"] @ one["W_O"]
        for reader in range(g.n_heads):
            two = head(model, 1, reader)
            read = {
                "q": two["W_Q"] @ two["W_K"].T,
                "k": two["W_K"] @ two["W_Q"].T,
                "v": two["W_V"] @ two["W_O"],
            }
            for kind, matrix in read.items():
                ratio = norm(written @ matrix) / norm(written) / norm(matrix)
                assert result.scores[kind][0, sender, 1, reader] + result.baseline == pytest.approx(
                    float(ratio), abs=1e-5
                )
    for values in result.scores.values():
        assert np.isfinite(values).sum() == g.n_heads**2
    alone = interp.compose(kind="k")
    assert np.array_equal(alone.scores["k"], result.scores["k"], equal_nan=True)
    assert set(alone.scores) == {"k"}
    table = result.to_frame()
    assert len(table) == 3 * g.n_heads**2
    kind, a, b, value = result.top(1)[0]
    first = table.iloc[0]
    assert (kind, a, b) == (first.kind, f"{first.layer}.{first['head']}", f"{first.reader_layer}.{first.reader_head}")
    assert value == first.score == table.score.max()


def test_the_baseline_is_what_random_turns_give() -> None:
    """The mean squared ratio over random rotations is 1/d_model, whatever the two matrices are."""
    rng = np.random.default_rng(0)
    width, rank = 24, 3
    written = rng.normal(size=(width, rank)) @ rng.normal(size=(rank, width)) * rng.gamma(0.3, size=width)
    read = rng.normal(size=(width, rank)) @ rng.normal(size=(rank, width))
    turns = [np.linalg.qr(rng.normal(size=(width, width)))[0] for _ in range(4000)]
    ratios = [np.linalg.norm(written @ turn @ read) ** 2 for turn in turns]
    mean = np.mean(ratios) / np.linalg.norm(written) ** 2 / np.linalg.norm(read) ** 2
    assert mean == pytest.approx(1 / width, rel=0.05)


def test_lower_precision_and_hooks_are_no_obstacle(folder: Callable[..., Any], clean_session: Any) -> None:
    model = clean_session.load(folder("llama"), device="cpu")
    before = interp.compose(kind="q").scores["q"]
    handle = model.bridge.blocks[0].register_forward_hook(lambda *_: None)
    assert np.array_equal(interp.compose(kind="q").scores["q"], before, equal_nan=True)
    handle.remove()
    model.bridge.to(torch.bfloat16)
    assert np.nanmax(np.abs(interp.compose(kind="q").scores["q"] - before)) < 0.01
    assert interp.ov("1.1").rows


@pytest.mark.parametrize(
    ("command", "name", "arguments", "message"),
    [
        ("ov", "9.0", {}, "no layer 9"),
        ("ov", "0.9", {}, "no head 9"),
        ("ov", "x", {}, "no head"),
        ("qk", "0.0,0.1", {}, "one head at a time"),
        ("ov", "0.0", {"top": 0}, "--top 0"),
        ("ov", "0.0", {"svd": 99}, "use 0–8"),
        ("ov", "0.0", {"svd": -1}, "use 0–8"),
        ("ov", "0.0", {"tokens": ""}, "names nothing"),
        ("ov", "0.0", {"tokens": " supercalifragilistic"}, "18 tokens .*must be one"),
        ("qk", "0.0", {"offset": 3}, "no rotary positions"),
    ],
)
def test_what_is_refused(lend: Callable[..., Any], command: str, name: str, arguments: Any, message: str) -> None:
    lend("gpt2")
    with pytest.raises(InputError, match=message):
        getattr(interp, command)(name, **arguments)


@pytest.mark.parametrize("offset", [-1, 48])
def test_an_offset_outside_the_window(lend: Callable[..., Any], offset: int) -> None:
    lend("llama")
    with pytest.raises(InputError, match="0–47"):
        interp.qk("0.0", offset=offset)


def test_a_bidirectional_model_is_refused(lend: Callable[..., Any]) -> None:
    lend("bert")
    for call in (lambda: interp.ov("0.0"), lambda: interp.qk("0.0"), lambda: interp.compose()):
        with pytest.raises(InputError, match="reads in both directions"):
            call()


def test_the_pictures_show_tokens_and_heads(lend: Callable[..., Any]) -> None:
    lend("neox")
    with_matrix = interp.ov("L1H0", tokens=[" Mary", " the"], svd=1)
    np.testing.assert_array_equal(with_matrix.matrix, interp.ov("1.0", tokens=" Mary, the").matrix)
    assert interp.ov("1.0", tokens=np.array([5])).rows[0].id == 5
    with pytest.raises(InputError, match=r"--tokens 2.5 is neither a word, such as 'John', nor a token id"):
        interp.ov("1.0", tokens=[2.5])
    for picture in (with_matrix.svg("dark"), with_matrix.html()):
        assert "OV circuit of L1H0" in picture
        assert "</tspan>Mary" in picture
    composed = interp.compose()
    assert "K-composition" in composed.svg()
    assert "L0H" in composed.html()


def test_the_bundled_models_induction_head_copies_and_reads_the_previous_token_head(clean_session: Any) -> None:
    clean_session.load()
    result = interp.ov("1.0", tokens=" Mary, John, Paris")
    assert result.positivity > 0.9
    assert [row.top[0][1] for row in result.rows] == [row.id for row in result.rows]
    assert interp.compose().top(1, "k")[0][1:3] == ("0.0", "1.0")


def test_smollm2s_induction_heads_read_previous_token_heads(smollm2: Any) -> None:  # noqa: ARG001
    result = interp.compose(kind="k")
    top = result.top(20)
    assert sum(a in {"16.0", "17.8"} and b.split(".")[0] in {"17", "18"} for _, a, b, _ in top) >= 8
    assert result.scores["k"][16, 0, 18, 6] > 0.1
    ids = interp.qk("18.6", tokens=" Mary, John").rows
    assert [row.token for row in ids] == [" Mary", " John"]


def test_an_interrupted_composition_keeps_its_layers(use: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = use(build("llama", Size(layers=4)))
    whole = interp.compose()
    assert not [note for note in whole.notes if "partial" in note]
    with monkeypatch.context() as patch:

        def stop(_: Any, done: int, total: int, said: str = "") -> None:  # noqa: ARG001
            if done == 2:
                raise KeyboardInterrupt

        patch.setattr(type(model), "on_step", stop)
        with pytest.raises(Interrupted) as stopped:
            interp.compose()
    kept = stopped.value.result
    assert kept.notes[0] == "partial: interrupted after 2 of 3 layers of readers; the rest is NaN"
    for kind, values in whole.scores.items():
        assert np.array_equal(kept.scores[kind][:, :, :3], values[:, :, :3], equal_nan=True)
        assert np.isnan(kept.scores[kind][:, :, 3]).all()
    assert kept.svg()
    assert kept.html()
    assert len(kept.to_frame()) < len(whole.to_frame())
