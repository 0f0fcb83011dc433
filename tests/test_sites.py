"""The table of sites: with one row more, everything patches, ablates, completes and draws what it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from IPython.core.completer import provisionalcompleter
from torch import Tensor
from torch.nn import functional

import interp
from interp.errors import InputError
from interp.sites import SITES, Site, SiteKind, available
from interp.spec import Prompt

TEXT = "Alice gave a drink to Bob"
CLEAN, CORRUPTED = [5, 11, 23, 31, 8, 40], [5, 11, 29, 31, 8, 40]


def logit(logits: Tensor) -> Tensor:
    return logits[:, 7]


def completions(shell: Any, line: str) -> list[str]:
    with provisionalcompleter():
        return [one.text for one in shell.Completer.completions(line, len(line))]


def test_a_row_of_the_table_is_a_site(shell: Any, lend: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model, hooked = lend("llama"), "hooked: the forward without hooks does not know mlp_in"
    monkeypatch.setitem(SITES, "mlp_in", SiteKind("mlp_in", "mlp.hook_in", drawn="read by the MLP of layer {}"))
    patched = interp.patch(CLEAN, CORRUPTED, site="mlp_in", by="position", metric=logit)
    assert patched.patched == pytest.approx(by_hand(model, len(patched.positions)), abs=1e-4)
    assert patched.provenance.path == hooked
    direction = np.arange(model.geometry.d_model) - 9.5
    ablated = interp.ablate(TEXT, direction=direction, layer=1, site="mlp_in", mode="zero")
    assert ablated.values[1] == pytest.approx(loss_without(model, direction), abs=1e-4)
    assert ablated.provenance.path == hooked
    assert completions(shell, "%interp patch --site mlp_i") == ["mlp_in"]
    assert "<svg" in patched.save(tmp_path / "mlp_in.svg").read_text("utf-8")
    assert "mlp_in by position" in patched.html()


def by_hand(model: Any, length: int) -> Any:
    """Return the metric of every layer and position patched, each in a forward of its own."""
    found = torch.zeros(model.geometry.n_layers, length)
    for layer in range(model.geometry.n_layers):
        name = f"blocks.{layer}.mlp.hook_in"
        source = model.activations_of(CLEAN, [name])[name]
        for at in range(length):

            def put(tensor: Tensor, hook: Any, at: int = at, source: Tensor = source) -> Tensor:  # noqa: ARG001
                tensor = tensor.clone()
                tensor[:, at] = source[:, at]
                return tensor

            found[layer, at] = model.forward([CORRUPTED], {name: put}, last_only=True)[0, -1, 7]
    assert len({round(value, 4) for value in found.flatten().tolist()}) > 2
    return found.double().numpy()


def loss_without(model: Any, direction: Any) -> float:
    """Return the loss of the text where the MLP of layer 1 does not read along a direction."""
    along = torch.tensor(direction / np.linalg.norm(direction), dtype=torch.float32)
    ids = model.encode(Prompt(TEXT)).ids

    def without(tensor: Tensor, hook: Any) -> Tensor:  # noqa: ARG001
        return tensor - (tensor @ along)[..., None] * along

    logits = model.forward([ids], {"blocks.1.mlp.hook_in": without}, last_only=False)[0]
    return float(functional.cross_entropy(logits[:-1], torch.tensor(ids[1:])))


def test_sites_that_are_none_are_refused_at_once(lend: Any) -> None:
    with pytest.raises(InputError, match=r"there is no site 'zz' \(did you mean z\?\); sites are resid_pre, resid_mid"):
        interp.Site("zz", 2)
    lend("llama")
    with pytest.raises(InputError, match=r"there is no site 'patern' \(did you mean pattern\?\)"):
        interp.patch(CLEAN, CORRUPTED, site="patern", metric="kl")


def test_what_a_model_has_is_asked_of_all_its_layers() -> None:
    assert available({"blocks.3.attn.hook_z": "z", "hook_embed": "e", "blocks.0.mlp.hook_post": "n"}) == ["z", "neuron"]


def test_routed_experts_have_no_neurons() -> None:
    output = object()
    assert available({"blocks.0.mlp.hook_post": output, "blocks.0.mlp.hook_out": output}) == []
    assert available({"blocks.0.mlp.hook_post": object(), "blocks.0.mlp.hook_out": output}) == ["neuron"]


def test_sites_of_the_table(lend: Any) -> None:
    model = lend("gpt2")
    assert available(model.bridge.hook_dict) == list(SITES)
    for name, kind in SITES.items():
        assert Site(name, 1).hook_name == kind.hook(1)
        assert kind.stage in {"pre", "mid", "post"}
