"""Random weights for writers of files that follow a format's public description, and what is compared with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from interp.engine.features.dictionary import Dictionary
from interp.engine.features.formats import Wanted, read

D, F = 6, 10  # numbers of an activation, and features
WIDTHS = {
    **dict.fromkeys(("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "mlp_in"), D),
    **dict.fromkeys(("mlp_normed", "mlp_unit"), D),
    "z": D + 2,
    "neuron": 4 * D,
}
WANTED = Wanted(WIDTHS, n_layers=8)


class Drawn:
    """Random numbers, one after the other."""

    def __init__(self, seed: int = 0) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self._generator)


def inputs(width: int = D, rows: int = 7) -> Tensor:
    return Drawn(99)(rows, width)


def files(folder: Path, config: Mapping[str, Any] | None = None, **tensors: Mapping[str, Tensor]) -> Path:
    """Write ``cfg.json`` or ``config.json`` and safetensors files, named without their suffix; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    if config is not None:
        name = "cfg.json" if {"sae_weights", "sae"} & set(tensors) else "config.json"
        (folder / name).write_text(json.dumps(config))
    for name, held in tensors.items():
        save_file({key: tensor.contiguous() for key, tensor in held.items()}, folder / f"{name}.safetensors")
    return folder


def only(folder: Path, wanted: Wanted = WANTED) -> Dictionary:
    (one,) = read(folder, wanted).dictionaries
    return one


def same(one: Dictionary, x: Tensor, a: Tensor, y: Tensor, to: int = 0) -> None:
    """Assert that a dictionary's codes of x are `a`, which say which features are active, and that it writes `y`."""
    codes = one.to(torch.device("cpu"), torch.float32).encode(x)
    assert torch.equal(codes.dense() > 0, a > 0)
    assert (a > 0).any()
    assert (a == 0).any()
    torch.testing.assert_close(codes.dense(), a, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(one.to(torch.device("cpu"), torch.float32).output(codes, x, to), y, rtol=1e-5, atol=1e-5)


def largest(pre: Tensor, k: int) -> Tensor:
    """Return pre-activations where they are among the k largest of a row and positive, else 0; by sorting."""
    order = pre.argsort(-1, descending=True)
    kept = torch.zeros_like(pre)
    for row in range(len(pre)):
        for feature in order[row, :k].tolist():
            kept[row, feature] = max(float(pre[row, feature]), 0.0)
    return kept
