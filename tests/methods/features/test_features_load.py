"""Loading features: what they are worth on a model, which way is taken where files leave it open, and refusals."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import dictionaries
import interp
from interp.engine import memory
from interp.engine.features import formats, held, places
from interp.engine.features.dictionary import Act, Dictionary
from interp.engine.features.formats import saelens
from interp.engine.features.places import Place
from interp.errors import InputError
from interp.methods._shared import features as shared
from interp.methods._shared.features import SAMPLE, features_of
from interp.spec import Prompt

FAMILIES = ("gpt2", "llama", "neox")


def read(model: Any, ids: list[int], place: Place) -> Tensor:
    """Return a plain run's values at a place, past everything of ours but the hook's name."""
    found: list[Tensor] = []

    def keep(tensor: Tensor, hook: Any) -> None:  # noqa: ARG001
        found.append(tensor.detach().clone())

    with torch.no_grad():
        model.bridge.run_with_hooks(torch.tensor([ids]), fwd_hooks=[(place.hook(model), keep)])
    return found[0][0].flatten(1)


def loss(model: Any, ids: list[int], place: Place, value: Tensor | None) -> float:
    """Return the summed cross-entropy of a prompt with `value` in a place, or as it is."""

    def put(tensor: Tensor, hook: Any) -> Tensor:  # noqa: ARG001
        return tensor if value is None else value[None]

    with torch.no_grad():
        logits = model.bridge.run_with_hooks(torch.tensor([ids]), fwd_hooks=[(place.hook(model), put)])[0, :-1]
    return float(torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="sum"))


def random(model: Any, kind: Any, reads: Place, writes: Place, act: Act, **more: Any) -> Dictionary:
    g, widths = torch.Generator().manual_seed(0), places.widths(model)
    d_in, d_out, width = widths[reads.point], widths[writes.point], 24
    encoder = torch.randn(width, d_in, generator=g) / d_in**0.5
    decoder = torch.randn(width, d_out, generator=g) / width
    return Dictionary(
        kind, reads, (writes,), encoder, torch.zeros(width), (decoder,), (torch.zeros(d_out),), act, **more
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("point", ["resid_pre", "resid_post", "attn_out", "mlp_out", "z", "neuron"])
def test_one_that_gives_back_all_it_reads(family: str, point: str, lend: Any, tmp_path: Path) -> None:
    model = lend(family)
    dictionaries.written(tmp_path, places.widths(model)[point], (0, 1), point)
    result = interp.features_load(tmp_path, name="all")
    assert result.reads == result.writes == (point, point)
    assert result.layers.tolist() == [0, 1]
    np.testing.assert_allclose(result.measured[:, 0], 0, atol=1e-9)
    np.testing.assert_allclose(result.measured[:, 3], 1, atol=1e-4)
    assert result.notes == ()
    assert held.current(model).name == "all"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_figures_are_those_of_the_definitions(family: str, lend: Any, tmp_path: Path) -> None:
    """FVU, L0, dead share and recovered loss by plain hooks on the bridge, prompt by prompt."""
    model = lend(family)
    reads, writes = Place(1, "mlp_normed"), Place(1, "mlp_out")
    one = random(model, "transcoder", reads, writes, Act("topk", k=3))
    saelens.write(tmp_path, one, said={"sample": list(SAMPLE[:2])})
    result = interp.features_load(tmp_path)
    ids = [list(prompt) for prompt in result.provenance.prompts]
    bos = model.tokens.tokenizer.bos_token_id
    made, expected, active = [], [], []
    losses = np.zeros(3)
    for prompt in ids:
        first = int(prompt[0] == bos)
        x, y = read(model, prompt, reads), read(model, prompt, writes)
        pre = x @ one.encoder.T
        a = torch.where(pre >= pre.topk(3).values[:, -1:], pre.clamp(min=0), 0)
        out = a @ one.decoders[0]
        made.append(out[first:])
        expected.append(y[first:])
        active.append(a[first:] > 0)
        for n, value in enumerate((None, torch.zeros_like(out), out)):
            losses[n] += loss(model, prompt, writes, value)
    out, y, fired = (torch.cat(parts) for parts in (made, expected, active))
    fvu = float((out - y).square().sum() / (y - y.mean(0)).square().sum())
    recovered = (losses[1] - losses[2]) / (losses[1] - losses[0])
    wanted = [fvu, float(fired.sum() / len(y)), 1 - float(fired.any(0).double().mean()), recovered]
    np.testing.assert_allclose(result.measured[0], wanted, rtol=2e-3, atol=1e-4)
    assert result.tokens.tolist() == [len(y)]
    assert 90 < sum(map(len, ids)) <= shared.TOKENS


def test_what_it_is_measured_on(lend: Any, tmp_path: Path) -> None:
    model = lend("gpt2")
    folder = dictionaries.written(tmp_path / "a", model.geometry.d_model)
    ids = list(model.tokens.encode(Prompt("The cat sat on it.")).ids)
    assert interp.features_load(folder).provenance.tokens == [ids]
    (tmp_path / "own.txt").write_text("Mary gave a drink to John.\n\nAlice met Bob.")
    assert len(interp.features_load(folder, text=str(tmp_path / "own.txt")).provenance.tokens) == 2
    saelens.write(tmp_path / "b", dictionaries.perfect(model.geometry.d_model))
    interp.features_load(tmp_path / "b")
    assert held.current(model).sample == SAMPLE


def test_another_place_is_a_doubt_that_reaches_what_reads_them(lend: Any, tmp_path: Path) -> None:
    model = lend("gpt2")
    one = random(model, "sae", Place(1, "resid_post"), Place(1, "resid_post"), Act(), declared={"fvu": 0.1})
    saelens.write(tmp_path, replace(one, decoders=(one.decoders[0] * 50,)))
    result = interp.features_load(tmp_path, name="wrong")
    assert re.search(
        r"features of L1 resid_post: FVU \S+ is worse than the mean: the place, the layer or", result.notes[0]
    )
    assert list(result.provenance.features) == ["wrong"]

    def command(operation: Any) -> Any:
        assert features_of(model).name == features_of(model, "wrong").name == "wrong"
        return model.finished(interp.results.Result(), operation)

    later = model.operate("later", {}, command)
    assert later.notes == result.notes
    assert later.provenance.features == {"wrong": held.current(model).digest}
    assert interp.features().notes == tuple(f"wrong: {note}" for note in result.notes)


@pytest.mark.parametrize(("fvu", "l0", "said"), [(0.5, None, ""), (0.0, 3.0, "declared"), (None, 1e4, "declared")])
def test_what_is_declared_is_shown_and_compared(
    fvu: float | None, l0: float | None, said: str, lend: Any, tmp_path: Path
) -> None:
    model = lend("gpt2")
    figures = {name: value for name, value in (("fvu", fvu), ("l0", l0)) if value is not None}
    saelens.write(tmp_path, dictionaries.perfect(model.geometry.d_model, **figures))
    result = interp.features_load(tmp_path)
    frame = result.to_frame()
    for name in ("fvu", "l0"):
        np.testing.assert_equal(frame[f"{name} declared"][0], figures.get(name, np.nan))
    assert bool(result.notes) == bool(said)
    assert all(said in note for note in result.notes)
    for shown in (result.text(), result.html()):
        assert f"({l0 or fvu:.3g})" in shown


def test_a_stream_that_was_centred_is_found_out(lend: Any, tmp_path: Path) -> None:
    """Of a dictionary that was made for centred streams, whose files say nothing of it."""
    model = lend("gpt2")
    d, place = model.geometry.d_model, Place(1, "resid_post")
    # It has features for the directions that sum to zero, and a bias that cuts off whatever is along the mean.
    flat = torch.eye(d) - 1 / d
    both = torch.cat([flat, -flat])
    away = torch.cat([flat + 5 / d, -flat + 5 / d])
    one = Dictionary("sae", place, (place,), away, torch.zeros(2 * d), (both,), (torch.zeros(d),))
    saelens.write(tmp_path, one)
    said = json.loads((tmp_path / "cfg.json").read_text())
    del said["interp"]
    (tmp_path / "cfg.json").write_text(json.dumps(said))
    result = interp.features_load(tmp_path)
    assert "read as centred over its dims, of which their files say nothing: FVU" in result.notes[0]
    assert held.current(model).at(1).taken.centre
    assert result.measured[0, 0] < 1e-6


@pytest.mark.parametrize("point", ["mlp_normed", "mlp_unit"])
def test_with_the_norms_gain_or_without(point: str, clean_session: Any, tmp_path: Path) -> None:
    """Of a Gemma Scope transcoder, whose files do not say: the best linear map of either, split into two signs."""
    model = clean_session.load(device="cpu")
    d, (x, y) = model.geometry.d_model, (Place(2, point), Place(2, "mlp_out"))
    prompts = [list(model.tokens.encode(Prompt(text)).ids) for text in SAMPLE[:3]]
    read_, written = (torch.cat([read(model, ids, place) for ids in prompts]).double() for place in (x, y))
    best = torch.linalg.lstsq(read_, written).solution.float()
    folder = tmp_path / "gemma-scope-2b-pt-transcoders" / "layer_2" / "width_1k" / "average_l0_128"
    folder.mkdir(parents=True)
    both = torch.cat([torch.eye(d), -torch.eye(d)], 1)
    zeros = {"b_enc": np.zeros(2 * d), "b_dec": np.zeros(d), "threshold": np.zeros(2 * d)}
    np.savez(folder / "params.npz", W_enc=both, W_dec=torch.cat([best, -best]), **zeros)
    result = interp.features_load(folder)
    assert result.reads == (point,)
    assert result.measured[0, 0] < 0.3
    said = "read with the norm's gain, of which their files say nothing: FVU"
    assert [said in note for note in result.notes] == ([True] if point == "mlp_normed" else [])


def test_square_matrices_the_right_way_round(lend: Any, tmp_path: Path) -> None:
    model = lend("gpt2")
    d = model.geometry.d_model
    turn = torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(1)))[0]
    folder = tmp_path / "layers.1"
    folder.mkdir()
    (folder / "cfg.json").write_text(json.dumps({"d_in": d, "num_latents": d, "k": d}))
    bias = torch.full((d,), 50.0)  # so that all are active, and the whole is linear
    b_dec = -(bias @ turn)
    # As the shape of a matrix that is not square would say it, this encoder is transposed.
    save_file(
        {
            "encoder.weight": turn.T.contiguous(),
            "encoder.bias": bias + b_dec @ turn.T,
            "W_dec": turn.contiguous(),
            "b_dec": b_dec,
        },
        folder / "sae.safetensors",
    )
    result = interp.features_load(folder)
    assert "its encoder transposed" in result.notes[0]
    assert result.measured[0, 0] < 1e-6


def test_features_are_listed_replaced_and_freed(shell: Any, lend: Any, tmp_path: Path) -> None:
    model = lend("gpt2")
    folder = dictionaries.written(tmp_path / "mine", model.geometry.d_model, (0, 1))
    assert "no features are loaded" in repr(interp.features())
    interp.features_load(folder)
    interp.features_load(folder, layer=1, name="second")
    listed = interp.features()
    assert (listed.sets, listed.current) == (("mine", "mine", "second"), "second")
    assert "mine, second (current): 3 dictionaries" in repr(listed)
    interp.features_load(folder, layer=0)
    assert interp.features().sets == ("second", "mine")
    assert ("features", "mine, second") in interp.status().rows
    assert shell.run_cell("%interp unload second").result.title == "second is unloaded"
    assert interp.features().sets == ("mine",)
    with pytest.raises(InputError, match=r"'min' is not loaded \(did you mean mine\?\); loaded: gpt2.*, mine"):
        interp.unload("min")
    assert "interp.features_load(" in interp.features_load(folder).code()


def test_in_half_precision_and_on_a_model_without_a_tokenizer(clean_session: Any, folder: Any, tmp_path: Path) -> None:
    model = interp.load(folder("gpt2"), dtype="bfloat16", device="cpu", name="half")
    result = interp.features_load(dictionaries.written(tmp_path, model.geometry.d_model))
    assert held.current(model).at(0).encoder.dtype == torch.bfloat16
    assert result.measured[0, 0] < 1e-3
    clean_session.load(model.hf_model, copy=True, name="bare")
    result = interp.features_load(tmp_path, model="bare")
    assert sum(map(len, result.provenance.tokens)) == shared.TOKENS
    assert result.measured[0, 0] < 1e-3


def test_a_model_that_reads_in_both_directions_has_no_loss_to_recover(lend: Any, tmp_path: Path) -> None:
    model = lend("bert")
    result = interp.features_load(dictionaries.written(tmp_path, model.geometry.d_model))
    assert np.isnan(result.measured[0, 3])
    assert result.measured[0, 0] < 1e-6
    assert "—" in result.text()


def test_a_cross_layer_transcoder(lend: Any, tmp_path: Path) -> None:
    model = lend("llama")
    d, layers = model.geometry.d_model, model.geometry.n_layers
    g = torch.Generator().manual_seed(3)
    for n in range(layers):
        own = {
            f"W_enc_{n}": torch.randn(20, d, generator=g),
            f"b_enc_{n}": torch.zeros(20),
            f"b_dec_{n}": torch.ones(d),
        }
        save_file(own, tmp_path / f"W_enc_{n}.safetensors")
        save_file({f"W_dec_{n}": torch.randn(20, layers - n, d, generator=g)}, tmp_path / f"W_dec_{n}.safetensors")
    result = interp.features_load(tmp_path)
    ids = [list(prompt) for prompt in result.provenance.prompts]
    held_ = [
        (load_file(tmp_path / f"W_enc_{n}.safetensors"), load_file(tmp_path / f"W_dec_{n}.safetensors")) for n in (0, 1)
    ]
    made, expected = [], []
    for prompt in ids:
        first = int(prompt[0] == model.tokens.tokenizer.bos_token_id)
        codes = [(read(model, prompt, Place(n, "mlp_in")) @ held_[n][0][f"W_enc_{n}"].T).clamp(min=0) for n in (0, 1)]
        out = codes[0] @ held_[0][1]["W_dec_0"][:, 1] + codes[1] @ held_[1][1]["W_dec_1"][:, 0] + 1
        made.append(out[first:])
        expected.append(read(model, prompt, Place(1, "mlp_out"))[first:])
    out, y = torch.cat(made), torch.cat(expected)
    fvu = float((out - y).square().sum() / (y - y.mean(0)).square().sum())
    assert result.measured[1, 0] == pytest.approx(fvu, rel=1e-3)
    assert result.writes[0] == f"mlp_out of 0-{layers - 1}"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nothing/here/at/../all", "climbs out of its repository"),
        ("nothing here", "there is no folder 'nothing here'; give a folder of dictionaries, a hub name, or bundled"),
        ("", "the path is blank"),
        ("owner/name", "could not be fetched"),
        ("owner/name/layer_5", "could not be fetched"),
    ],
)
def test_what_is_not_there(given: str, message: str, lend: Any) -> None:
    lend("gpt2")
    with pytest.raises(InputError, match=re.escape(message)):
        interp.features_load(given)


def test_what_does_not_fit(lend: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = lend("gpt2")
    d = model.geometry.d_model
    folder = dictionaries.written(tmp_path / "a", d)
    with pytest.raises(InputError, match="is a file; give the folder that it is in"):
        interp.features_load(folder / "layer_0" / "cfg.json")
    with pytest.raises(InputError, match=rf"reads {d} numbers a position, and this model's neuron is {4 * d} wide; as"):
        interp.features_load(folder, site="neuron")
    with pytest.raises(InputError, match="no dictionary of layer 1; it holds 0"):
        interp.features_load(folder, layer=1)
    with pytest.raises(InputError, match="site 'resid' is not one of resid_pre"):
        interp.features_load(folder, site="resid")
    with pytest.raises(InputError, match="--name is blank"):
        interp.features_load(folder, name=" ")
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1000)  # noqa: ARG005
    with pytest.raises(
        InputError, match=r"the dictionaries take .* and 1.0 kB is free on cpu; load fewer with --layer"
    ):
        interp.features_load(folder)
    assert interp.features().sets == ()


def test_a_hub_name_fetches_no_code_and_only_its_folder(
    lend: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = lend("gpt2")
    dictionaries.written(tmp_path / "blocks", model.geometry.d_model)
    asked: dict[str, Any] = {}

    def snapshot(repository: str, *, revision: Any, allow_patterns: list[str]) -> str:
        asked.update(repository=repository, revision=revision, patterns=allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr("interp.engine.model.load.hub.snapshot_download", snapshot)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    result = interp.features_load("owner/name/blocks")
    assert (asked["repository"], result.sources) == ("owner/name", ("owner/name/blocks",))
    assert all(pattern.startswith("blocks/") for pattern in asked["patterns"])
    allowed = {pattern.rpartition("/")[2] for pattern in asked["patterns"]}
    assert allowed == {"*.json", "*.yaml", "*.npz", "*.safetensors", "ae.pt"}


def test_every_format_is_claimed_by_one_module(tmp_path: Path) -> None:
    assert len(set(formats.MODULES)) == len(formats.MODULES)
    with pytest.raises(InputError, match=", ".join(formats.MODULES)):
        formats.read(tmp_path, formats.Wanted({}, 1))
