"""The lens over features: the stream less what dictionaries do not explain, by the formulas written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import dictionaries
import interp
from engine.features import made, naive
from interp.errors import InputError

pytestmark = pytest.mark.usefixtures("one_thread")

IDS = [5, 11, 23, 31, 8, 40]
# Kind of dictionary → where the stream is read.
READ = {"stream": "post", "before": "pre", "attention": "mid", "mlp": "post", "transcoder": "post", "skip": "post"}


def held(model: Any, names: list[str]) -> list[Tensor]:
    kept: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda tensor, hook: kept.__setitem__(name, tensor[0].clone())  # noqa: ARG005

    with torch.no_grad():
        model.bridge.run_with_hooks(torch.tensor([IDS]), fwd_hooks=[(name, keep(name)) for name in names])
    return [kept[name] for name in names]


def account(model: Any, one: Any, at: str) -> Tensor:
    """Return the stream of a layer less a dictionary's error, everything dense."""
    place = one.writes[0].hook(model)
    stream, there, x = held(model, [f"blocks.{one.layer}.hook_resid_{at}", place, one.reads.hook(model)])
    given = naive.encoded(one, x) @ one.decoders[0] + one.decoder_biases[0]
    if one.skip is not None:
        given = given + one.taken(x) @ one.skip
    given = given / one.taken.scale
    if one.taken.normed == "layer":
        given = given * (x.std(-1, keepdim=True) + 1e-5) + x.mean(-1, keepdim=True)
    if one.taken.normed == "token":
        given = given * x.norm(dim=-1, keepdim=True) / x.shape[-1] ** 0.5
    return stream - there + given


def logits(model: Any, stream: Tensor) -> Tensor:
    net = model.hf_model
    with torch.no_grad():
        if hasattr(net, "transformer"):
            return net.lm_head(net.transformer.ln_f(stream))
        if hasattr(net, "gpt_neox"):
            return net.get_output_embeddings()(net.gpt_neox.final_layer_norm(stream))
        return net.lm_head(net.model.norm(stream))


@pytest.mark.parametrize("kind", READ)
@pytest.mark.parametrize("family", ["gpt2", "llama", "neox"])
def test_what_is_read_is_the_stream_less_the_error(family: str, kind: str, lend: Any) -> None:
    model, at = lend(family), READ[kind]
    found = [made.every(model, layer)[kind] for layer in range(model.geometry.n_layers)]
    made.load(model, *found)
    asked: Any = {"at": at, "target": 7, "features": "made"}
    if f"resid_{at}" not in model.sites:
        with pytest.raises(InputError, match="use --at pre or post"):
            interp.lens(IDS, **asked)
        return
    result = interp.lens(IDS, **asked)
    plain = interp.lens(IDS, at=at, target=7)
    for n, one in enumerate(found):
        logs = logits(model, account(model, one, at)).log_softmax(-1)
        np.testing.assert_allclose(result.target_probability[n], logs[:, 7].exp(), atol=1e-5)
        assert np.array_equal(result.ids[n, :, 0], logs.argmax(-1))
        assert np.array_equal(result.target_rank[n], (logs > logs[:, 7:8]).sum(-1))
    np.testing.assert_allclose(result.whole_target_probability, plain.target_probability, atol=1e-6)
    np.testing.assert_allclose(result.whole_kl, plain.kl, atol=1e-5)
    assert np.array_equal(result.whole_target_rank, plain.target_rank)
    assert np.abs(result.target_probability - plain.target_probability).max() > 1e-4
    assert result.provenance.features == {"made": model.feature_sets["made"].digest}


def test_a_perfect_dictionary_reads_as_the_stream(lend: Any, tmp_path: Any) -> None:
    model = lend("llama")
    made.load(model, dictionaries.perfect(model.geometry.d_model, 1))
    result = interp.lens(IDS, features="made", target=7)
    plain = interp.lens(IDS, layer=1, target=7)
    assert result.layers == (1,)
    np.testing.assert_allclose(result.target_probability, plain.target_probability, atol=1e-6)
    assert np.array_equal(result.ids, plain.ids)
    np.testing.assert_allclose(result.to_frame()["whole kl"], plain.kl.reshape(-1), atol=1e-6)
    drawn = result.save(tmp_path / "lens.svg").read_text("utf-8")
    assert "its rank in the stream itself" in drawn
    assert "as the features made have it" in drawn
    assert "its rank in the stream itself" not in plain.save(tmp_path / "plain.svg").read_text("utf-8")
    with np.load(result.save(tmp_path / "lens.npz")) as kept:
        assert np.array_equal(kept["whole_target_rank"], result.whole_target_rank)


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("before", {}, "features of layer 0 give back resid_pre, which is not .* at post; use --at pre"),
        ("attention", {}, "give back attn_out, .* at post; use --at mid"),
        ("heads", {}, "give back z, .*; use a transcoder or a dictionary of the stream"),
        ("clt", {}, "features of layer 0 write in several layers"),
        ("stream", {"features": "mde"}, r"no features are called 'mde' \(did you mean made\?\)"),
        ("stream", {"layer": 9}, "no layer 9"),
    ],
)
def test_what_cannot_be_asked(kind: str, options: dict[str, Any], said: str, lend: Any) -> None:
    model = lend("gpt2")
    made.load(model, *(made.every(model, layer)[kind] for layer in range(model.geometry.n_layers)))
    with pytest.raises(InputError, match=said):
        interp.lens(IDS, **dict[str, Any]({"features": "made"}, **options))
