"""Steering: its direction against activations on hooks, its texts against the naive loop, numbers in closed form."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.engine.model import hooks
from interp.errors import InputError, Interrupted
from interp.interface.session import session
from interp.sites import Site
from interp.spec import Prompt
from methods.patching.test_patch import captured
from methods.text.test_generate import families, naive

pytestmark = pytest.mark.usefixtures("one_thread")

PROMPT = "Mary gave the drink to"
HIGH, LOW = ["the cat sat", "Mary went"], ["one two", "John gave a drink", "Paris"]


def last_activation(model: Any, text: str, site: str, layer: int) -> torch.Tensor:
    """Return an activation at a text's last token, ``[d_model]``, from the bridge's own hooks."""
    name = Site(site, layer).hook_name
    return captured(model, model.tokens.encode(Prompt(text)).ids, [name])[name][0, -1]


@pytest.mark.parametrize("site", ["resid_pre", "resid_post"])
@families
def test_the_direction_is_the_difference_of_means_at_the_last_token(family: str, site: str, lend: Any) -> None:
    model = lend(family)
    result = interp.steer(PROMPT, layer=1, toward=HIGH, against=LOW, site=site, n=1)
    means = [torch.stack([last_activation(model, t, site, 1) for t in side]).mean(0) for side in (HIGH, LOW)]
    np.testing.assert_allclose(result.direction, (means[0] - means[1]).numpy(), atol=1e-5)
    assert result.norm == pytest.approx(float((means[0] - means[1]).norm()), rel=1e-4)
    name = Site(site, 1).hook_name
    lengths = captured(model, result.provenance.tokens[0], [name])[name][0].norm(dim=-1)
    assert result.stream_norm == pytest.approx(float(lengths.median()), rel=1e-4)


@pytest.mark.parametrize("at", ["all", "prompt", "new"])
@families
def test_texts_are_the_naive_loops(family: str, at: str, lend: Any) -> None:
    model = lend(family)
    result = interp.steer(PROMPT, layer=0, toward=HIGH, against=LOW, sweep=[0, 1, -2.5], n=7, at=at)
    prompt = result.provenance.tokens[0]
    direction = torch.tensor(result.direction)
    name = Site("resid_post", 0).hook_name
    for k, strength in enumerate(result.strengths.tolist()):
        ids, logs = naive(model, prompt, 7, name, lambda part, s=strength: part + direction * s, at)
        count = int((result.ids[k] >= 0).sum())
        assert result.ids[k, :count].tolist() == ids[:count]
        np.testing.assert_allclose(result.logprobs[k, :count], logs[:count], atol=1e-4)
        with torch.no_grad():
            plain = model.bridge.forward(torch.tensor([[*prompt, *ids[:count]]]), return_type="logits")[0]
        plainly = plain.log_softmax(-1)[len(prompt) - 1 : -1]
        expected = plainly.gather(-1, torch.tensor(ids[:count])[:, None])[:, 0].numpy()
        np.testing.assert_allclose(result.plain_logprobs[k, :count], expected, atol=1e-4)
        assert result.perplexity[k] == pytest.approx(float(np.exp(-expected.mean())), rel=1e-3)
        assert result.continuations[k] == model.tokens.tokenizer.decode(ids[:count])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@families
def test_strength_0_is_no_steering_bit_for_bit(family: str, temperature: float, lend: Any) -> None:
    model = lend(family)
    options = {"n": 9, "temperature": temperature, "seed": 2}
    plain = interp.generate(PROMPT, **options)
    model.store.clear()
    result = interp.steer(PROMPT, layer=1, toward=HIGH, against=LOW, sweep=[3, 0], **options)
    assert result.strengths.tolist() == [0.0, 3.0]
    count = len(plain.ids)
    assert result.ids[0, :count].tolist() == plain.ids.tolist()
    assert result.logprobs[0, :count].tobytes() == plain.logprobs.tobytes()
    assert result.change[0, :count].tolist() == [0.0] * count
    assert result.continuations[0] == plain.continuation
    # The other way to the same: the direction times 0, really added.
    model.store.clear()
    added = interp.generate(PROMPT, interventions=[result.intervention(0.0)], **options)
    assert added.ids.tolist() == plain.ids.tolist()
    assert added.logprobs.tobytes() == plain.logprobs.tobytes()


def test_an_intervention_of_it_is_the_same_steering(lend: Any) -> None:
    lend("llama")
    result = interp.steer(PROMPT, layer=1, toward=HIGH, against=LOW, strength=2.0, n=6)
    again = interp.generate(PROMPT, n=6, interventions=[result.intervention(2.0)])
    assert again.ids.tolist() == [token for token in result.ids[1].tolist() if token >= 0]
    second = interp.steer(PROMPT, layer=1, direction=result, strength=2.0, n=6)
    assert second.ids.tolist() == result.ids.tolist()
    assert second.provenance.forwards == 0  # all of it is known
    assert "Steering" in second.source


@families
def test_towards_a_words_own_direction_its_logit_rises(family: str, lend: Any) -> None:
    """After the last layer a direction along W_U's difference, less its part that the norm takes out, must do this."""
    model = lend(family)
    up, down = (model.tokens.tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in ("M", "J"))
    weight = model.bridge.unembed.original_component.weight.detach()
    gain = model.bridge.ln_final.original_component.weight.detach()
    result = interp.steer(
        PROMPT,
        layer=1,
        direction=((weight[up] - weight[down]) * gain).numpy(),
        sweep="0,2,4,8,16",
        answer="M",
        wrong="J",
        n=2,
    )
    assert result.metric == "logit-diff"
    assert (np.diff(result.values) > 0).all()
    with torch.no_grad():
        logits = model.bridge.forward(torch.tensor(result.provenance.tokens), return_type="logits")[0, -1]
    assert result.values[0] == pytest.approx(float(logits[up] - logits[down]), abs=1e-4)


