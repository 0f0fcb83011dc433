"""circuit-tracer's transcoders, read from files of our own writing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from engine.features.formats.made import WANTED, WIDTHS, D, Drawn, F, files, inputs, largest, same
from interp.engine.features.formats import Wanted, read
from interp.engine.features.places import Place
from interp.errors import InputError

LAYERS = 3


def plt(seed: int = 0) -> dict[str, Tensor]:
    draw = Drawn(seed)
    return {"W_enc": draw(F, D), "W_dec": draw(F, D), "b_enc": draw(F), "b_dec": draw(D)}


def clt(folder: Path, threshold: bool = True) -> list[dict[str, Tensor]]:
    """Write a CLT, two files a layer; return its tensors by their names without the layer."""
    draw, held = Drawn(5), []
    for n in range(LAYERS):
        w = {"W_enc": draw(F, D), "b_enc": draw(F), "b_dec": draw(D), "W_dec": draw(F, LAYERS - n, D)}
        if threshold:
            w["threshold"] = draw(F).abs() / 2 + 0.1
        held.append(w)
        read_ = {f"W_enc_{n}": {f"{name}_{n}": tensor for name, tensor in w.items() if name != "W_dec"}}
        files(folder, **read_, **{f"W_dec_{n}": {f"W_dec_{n}": w["W_dec"]}})
    return held


def test_per_layer_ones(tmp_path: Path) -> None:
    x = inputs()
    held = [{**plt(n), "W_skip": Drawn(20 + n)(D, D)} for n in range(LAYERS)]
    files(tmp_path, **{f"layer_{n}": w for n, w in enumerate(held)})
    found = read(tmp_path, WANTED)
    for n, (one, w) in enumerate(zip(found.dictionaries, held, strict=True)):
        a = (x @ w["W_enc"].T + w["b_enc"]).clamp(min=0)
        same(one, x, a, a @ w["W_dec"] + w["b_dec"] + x @ w["W_skip"].T)
        assert (one.kind, one.reads, one.writes) == ("transcoder", Place(n, "mlp_normed"), (Place(n, "mlp_out"),))
        assert [way.reads.point for _, way in found.others[n]] == ["mlp_unit"]


def test_with_a_threshold_and_the_hooks_that_the_config_names(tmp_path: Path) -> None:
    w, x = plt(), inputs()
    w["activation_function.threshold"] = Drawn(3)(1, F).abs()
    files(tmp_path, layer_2=w)
    said = 'model_kind: transcoder_set\nfeature_input_hook: "ln2.hook_normalized"\nfeature_output_hook: hook_mlp_out\n'
    (tmp_path / "config.yaml").write_text(said)
    found = read(tmp_path, WANTED)
    (one,) = found.dictionaries
    pre = x @ w["W_enc"].T + w["b_enc"]
    a = pre * (pre > w["activation_function.threshold"])
    same(one, x, a, a @ w["W_dec"] + w["b_dec"])
    assert (one.reads, found.others) == (Place(2, "mlp_unit"), {})


def test_topk_by_the_config_or_by_the_file(tmp_path: Path) -> None:
    w, x = plt(), inputs()
    a = largest(x @ w["W_enc"].T + w["b_enc"], 4)
    y = a @ w["W_dec"] + w["b_dec"]
    files(tmp_path / "a", layer_0=w)
    (tmp_path / "a" / "config.yaml").write_text("activation: topk\nk: 4\n")
    same(read(tmp_path / "a", WANTED).dictionaries[0], x, a, y)
    files(tmp_path / "b", layer_0=w | {"k": torch.tensor(4)})
    same(read(tmp_path / "b", WANTED).dictionaries[0], x, a, y)
    (tmp_path / "a" / "config.yaml").write_text("activation: topk\n")
    with pytest.raises(InputError, match="should say k, from 1 to the 10 features"):
        read(tmp_path / "a", WANTED)


@pytest.mark.parametrize("threshold", [False, True])
def test_cross_layer_ones(tmp_path: Path, threshold: bool) -> None:
    x = inputs()
    held = clt(tmp_path, threshold)
    found = read(tmp_path, WANTED).dictionaries
    for n, (one, w) in enumerate(zip(found, held, strict=True)):
        pre = x @ w["W_enc"].T + w["b_enc"]
        a = pre * (pre > w["threshold"]) if threshold else pre.clamp(min=0)
        assert (one.kind, one.reads) == ("clt", Place(n, "resid_mid"))
        assert one.writes == tuple(Place(to, "mlp_out") for to in range(n, LAYERS))
        for to in range(LAYERS - n):
            same(one, x, a, a @ w["W_dec"][:, to] + (w["b_dec"] if to == 0 else 0), to)
    assert [one.layer for one in read(tmp_path, Wanted(WIDTHS, 8, layers=(1, 2))).dictionaries] == [1, 2]


def test_a_clts_decoders_stay_in_their_file(tmp_path: Path) -> None:
    clt(tmp_path)
    one = read(tmp_path, WANTED).dictionaries[0].to(torch.device("cpu"), torch.float64)
    assert one.encoder.dtype == torch.float64
    assert [decoder.dtype for decoder in one.decoders] == [torch.float32] * LAYERS
    assert one.nbytes == (F * D + F) * 8
    assert one.written(one.encode(inputs().double())).dtype == torch.float64


def test_what_is_missing_or_does_not_belong(tmp_path: Path) -> None:
    clt(tmp_path / "a")
    (tmp_path / "a" / "W_enc_1.safetensors").unlink()
    with pytest.raises(InputError, match="lacks layers of its cross-layer transcoder"):
        read(tmp_path / "a", WANTED)
    clt(tmp_path / "b")
    (tmp_path / "b" / "W_dec_2.safetensors").unlink()
    with pytest.raises(InputError, match=r"there is no file '.*W_dec_2\.safetensors'"):
        read(tmp_path / "b", WANTED)
    clt(tmp_path / "c")
    save_file({"W_dec_0": torch.ones(F, 1, D)}, tmp_path / "c" / "W_dec_0.safetensors")
    with pytest.raises(InputError, match=r"W_dec_0 of .* is 10 × 1 × 6 and should be 10 × 3 × 6"):
        read(tmp_path / "c", WANTED)
    files(tmp_path / "d", layer_0=plt())
    for said, message in (
        ("feature_input_hook: hook_embed", "made for 'hook_embed'"),
        ("activation: gelu", "activation 'gelu' is not known"),
        ("{", "is not YAML"),
        ("- a", "is no configuration of circuit-tracer's"),
    ):
        (tmp_path / "d" / "config.yaml").write_text(said)
        with pytest.raises(InputError, match=message):
            read(tmp_path / "d", WANTED)
