"""Neurons against hooks and sorting, their weights against the dense formula, memory, and planted clusters."""

from __future__ import annotations

import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional

import interp
from interp.engine.model import hooks
from interp.engine.readouts import neuron_statistics, text_passes
from interp.errors import InputError, Interrupted
from interp.interface.session import session
from interp.methods._shared.clusters import embedder
from interp.spec import Prompt
from methods.patching.test_patch import captured
from methods.text.test_generate import families

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = [
    "When Mary and John went to the store, John gave a drink to Mary.",
    "The capital of France is Paris, and the cat sat on the mat.",
    "one two three four five six seven",
    "the mat",
]


def activations(model: Any, texts: list[str], neuron: str) -> list[tuple[float, int, int]]:
    """Return (activation, text, position) of every token but BOS, from the bridge's own hooks."""
    layer, number = map(int, neuron.split("."))
    name = f"blocks.{layer}.mlp.hook_post"
    found: list[tuple[float, int, int]] = []
    for n, text in enumerate(texts):
        ids = model.tokens.encode(Prompt(text)).ids
        values = captured(model, ids, [name])[name][0, :, number]
        found += [(float(v), n, p) for p, v in enumerate(values) if not (p == 0 and ids[0] == model.tokens.bos_id)]
    return found


@pytest.mark.parametrize("lowest", [False, True])
@pytest.mark.parametrize("family", ["gpt2", "llama", "neox", "bert"])
def test_the_strongest_are_those_of_sorting_everything(family: str, lowest: bool, lend: Any) -> None:
    model = lend(family)
    names = ["1.5", "0.3", "1.0"]
    result = interp.neurons(names, TEXTS, top=6, context=3, lowest=lowest)
    assert result.neurons == tuple(names)
    assert result.provenance.path == "forward"
    for row, name in enumerate(names):
        every = activations(model, TEXTS, name)
        order = sorted(every, key=lambda found: found[0], reverse=not lowest)[:6]
        np.testing.assert_allclose(result.activations[row], [value for value, _, _ in order], atol=1e-5)
        assert result.place[row].tolist() == [[text, position] for _, text, position in order]
        values = np.array([value for value, _, _ in every])
        stats = {key: float(held[row]) for key, held in result.stats.items()}
        assert stats["mean"] == pytest.approx(values.mean(), abs=1e-5)
        assert stats["std"] == pytest.approx(values.std(), abs=1e-5)
        assert stats["max"] == pytest.approx(values.max(), abs=1e-5)
        assert stats["min"] == pytest.approx(values.min(), abs=1e-5)
        assert stats["positive"] == pytest.approx((values > 0).mean())
        assert stats["sparsity"] == pytest.approx(1 - np.abs(values).mean() ** 2 / (values**2).mean(), abs=1e-5)
        assert result.tokens_read == len(every)


def test_where_there_are_fewer_tokens_there_is_nothing(lend: Any) -> None:
    lend("gpt2")
    result = interp.neurons("1.3", ["one two"], top=5)
    count = result.tokens_read
    assert count < 5
    assert np.isfinite(result.activations[0]).tolist() == [n < count for n in range(5)]
    assert (result.ids[0, count:] == -1).all()
    assert (result.place[0, count:] == -1).all()
    assert np.isnan(result.around[0, count:]).all()
    assert len(result.contexts("1.3")) == len(result.to_frame()) == count
    assert result.html()
    assert result.svg()


@families
def test_what_stands_around_a_token_is_what_the_text_has_there(family: str, lend: Any) -> None:
    model = lend(family)
    result = interp.neurons("0.7", TEXTS, top=8, context=4)
    name = "blocks.0.mlp.hook_post"
    for rank, (text, position) in enumerate(result.place[0].tolist()):
        encoded = model.tokens.encode(Prompt(TEXTS[text]))
        values = captured(model, encoded.ids, [name])[name][0, :, 7]
        for k in range(9):
            at = position + k - 4
            inside = 0 <= at < len(encoded.ids)
            assert result.ids[0, rank, k] == (encoded.ids[at] if inside else -1)
            if inside:
                assert result.around[0, rank, k] == pytest.approx(float(values[at]), abs=1e-5)
            else:
                assert np.isnan(result.around[0, rank, k])
    value, before, own, after = result.contexts("0.7")[0]
    text, position = result.place[0, 0]
    strings = model.tokens.encode(Prompt(TEXTS[text])).strings
    assert (*before, *own, *after) == strings[max(0, position - 4) : position + 5]
    assert value == result.activations[0, 0]


