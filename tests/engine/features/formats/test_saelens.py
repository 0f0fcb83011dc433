"""SAELens' folders, read from files of our own writing, and written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.features.formats.made import WANTED, D, Drawn, F, files, inputs, largest, only, same
from interp.engine.features.dictionary import Act, Dictionary, Taken
from interp.engine.features.formats import read, saelens
from interp.engine.features.places import Place
from interp.errors import InputError

HOOK = "blocks.2.hook_resid_post"


def weights(extra: dict[str, Tensor] | None = None, seed: int = 0) -> dict[str, Tensor]:
    draw = Drawn(seed)
    return {"W_enc": draw(D, F), "W_dec": draw(F, D), "b_enc": draw(F), "b_dec": draw(D), **(extra or {})}


def cfg(**said: Any) -> dict[str, Any]:
    """Return a config of version 6, which has what it says of the model in ``metadata``."""
    metadata = {"hook_name": HOOK, "sae_lens_version": "6.0.0", **said.pop("metadata", {})}
    plain = {"d_in": D, "d_sae": F, "architecture": "standard", "apply_b_dec_to_input": False, "dtype": "float32"}
    return {**plain, "normalize_activations": "none", "metadata": metadata, **said}


def test_a_standard_one(tmp_path: Path) -> None:
    w, x = weights(), inputs()
    one = only(files(tmp_path, cfg(), sae_weights=w))
    a = (x @ w["W_enc"] + w["b_enc"]).clamp(min=0)
    same(one, x, a, a @ w["W_dec"] + w["b_dec"])
    assert (one.kind, one.reads, one.writes) == ("sae", Place(2, "resid_post"), (Place(2, "resid_post"),))


def test_the_decoders_bias_taken_from_the_input(tmp_path: Path) -> None:
    w, x = weights(), inputs()
    old = {"hook_point": HOOK, "d_in": D, "d_sae": F, "activation_fn_str": "relu"}  # before version 4: by default
    one = only(files(tmp_path, old, sae_weights=w))
    a = ((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).clamp(min=0)
    same(one, x, a, a @ w["W_dec"] + w["b_dec"])


@pytest.mark.parametrize("key", ["threshold", "log_threshold"])
def test_jumprelu(tmp_path: Path, key: str) -> None:
    threshold = Drawn(3)(F).abs() + 0.2
    w, x = weights({key: threshold if key == "threshold" else threshold.log()}), inputs()
    one = only(files(tmp_path, cfg(architecture="jumprelu"), sae_weights=w))
    pre = x @ w["W_enc"] + w["b_enc"]
    a = pre * (pre > threshold)
    same(one, x, a, a @ w["W_dec"] + w["b_dec"])


@pytest.mark.parametrize("old", [False, True])
def test_topk(tmp_path: Path, old: bool) -> None:
    w, x = weights(), inputs()
    said = cfg(activation_fn="topk", activation_fn_kwargs={"k": 3}) if old else cfg(architecture="topk", k=3)
    one = only(files(tmp_path, said, sae_weights=w))
    a = largest(x @ w["W_enc"] + w["b_enc"], 3)
    same(one, x, a, a @ w["W_dec"] + w["b_dec"])


def test_topk_by_the_decoders_norms(tmp_path: Path) -> None:
    w, x = weights(), inputs()
    said = cfg(architecture="topk", k=3, rescale_acts_by_decoder_norm=True)
    norms = w["W_dec"].norm(dim=-1)
    a = largest((x @ w["W_enc"] + w["b_enc"]) * norms, 3)
    same(only(files(tmp_path, said, sae_weights=w)), x, a, (a / norms) @ w["W_dec"] + w["b_dec"])


def test_gated(tmp_path: Path) -> None:
    draw = Drawn(4)
    gates = {"b_gate": draw(F), "b_mag": draw(F), "r_mag": draw(F)}
    w, x = {**weights(), **gates}, inputs()
    del w["b_enc"]
    one = only(files(tmp_path, cfg(architecture="gated"), sae_weights=w))
    gate = (x @ w["W_enc"] + w["b_gate"]) > 0
    a = gate * (x @ (w["W_enc"] * w["r_mag"].exp()) + w["b_mag"]).clamp(min=0)
    same(one, x, a, a @ w["W_dec"] + w["b_dec"])


def test_layer_norm_and_constant_norm(tmp_path: Path) -> None:
    w, x = weights(), 3 * inputs() + 1
    mean, std = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
    a = ((x - mean) / (std + 1e-5) @ w["W_enc"] + w["b_enc"]).clamp(min=0)
    one = only(files(tmp_path / "a", cfg(normalize_activations="layer_norm"), sae_weights=w))
    same(one, x, a, (a @ w["W_dec"] + w["b_dec"]) * (std + 1e-5) + mean)
    size = x.norm(dim=-1, keepdim=True) / D**0.5
    a = (x / size @ w["W_enc"] + w["b_enc"]).clamp(min=0)
    one = only(files(tmp_path / "b", cfg(normalize_activations="constant_norm_rescale"), sae_weights=w))
    same(one, x, a, (a @ w["W_dec"] + w["b_dec"]) * size)


def test_centred_writing_weights_and_what_is_not_said_of_them(tmp_path: Path) -> None:
    w, x = weights(), inputs()
    a = ((x - x.mean(-1, keepdim=True)) @ w["W_enc"] + w["b_enc"]).clamp(min=0)
    said = {"model_from_pretrained_kwargs": {"center_writing_weights": True}}
    found = read(files(tmp_path / "a", cfg(metadata=said), sae_weights=w), WANTED)
    same(found.dictionaries[0], x, a, a @ w["W_dec"] + w["b_dec"])
    assert not found.others
    found = read(files(tmp_path / "b", cfg(), sae_weights=w), WANTED)
    assert not found.dictionaries[0].taken.centre
    ((_, other),) = found.others[0]
    same(other, x, a, a @ w["W_dec"] + w["b_dec"])


@pytest.mark.parametrize("form", ["transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder"])
def test_transcoders(tmp_path: Path, form: str) -> None:
    draw, x = Drawn(5), inputs()
    w = weights({"W_dec": draw(F, 4 * D), "b_dec": draw(4 * D), "W_skip": draw(4 * D, D), "threshold": draw(F).abs()})
    hooks = {"hook_name": "blocks.2.ln2.hook_normalized", "hook_name_out": "blocks.2.mlp.hook_post"}
    one = only(files(tmp_path, cfg(architecture=form, d_out=4 * D, metadata=hooks), sae_weights=w))
    pre = x @ w["W_enc"] + w["b_enc"]
    a = (pre * (pre > w["threshold"])) if "jump" in form else pre.clamp(min=0)
    y = a @ w["W_dec"] + w["b_dec"] + (x @ w["W_skip"].T if "skip" in form else 0)
    same(one, x, a, y)
    assert (one.kind, one.reads, one.writes) == ("transcoder", Place(2, "mlp_unit"), (Place(2, "neuron"),))


def made(kind: Any, act: Act, dtype: torch.dtype = torch.float32) -> Dictionary:
    draw = Drawn(6)
    b_dec = draw(D).to(dtype)
    sae = kind == "sae"
    return Dictionary(
        kind,
        Place(1, "resid_pre" if sae else "mlp_normed"),
        (Place(1, "resid_pre" if sae else "mlp_out"),),
        draw(F, D).to(dtype),
        draw(F).to(dtype),
        (draw(F, D).to(dtype),),
        (b_dec,),
        act,
        Taken(centre=sae, scale=2.0 if dtype == torch.float32 else 1.0, offset=b_dec if sae else None),
        None if sae else draw(D, D).to(dtype),
        {"fvu": 0.125, "l0": 3.0},
    )


@pytest.mark.parametrize("kind", ["sae", "transcoder"])
@pytest.mark.parametrize(
    "act",
    [
        Act(),
        Act("topk", k=4),
        Act("jumprelu", threshold=torch.tensor([0.25])),
        Act("jumprelu", threshold=Drawn(7)(F).abs()),
        Act("gated", scale=Drawn(8)(F).exp(), magnitude=Drawn(9)(F)),
    ],
    ids=lambda act: act.kind,
)
def test_what_is_written_reads_back(tmp_path: Path, kind: str, act: Act) -> None:
    one, x = made(kind, act), inputs()
    saelens.write(tmp_path / "new" / "folder", one, said={"sample": ["Some text."], "seed": 3})
    found = read(tmp_path / "new" / "folder", WANTED)
    (back,) = found.dictionaries
    assert (found.said["sample"], found.said["seed"]) == (["Some text."], 3)
    assert (back.kind, back.reads, back.writes, back.declared) == (one.kind, one.reads, one.writes, one.declared)
    assert not found.others
    codes = one.encode(x)
    assert (codes.dense() > 0).any()
    torch.testing.assert_close(back.encode(x).dense(), codes.dense(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(back.output(back.encode(x), x), one.output(codes, x), rtol=1e-5, atol=1e-5)


def test_half_precision_is_kept_bit_by_bit(tmp_path: Path) -> None:
    one = made("transcoder", Act("topk", k=4), torch.float16)
    saelens.write(tmp_path, one)
    back = only(tmp_path)
    for before, after in ((one.encoder, back.encoder), (one.bias, back.bias), (one.decoders[0], back.decoders[0])):
        assert after.dtype == torch.float16
        assert torch.equal(before, after)
    assert torch.equal(one.skip, back.skip)


def test_what_the_format_has_no_place_for_is_not_written(tmp_path: Path) -> None:
    one = made("sae", Act())
    object.__setattr__(one, "taken", Taken(offset=torch.ones(D)))
    with pytest.raises(InputError, match="no place for what is taken from the input"):
        saelens.write(tmp_path, one)
    one = made("transcoder", Act())
    object.__setattr__(one, "taken", Taken(normed="layer"))
    with pytest.raises(InputError, match="no transcoders whose input is normalised"):
        saelens.write(tmp_path, one)
    object.__setattr__(one, "kind", "clt")
    with pytest.raises(InputError, match="no cross-layer transcoders"):
        saelens.write(tmp_path, one)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"architecture": "matching_pursuit"}, "architecture 'matching_pursuit' is not known"),
        ({"activation_fn": "tanh-relu"}, "activation 'tanh-relu' is not known"),
        ({"normalize_activations": "expected_average_only_in"}, "fold the factor into the weights"),
        ({"normalize_activations": "rms"}, "normalize_activations 'rms' is not known"),
        ({"hook_head_index": 3}, "reads one head alone"),
        ({"architecture": "topk"}, "lacks k, which should be a whole number"),
        ({"architecture": "topk", "k": F + 1}, "k 11 is not from 1 to the 10 features"),
        ({"architecture": "transcoder", "normalize_activations": "layer_norm"}, "cannot be represented"),
        ({"d_in": "six"}, "says 'six' for d_in"),
        ({"metadata": {"hook_name": "hook_embed"}}, "made for 'hook_embed', where none can be read"),
        ({"metadata": {"hook_name": "blocks.9.hook_resid_post"}}, "is of layer 9, and this model has layers 0–7"),
        ({"metadata": {"hook_name": None}}, "lacks hook_name"),
    ],
)
def test_what_cannot_be_represented_is_refused_by_name(tmp_path: Path, said: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(files(tmp_path, cfg(**said), sae_weights=weights()), WANTED)


def test_a_factor_that_the_config_says_not_to_use(tmp_path: Path) -> None:
    folder = files(tmp_path, cfg(), sae_weights=weights({"scaling_factor": torch.full((F,), 2.0)}))
    with pytest.raises(InputError, match=r"scaling_factor that its cfg\.json says not to use"):
        read(folder, WANTED)
    (folder / "cfg.json").write_text(json.dumps(cfg(finetuning_scaling_factor=True)))
    w, x = weights(), inputs()
    a = (x @ w["W_enc"] + w["b_enc"]).clamp(min=0)
    same(only(folder), x, a, 2 * a @ w["W_dec"] + w["b_dec"])
