"""diff --edges: against circuit made of each model alone, equal models, and a fine-tune that reaches one head."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2LMHeadModel

import interp
import models
from interp.engine.circuits.edges import EdgeScores
from interp.engine.model.load import Options, load
from interp.errors import InputError, Interrupted
from interp.magics.parser import parse
from interp.methods._shared.circuit import changes
from interp.spec import Node
from methods.patching.test_diff import BUNDLED, CLEAN, OTHER, tuned_on

pytestmark = pytest.mark.usefixtures("one_thread")

PAIRS = [(CLEAN, OTHER, " Mary", " John"), (CLEAN[:20], OTHER[:20], " to", " the")] * 3


def pair_of(session: Any, family: str, size: float) -> None:
    """Load a random model as "base", and as "tuned" one with another W_O of head 1.0."""
    plain = models.FAMILIES[family](len(models.tokenizer()))
    other, source = copy.deepcopy(plain), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            if "1." in name and ("o_proj" in name or name.endswith("attn.c_proj.weight")):
                rows = parameter if "c_proj" in name else parameter.T
                rows[: models.WIDTH // models.HEADS] += size * torch.randn(
                    rows[: models.WIDTH // models.HEADS].shape, generator=source
                )
    for name, made in (("base", plain), ("tuned", other)):
        session.models[name] = load(made, tokenizer=models.tokenizer(), name=name, options=Options(device="cpu"))
    session.current = "base"


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_circuits_are_those_of_circuit(clean_session: Any, family: str) -> None:
    pair_of(clean_session, family, 1.0)
    result = interp.diff("base", "tuned", pairs=PAIRS, tokens=0, edges=15)
    each = [interp.circuit(pairs=PAIRS, edges=15, model=name) for name in ("base", "tuned")]
    kept = [{(edge.writer, edge.reader) for edge in one.edges} for one in each]
    assert {(one.writer, one.reader) for one in result.edges} == kept[0] ^ kept[1]
    assert result.edges
    for one in result.edges:
        at = each[0].writers.index(one.writer), each[0].readers.index(one.reader)
        assert (one.base, one.tuned) == (each[0].scores[at], each[1].scores[at])
        if one.said != "unsure":
            assert one.said == ("gained" if (one.writer, one.reader) in kept[1] else "lost")
            assert one.low > 0 or one.high < 0
    assert len(result.edges_frame()) == len(result.edges)
    assert result.provenance.path == "forward, gradients"
    assert "gained" in result.text()
    assert "two circuits of 15" in result.html()


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_equal_models_have_gained_and_lost_nothing(clean_session: Any, family: str) -> None:
    pair_of(clean_session, family, 0.0)
    for edges in (1, 15, 10_000):
        result = interp.diff("base", "tuned", pairs=PAIRS, tokens=0, edges=edges)
        assert result.edges == ()
        assert f"no edges gained, none lost (circuits of {edges} edges)" in result.text()


def scored(each: list[list[float]]) -> EdgeScores:
    """Return scores ``[pair][edge]`` of the three edges into the logits; all others are strong."""
    writers = [Node("embed"), Node("mlp", 0), Node("mlp", 1)]
    readers = [Node("mlp", 0), Node("mlp", 1), Node("logits")]
    per_pair = torch.zeros(len(each), 3, 3)
    per_pair[:, :, 2] = torch.tensor(each)
    per_pair[:, 0, :2] = 9.0
    exists = torch.zeros(3, 3, dtype=torch.bool)
    exists[:, 2] = exists[0, :2] = True
    none = torch.zeros(len(each), dtype=torch.float64)
    return EdgeScores(writers, readers, exists, per_pair, None, none, none, none)


def test_an_edge_near_the_weakest_is_not_called_gained() -> None:
    """Of two edges one is kept: which one the pairs say for certain, say not, or are too few to say."""
    noise = [0.01, -0.01, 0.02, -0.02, 0.005, -0.005]
    before = scored([[0.0, 2 + n, 1 + n] for n in noise])

    def said(first: EdgeScores, second: EdgeScores) -> dict[tuple[str, str], str]:
        return {(one.writer, one.reader): one.said for one in changes.changes(first, second, 3, 1)}

    after = scored([[0.0, 1 + n, 2 + n] for n in noise])
    assert said(before, after) == {
        ("0.mlp", "logits"): "lost",
        ("1.mlp", "logits"): "gained",
        ("embed", "0.mlp"): "unsure",  # its score is the same: what reads it has gone
        ("embed", "1.mlp"): "unsure",
    }
    found = next(one for one in changes.changes(before, after, 3, 1) if one.said == "gained")
    assert found.low <= 1 <= found.high
    rough = [100 * n for n in noise]
    assert set(said(before, scored([[0.0, 1.6 + n, 1.61 - n] for n in rough])).values()) == {"unsure"}
    few = [scored([[0.0, a + n, b + n] for n in noise[:3]]) for a, b in ((2, 1), (1, 2))]
    assert set(said(*few).values()) == {"unsure"}
    assert np.isnan(changes.changes(*few, 3, 1)[0].low)


@pytest.mark.slow
@pytest.mark.parametrize("edges", [50, 200])
def test_edges_touch_the_only_head_that_was_trained(clean_session: Any, edges: int) -> None:
    base = clean_session.load(name="base", device="cpu")
    plain = GPT2LMHeadModel.from_pretrained(BUNDLED, dtype=torch.float32)
    width, size = plain.config.n_embd, plain.config.n_embd // plain.config.n_head

    def allowed(name: str) -> Any:
        if not name.startswith("transformer.h.2.attn"):
            return None
        mask = torch.zeros_like(dict(plain.named_parameters())[name])
        if "c_attn" in name:
            for third in range(3):
                mask[..., third * width : third * width + size] = 1
        elif name.endswith("c_proj.weight"):
            mask[:size] = 1
        return mask

    clean_session.load(tuned_on(base, plain, allowed), tokenizer=base.bridge.tokenizer, name="tuned")
    result = interp.diff("base", "tuned", task="ioi", n=16, tokens=0, edges=edges)
    sure = [*result.gained, *result.lost]
    touching = [one.writer == "2.0" or one.reader.startswith("2.0.") for one in sure]
    print(f"{len(result.gained)} gained, {len(result.lost)} lost, {sum(touching)} of them touch the head")
    assert len(sure) >= 4
    assert all(touching)


def test_what_does_not_go_together_is_refused(clean_session: Any) -> None:
    pair_of(clean_session, "gpt2", 1.0)
    assert parse("diff base tuned --edges 20").arguments["edges"] == 20
    with pytest.raises(InputError, match="--edges 0 keeps nothing"):
        interp.diff("base", "tuned", pairs=PAIRS, edges=0)
    with pytest.raises(InputError, match="--edges needs pairs"):
        interp.diff("base", "tuned", texts=[CLEAN], edges=5)


def test_a_stop_while_edges_are_scored_keeps_the_components(clean_session: Any) -> None:
    pair_of(clean_session, "gpt2", 1.0)

    def stop(done: int, total: int, what: str) -> None:  # noqa: ARG001
        if what == "edges":
            raise KeyboardInterrupt

    clean_session.on_step = stop
    with pytest.raises(Interrupted) as caught:
        interp.diff("base", "tuned", pairs=PAIRS, tokens=0, edges=10)
    assert "partial: stopped while edges were scored" in caught.value.result.notes
    assert np.isfinite(caught.value.result.effect).all()
    assert caught.value.result.edges_kept is None