@families
def test_weights_as_tokens_are_the_dense_formula(family: str, lend: Any) -> None:
    model = lend(family)
    result = interp.neurons(["0.3", "1.9"], TEXTS[:1])
    bridge = model.bridge
    words = bridge.embed.original_component.weight.detach().double()
    out = bridge.unembed.original_component.weight.detach().double()
    final = bridge.ln_final.original_component
    assert result.inputs == (("gate", "up") if family == "llama" else ("in",))
    for row, (layer, number) in enumerate([(0, 3), (1, 9)]):
        mlp = dict(bridge.blocks[layer].mlp.named_children())
        norm = bridge.blocks[layer].ln2.original_component
        for n, name in enumerate(result.inputs):
            linear = mlp[{"in": "in", "gate": "gate", "up": "in"}[name]].original_component
            weight = linear.weight.detach().double()
            read = (weight if isinstance(linear, torch.nn.Linear) else weight.T)[number] * norm.weight.double()
            read = read if family == "llama" else read - read.mean()
            assert result.read[row, n].tolist() == (words @ read).topk(8).indices.tolist()
            np.testing.assert_allclose(result.read_values[row, n], (words @ read).topk(8).values.detach(), rtol=1e-4)
        linear = mlp["out"].original_component
        weight = linear.weight.detach().double()
        write = (weight if isinstance(linear, torch.nn.Linear) else weight.T)[:, number]
        write = write if family == "llama" else write - write.mean()
        logits = out @ (write * final.weight.double())
        logits = logits - logits.mean()
        assert result.promoted[row].tolist() == logits.topk(8).indices.tolist()
        assert result.suppressed[row].tolist() == (-logits).topk(8).indices.tolist()
        np.testing.assert_allclose(result.promoted_values[row], logits.topk(8).values.detach(), rtol=1e-4)


def test_a_gated_neuron_is_the_product_of_its_two_inputs(lend: Any) -> None:
    model = lend("llama")
    result = interp.neurons("1.4", TEXTS[:1], top=1, context=0)
    position = int(result.place[0, 0, 1])
    ids = model.tokens.encode(Prompt(TEXTS[0])).ids
    normed = captured(model, ids, ["blocks.1.ln2.hook_out"])["blocks.1.ln2.hook_out"][0, position]
    mlp = dict(model.bridge.blocks[1].mlp.named_children())
    gate, up = (mlp[name].original_component.weight[4].detach() @ normed for name in ("gate", "in"))
    assert result.activations[0, 0] == pytest.approx(float(functional.silu(gate) * up), abs=1e-5)


def test_a_planted_neuron_finds_its_token(folder: Any, clean_session: Any) -> None:
    """A neuron whose input weights are one token's normed embedding, and which writes another one's unembedding."""
    model = clean_session.load(folder("gpt2"), name="own")
    hf = model.bridge
    cat, dog = (model.tokens.tokenizer(word, add_special_tokens=False)["input_ids"][-1] for word in ("cat", "Paris"))
    with torch.no_grad():
        block = hf.blocks[0]
        mlp = dict(block.mlp.named_children())
        for parameter in block.attn.o.original_component.parameters():
            parameter.zero_()
        hf.pos_embed.original_component.weight.zero_()
        word = hf.embed.original_component.weight[cat]
        mlp["in"].original_component.weight[:, 6] = 4 * functional.layer_norm(word, word.shape)
        mlp["out"].original_component.weight[6] = hf.unembed.original_component.weight[dog]
    result = interp.neurons("0.6", TEXTS, top=3)
    assert result.contexts("0.6")[0][2][0] == model.tokens.string(cat)
    assert result.read[0, 0, 0] == cat
    assert result.promoted[0, 0] == dog
    assert result.stats["sparsity"][0] > 0.3


