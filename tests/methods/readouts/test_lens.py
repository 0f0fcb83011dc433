"""The lens: against the model's own logits read the long way, exact at the end, trained, saved, and on SmolLM2."""

from __future__ import annotations

import errno
import json
import os
import random
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

import interp
import models
from interp.bundled import MODEL
from interp.engine.model.load import Options, load
from interp.engine.readouts import lens as engine
from interp.engine.readouts import translators
from interp.errors import InputError, Interrupted
from interp.sites import Site
from interp.spec import as_prompt
from real import PROMPT

sys.path.insert(0, str(Path(__file__).parents[3] / "tools"))
from bundled import corpus

pytestmark = pytest.mark.usefixtures("one_thread")

FAMILIES = ("gpt2", "llama", "neox", "bert")
CAUSAL = FAMILIES[:3]


def text(family: str) -> str:
    return "Mary gave the [MASK] to John" if family == "bert" else "Mary gave the drink to John and"


def documents(count: int, seed: int) -> list[str]:
    chance = random.Random(seed)
    return ["".join(corpus.document(chance)) for _ in range(count)]


@cache
def own_head(path: Path) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return what stands between the residual stream and the logits in Hugging Face's own model, loaded apart."""
    hf: Any = AutoModelForMaskedLM if "bert" in path.name else AutoModelForCausalLM
    hf = hf.from_pretrained(path, dtype=torch.float32).eval()
    if "bert" in path.name:
        return hf.cls
    inside = hf.base_model
    norm = next(getattr(inside, name) for name in ("ln_f", "norm", "final_layer_norm") if hasattr(inside, name))
    return lambda stream: hf.get_output_embeddings()(norm(stream))


def naive(model: Any, path: Path, prompt: str, at: str, maps: Any = None) -> torch.Tensor:
    """Return log-probabilities, ``[layer, position, d_vocab]``: Hugging Face's own head on captured streams."""
    tokens = model.encode(as_prompt(prompt))
    sites = [Site(f"resid_{at}", n).hook_name for n in range(model.geometry.n_layers)]
    held = model.activations(tokens, sites)
    with torch.no_grad():
        streams = [held[site][0] if maps is None else maps(n, held[site][0]) for n, site in enumerate(sites)]
        return torch.stack([own_head(path)(stream) for stream in streams]).double().log_softmax(-1)


def check(result: Any, logs: torch.Tensor, end: torch.Tensor) -> None:
    chances = logs.exp()
    best = logs.topk(result.ids.shape[-1])
    np.testing.assert_allclose(result.probabilities, best.values.exp(), atol=1e-5)
    named = logs.gather(-1, torch.tensor(result.ids)).exp()
    np.testing.assert_allclose(result.probabilities, named, atol=1e-5)
    np.testing.assert_allclose(result.entropy, -(chances * logs).sum(-1), atol=1e-4)
    np.testing.assert_allclose(result.kl, (end.exp() * (end - logs)).sum(-1), atol=1e-4)
    target = result.target[1]
    np.testing.assert_allclose(result.target_probability, chances[..., target], atol=1e-5)
    rank = (logs > logs[..., target : target + 1] + 1e-6).sum(-1).numpy()
    assert (result.target_rank == rank).mean() > 0.99
    assert np.abs(result.target_rank - rank).max() <= 1


