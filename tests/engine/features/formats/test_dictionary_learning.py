"""dictionary_learning's folders, read from files of our own writing."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.features.formats.made import WANTED, WIDTHS, D, Drawn, F, inputs, largest, only, same
from interp.engine.features.formats import Wanted, read
from interp.engine.features.places import Place
from interp.errors import InputError


def linear() -> dict[str, Tensor]:
    draw = Drawn()
    return {"encoder.weight": draw(F, D), "encoder.bias": draw(F), "decoder.weight": draw(D, F)}


def folder(path: Path, form: str, held: Any, **trainer: Any) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    said = {"dict_class": form, "layer": 3, "activation_dim": D, "dict_size": F, **trainer}
    (path / "config.json").write_text(json.dumps({"trainer": said, "buffer": {"d_submodule": D, "io": "out"}}))
    torch.save(held, path / "ae.pt")
    return path


def test_autoencoders(tmp_path: Path) -> None:
    w, x = linear(), inputs()
    w["bias"] = Drawn(1)(D)
    one = only(folder(tmp_path / "a", "AutoEncoder", w))
    a = ((x - w["bias"]) @ w["encoder.weight"].T + w["encoder.bias"]).clamp(min=0)
    same(one, x, a, a @ w["decoder.weight"].T + w["bias"])
    assert one.reads == Place(3, "resid_post")
    w["decoder.bias"] = w.pop("bias")
    one = only(folder(tmp_path / "b", "AutoEncoderNew", w, submodule_name="mlp_out_layer_4"))
    a = (x @ w["encoder.weight"].T + w["encoder.bias"]).clamp(min=0)
    same(one, x, a, a @ w["decoder.weight"].T + w["decoder.bias"])
    assert one.reads == Place(4, "mlp_out")


def test_gated(tmp_path: Path) -> None:
    draw, x = Drawn(2), inputs()
    w = {"encoder.weight": draw(F, D), "decoder.weight": draw(D, F), "decoder_bias": draw(D)}
    w |= {"r_mag": draw(F), "gate_bias": draw(F), "mag_bias": draw(F)}
    pre = (x - w["decoder_bias"]) @ w["encoder.weight"].T
    a = (pre + w["gate_bias"] > 0) * (w["r_mag"].exp() * pre + w["mag_bias"]).clamp(min=0)
    same(only(folder(tmp_path, "GatedAutoEncoder", w)), x, a, a @ w["decoder.weight"].T + w["decoder_bias"])


def test_topk_and_batch_topk(tmp_path: Path) -> None:
    w, x = linear(), inputs()
    w |= {"b_dec": Drawn(1)(D), "k": torch.tensor(3, dtype=torch.int), "threshold": torch.tensor(0.75)}
    pre = (x - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"]
    a = largest(pre, 3)
    same(only(folder(tmp_path / "a", "AutoEncoderTopK", w, k=3)), x, a, a @ w["decoder.weight"].T + w["b_dec"])
    a = pre * (pre > 0.75)
    same(only(folder(tmp_path / "b", "BatchTopKSAE", w, k=3)), x, a, a @ w["decoder.weight"].T + w["b_dec"])
    w["threshold"] = torch.tensor(-1.0)
    with pytest.raises(InputError, match="has no threshold yet"):
        read(folder(tmp_path / "c", "BatchTopKSAE", w, k=3), WANTED)


@pytest.mark.parametrize("form", ["JumpReluAutoEncoder", "MatryoshkaBatchTopKSAE"])
def test_those_that_are_no_modules_of_torch(tmp_path: Path, form: str) -> None:
    draw, x = Drawn(4), inputs()
    threshold = draw(F).abs() if form == "JumpReluAutoEncoder" else torch.tensor(0.5)
    w = {"W_enc": draw(D, F), "b_enc": draw(F), "W_dec": draw(F, D), "b_dec": draw(D), "threshold": threshold}
    pre = (x if form == "JumpReluAutoEncoder" else x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    a = pre * (pre > threshold)
    same(only(folder(tmp_path, form, w, k=3)), x, a, a @ w["W_dec"] + w["b_dec"])


def test_what_it_declares_is_read(tmp_path: Path) -> None:
    folder(tmp_path, "AutoEncoder", {**linear(), "bias": torch.zeros(D)})
    said = {"frac_variance_explained": 0.75, "l0": 20.5, "frac_recovered": 0.9, "loss_original": 3.2}
    (tmp_path / "eval_results.json").write_text(json.dumps(said))
    assert only(tmp_path).declared == {"fvu": 0.25, "l0": 20.5, "ce_recovered": 0.9}


class Module:
    """What a pickle can make: any class of its own."""


def test_a_pickle_is_refused_with_the_line_that_saves_it_anew(tmp_path: Path) -> None:
    folder(tmp_path, "AutoEncoder", Module())
    with pytest.raises(InputError, match=r"pickle that runs code .* torch\.save\(ae\.state_dict\(\), 'ae\.pt'\)"):
        read(tmp_path, WANTED)
    (tmp_path / "ae.pt").write_bytes(pickle.dumps(Module()))
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path, WANTED)
    folder(tmp_path, "AutoEncoder", {"encoder": {"weight": torch.zeros(2)}})
    with pytest.raises(InputError, match="holds no weights by name"):
        read(tmp_path, WANTED)


@pytest.mark.parametrize("cut", [0, 20, 0.5, 0.98])
def test_a_file_that_is_cut_off(tmp_path: Path, cut: float) -> None:
    folder(tmp_path, "AutoEncoder", {**linear(), "bias": torch.zeros(D)})
    whole = (tmp_path / "ae.pt").read_bytes()
    (tmp_path / "ae.pt").write_bytes(whole[: int(cut if cut >= 1 else cut * len(whole))])
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path, WANTED)


def test_what_is_not_known_is_refused_by_name(tmp_path: Path) -> None:
    held = {**linear(), "bias": torch.zeros(D)}
    with pytest.raises(InputError, match="dict_class 'CrossCoder' is not known"):
        read(folder(tmp_path / "a", "CrossCoder", held), WANTED)
    with pytest.raises(InputError, match="submodule 'embed' is not known here"):
        read(folder(tmp_path / "b", "AutoEncoder", held, submodule_name="embed"), WANTED)
    path = folder(tmp_path / "c", "AutoEncoder", held)
    (path / "config.json").write_text(json.dumps({"trainer": {"layer": 3}, "buffer": {"io": "in_and_out"}}))
    with pytest.raises(InputError, match="reads a module's input"):
        read(path, WANTED)
    with pytest.raises(InputError, match="does not say of which layer"):
        read(folder(tmp_path / "d", "AutoEncoder", held, layer=None), WANTED)
    assert only(tmp_path / "d", Wanted(WIDTHS, 8, layers=(6,))).layer == 6