def test_all_neurons_of_a_layer_and_their_order(lend: Any) -> None:
    lend("llama")
    whole = interp.neurons("1.*", TEXTS, top=2)
    assert len(whole.neurons) == 64
    some = interp.neurons("1.9,0.2,1.3", TEXTS, top=2)
    assert some.neurons == ("1.9", "0.2", "1.3")
    for row, name in ((0, "1.9"), (2, "1.3")):
        at = whole.neurons.index(name)
        np.testing.assert_allclose(some.activations[row], whole.activations[at], atol=1e-6)
        assert some.promoted[row].tolist() == whole.promoted[at].tolist()
        assert some.stats["mean"][row] == pytest.approx(whole.stats["mean"][at], abs=1e-7)


def held() -> int:
    """Return the bytes of all live tensors that are no parameters."""
    import gc

    storages = {
        o.untyped_storage().data_ptr(): o.untyped_storage().nbytes()
        for o in gc.get_objects()
        if issubclass(type(o), torch.Tensor) and not isinstance(o, torch.nn.Parameter)
    }
    return sum(storages.values())


@pytest.mark.parametrize("cluster", [False, True])
def test_memory_is_flat_in_the_number_of_texts(cluster: bool, lend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = lend("gpt2")
    from interp.methods.readouts import neurons as method

    monkeypatch.setattr(method, "embedder", lambda kind: lambda *_: None)  # noqa: ARG005
    monkeypatch.setattr(text_passes, "TOKENS", 64)
    options: dict[str, Any] = {"top": 5, "context": 4, "points": 50, "cluster": "umap" if cluster else None}
    peaks: dict[int, tuple[int, int]] = {}
    per_text = 0
    for count in (20, 200):
        texts = [f"{TEXTS[0]} {TEXTS[0]}"] * count
        tensors: list[int] = []

        def look(done: int, total: int, said: str, tensors: list[int] = tensors) -> None:  # noqa: ARG001
            if done % (total // 10) == 0:
                tensors.append(held())

        interp.neurons("1.*", texts[:2], **options)  # what is made once
        session.on_step = look
        tracemalloc.start()
        result = interp.neurons("1.*", texts, **options)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        session.on_step = None
        assert result.texts == count
        assert model.store.ledger().entries == 0
        peaks[count] = (peak, max(tensors))
        per_text = result.tokens_read // count * 128 * 4
    python, tensor = ((b - a) / 180 for a, b in zip(peaks[20], peaks[200], strict=True))
    assert per_text > 10_000  # one text's activations
    assert tensor < 0.01 * per_text, peaks
    assert python < 0.05 * per_text, peaks  # the list of the texts themselves


def test_what_is_kept_is_the_best_of_any_number_of_texts() -> None:
    draw = torch.Generator().manual_seed(0)
    best = neuron_statistics.Best(3, 4, 2)
    every: list[tuple[float, int, int, int]] = []
    for text in range(50):
        ids = torch.randint(0, 99, (int(torch.randint(1, 9, (1,), generator=draw)),), generator=draw)
        values = torch.randn(len(ids), 3, generator=draw)
        best.add(neuron_statistics.Rows.of({text: (ids.tolist(), values)}, None))
        every += [(float(values[p, n]), n, text, p) for p in range(len(ids)) for n in range(3)]
        for n in range(3):
            order = sorted((found for found in every if found[1] == n), reverse=True)[:4]
            known = best.values[n][best.values[n].isfinite()]
            assert known.tolist() == pytest.approx([value for value, *_ in order])
            assert best.place[n, : len(order)].tolist() == [[t, p] for _, _, t, p in order]


def test_a_sample_is_uniform_and_bounded() -> None:
    counts = np.zeros(40)
    for seed in range(300):
        sample = neuron_statistics.Sample(10, 1, seed)
        for start in range(0, 40, 8):
            ids = torch.arange(start, start + 8)
            sample.add(neuron_statistics.Rows.of({start: (ids.tolist(), ids[:, None].float())}, None))
        assert len(sample.ids) == 10
        assert sample.rows[:, 0].tolist() == sample.ids.tolist()
        counts[sample.ids.numpy()] += 1
    assert np.abs(counts - 75).max() < 5 * (75 * 0.75) ** 0.5


@pytest.mark.parametrize("kind", ["tsne", "umap"])
def test_planted_clusters_are_found_and_seeded(kind: str) -> None:
    draw = np.random.default_rng(0)
    centres = draw.normal(0, 1, (3, 120))
    rows = np.concatenate([centre + 0.1 * draw.normal(size=(25, 120)) for centre in centres])
    planted = np.repeat(np.arange(3), 25)
    layout = embedder(kind)
    names = [f"0.{n}" for n in range(75)]
    found = layout(rows.T.astype(np.float32), "neurons", names, [], 3)
    assert found.count == 3
    assert found.names == tuple(names)
    for label in range(3):
        assert len(set(planted[found.labels == label].tolist())) == 1
    assert (found.labels >= 0).mean() > 0.9
    again = layout(rows.T.astype(np.float32), "neurons", names, [], 3)
    assert again.places.tobytes() == found.places.tobytes()
    other = layout(rows.T.astype(np.float32), "neurons", names, [], 4)
    assert other.places.tobytes() != found.places.tobytes()


@pytest.mark.parametrize("of", ["neurons", "tokens"])
def test_clusters_through_the_command(of: str, lend: Any, tmp_path: Path) -> None:
    lend("llama")
    result = interp.neurons("1.*", TEXTS, cluster="tsne", of=of, points=40, seed=1)
    assert result.clusters is not None
    assert len(result.clusters.names) == (64 if of == "neurons" else 40)
    assert result.clusters.places.shape == (len(result.clusters.names), 2)
    figure = result.to_plotly()
    assert sum(len(trace.x) for trace in figure.data) == len(result.clusters.names)
    for suffix in ("json", "npz", "html", "svg", "png"):
        assert result.save(tmp_path / f"neurons.{suffix}").stat().st_size > 500
    plain = interp.neurons("1.1,1.2", TEXTS)
    for row, trace in enumerate(plain.to_plotly().data):
        assert list(trace.y) == plain.activations[row].tolist()


@pytest.mark.parametrize(("package", "kind"), [("hdbscan", "tsne"), ("umap", "umap"), ("sklearn.manifold", "tsne")])
def test_without_its_packages_one_line_says_what_to_install(
    package: str, kind: str, lend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = lend("gpt2")
    monkeypatch.setitem(sys.modules, package, None)
    before = model.forwards
    with pytest.raises(InputError, match=r"pip install 'interp\[cluster\]'"):
        interp.neurons("1.*", TEXTS, cluster=kind)
    assert model.forwards == before
    assert interp.neurons("1.1", TEXTS).texts == 4


@pytest.mark.parametrize(
    ("which", "options", "words"),
    [
        ("5.1", {}, "layers are 0–1"),
        ("0.999", {}, "neurons are 0–127"),
        ("cat", {}, "no neuron"),
        ("", {}, "names nothing"),
        (5, {}, "names"),
        ("0.1", {"top": 0}, "1 or more"),
        ("0.1", {"context": -1}, "0 or more"),
        ("0.1", {"cluster": "pca"}, "umap, tsne"),
        ("0.1", {"cluster": "tsne"}, "too few to cluster"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(which: Any, options: dict[str, Any], words: str, lend: Any) -> None:
    model = lend("gpt2")
    census = hooks.census(model.modules())
    with pytest.raises(InputError, match=words):
        interp.neurons(which, TEXTS, **options)
    assert hooks.census(model.modules()) == census


def test_texts_that_cannot_be_are_named(lend: Any) -> None:
    model = lend("gpt2")
    before = model.forwards
    with pytest.raises(InputError, match="text 1: the prompt is empty"):
        interp.neurons("0.1", ["a", ""])
    with pytest.raises(InputError, match=r"text 2: .*48"):
        interp.neurons("0.1", ["a", "b", "c " * 90])
    with pytest.raises(InputError, match="besides BOS"):
        interp.neurons("0.1", [Prompt(ids=(model.tokens.bos_id,))])
    assert model.forwards - before <= 1
    cut = interp.neurons("0.1", ["c " * 90], truncate=True)
    assert any("cut" in note for note in cut.notes)


def test_activations_that_are_no_numbers_are_left_out(folder: Any, clean_session: Any) -> None:
    model = clean_session.load(folder("gpt2"), name="own")
    bad = model.tokens.encode(Prompt(TEXTS[2])).ids[3]
    with torch.no_grad():
        model.bridge.embed.original_component.weight[bad] = float("nan")
    result = interp.neurons("0.1", [TEXTS[2], TEXTS[3]], top=2)
    assert any("NaN" in note for note in result.notes)
    assert np.isfinite(result.activations).all()
    assert set(result.place[0, :, 0].tolist()) == {1}


def test_an_interrupt_keeps_what_was_read(lend: Any) -> None:
    model = lend("gpt2")
    census = hooks.census(model.modules())

    def stop(done: int, total: int, said: str) -> None:  # noqa: ARG001
        if done == 2:
            raise KeyboardInterrupt

    session.on_step = stop
    with pytest.raises(Interrupted) as caught:
        interp.neurons("0.1", TEXTS)
    session.on_step = None
    kept = caught.value.result
    assert kept.texts == 2
    assert "2 of 4 texts" in kept.notes[0]
    expected = interp.neurons("0.1", TEXTS[:2])
    assert kept.activations.tobytes() == expected.activations.tobytes()
    assert hooks.census(model.modules()) == census
    assert kept.html()


def test_the_doors_agree(shell: Any, lend: Any, tmp_path: Path) -> None:
    lend("gpt2")
    file = tmp_path / "texts.txt"
    file.write_text("\n\n".join(TEXTS))
    shell.run_cell(f'%interp neurons 0.1,1.7 --text "{file}" --top 3 --context 2 -o out')
    out = shell.user_ns["out"]
    assert out.source == "texts.txt"
    listed = interp.neurons(["0.1", "1.7"], TEXTS, top=3, context=2)
    for other in (
        listed,
        interp.neurons(["0.1", "1.7"], texts=TEXTS, top=3, context=2),
        interp.neurons(["0.1", "1.7"], pd.DataFrame({"text": TEXTS})["text"], top=3, context=2),
        interp.neurons(which="0.1,1.7", text=str(file), top=3, context=2),
    ):
        assert other.activations.tobytes() == out.activations.tobytes()
        assert other.ids.tolist() == out.ids.tolist()
    shell.run_cell(f"%%interp neurons 0.1 --top 2 -o typed\n{TEXTS[0]}\n")
    assert shell.user_ns["typed"].texts == 1
    assert "neurons" in shell.run_cell("%interp neurons").error_in_exec.args[0]
    table = out.to_frame()
    assert len(table) == 6
    assert table["activation"].tolist() == out.activations.ravel().tolist()


def test_smollm2_has_neurons_for_things(smollm2: Any) -> None:
    texts = [
        "The capital of France is Paris, and the capital of Italy is Rome.",
        "She bought three apples, two pears and a melon at the market on Monday.",
        "def add(a, b):\n    return a + b",
    ]
    result = interp.neurons("12.*", texts, top=3, context=4)
    assert len(result.neurons) == 1536
    assert smollm2.geometry.n_layers == 30
    row = 700
    every = activations(smollm2, texts, "12.700")
    best = sorted(every, reverse=True)[:3]
    np.testing.assert_allclose(result.activations[row], [value for value, _, _ in best], atol=1e-3)
    one = interp.neurons("12.700", texts)
    assert one.inputs == ("gate", "up")
    assert one.promoted_values[0, 0] > 0 > one.suppressed_values[0, 0]
