"""Gemma 3 270M itself, without hooks: norms on both sides of each half, windows, two bases of positions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.engine.model.load import Options, load
from interp.engine.model.loaded import LoadedModel
from interp.methods._shared.models import way
from interp.spec import Pair, Pairs, Prompt
from methods.features.test_trace import adds_up
from real import PROMPT, STORE

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread", "gemma3")]

OTHER = STORE.replace("John gave", "Mary gave")
PAIRS = Pairs((Pair(Prompt(STORE), Prompt(OTHER), (" Mary",), (" John",)),))
BOUND = 5e-5


@pytest.fixture(scope="module")
def _gemma3(gemma3_file: Path) -> LoadedModel:
    return load(gemma3_file, options=Options(device="cpu"))


@pytest.fixture
def gemma3(_gemma3: LoadedModel, clean_session: Any) -> LoadedModel:
    clean_session.models[_gemma3.name] = _gemma3
    clean_session.current = _gemma3.name
    return _gemma3


def test_its_gguf_is_loaded_and_its_spaces_are_spelled(gemma3: LoadedModel) -> None:
    g = gemma3.geometry
    assert (g.n_layers, g.n_heads, g.n_kv_heads, g.d_model, g.d_vocab) == (18, 4, 1, 640, 262144)
    assert gemma3.hf_model.config.architectures == ["Gemma3ForCausalLM"]
    encoded = gemma3.encode(Prompt("The capital of France is"))
    assert encoded.strings[1:] == ("The", " capital", " of", " France", " is")
    assert encoded.notes == ()
    chances = gemma3.run(STORE).logits[0, -1].softmax(-1)
    top = int(chances.argmax())
    assert gemma3.tokens.string(top) == " Mary"
    assert float(chances[top]) == pytest.approx(0.853, abs=2e-3)


def test_it_runs_without_hooks_and_says_what_it_is_known_to_say(gemma3: LoadedModel) -> None:
    assert gemma3.doubt == ""
    assert way(gemma3) == "without hooks"
    for text, word, probability in ((STORE, " Mary", 0.853), (PROMPT, " the", 0.191)):
        token, _, found = interp.predict(text).top[0]
        assert (token, found) == (word, pytest.approx(probability, abs=2e-3))


def test_cells_of_the_sweep_are_those_of_hooks(gemma3: LoadedModel) -> None:
    swept = interp.patch(pairs=PAIRS)
    assert swept.provenance.path == "replay"
    assert swept.patched.shape == (18, 4)
    clean, other = (torch.tensor([gemma3.encode(Prompt(text)).ids]) for text in (STORE, OTHER))
    right, wrong = (gemma3.encode(Prompt(f"x{name}")).ids[-1] for name in (" Mary", " John"))
    best = np.unravel_index(int(swept.patched.argmax()), swept.patched.shape)
    with torch.no_grad():
        for layer, head in ((0, 1), (5, 2), (17, 3), (int(best[0]), int(best[1]))):
            name = f"blocks.{layer}.attn.hook_z"
            z = gemma3.bridge.run_with_cache(clean, names_filter=name)[1][name]

            def put(own: torch.Tensor, hook: Any, z: torch.Tensor = z, head: int = head) -> torch.Tensor:  # noqa: ARG001
                changed = own.clone()
                changed[:, :, head] = z[:, :, head]
                return changed

            logits = gemma3.bridge.run_with_hooks(other, fwd_hooks=[(name, put)])[0, -1]
            value, scale = float(logits[right] - logits[wrong]), float(logits.abs().max())
            assert swept.patched[layer, head] == pytest.approx(value, abs=BOUND * scale), (layer, head)


def test_a_circuit_is_found_and_validated(gemma3: LoadedModel) -> None:
    circuit = interp.circuit(pairs=PAIRS, edges=300, steps=20)
    assert circuit.provenance.path == "gradients"
    assert circuit.provenance.model == gemma3.name
    report = interp.validate(circuit, on="same", random=2, top=3)
    assert 0.7 < report.faithfulness < 1.3
    assert np.abs(report.random).max() < 0.5
    head = next(name for name in circuit.nodes if "." in name and "mlp" not in name)
    assert circuit.function_of(head).writes


def test_the_first_layers_scores_are_its_qk_circuit(gemma3: LoadedModel) -> None:
    """Both norms, the scaled embedding and the turn by the windows' own base are in it."""
    name = "blocks.0.attn.hook_attn_scores"
    ids = gemma3.encode(Prompt(STORE)).ids
    scores = gemma3.activations_of(ids, [name])[name][0].double().numpy()
    found = interp.qk("0.1", tokens=[ids[7], ids[5]], offset=2, top=3)
    assert found.matrix[0, 1] * 256**-0.5 == pytest.approx(scores[1, 7, 5], abs=1e-3)


def test_its_name_mover_copies_names() -> None:
    roles = interp.heads(task="ioi", n=4)
    assert roles.provenance.path == "replay"
    mover = next(head for head, role in roles.labels.items() if role == "name mover")
    moved = interp.ov(mover, tokens=" Mary, John", top=3)
    assert moved.positivity > 0.3
    assert (np.diag(moved.matrix) > moved.matrix[[0, 1], [1, 0]]).all()
    layer, head = map(int, mover.split("."))
    scores = interp.heads(n=2)
    assert scores.provenance.path == "replay"
    assert scores.scores["copying"][layer, head] == pytest.approx(moved.positivity, abs=1e-3)
    assert interp.dla(STORE, answer=" Mary", wrong=" John").heads[layer, head] > 0.25


def test_composition_is_read_off_its_weights(gemma3: LoadedModel) -> None:
    composed = interp.compose(kind="q")
    assert composed.scores["q"].shape == (gemma3.geometry.n_layers, 4, gemma3.geometry.n_layers, 4)
    assert np.isfinite(composed.scores["q"][0, :, 1:]).all()


def test_a_trace_of_it_adds_up(gemma3: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    adds_up(gemma3, monkeypatch)