def test_the_metric_without_answers_is_how_far_the_prediction_moves(lend: Any) -> None:
    model = lend("gpt2")
    result = interp.steer(PROMPT, layer=0, toward=HIGH, against=LOW, sweep=[0, 2], n=3)
    assert result.metric == "kl"
    ids = result.provenance.tokens[0]
    direction = torch.tensor(result.direction)
    with torch.no_grad():
        plain = model.bridge.forward(torch.tensor([ids]), return_type="logits")[0, -1].log_softmax(-1)
        hook = (Site("resid_post", 0).hook_name, lambda tensor, hook: tensor + 2 * direction)  # noqa: ARG005
        logits = model.bridge.run_with_hooks(torch.tensor([ids]), fwd_hooks=[hook], return_type="logits")[0, -1]
    expected = float((plain.exp() * (plain - logits.log_softmax(-1))).sum())
    assert result.values.tolist() == pytest.approx([0.0, expected], abs=1e-4)

    def first_logit(logits: torch.Tensor) -> torch.Tensor:
        return logits[:, 0]

    own = interp.steer(PROMPT, layer=0, direction=result, strength=2, metric=first_logit, n=1)
    assert own.values[1] == pytest.approx(float(logits[0]), abs=1e-4)
    assert own.metric == "first_logit"