@pytest.mark.parametrize("at", ["pre", "mid", "post"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_number_is_the_models_own_head_on_the_stream(lend: Any, folder: Any, family: str, at: str) -> None:
    model = lend(family)
    if (family, at) == ("neox", "mid"):
        with pytest.raises(InputError, match="--at pre or post"):
            interp.lens(text(family), at=at)
        return
    logits = model.run(text(family)).logits[0].double().log_softmax(-1)
    check(interp.lens(text(family), at=at, top=7), naive(model, folder(family), text(family), at), logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_after_the_last_layer_it_is_the_model(lend: Any, family: str) -> None:
    model = lend(family)
    result = interp.lens(text(family), top=3)
    logs = model.run(text(family)).logits[0].log_softmax(-1)
    best = logs.topk(3)
    assert (result.ids[-1] == best.indices.numpy()).all()
    np.testing.assert_allclose(result.probabilities[-1], best.values.exp(), atol=1e-6)
    assert result.kl[-1].max() < 1e-6
    answer = interp.predict(text(family))
    assert result.target[0] == answer.top[0][0] or family == "bert"
    assert result.top(model.geometry.n_layers - 1, answer.position)[0][0] == answer.top[0][0]


@pytest.mark.parametrize("family", CAUSAL)
def test_blocks_of_rows_and_of_vocabulary_change_nothing(
    lend: Any, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lend(family)
    whole = interp.lens(text(family), top=6)
    monkeypatch.setattr(engine, "ROWS", 4)
    monkeypatch.setattr(engine, "COLUMNS", 7)
    pieces = interp.lens(text(family), top=6)
    assert (whole.ids == pieces.ids).all()
    assert (whole.target_rank == pieces.target_rank).all()
    for name in ("probabilities", "entropy", "kl", "target_probability"):
        np.testing.assert_allclose(getattr(whole, name), getattr(pieces, name), atol=2e-6)


def test_no_more_than_a_block_of_logits_is_there_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    streams = torch.randn(9, 11, 8, generator=generator)
    readout = engine.Readout(lambda x: x, torch.randn(3000, 8, generator=generator), None)
    seen: list[int] = []
    real = engine._columns

    def watched(found: Any, rows: Any, start: int, stop: int, out: Any) -> Any:
        seen.append(len(rows) * (stop - start))
        return real(found, rows, start, stop, out)

    monkeypatch.setattr(engine, "_columns", watched)
    monkeypatch.setattr(engine, "ROWS", 30)
    monkeypatch.setattr(engine, "COLUMNS", 512)
    found = engine.project(readout, streams, streams[-1], target=2, top=2)
    assert max(seen) <= 30 * 512
    logs = (streams @ readout.weight.T).double().log_softmax(-1)
    np.testing.assert_allclose(found.kl, (logs[-1].exp() * (logs[-1] - logs)).sum(-1), atol=1e-5)
    assert (found.ids == logs.topk(2).indices.numpy()).all()


def test_a_stream_that_is_a_row_of_the_unembedding_predicts_its_token() -> None:
    weight = 20.0 * torch.eye(6)
    readout = engine.Readout(lambda x: x, weight, None)
    found = engine.project(readout, torch.eye(6)[None], torch.zeros(6, 6), target=3, top=1)
    assert found.ids[0, :, 0].tolist() == list(range(6))
    assert found.target_rank[0].tolist() == [1, 1, 1, 0, 1, 1]
    # The end predicts every token alike: ln 6 less, by the mean of the logits, than the log of the sum.
    expected = np.log(np.exp(20) + 5) - 20 / 6 - np.log(6)
    np.testing.assert_allclose(found.kl, expected, rtol=1e-6)
    np.testing.assert_allclose(found.target_probability[0, 0], 1 / (np.exp(20) + 5), rtol=1e-5)


def test_layers_positions_and_a_target_are_chosen(lend: Any) -> None:
    lend("llama")
    whole = interp.lens(text("llama"), target=" and")
    part = interp.lens(text("llama"), target=" and", layer=1, position=(2, 4), top=2)
    assert part.layers == (1,)
    assert part.positions == (2, 4)
    assert (part.ids == whole.ids[1:][:, [2, 4], :2]).all()
    np.testing.assert_allclose(part.kl, whole.kl[1:][:, [2, 4]], atol=1e-6)
    assert part.target[0] == " and"
    assert len(part.to_frame()) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"target": " Marmalade"}, "tokens"),
        ({"target": " "}, "empty"),
        ({"top": 0}, "--top"),
        ({"layer": 9}, "layers are 0–1"),
        ({"position": 99}, "positions are"),
        ({"kind": "tuned"}, "lens-train"),
        ({"kind": "jacobian"}, "JacobianLens"),
        ({"from_": "x.safetensors"}, "--kind"),
        ({"kind": "tuned", "from_": "nowhere.safetensors"}, "nowhere"),
        ({"kind": "tuned", "from_": "x", "at": "mid"}, "x"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(lend: Any, arguments: dict[str, Any], words: str) -> None:
    lend("gpt2")
    with pytest.raises(InputError) as caught:
        interp.lens(text("gpt2"), **arguments)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.usefixtures("clean_session")
def test_a_model_whose_logits_are_changed_by_a_hook_is_refused(folder: Any) -> None:
    model = interp.load(folder("llama"), name="capped")
    point = model.bridge.hook_dict["unembed.hook_out"]
    point.add_hook(lambda tensor, hook: 5 * torch.tanh(tensor / 5))  # noqa: ARG005
    with pytest.raises(InputError, match="or a hook does"):
        interp.lens(text("llama"))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["gemma2", "cohere"])
def test_capped_and_scaled_logits_are_read_as_the_model_makes_them(
    folder: Any, family: str, dtype: str, clean_session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = clean_session.load(folder(family), name=family, dtype=dtype)
    hf = AutoModelForCausalLM.from_pretrained(folder(family), dtype=getattr(torch, dtype)).eval()
    tokens = model.encode(as_prompt(text(family)))
    with torch.no_grad():
        end = hf(torch.tensor([tokens.ids])).logits[0].double().log_softmax(-1)
        sites = [Site("resid_post", n).hook_name for n in range(model.geometry.n_layers)]
        held = model.activations(tokens, sites)
        raw = torch.stack([hf.lm_head(hf.model.norm(held[site][0])) for site in sites])
        logits = 3 * torch.tanh(raw / 3) if family == "gemma2" else raw * 0.25
    monkeypatch.setattr(engine, "COLUMNS", 100)
    result = interp.lens(text(family), top=4)
    logs = logits.double().log_softmax(-1)
    best = logs[-1].topk(4)
    loose = 1e-6 if dtype == "float32" else 2e-3
    np.testing.assert_allclose(result.probabilities[-1], best.values.exp(), atol=loose)
    if dtype == "float32":
        check(result, logs, end)
        assert (result.ids[-1] == best.indices.numpy()).all()
        assert result.kl[-1].max() < 1e-6


def test_an_encoder_without_a_head_is_refused(minilm: Any) -> None:  # noqa: ARG001
    with pytest.raises(InputError, match="no language-model head"):
        interp.lens("a man walks his dog")


@pytest.mark.usefixtures("clean_session")
def test_weights_that_are_nan_are_told_by_layer(folder: Any) -> None:
    model = interp.load(folder("gpt2"), name="broken")
    with torch.no_grad():
        model.hf_model.transformer.h[1].mlp.c_fc.weight[0, 0] = float("nan")
    result = interp.lens(text("gpt2"))
    assert any("NaN, first in layer 1" in note for note in result.notes)
    assert (result.target_rank[1] == -1).all()
    assert np.isfinite(result.entropy[0]).all()
    assert "interp-hatch" in result.html()


@pytest.mark.parametrize("reached", [0, 1, 2, 3])
def test_an_interrupt_keeps_the_positions_that_were_read(
    reached: int, lend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lend("gpt2")
    monkeypatch.setattr(engine, "ROWS", 6)  # two layers and the end: two positions at a time
    prompt = text("gpt2")
    whole = interp.lens(prompt, position="1-7")
    assert "partial" not in repr(whole)
    read = engine._block
    blocks: list[int] = []

    def stop(*given: Any) -> Any:
        if len(blocks) == reached:
            raise KeyboardInterrupt
        blocks.append(1)
        return read(*given)

    monkeypatch.setattr(engine, "_block", stop)
    with pytest.raises(KeyboardInterrupt) as caught:
        interp.lens(prompt, position="1-7")
    assert torch.is_grad_enabled()
    assert isinstance(caught.value, Interrupted) == (reached > 0)
    if not isinstance(caught.value, Interrupted):
        return
    kept = caught.value.result
    assert kept.notes[0] == f"partial: interrupted after {2 * reached} of 7 positions"
    assert repr(kept).endswith(", partial)")
    assert kept.positions == whole.positions[: 2 * reached]
    assert kept.tokens == whole.tokens[: 2 * reached]
    for name in ("ids", "probabilities", "entropy", "kl", "target_probability", "target_rank"):
        np.testing.assert_array_equal(getattr(kept, name), getattr(whole, name)[:, : 2 * reached])
    assert kept.html()
    assert kept.svg()
    assert kept.to_plotly().data
    assert len(kept.to_frame()) == len(whole.layers) * 2 * reached


# -- tuned -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the bundled model's tuned lens, its file, and the model."""
    from interp.interface.session import session

    model = interp.load()
    file = tmp_path_factory.mktemp("lens") / "lens.safetensors"
    result = interp.lens_train(documents(250, seed=1), out=str(file), steps=120, rate=3e-3)
    session.models.clear()
    session.current = None
    return result, file, model


def test_trained_maps_are_closer_to_the_end_on_text_not_seen(trained: Any, clean_session: Any) -> None:
    result, file, model = trained
    assert (result.tuned_kl < result.logit_kl).all()
    assert result.layers == tuple(range(model.geometry.n_layers))
    assert result.loss.shape == (120, 4)
    assert (result.loss[-20:].mean(0) < result.loss[:5].mean(0)).all()
    clean_session.models[model.name], clean_session.current = model, model.name
    held = documents(40, seed=99)
    for at, ends in (("post", 3), ("pre", 4)):
        plain = np.concatenate([interp.lens(one, at=at).kl for one in held], 1).mean(1)
        tuned = [interp.lens(one, at=at, kind="tuned", from_=str(file)) for one in held]
        closer = np.concatenate([one.kl for one in tuned], 1).mean(1)
        assert (closer[:ends] < plain[:ends]).all(), (at, closer, plain)
        if at == "post":
            assert closer[-1] < 1e-6, "after the last layer it is the model"
            assert tuned[0].notes == ()


def test_the_tuned_lens_is_the_affine_map_and_the_models_head(trained: Any, clean_session: Any) -> None:
    _, file, model = trained
    clean_session.models[model.name], clean_session.current = model, model.name
    held = load_file(file)

    def mapped(layer: int, stream: torch.Tensor) -> torch.Tensor:
        if layer == 3:
            return stream
        return stream + stream @ held[f"{layer + 1}.weight"].T + held[f"{layer + 1}.bias"]

    prompt = "The capital of France is"
    result = interp.lens(prompt, kind="tuned", from_=str(file))
    logs = naive(model, MODEL, prompt, "post", mapped)
    check(result, logs, naive(model, MODEL, prompt, "post")[-1])
    against = interp.lens(prompt, kind="tuned", from_=str(file), wrong="Rome")
    assert against.wrong is not None
    assert against.difference is not None
    apart = logs[..., against.target[1]] - logs[..., against.wrong[1]]
    np.testing.assert_allclose(against.difference, apart, atol=1e-4)


def test_training_again_gives_the_same_and_saving_later_too(trained: Any, clean_session: Any, tmp_path: Path) -> None:
    _, _, model = trained
    clean_session.models[model.name], clean_session.current = model, model.name
    again = [interp.lens_train(documents(20, seed=3), steps=4, layer=(1, 3), seed=5) for _ in range(2)]
    np.testing.assert_array_equal(again[0].weights, again[1].weights)
    assert again[0].weights.shape == (2, 128, 128)
    written = again[0].save(tmp_path / "later.safetensors")
    np.testing.assert_array_equal(load_file(written)["3.weight"].numpy(), again[0].weights[1])
    result = interp.lens("The capital of France is", kind="tuned", from_=str(written))
    assert result.layers == (0, 2, 3), "after layers 0 and 2 are the places 1 and 3; after the last none is needed"
    with pytest.raises(InputError, match="no map for layer 1"):
        interp.lens("The capital of France is", kind="tuned", from_=str(written), layer=1)
    assert torch.is_grad_enabled()
    assert all(parameter.grad is None for parameter in model.hf_model.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_maps_can_be_trained_on_every_family(lend: Any, family: str) -> None:
    lend(family)
    texts = [text(family), text(family).replace("Mary", "Anna"), text(family).replace("John", "Bob")] * 3
    result = interp.lens_train(texts, steps=30, rate=3e-3)
    assert (result.tuned_kl < result.logit_kl).all()


def test_an_interrupt_keeps_what_was_trained(trained: Any, clean_session: Any, tmp_path: Path) -> None:
    _, _, model = trained
    clean_session.models[model.name], clean_session.current = model, model.name
    steps: list[int] = []

    def stop(done: int, total: int, what: str) -> None:  # noqa: ARG001
        steps.append(done)
        if done == 7:
            raise KeyboardInterrupt

    clean_session.on_step = stop
    file = tmp_path / "part.safetensors"
    with pytest.raises(Interrupted) as caught:
        interp.lens_train(documents(20, seed=3), steps=50, out=str(file))
    result = caught.value.result
    assert result.steps == 7
    assert steps == list(range(1, 8))
    assert any("7 of 50" in note for note in result.notes)
    assert file.is_file()
    clean_session.on_step = None
    assert interp.lens("The cat", kind="tuned", from_=str(file)).kind == "tuned"


def test_a_full_disk_loses_no_lens(clean_session: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clean_session.load()
    file = tmp_path / "full.safetensors"

    def full_disk(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(translators, "save_file", full_disk)
        result = interp.lens_train(documents(20, seed=3), steps=5, out=str(file))
    assert result.steps == 5
    assert result.saved == ""
    assert any("the lens was not written" in note and "No space left" in note for note in result.notes)
    assert not list(tmp_path.iterdir())
    result.save(file)
    assert interp.lens("The cat", kind="tuned", from_=str(file)).kind == "tuned"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"steps": 0}, "--steps"),
        ({"batch": 0}, "--batch"),
        ({"rate": 0.0}, "--rate"),
        ({"out": "lens.pt"}, ".safetensors"),
        ({"out": "no/such/folder.safetensors"}, "folder"),
        ({"layer": 2}, "layers are 0–1"),
    ],
)
def test_training_that_cannot_be_is_refused_before_it_starts(lend: Any, arguments: dict[str, Any], words: str) -> None:
    model = lend("gpt2")
    before = model.forwards
    with pytest.raises(InputError) as caught:
        interp.lens_train([text("gpt2")], **arguments)
    assert words in str(caught.value)
    assert model.forwards == before


# -- whose lens it is --------------------------------------------------------------------------------------------------


def test_no_text_is_both_learnt_from_and_measured_on(lend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = lend("gpt2")
    kinds = ["one two three four", "five six seven", "Mary gave the drink to John", "the cat sat"]
    seen: list[tuple[int, ...]] = []
    run = type(model).forward

    def forward(self: Any, ids: Any, *more: Any, **options: Any) -> torch.Tensor:
        seen.append(ids[0])
        return run(self, ids, *more, **options)

    monkeypatch.setattr(type(model), "forward", forward)
    result = interp.lens_train(kinds * 10, steps=40, batch=400)
    sizes = {model.encode(as_prompt(kind)).ids: 10 for kind in kinds}
    first = seen[0]
    assert result.tokens == (sum(len(ids) * 10 for ids in sizes if ids != first), len(first))
    assert first not in seen[1:]
    assert set(seen[1:]) == set(sizes) - {first}
    assert interp.lens_train(["one two"] * 3, steps=1).notes == (
        "there is one text alone: the divergences are on what was trained on",
    )


def test_a_lens_of_another_model_is_refused(lend: Any, tmp_path: Path) -> None:
    model = lend("gpt2")
    file = tmp_path / "lens.safetensors"
    zero = {n: (torch.zeros(32, 32), torch.zeros(32)) for n in range(2)}
    translators.save(file, zero, model)
    plain, tuned = interp.lens(text("gpt2")), interp.lens(text("gpt2"), kind="tuned", from_=str(file))
    np.testing.assert_allclose(plain.kl, tuned.kl, atol=1e-6)
    lend("llama")
    with pytest.raises(InputError, match="trained on gpt2"):
        interp.lens(text("llama"), kind="tuned", from_=str(file))
    narrow = load(models.save(tmp_path / "gpt2", "gpt2"), name="gpt2", options=Options(device="cpu"))
    with torch.no_grad():
        narrow.hf_model.transformer.wte.weight.mul_(1.1)
    assert "another state" in translators.load(str(file), "tuned", narrow).notes[0]


def test_files_that_are_no_lens_are_refused(lend: Any, tmp_path: Path) -> None:
    model = lend("gpt2")
    (tmp_path / "text.safetensors").write_text("not safetensors")
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    (tmp_path / "lens.pt").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    for name in ("text.safetensors", "other.safetensors", "lens.pt", "empty", "nothing", "a\0b"):
        with pytest.raises(InputError) as caught:
            translators.load(str(tmp_path / name) if "\0" not in name else name, "tuned", model)
        assert len(str(caught.value).splitlines()) == 1


def test_a_folder_of_the_tuned_lens_package_is_read_and_its_pickle_runs_nothing(
    lend: Any, folder: Any, tmp_path: Path
) -> None:
    model = lend("neox")
    generator = torch.Generator().manual_seed(0)
    held = {f"{n}.weight": 0.1 * torch.randn(32, 32, generator=generator) for n in range(2)}
    held |= {f"{n}.bias": torch.randn(32, generator=generator) for n in range(2)}
    torch.save(held, tmp_path / "params.pt")
    about = {"base_model_name_or_path": "owner/neox", "d_model": 32, "num_hidden_layers": 2, "bias": True}
    (tmp_path / "config.json").write_text(json.dumps(about))
    result = interp.lens(text("neox"), kind="tuned", from_=str(tmp_path), at="pre")
    assert any("owner/neox" in note for note in result.notes)

    def mapped(layer: int, stream: torch.Tensor) -> torch.Tensor:
        return stream + torch.nn.functional.linear(stream, held[f"{layer}.weight"], held[f"{layer}.bias"])

    end = model.run(text("neox")).logits[0].double().log_softmax(-1)
    check(result, naive(model, folder("neox"), text("neox"), "pre", mapped), end)
    (tmp_path / "config.json").write_text(json.dumps({**about, "num_hidden_layers": 12}))
    with pytest.raises(InputError, match="12 layers"):
        interp.lens(text("neox"), kind="tuned", from_=str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps(about))
    marker = tmp_path / "ran"

    class Touch:
        def __reduce__(self) -> Any:
            return (Path.touch, (marker,))

    torch.save({"0.weight": Touch()}, tmp_path / "params.pt")
    with pytest.raises(InputError, match=r"params\.pt"):
        interp.lens(text("neox"), kind="tuned", from_=str(tmp_path))
    assert not marker.exists()


# -- Jacobian ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("clean_session")
def test_the_jacobian_lens_is_transformer_lens_own(folder: Any, tmp_path: Path) -> None:
    from transformer_lens.tools.analysis import JacobianLens

    model = interp.load(folder("llama"), name="own")
    fitted = JacobianLens.fit(
        model.bridge, [text("llama") * 2], corpus="test", skip_first_positions=1, show_progress=False
    )
    fitted.save(str(tmp_path / "lens.pt"), dtype=torch.float32)
    result = interp.lens(text("llama"), kind="jacobian", from_=str(tmp_path / "lens.pt"), top=4)
    ids = torch.tensor([result.provenance.tokens[0]])
    theirs = fitted.readout(model.bridge, ids, return_full_logits=True)
    assert theirs.lens_logits is not None
    assert result.layers == (0, 1)
    for n, layer in enumerate(result.layers):
        logs = theirs.lens_logits[layer].log_softmax(-1)
        np.testing.assert_allclose(result.probabilities[n], logs.topk(4).values.exp(), atol=1e-5)
    (tmp_path / "bad.pt").write_bytes(b"nothing")
    interp.load(folder("neox"), name="other")
    with pytest.raises(InputError, match="is not a Jacobian lens"):
        interp.lens(text("neox"), kind="jacobian", from_=str(tmp_path / "bad.pt"))


# -- pictures, the magic, the real model -------------------------------------------------------------------------------


def test_pictures_say_what_the_arrays_say(lend: Any) -> None:
    lend("gpt2")
    result = interp.lens(text("gpt2"), target=" and")
    page, alone = result.html(), result.svg("dark")
    for shown in (page, alone):
        assert f"{result.target_probability[-1, -1]:.3f}" in shown
        assert f"{int(result.target_rank[-1, -1])}" in shown
        assert "Logit lens" in shown
    figure = result.to_plotly(show="kl")
    assert len(figure.data) == 4
    np.testing.assert_allclose(figure.data[3].z, result.kl, rtol=1e-6)
    assert [trace.visible for trace in figure.data] == [False, False, False, True]
    with pytest.raises(InputError, match="entropy"):
        result.to_plotly(show="entropie")
    assert len(result.text().splitlines()) == 3


def test_a_long_prompt_is_cut_in_the_picture_alone(lend: Any) -> None:
    lend("gpt2")
    result = interp.lens(list(range(5, 45)))
    assert result.kl.shape == (2, 40)
    assert "the last 18 of 40 positions" in result.html()


def test_the_magic_has_the_same_flags(shell: Any, lend: Any, tmp_path: Path) -> None:
    lend("gpt2")
    (tmp_path / "texts.txt").write_text("Mary gave the drink to John\n\nThe cat sat on the mat\n")
    file = tmp_path / "lens.safetensors"
    out = shell.run_cell(f"%interp lens-train --text {tmp_path}/texts.txt --out {file} --steps 3 -o t")
    assert out.success
    assert shell.user_ns["t"].saved == str(file)
    ran = shell.run_cell(f'%%interp lens --kind tuned --from {file} --at pre --target " and" -o r\nMary gave the drink')
    assert ran.success
    assert shell.user_ns["r"].target[0] == " and"


def test_paris_rises_over_the_layers_of_smollm2(smollm2: Any) -> None:
    result = interp.lens(PROMPT, target=" Paris")
    rank, chance = result.target_rank[:, -1], result.target_probability[:, -1]
    assert rank[-1] == 0
    assert chance[-1] == pytest.approx(0.75, abs=0.01)
    assert rank[:10].min() > 500
    assert chance[:20].max() < 1e-3
    assert (rank[-3:] == 0).all()
    assert result.kl[-1].max() < 1e-5
    assert (result.kl[0] > result.kl[-2]).mean() > 0.5
    logs = smollm2.run(PROMPT).logits[0].log_softmax(-1)
    # Products of other shapes, whose float32 sums over the width are rounded as the processor adds them up.
    np.testing.assert_allclose(result.probabilities[-1], logs.topk(5).values.exp(), atol=1e-4)


def test_three_layers_of_smollm2_are_tuned(smollm2: Any) -> None:  # noqa: ARG001
    chance = random.Random(0)
    stories = ["".join(corpus.story(chance, sentences=6)) for _ in range(8)]
    result = interp.lens_train(stories, layer=(5, 15, 25), steps=12, batch=64)
    assert result.weights.shape == (3, 576, 576)
    assert (result.tuned_kl < result.logit_kl).all()


# -- the target beside a wrong answer ---------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["pre", "post"])
@pytest.mark.parametrize("family", [*FAMILIES, "gemma2", "cohere"])
def test_the_difference_is_that_of_the_models_own_head_on_the_stream(
    lend: Any, folder: Any, family: str, at: str
) -> None:
    """Of a cap or a scale of logits, too, which the family's own head in Hugging Face's code leaves to the model."""
    model = lend(family)
    right, wrong = 280, 290
    result = interp.lens(text(family), at=at, target=right, wrong=wrong)
    tokens = model.encode(as_prompt(text(family)))
    sites = [Site(f"resid_{at}", n).hook_name for n in range(model.geometry.n_layers)]
    held = model.activations(tokens, sites)
    after = {"gemma2": lambda x: 3.0 * torch.tanh(x / 3.0), "cohere": lambda x: 0.25 * x}.get(family, lambda x: x)
    with torch.no_grad():
        logits = torch.stack([after(own_head(folder(family))(held[site][0])) for site in sites])
    assert result.difference is not None
    np.testing.assert_allclose(result.difference, logits[..., right] - logits[..., wrong], atol=1e-4)
    assert result.wrong == (model.tokens.string(wrong), wrong)
    if at == "post":
        end = model.run(text(family)).logits[0]
        np.testing.assert_allclose(result.difference[-1], end[:, right] - end[:, wrong], atol=1e-4)
    frame = result.to_frame()
    np.testing.assert_allclose(frame["logit difference"], result.difference.reshape(-1))
    plain = interp.lens(text(family), at=at, target=right)
    assert plain.difference is None
    assert plain.wrong is None
    assert "logit difference" not in plain.to_frame()
    np.testing.assert_array_equal(plain.target_probability, result.target_probability)


def test_a_wrong_answer_is_held_against_the_models_own(lend: Any, tmp_path: Path) -> None:
    lend("llama")
    answer = interp.predict(text("llama")).top
    result = interp.lens(text("llama"), wrong=answer[1][1], layer=[0, 1], position=[-1, 2])
    assert result.target[1] == answer[0][1]
    assert result.difference is not None
    ratio = np.log(answer[0][2] / answer[1][2])
    assert result.difference[-1, 0] == pytest.approx(ratio, abs=1e-4)
    assert f"{result.difference[-1, -1]:+.3f} over {answer[1][0]!r}" in result.summary()
    with pytest.raises(InputError, match="the target itself"):
        interp.lens(text("llama"), target=5, wrong=5)
    page = result.html()
    assert "less that of" in page
    assert "layer by layer" in page
    assert "layer by layer" in result.svg("dark")
    assert len(result.to_plotly(show="difference").data) == 5
    np.testing.assert_array_equal(np.load(result.save(tmp_path / "r.npz"))["difference"], result.difference)
