"""What every format refuses, in one line that says what to do; and the names of places."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from engine.features.formats.made import WANTED, WIDTHS, D, F, files
from engine.features.formats.test_saelens import cfg, weights
from interp.engine.features.formats import Wanted, _hooks, read
from interp.errors import InputError


@pytest.mark.parametrize(
    ("name", "point"),
    [
        ("blocks.5.hook_resid_pre", "resid_pre"),
        ("blocks.5.hook_resid_mid", "resid_mid"),
        ("blocks.5.hook_mlp_out", "mlp_out"),
        ("blocks.5.mlp.hook_post", "neuron"),
        ("blocks.5.attn.hook_z", "z"),
        ("blocks.5.ln2.hook_normalized", "mlp_unit"),
        ("blocks.5.mlp.hook_in", "mlp_normed"),
        ("blocks.5.hook_mlp_in", "mlp_in"),
        ("model.layers.5.mlp", "mlp_out"),
        ("transformer.h.5", "resid_post"),
        ("gpt_neox.layers.5.attention", "attn_out"),
        ("layers.5", "resid_post"),
    ],
)
def test_names_of_places(name: str, point: str) -> None:
    assert _hooks.place(name) == _hooks.Said(5, point)


@pytest.mark.parametrize("name", ["hook_embed", "blocks.x.hook_mlp_out", "blocks.5.attn.hook_q", "lm_head", None, "5"])
def test_what_is_no_place(name: object) -> None:
    with pytest.raises(InputError, match="where none can be read; readable are"):
        _hooks.place(name)


def test_another_width_says_both_and_what_would_fit(tmp_path: Path) -> None:
    folder = files(tmp_path, cfg(), sae_weights=weights())
    wide = {"resid_post": 9, "mlp_out": 9, "z": D}
    with pytest.raises(
        InputError, match=r"reads 6 numbers .* resid_post is 9 wide; as wide are z: name one with --site"
    ):
        read(folder, Wanted(wide, 8))
    with pytest.raises(InputError, match="resid_post is 9 wide; it is another model's"):
        read(folder, Wanted({"resid_post": 9}, 8))
    with pytest.raises(InputError, match="this model has no resid_post"):
        read(folder, Wanted({"z": D}, 8))
    assert read(folder, Wanted(wide, 8, "z")).dictionaries[0].reads.point == "z"


@pytest.mark.parametrize("name", ["W_enc", "W_dec"])
def test_a_transposed_matrix(tmp_path: Path, name: str) -> None:
    held = weights()
    held[name] = held[name].T
    with pytest.raises(InputError, match=f"{name} of .* and should be .*it is transposed: save its transpose"):
        read(files(tmp_path, cfg(), sae_weights=held), WANTED)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("name", ["W_enc", "W_dec", "b_enc", "b_dec"])
def test_what_is_no_number(tmp_path: Path, name: str, value: str) -> None:
    held = weights()
    held[name].view(-1)[-1] = float(value)
    with pytest.raises(InputError, match=f"{name} of .* holds NaN or infinity"):
        read(files(tmp_path, cfg(), sae_weights=held), WANTED)


@pytest.mark.parametrize("name", ["W_enc", "W_dec", "b_enc", "b_dec"])
def test_a_tensor_that_is_missing_whole_numbers_or_of_another_length(tmp_path: Path, name: str) -> None:
    held = weights()
    lacking = {key: tensor for key, tensor in held.items() if key != name}
    with pytest.raises(InputError, match=f"lacks {name}; it has "):
        read(files(tmp_path / "a", cfg(), sae_weights=lacking), WANTED)
    with pytest.raises(InputError, match=f"{name} of .* is torch.int64, not real numbers"):
        read(files(tmp_path / "b", cfg(), sae_weights={**held, name: held[name].long()}), WANTED)
    with pytest.raises(InputError, match=f"{name} of .* its files do not belong together"):
        read(files(tmp_path / "c", cfg(), sae_weights={**held, name: torch.ones(F + 1, D + 3)}), WANTED)


@pytest.mark.parametrize("cut", [0, 4, 100, 0.5, 0.99])
def test_a_file_that_is_cut_off(tmp_path: Path, cut: float) -> None:
    folder = files(tmp_path, cfg(), sae_weights=weights())
    path = folder / "sae_weights.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(cut if cut >= 1 else cut * len(whole))])
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        read(folder, WANTED)


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "is not JSON"), ('{"d_in": 6', "is not JSON"), ("[1]", "it holds a list"), (None, "there is no file")],
)
def test_a_configuration_that_is_none(tmp_path: Path, content: str | None, message: str) -> None:
    folder = files(tmp_path, cfg(), sae_weights=weights())
    (folder / "cfg.json").unlink() if content is None else (folder / "cfg.json").write_text(content)
    with pytest.raises(InputError, match=message):
        read(folder, WANTED)


def test_a_folder_that_holds_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no dictionary of features; formats: saelens, gemma_scope"):
        read(tmp_path, WANTED)
    (tmp_path / "notes.json").write_text(json.dumps({}))
    save_file({"weight": torch.ones(2)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="holds no dictionary of features"):
        read(tmp_path, WANTED)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "sae.pt").write_bytes(b"")
    with pytest.raises(InputError, match=r"holds pickles, such as sae\.pt, which run code"):
        read(tmp_path, WANTED)


def test_several_formats_in_a_folder_are_read_together(tmp_path: Path) -> None:
    for layer in (2, 10, 1):
        metadata = {"hook_name": f"blocks.{layer}.hook_resid_post"}
        files(tmp_path / f"layer_{layer}", cfg(metadata=metadata) | {"interp": {"n": layer}}, sae_weights=weights())
    found = read(tmp_path, Wanted(WIDTHS, 11))
    assert [one.layer for one in found.dictionaries] == [1, 2, 10]
    assert read(tmp_path, Wanted(WIDTHS, 11, layers=(2, 10))).dictionaries[1].layer == 10
    assert found.format == "SAELens"
