"""What a component does, from its definition: its clean output through the final norm as it is, on every logit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.errors import InputError
from interp.methods._shared.circuit.component import function_of
from interp.spec import Pair, Prompt
from methods.patching.test_patch import Size, build, logits_of, use

__all__ = ["use"]
pytestmark = pytest.mark.usefixtures("one_thread")

ONE = ((5, 11, 64, 31, 8, 40), (5, 11, 23, 31, 8, 40))
SHORT = ((6, 17, 3), (5, 17, 3))
PAIRS = [Pair(Prompt(ids=clean), Prompt(ids=corrupted), (7,), (9,)) for clean, corrupted in (ONE, SHORT)]


def direct(model: Any, node: str) -> torch.Tensor:
    """Return a node's mean direct effect on every logit, ``[d_vocab]``, centred; from hooks and the norm's formula."""
    bridge, held = model.bridge, dict[str, torch.Tensor]()
    rows: list[torch.Tensor] = []
    layer, _, part = node.partition(".")
    name = {"embed": "blocks.0.hook_resid_pre", "logits": ""}.get(node, f"blocks.{layer}.hook_mlp_out")
    name = f"blocks.{layer}.attn.hook_z" if part.isdigit() else name
    last = f"blocks.{model.geometry.n_layers - 1}.hook_resid_post"
    for clean, _ in (ONE, SHORT):
        hooks = [
            (n, lambda t, hook, n=n: held.__setitem__(n, t[0, -1].clone()))  # noqa: ARG005
            for n in {name, last} - {""}
        ]
        logits_of(model, clean, hooks)
        norm, end = bridge.ln_final.original_component, held[last].double()
        out = end if node == "logits" else held[name].double()
        if part.isdigit():
            out = out[int(part)] @ bridge.blocks[int(layer)].attn.W_O[int(part)].detach().double()
        if isinstance(norm, torch.nn.LayerNorm):
            out, size = out - out.mean(), (end.var(unbiased=False) + norm.eps).sqrt()
        else:
            size = (end.square().mean() + norm.variance_epsilon).sqrt()
        unembed = bridge.unembed.original_component.weight.detach().double()
        logits = unembed @ (out / size * norm.weight.detach().double())
        rows.append(logits - logits.mean())
    return torch.stack(rows).mean(0)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "neox"])
def test_tokens_are_those_of_the_direct_effect(kind: str, use: Any) -> None:
    model = use(build(kind, Size(layers=3)))
    circuit = interp.circuit(pairs=PAIRS, edges=40)
    for node in ("embed", "0.2", "2.3", "1.mlp", "logits"):
        expected = direct(model, node)
        found = circuit.function_of(node, top=4)
        best, worst = expected.topk(4), (-expected).topk(4)
        assert [value for _, value in found.promotes] == pytest.approx(best.values.tolist(), abs=1e-4)
        assert [value for _, value in found.suppresses] == pytest.approx((-worst.values).tolist(), abs=1e-4)
        assert found.promotes[0][0] == model.tokens.string(int(best.indices[0]))
        assert found.effect == pytest.approx(float(expected[7] - expected[9]), abs=1e-4)
        assert circuit.functions[node] is found
    whole = circuit.function_of("logits")
    own = torch.stack([logits_of(model, clean)[-1] for clean, _ in (ONE, SHORT)]).mean(0)
    if kind == "llama":  # elsewhere the final norm's bias, which no node writes, moves logits too
        assert whole.effect == pytest.approx(float(own[7] - own[9]), abs=1e-4)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "neox"])
def test_copying_is_that_of_the_head_scores(kind: str, lend: Callable[..., Any]) -> None:
    model = lend(kind)
    circuit = interp.circuit(pairs=PAIRS, edges=30)
    scores = interp.heads(n=2).scores["copying"]
    for layer, head in ((0, 1), (1, 3)):
        found = circuit.function_of(f"{layer}.{head}")
        assert found.copying == pytest.approx(scores[layer, head], abs=1e-4)
        assert -1 <= found.copying <= 1
    for node in ("embed", "0.mlp", "logits"):
        assert np.isnan(circuit.function_of(node).copying)
    assert model.lock.acquire(blocking=False)
    model.lock.release()


def test_what_it_reads_and_writes_in_the_circuit(use: Any) -> None:
    use(build("llama", Size(layers=3)))
    circuit = interp.circuit(pairs=PAIRS, edges=60)
    for node in circuit.nodes:
        found = circuit.function_of(node, top=1)
        # Two query heads read what their KV head reads.
        layer, _, head = node.partition(".")
        inputs = {node}
        if head.isdigit():
            inputs = {f"{node}.q", *(f"{layer}.{int(head) // 2}.{kind}" for kind in "kv")}
        assert {(e.writer, e.reader) for e in found.reads} == {
            (e.writer, e.reader) for e in circuit.edges if e.reader in inputs
        }
        assert {(e.writer, e.reader) for e in found.writes} == {
            (e.writer, e.reader) for e in circuit.edges if e.writer == node
        }
        for edges in (found.reads, found.writes):
            sizes = [abs(edge.score) for edge in edges]
            assert sizes == sorted(sizes, reverse=True)
    assert circuit.function_of("embed").reads == circuit.function_of("logits").writes == ()


def test_labels_are_those_that_were_found(lend: Callable[..., Any]) -> None:
    lend("gpt2")
    circuit = interp.circuit(pairs=PAIRS, edges=30)
    circuit.labels["0.1"] = "induction"
    assert circuit.function_of("0.1").label == "induction"
    assert circuit.function_of("0.mlp").label == ""


@pytest.mark.parametrize("kind", ["gpt2", "llama", "neox"])
def test_what_is_refused(kind: str, lend: Callable[..., Any]) -> None:
    model = lend(kind)
    circuit = interp.circuit(pairs=PAIRS, edges=30)
    with pytest.raises(InputError, match=r"no '9.9'.*type 5.1, 5.mlp, embed or logits"):
        circuit.function_of("9.9")
    with pytest.raises(InputError, match="top=0"):
        circuit.function_of("0.1", top=0)
    with torch.enable_grad():
        function_of(model, circuit, "0.1")
        assert torch.is_grad_enabled()


def test_the_bundled_induction_head(clean_session: Any) -> None:
    clean_session.load()
    circuit = interp.circuit(task="induction", n=6, edges=30)
    effects = {head: circuit.function_of(head).effect for head in circuit.heads}
    best = max(effects, key=lambda head: effects[head])
    assert effects[best] > 1
    scores = interp.heads(n=4)
    assert best in scores.top("induction")
    assert circuit.function_of(best).label == "induction"