def test_directions_of_other_kinds(lend: Any, tmp_path: Path) -> None:
    model = lend("llama")
    width, layers = model.geometry.d_model, model.geometry.n_layers
    each = np.random.default_rng(0).normal(size=(layers, width))
    one = interp.steer(PROMPT, layer=1, direction=each[1], n=3)
    for given in (each, torch.tensor(each), each[1].tolist(), SimpleNamespace(direction=each)):
        assert interp.steer(PROMPT, layer=1, direction=given, n=3).ids.tolist() == one.ids.tolist()
    (tmp_path / "high.txt").write_text("the cat sat\n\nMary went\n")
    listed = interp.steer(PROMPT, layer=1, toward=HIGH, against="John", n=3)
    filed = interp.steer(PROMPT, layer=1, toward=str(tmp_path / "high.txt"), against="John", n=3)
    assert filed.direction.tobytes() == listed.direction.tobytes()
    assert "high.txt" in filed.source


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "needs a direction"),
        ({"toward": "a"}, "--against"),
        ({"against": "a"}, "--toward"),
        ({"toward": "a", "against": "b", "direction": np.ones(32)}, "needs a direction"),
        ({"toward": "the cat", "against": "the cat"}, "zero"),
        ({"toward": "", "against": "the cat"}, "empty"),
        ({"toward": 3, "against": "the cat"}, "texts"),
        ({"toward": "none.txt", "against": "the cat"}, "no file"),
        ({"direction": np.zeros(32)}, "zero"),
        ({"direction": np.full(32, np.nan)}, "NaN"),
        ({"direction": np.ones(5)}, r"shape \(5,\)"),
        ({"direction": "love"}, "array"),
        ({"direction": np.ones(32), "layer": 9}, "layers are 0–1"),
        ({"direction": np.ones(32), "sweep": "0,x"}, "--sweep"),
        ({"direction": np.ones(32), "sweep": []}, "--sweep"),
        ({"direction": np.ones(32), "strength": float("inf")}, "finite"),
        ({"direction": np.ones(32), "site": "resid_past"}, "resid_post"),
        ({"direction": np.ones(32), "n": 0}, "1 or more"),
        ({"direction": np.ones(32), "metric": "logit-diff"}, "answer"),
        ({"direction": np.ones(32), "metric": "logit-dif"}, "logit-diff"),
        ({"direction": np.ones(32), "answer": "several words"}, "must be one"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(options: dict[str, Any], words: str, lend: Any) -> None:
    model = lend("gpt2")
    before = hooks.census(model.modules())
    with pytest.raises(InputError, match=words):
        interp.steer(PROMPT, **{"layer": 1, **options})
    assert hooks.census(model.modules()) == before


def test_a_parallel_block_has_no_place_between_attention_and_mlp(lend: Any) -> None:
    lend("neox")
    with pytest.raises(InputError, match="resid_mid"):
        interp.steer(PROMPT, layer=0, direction=np.ones(32), site="resid_mid")
    lend("llama")
    assert interp.steer(PROMPT, layer=0, direction=np.ones(32), site="resid_mid", n=2).ids.shape[1] >= 1


def test_an_interrupt_keeps_the_strengths_that_are_written(lend: Any) -> None:
    model = lend("gpt2")
    options: dict[str, Any] = {"layer": 0, "direction": np.ones(32), "sweep": [0, 1, 2], "n": 5}
    whole = interp.steer(PROMPT, **options)
    model.store.clear()

    def stop(done: int, total: int, said: str) -> None:
        assert total == 15
        if said.startswith("strength 1:") and done >= 7:
            raise KeyboardInterrupt

    session.on_step = stop
    with pytest.raises(Interrupted) as caught:
        interp.steer(PROMPT, **options)
    session.on_step = None
    kept = caught.value.result
    assert kept.ids[0].tolist() == whole.ids[0].tolist()
    assert kept.ids[1, :2].tolist() == whole.ids[1, :2].tolist()
    assert (kept.ids[2] == -1).all()
    assert np.isnan(kept.perplexity[2])
    assert "2 of 3 strengths" in kept.notes[0]
    assert kept.stopped[2] == "not reached"
    for picture in (kept.html(), kept.svg(), kept.text(), repr(kept)):
        assert picture
    assert interp.steer(PROMPT, **options).ids.tolist() == whole.ids.tolist()


def test_a_text_whose_activation_is_the_models_resting_place_is_named(lend: Any) -> None:
    model = lend("gpt2")
    huge = model.tokens.tokenizer("Mary", add_special_tokens=False)["input_ids"][-1]
    held = model.activations

    def swollen(tokens: Any, sites: Any) -> Any:
        found = held(tokens, sites)
        return {s: t * (1000 if tokens.ids[-1] == huge else 1) for s, t in found.items()}

    model.activations = swollen
    try:
        result = interp.steer("the drink", layer=0, toward="Mary", against="John", n=1)
    finally:
        del model.activations
    assert any("put words before it" in note for note in result.notes)


def test_a_probes_direction(lend: Any) -> None:
    lend("llama")
    texts = [f"{word} {n}" for n in range(8) for word in ("the cat sat", "Mary went")]
    probe = interp.probe(texts, ["cat", "Mary"] * 8)
    result = interp.steer(PROMPT, layer=1, direction=probe, strength=3, n=4)
    np.testing.assert_allclose(result.direction, probe.direction(1), atol=1e-6)
    assert (
        result.ids.tolist() == interp.steer(PROMPT, layer=1, direction=probe.direction(1), strength=3, n=4).ids.tolist()
    )
    assert result.source == "Probe"
    other = interp.steer(PROMPT, layer=1, direction=probe, site="resid_pre", n=1)
    assert any("--site resid_post" in note for note in other.notes)


def test_a_model_that_tells_the_texts_not_apart_is_not_steered(folder: Any, clean_session: Any) -> None:
    model = clean_session.load(folder("gpt2"), name="own")
    with torch.no_grad():
        model.bridge.embed.original_component.weight.zero_()
    result = interp.steer(PROMPT, layer=1, toward="a", against="b", n=3)
    assert any("zero" in note for note in result.notes)
    assert result.ids[0].tolist() == result.ids[1].tolist()
    assert "nan" not in result.svg()


def test_the_magic_takes_texts_and_a_variable(shell: Any, lend: Any) -> None:
    lend("gpt2")
    shell.run_cell(f"%%interp steer --layer 1 --toward ' love' --against ' hate' --sweep 0,2 --n 3 -o one\n{PROMPT}\n")
    expected = interp.steer(PROMPT, layer=1, toward=" love", against=" hate", sweep=[0, 2], n=3)
    one = shell.user_ns["one"]
    assert one.ids.tolist() == expected.ids.tolist()
    assert one.source == "' love' − ' hate'"
    shell.user_ns["mine"] = one.direction * 2
    shell.run_cell(f"%%interp steer --layer 1 --direction mine --strength 1 --n 3 -o two\n{PROMPT}\n")
    assert shell.user_ns["two"].ids.tolist() == one.ids.tolist()
    ran = shell.run_cell(f"%%interp steer --layer 1 --direction mien\n{PROMPT}\n")
    assert "mine" in str(ran.error_in_exec)


def test_table_pictures_and_files(lend: Any, tmp_path: Path) -> None:
    lend("llama")
    result = interp.steer(PROMPT, layer=1, toward=HIGH, against=LOW, sweep=[-1, 0, 1, 4], n=4)
    table = result.to_frame()
    assert table["strength"].tolist() == [0.0, -1.0, 1.0, 4.0]
    assert table["text"].tolist() == list(result.continuations)
    figure = result.to_plotly()
    assert list(figure.data[0].x) == [-1.0, 0.0, 1.0, 4.0]
    for suffix in ("json", "npz", "html", "svg", "png"):
        assert result.save(tmp_path / f"steer.{suffix}").stat().st_size > 500


def test_smollm2_is_turned_from_hate_to_love(smollm2: Any) -> None:
    texts = {"toward": ["I love you", "I love this"], "against": ["I hate you", "I hate this"]}
    result = interp.steer(
        "I think that you are", layer=12, **texts, sweep=[0, -2, 2], answer=" wonderful", wrong=" stupid", n=8
    )
    assert smollm2.geometry.n_layers == 30
    assert result.values[1] < result.values[0] < result.values[2]
    plain = interp.generate("I think that you are", n=8)
    assert result.ids[0].tolist() == plain.ids.tolist()


def test_what_is_drawn_from_is_generates(lend: Any) -> None:
    lend("gpt2")
    drawn: dict[str, Any] = {"n": 8, "temperature": 1.5, "top_k": 6, "top_p": 0.8, "seed": 3}
    result = interp.steer("I am", layer=1, toward="I love", against="I hate", sweep=[1.5], **drawn)
    plain = interp.generate("I am", **drawn)
    steered = interp.generate("I am", interventions=[result.intervention(1.5)], **drawn)
    assert result.continuations == (plain.continuation, steered.continuation)
    with pytest.raises(InputError, match="--top-k 0"):
        interp.steer("I am", layer=1, toward="I love", against="I hate", temperature=1.0, top_k=0)
