"""Gemma Scope's folders, 1 and 2, read from files of our own writing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.features.formats.made import WANTED, WIDTHS, D, Drawn, F, files, inputs, only, same
from interp.engine.features.formats import Wanted, read
from interp.engine.features.places import Place
from interp.errors import InputError

SAE = "gemma-scope-2b-pt-res/layer_5/width_16k/average_l0_71"


def weights(d_in: int = D, d_out: int = D) -> dict[str, Tensor]:
    draw = Drawn()
    made = {"w_enc": draw(d_in, F), "w_dec": draw(F, d_out), "b_enc": draw(F), "b_dec": draw(d_out)}
    return {**made, "threshold": draw(F).abs() / 2 + 0.1}


def npz(folder: Path, held: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "params.npz", **{name.replace("w_", "W_"): np.asarray(value) for name, value in held.items()})
    return folder


def jumped(x: Tensor, w: dict[str, Tensor]) -> Tensor:
    pre = x @ w["w_enc"] + w["b_enc"]
    return pre * (pre > w["threshold"])


@pytest.mark.parametrize(
    ("repository", "point"),
    [("gemma-scope-2b-pt-res", "resid_post"), ("models--google--gemma-scope-2b-pt-mlp", "mlp_out")],
)
def test_saes_of_the_first(tmp_path: Path, repository: str, point: str) -> None:
    w, x = weights(), inputs()
    one = only(npz(tmp_path / SAE.replace("gemma-scope-2b-pt-res", repository), w))
    a = jumped(x, w)
    same(one, x, a, a @ w["w_dec"] + w["b_dec"])
    assert (one.reads, one.writes, one.declared) == (Place(5, point), (Place(5, point),), {"l0": 71.0})


def test_of_heads(tmp_path: Path) -> None:
    w, x = weights(WIDTHS["z"], WIDTHS["z"]), inputs(WIDTHS["z"])
    one = only(npz(tmp_path / SAE.replace("-res", "-att"), w))
    a = jumped(x, w)
    same(one, x, a, a @ w["w_dec"] + w["b_dec"])
    assert one.reads == Place(5, "z")


def test_a_transcoder_of_the_first_may_read_with_the_norms_gain(tmp_path: Path) -> None:
    w, x = weights(), inputs()
    found = read(npz(tmp_path / SAE.replace("-res", "-transcoders"), w), WANTED)
    (one,), ((_, other),) = found.dictionaries, found.others[0]
    a = jumped(x, w)
    for way, point in ((one, "mlp_unit"), (other, "mlp_normed")):
        same(way, x, a, a @ w["w_dec"] + w["b_dec"])
        assert (way.kind, way.reads, way.writes) == ("transcoder", Place(5, point), (Place(5, "mlp_out"),))


def test_a_folder_of_layers_and_one_of_them(tmp_path: Path) -> None:
    for layer, l0 in ((5, 71), (6, 30), (6, 90)):
        npz(tmp_path / f"gemma-scope-2b-pt-res/layer_{layer}/width_16k/average_l0_{l0}", weights())
    assert only(tmp_path, Wanted(WIDTHS, 8, layers=(5,))).layer == 5
    with pytest.raises(InputError, match="several dictionaries of L6 resid_post; name the folder of one of them"):
        read(tmp_path, WANTED)
    with pytest.raises(InputError, match="no dictionary of layer 7; it holds 5-6"):
        read(tmp_path, Wanted(WIDTHS, 8, layers=(7,)))


def test_what_a_path_does_not_say_is_typed(tmp_path: Path) -> None:
    npz(tmp_path / "mine", weights())
    with pytest.raises(InputError, match="does not say of which layer it is; add --layer"):
        read(tmp_path / "mine", WANTED)
    with pytest.raises(InputError, match=r"does not say where it reads.*add --site"):
        read(tmp_path / "mine", Wanted(WIDTHS, 8, layers=(3,)))
    assert only(tmp_path / "mine", Wanted(WIDTHS, 8, "resid_pre", (3,))).reads == Place(3, "resid_pre")


def test_what_is_damaged_or_a_pickle_is_refused(tmp_path: Path) -> None:
    folder = npz(tmp_path / SAE, weights())
    whole = (folder / "params.npz").read_bytes()
    for cut in (0, 10, len(whole) // 2, len(whole) - 30):
        (folder / "params.npz").write_bytes(whole[:cut])
        with pytest.raises(InputError, match="cannot be read"):
            read(folder, WANTED)
    np.savez(folder / "params.npz", W_enc=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError, match="holds pickles, which can run code"):
        read(folder, WANTED)
    npz(folder, {**weights(), "b_enc": torch.full((F,), float("nan"))})
    with pytest.raises(InputError, match=r"b_enc of .* holds NaN or infinity"):
        read(folder, WANTED)
    npz(folder, {**weights(), "scaling_factor": torch.full((F,), 2.0)})
    with pytest.raises(InputError, match="holds a scaling_factor"):
        read(folder, WANTED)
    npz(tmp_path / "gemma-scope-2b-pt-res/embedding/width_4k/average_l0_6", weights())
    with pytest.raises(InputError, match="is of the embedding"):
        read(tmp_path / "gemma-scope-2b-pt-res/embedding", WANTED)


def second(folder: Path, held: dict[str, Tensor], **said: Any) -> Path:
    return files(folder, {"architecture": "jump_relu", "l0": 60, "width": F, **said}, params=held)


@pytest.mark.parametrize(
    ("parent", "hook", "point"),
    [
        ("resid_post_all", "", "resid_post"),
        ("attn_out_all", "", "attn_out"),
        ("mlp_out_all", "", "mlp_out"),
        ("x", "model.layers.4.output", "resid_post"),
        ("x", "model.layers.4.post_feedforward_layernorm.output", "mlp_out"),
    ],
)
def test_saes_of_the_second(tmp_path: Path, parent: str, hook: str, point: str) -> None:
    w, x = weights(), inputs()
    one = only(second(tmp_path / parent / "layer_4_width_16k_l0_small", w, hf_hook_point_in=hook))
    a = jumped(x, w)
    same(one, x, a, a @ w["w_dec"] + w["b_dec"])
    assert (one.reads, one.declared) == (Place(4, point), {"l0": 60.0})


def test_attention_of_the_second_by_its_width(tmp_path: Path) -> None:
    folder = tmp_path / "attn_out_all" / "layer_4_width_16k_l0_small"
    assert only(second(folder, weights(WIDTHS["z"], WIDTHS["z"]))).reads == Place(4, "z")


def test_transcoders_of_the_second(tmp_path: Path) -> None:
    w, x = weights(), inputs()
    w["affine_skip_connection"] = Drawn(2)(D, D)
    found = read(second(tmp_path / "transcoder_all" / "layer_4_width_16k_l0_small_affine", w), WANTED)
    (one,) = found.dictionaries
    a = jumped(x, w)
    same(one, x, a, a @ w["w_dec"] + w["b_dec"] + x @ w["affine_skip_connection"])
    assert (one.kind, one.reads, one.writes) == ("transcoder", Place(4, "mlp_normed"), (Place(4, "mlp_out"),))
    turned = {(way.reads.point, bool(torch.equal(way.skip, one.skip))) for _, way in found.others[0]}
    assert turned == {("mlp_normed", False), ("mlp_unit", True), ("mlp_unit", False)}


def test_a_clt_of_the_second(tmp_path: Path) -> None:
    draw, x = Drawn(3), inputs()
    layers = [{**weights(), "w_dec": draw(F, 3, D), "b_dec": draw(D)} for _ in range(3)]
    said = {"architecture": "jump_relu", "hf_hook_point_in": "model.layers.0.pre_feedforward_layernorm.output"}
    held = {f"params_layer_{n}": w for n, w in enumerate(layers)}
    found = read(files(tmp_path / "clt" / "width_262k_l0_medium", said, **held), WANTED)
    assert not found.others
    for n, (one, w) in enumerate(zip(found.dictionaries, layers, strict=True)):
        assert (one.kind, one.reads) == ("clt", Place(n, "mlp_normed"))
        assert one.writes == tuple(Place(to, "mlp_out") for to in range(n, 3))
        a = jumped(x, w)
        for to in range(n, 3):
            same(one, x, a, a @ w["w_dec"][:, to] + (w["b_dec"] if to == n else 0), to - n)


def test_what_the_second_does_not_say(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"does not say where the dictionary reads .*add --site"):
        read(second(tmp_path / "layer_4", weights()), WANTED)
    with pytest.raises(InputError, match="architecture 'batchtopk' is not known"):
        read(second(tmp_path / "mlp_out_all" / "layer_4", weights(), architecture="batch_topk"), WANTED)
