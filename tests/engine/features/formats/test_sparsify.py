"""sparsify's folders, read from files of our own writing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from engine.features.formats.made import WANTED, WIDTHS, D, Drawn, F, files, inputs, largest, only, same
from interp.engine.features.formats import Wanted, read
from interp.engine.features.places import Place
from interp.errors import InputError


def weights(width: int = F) -> dict[str, Tensor]:
    draw = Drawn()
    made = {"encoder.weight": draw(width, D), "encoder.bias": draw(width), "W_dec": draw(width, D), "b_dec": draw(D)}
    return {**made, "W_skip": draw(D, D)}


def cfg(**said: Any) -> dict[str, Any]:
    return {"d_in": D, "num_latents": F, "k": 3, "expansion_factor": 32, "normalize_decoder": True, **said}


@pytest.mark.parametrize(
    ("module", "point"),
    [
        ("layers.5", "resid_post"),
        ("layers.5.mlp", "mlp_out"),
        ("h.5.attn", "attn_out"),
        ("model.layers.5", "resid_post"),
    ],
)
def test_saes(tmp_path: Path, module: str, point: str) -> None:
    w, x = weights(), inputs()
    del w["W_skip"]
    one = only(files(tmp_path / module, cfg(), sae=w))
    a = largest((x - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"], 3)
    same(one, x, a, a @ w["W_dec"] + w["b_dec"])
    assert (one.kind, one.reads, one.declared) == ("sae", Place(5, point), {"l0": 3.0})


@pytest.mark.parametrize("skips", [False, True])
def test_transcoders_read_the_modules_input(tmp_path: Path, skips: bool) -> None:
    w, x = weights(), inputs()
    if not skips:
        del w["W_skip"]
    one = only(files(tmp_path / "layers.5.mlp", cfg(transcode=True, skip_connection=skips), sae=w))
    a = largest(x @ w["encoder.weight"].T + w["encoder.bias"], 3)
    same(one, x, a, a @ w["W_dec"] + w["b_dec"] + (x @ w["W_skip"].T if skips else 0))
    assert (one.kind, one.reads, one.writes) == ("transcoder", Place(5, "mlp_normed"), (Place(5, "mlp_out"),))


def test_the_other_way_round_and_other_names(tmp_path: Path) -> None:
    w, x = weights(), inputs()
    other = {"W_enc": w["encoder.weight"].T, "b_enc": w["encoder.bias"], "decoder.weight": w["W_dec"].T}
    one = only(files(tmp_path / "layers.5", cfg(), sae={**other, "b_dec": w["b_dec"]}))
    a = largest((x - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"], 3)
    same(one, x, a, a @ w["W_dec"] + w["b_dec"])


def test_square_ones_are_offered_in_every_orientation(tmp_path: Path) -> None:
    w, x = weights(D), inputs()
    del w["W_skip"]
    found = read(files(tmp_path / "layers.5", cfg(num_latents=D), sae=w), WANTED)
    ways = [found.dictionaries[0], *(way for _, way in found.others[0])]
    assert len(ways) == 4
    enc, dec = w["encoder.weight"], w["W_dec"]
    for way, (encoder, decoder) in zip(ways, [(enc, dec), (enc.T, dec), (enc, dec.T), (enc.T, dec.T)], strict=True):
        a = largest((x - w["b_dec"]) @ encoder.T + w["encoder.bias"], 3)
        same(way, x, a, a @ decoder + w["b_dec"])


def test_several_modules_and_one_layer(tmp_path: Path) -> None:
    for module in ("layers.5", "layers.6", "layers.6.mlp", "layers.12"):
        files(tmp_path / module, cfg(), sae=weights())
    assert [one.reads.name for one in read(tmp_path, Wanted(WIDTHS, 13)).dictionaries] == [
        "L5 resid_post",
        "L6 mlp_out",
        "L6 resid_post",
        "L12 resid_post",
    ]
    assert [one.layer for one in read(tmp_path, Wanted(WIDTHS, 13, layers=(6,))).dictionaries] == [6, 6]


@pytest.mark.parametrize(
    ("module", "said", "message"),
    [
        ("layers.5", {"activation": "groupmax"}, "activation 'groupmax' is not known"),
        ("layers.5", {"signed": True}, "signed features"),
        ("layers.5", {"k": 0}, "k 0 is not from 1 to the 10 features"),
        ("layers.5", {"transcode": True}, "made for 'layers.5', where none can be read"),
        ("embed_tokens", {}, "made for 'embed_tokens', where none can be read"),
        ("layers.5.mlp.act", {}, "where none can be read"),
        ("layers.5", {"d_in": 7}, "W_dec of|encoder.weight of"),
    ],
)
def test_what_cannot_be_represented_is_refused_by_name(
    tmp_path: Path, module: str, said: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read(files(tmp_path / module, cfg(**said), sae=weights()), WANTED)
