"""Generation against Hugging Face's own, and with interventions against the naive loop over whole texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import dictionaries
import interp
import models
import real
from interp.engine.model.changes import Changes
from interp.errors import InputError, Interrupted
from interp.methods._shared import features
from interp.sites import Site
from interp.spec import Intervention

pytestmark = pytest.mark.usefixtures("one_thread")

CAUSAL = ("gpt2", "llama", "neox")
PROMPT = "Mary gave the drink to"
N = 12
families = pytest.mark.parametrize("family", CAUSAL)


def vector(model: Any, seed: int = 0, size: float = 1.0) -> torch.Tensor:
    return size * torch.randn(model.geometry.d_model, generator=torch.Generator().manual_seed(seed))


def huggingface(folder: Path, ids: Sequence[int], n: int) -> list[int]:
    hf = AutoModelForCausalLM.from_pretrained(folder)
    batch = torch.tensor([list(ids)])
    # The mask is given: it would be guessed from padding, which these models have no token for.
    mask = torch.ones_like(batch)
    made = hf.generate(batch, attention_mask=mask, do_sample=False, max_new_tokens=n, pad_token_id=0)
    return made[0, len(ids) :].tolist()


# -- the reference: the whole text anew for every token, on transformer-lens' hooks, at positions written out here -----


def naive(model: Any, ids: Sequence[int], n: int, name: str, change: Callable[..., Any], at: str) -> tuple[Any, Any]:
    """Return the greedy tokens and their log-probabilities with `change` of some positions of one activation."""
    new: list[int] = []
    logs: list[float] = []

    def hook(tensor: torch.Tensor, hook: Any) -> torch.Tensor:  # noqa: ARG001
        changed = tensor.clone()
        first, last = {"all": (0, None), "prompt": (0, len(ids)), "new": (len(ids), None)}[at]
        if changed[:, first:last].numel():
            changed[:, first:last] = change(tensor[:, first:last])
        return changed

    with torch.no_grad():
        for _ in range(n):
            batch = torch.tensor([[*ids, *new]])
            logits = model.bridge.run_with_hooks(batch, fwd_hooks=[(name, hook)], return_type="logits")[0, -1]
            new.append(int(logits.argmax()))
            logs.append(float(logits.log_softmax(-1)[new[-1]]))
    return new, logs


@families
def test_greedy_text_is_huggingfaces(family: str, lend: Any, folder: Any) -> None:
    model = lend(family)
    result = interp.generate(PROMPT, n=N)
    prompt = result.provenance.tokens[0]
    expected = huggingface(folder(family), prompt, N)
    assert result.ids.tolist() == expected
    assert result.stopped == ("length" if len(expected) == N else "eos")
    assert result.continuation == model.tokens.tokenizer.decode(expected)
    assert result.provenance.forwards == N
    assert result.provenance.path == "forward"


def test_settings_that_change_logits_are_named_and_not_applied(lend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = lend("gpt2")
    plain = interp.generate(PROMPT, n=N)
    assert plain.notes == ()
    monkeypatch.setattr(model.hf_model.generation_config, "repetition_penalty", 1.3)
    monkeypatch.setattr(model.hf_model.generation_config, "no_repeat_ngram_size", 2)
    model.store.clear()
    again = interp.generate(PROMPT, n=N)
    assert again.ids.tolist() == plain.ids.tolist()
    said = "the model's generation settings are not applied: repetition_penalty 1.3, no_repeat_ngram_size 2"
    assert again.notes == (said,)
    assert said in interp.steer(PROMPT, layer=1, toward="one", against="two", n=2, sweep=[1, 2]).notes


@families
def test_log_probabilities_are_those_of_one_forward_over_the_whole_text(family: str, lend: Any) -> None:
    model = lend(family)
    result = interp.generate(PROMPT, n=N, temperature=1.3, seed=1)
    ids = [*result.provenance.tokens[0], *result.ids.tolist()]
    with torch.no_grad():
        logs = model.bridge.forward(torch.tensor([ids]), return_type="logits")[0].log_softmax(-1)
    first = len(result.tokens)
    expected = [float(logs[first + k - 1, token]) for k, token in enumerate(result.ids)]
    np.testing.assert_allclose(result.logprobs, expected, atol=1e-4)


@pytest.mark.parametrize("at", ["all", "prompt", "new"])
@pytest.mark.parametrize("kind", ["add", "zero", "scale", "replace"])
@families
def test_interventions_are_the_naive_loops(family: str, kind: str, at: str, lend: Any) -> None:
    model = lend(family)
    site = {"add": "resid_post", "zero": "mlp_out", "scale": "attn_out", "replace": "neuron"}[kind]
    value: Any = {"add": vector(model), "scale": -2.0, "replace": 0.5, "zero": None}[kind]
    changes: dict[str, Callable[[torch.Tensor], Any]] = {
        "add": lambda part: part + value,
        "zero": torch.zeros_like,
        "scale": lambda part: part * value,
        "replace": lambda part: torch.full_like(part, value),
    }
    one = Intervention(Site(site, 1), mode=kind, value=value)
    result = interp.generate(PROMPT, n=8, interventions=[one], at=at)
    prompt = result.provenance.tokens[0]
    ids, logs = naive(model, prompt, 8, Site(site, 1).hook_name, changes[kind], at)
    kept = len(result.ids)
    assert kept == 8 or result.stopped == "eos"
    assert result.ids.tolist() == ids[:kept]
    np.testing.assert_allclose(result.logprobs, logs[:kept], atol=1e-4)
    assert Changes((one,), at).stepwise
    plain = interp.generate(PROMPT, n=8)
    if at == "new":
        assert result.logprobs[0] == pytest.approx(plain.logprobs[0], abs=1e-5)
    else:
        assert abs(result.logprobs[0] - plain.logprobs[0]) > 1e-3


@families
def test_what_reads_the_whole_text_is_run_on_the_whole_text(family: str, lend: Any) -> None:
    model = lend(family)
    seen: list[int] = []

    def centred(tensor: torch.Tensor, hook: Any) -> torch.Tensor:  # noqa: ARG001
        seen.append(tensor.shape[1])
        return tensor - tensor.mean(dim=1, keepdim=True)

    one = Intervention(Site("resid_post", 0), mode="function", value=centred)
    result = interp.generate(PROMPT, n=6, interventions=[one])
    prompt = result.provenance.tokens[0]
    assert seen == [len(prompt) + k for k in range(len(result.ids))]
    name = Site("resid_post", 0).hook_name
    ids, logs = naive(model, prompt, 6, name, lambda part: part - part.mean(dim=1, keepdim=True), "all")
    assert result.ids.tolist() == ids[: len(result.ids)]
    np.testing.assert_allclose(result.logprobs, logs[: len(result.ids)], atol=1e-4)
    again = interp.generate(PROMPT, n=6, interventions=[one])
    assert again.provenance.forwards == len(again.ids)  # what a function does is in no key


def test_an_intervention_at_one_position_is_there_alone(lend: Any) -> None:
    model = lend("llama")
    place = Site("z", 0)
    result = interp.generate(
        PROMPT, n=5, interventions=[Intervention(place, head=1, position=2, mode="zero")], at="new"
    )
    prompt = result.provenance.tokens[0]

    def change(part: torch.Tensor) -> torch.Tensor:
        changed = part.clone()
        changed[:, 2, 1] = 0
        return changed

    ids, logs = naive(model, prompt, 5, place.hook_name, change, "all")
    assert result.ids.tolist() == ids[: len(result.ids)]
    np.testing.assert_allclose(result.logprobs, logs[: len(result.ids)], atol=1e-4)


def test_a_value_per_position_of_the_prompt(lend: Any) -> None:
    model = lend("gpt2")
    count = len(interp.tokens(PROMPT).tokens)
    rows = torch.randn(count, model.geometry.d_model, generator=torch.Generator().manual_seed(3))
    one = Intervention(Site("resid_pre", 1), mode="add", value=rows)
    result = interp.generate(PROMPT, n=5, interventions=[one], at="prompt")
    name = Site("resid_pre", 1).hook_name
    ids, _ = naive(model, result.provenance.tokens[0], 5, name, lambda part: part + rows, "prompt")
    assert result.ids.tolist() == ids[: len(result.ids)]
    with pytest.raises(InputError, match="prompt alone"):
        interp.generate(PROMPT, n=5, interventions=[one])


def test_no_intervention_and_a_change_by_nothing_are_bit_identical(lend: Any) -> None:
    model = lend("llama")
    plain = interp.generate(PROMPT, n=N)
    nothing = Intervention(Site("resid_post", 0), mode="add", value=vector(model) * 0)
    result = interp.generate(PROMPT, n=N, interventions=[nothing])
    assert result.provenance.forwards == len(plain.ids)
    assert np.array_equal(result.ids, plain.ids)
    assert result.logprobs.tobytes() == plain.logprobs.tobytes()


@families
def test_draws_are_seeded(family: str, lend: Any) -> None:
    lend(family)
    texts = {seed: interp.generate(PROMPT, n=10, temperature=1.0, seed=seed).ids.tolist() for seed in range(4)}
    assert len({tuple(ids) for ids in texts.values()}) == 4
    assert interp.generate(PROMPT, n=10, temperature=1.0, seed=2).ids.tolist() == texts[2]
    cold = interp.generate(PROMPT, n=10, temperature=1e-4, seed=5).ids.tolist()
    assert cold == interp.generate(PROMPT, n=10).ids.tolist()


def test_draws_follow_the_softmax(lend: Any) -> None:
    lend("gpt2")
    chances = {token: p for _, token, p in interp.predict(PROMPT, top=400).top}
    drawn = [int(interp.generate(PROMPT, n=1, temperature=1.0, seed=seed).ids[0]) for seed in range(300)]
    likely = max(chances, key=lambda token: chances[token])
    expected = chances[likely]
    spread = (expected * (1 - expected) / 300) ** 0.5
    assert abs(drawn.count(likely) / 300 - expected) < 4 * spread


@families
def test_a_sample_is_the_same_however_many_there_are(family: str, lend: Any) -> None:
    model = lend(family)
    drawn: dict[str, Any] = {"n": 10, "temperature": 1.2, "top_p": 0.95, "top_k": 200}
    many = interp.generate(PROMPT, samples=5, seed=7, **drawn)
    assert many.seeds.tolist() == [7, 8, 9, 10, 11]
    assert len(set(many.continuations)) == 5
    model.store.clear()
    few = interp.generate(PROMPT, samples=2, seed=8, **drawn)
    assert few.provenance.forwards == max(map(len, few.generated))  # they are read side by side, the prompt once
    for seed in range(7, 12):
        model.store.clear()
        alone = interp.generate(PROMPT, seed=seed, **drawn)
        for result in (many, few):
            if seed in result.seeds:
                (k,) = np.flatnonzero(result.seeds == seed)
                assert result.generated[k] == alone.generated
                assert result.continuations[k] == alone.continuation
                assert result.stopped[k] == alone.stopped
                own = len(alone.ids)
                assert result.ids[k].tolist() == [*alone.ids, *[-1] * (result.ids.shape[1] - own)]
                np.testing.assert_allclose(result.logprobs[k, :own], alone.logprobs, atol=1e-5)
                assert np.isnan(result.logprobs[k, own:]).all()
                assert result.perplexity[k] == pytest.approx(np.exp(-alone.logprobs.mean()), rel=1e-5)


@pytest.mark.parametrize("mode", ["add", "noise", "function"])
def test_interventions_change_every_sample_alike(mode: str, lend: Any) -> None:
    model = lend("llama")
    value: Any = {"add": vector(model), "noise": 0.3, "function": lambda x, hook: x - x.mean(1, keepdim=True)}[mode]  # noqa: ARG005
    one = Intervention(Site("resid_post", 0), mode=mode, value=value)
    drawn: dict[str, Any] = {"n": 5, "temperature": 1.0, "interventions": [one]}
    many = interp.generate(PROMPT, samples=3, **drawn)
    for k in range(3):
        model.store.clear()
        alone = interp.generate(PROMPT, seed=k, **drawn)
        assert many.generated[k] == alone.generated
        np.testing.assert_allclose(many.logprobs[k, : len(alone.ids)], alone.logprobs, atol=1e-5)


def test_the_header_of_samples_tells_the_prompts_tokens_from_new_ones(lend: Any) -> None:
    lend("gpt2")
    many = interp.generate(PROMPT, samples=3, n=4, temperature=1.0)
    new = sorted({len(own) for own in many.generated})
    said = f"{new[0]} new" if len(new) == 1 else f"{new[0]}–{new[-1]} new"
    assert f"3 samples · {len(many.tokens)} prompt tokens + {said} · temperature 1" in many.html()


def test_samples_that_end_leave_the_others_as_they_are(lend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = lend("llama")
    drawn: dict[str, Any] = {"n": 8, "temperature": 1.0}
    free = interp.generate(PROMPT, samples=4, **drawn)
    ends = [int(free.ids[1, 2]), int(free.ids[3, 4])]
    monkeypatch.setattr(model.hf_model.generation_config, "eos_token_id", ends)
    model.store.clear()
    ended = interp.generate(PROMPT, samples=4, **drawn)
    assert set(ended.stopped) == {"eos", "length"}
    for k, ids in enumerate(free.ids.tolist()):
        last = min((n for n, token in enumerate(ids) if token in ends), default=len(ids))
        assert ended.ids[k, : last + 1].tolist() == ids[: last + 1]
        assert (ended.ids[k, last + 1 :] == -1).all()
        assert ended.stopped[k] == ("eos" if last < len(ids) else "length")


def test_samples_are_drawn_as_often_as_the_prompt_foretells(lend: Any) -> None:
    lend("gpt2")
    top = interp.predict(PROMPT, top=8).top
    count = 3000
    result = interp.generate(PROMPT, n=1, temperature=1.0, top_k=8, samples=count)
    assert result.provenance.forwards <= 1
    whole = sum(p for _, _, p in top)
    expected = np.array([p / whole * count for _, _, p in top])
    found = np.array([(result.ids[:, 0] == token).sum() for _, token, _ in top])
    assert found.sum() == count
    statistic = ((found - expected) ** 2 / expected).sum()
    chance = torch.special.gammaincc(torch.tensor(3.5), torch.tensor(statistic / 2))
    assert chance > 0.001


def test_interrupted_samples_are_kept(lend: Any) -> None:
    lend("gpt2")
    from interp.interface.session import session

    def stop(done: int, total: int, said: str) -> None:  # noqa: ARG001
        if done == 3:
            raise KeyboardInterrupt

    session.on_step = stop
    with pytest.raises(Interrupted) as caught:
        interp.generate(PROMPT, n=6, temperature=1.0, samples=3)
    session.on_step = None
    kept = caught.value.result
    assert kept.ids.shape == (3, 3)
    assert kept.notes == ("partial: interrupted after 3 of 6 tokens",)
    assert kept.html()
    assert kept.svg()


def test_samples_are_a_table_and_a_picture(shell: Any, lend: Any) -> None:
    lend("llama")
    shell.run_cell(
        f"%%interp generate --n 4 --temperature 1 --top-k 20 --top-p .9 --samples 3 --seed 5 -o out\n{PROMPT}"
    )
    result = shell.user_ns["out"]
    frame = result.to_frame()
    assert frame["seed"].tolist() == [5, 6, 7]
    assert frame["text"].tolist() == list(result.continuations)
    page = result.html()
    assert f"3 samples · {len(result.tokens)} prompt tokens + " in page
    assert "temperature 1 · top-k 20 · top-p 0.9" in page
    for seed in (5, 6, 7):
        assert f"Seed {seed} · perplexity" in page
    assert "3 of 3" in page
    assert result.text().count("\n") >= 3


def test_an_end_of_text_token_ends_it(lend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = lend("llama")
    free = interp.generate(PROMPT, n=8, temperature=2.0, seed=4)
    end = int(free.ids[3])
    monkeypatch.setattr(model.hf_model.generation_config, "eos_token_id", [end, 10**6])
    ended = interp.generate(PROMPT, n=8, temperature=2.0, seed=4)
    first = free.ids.tolist().index(end)
    assert ended.ids.tolist() == free.ids[: first + 1].tolist()
    assert ended.stopped == "eos"
    assert ended.notes == ()


@families
def test_the_context_window_is_filled_and_named(family: str, lend: Any) -> None:
    lend(family)
    ids = list(range(5, 5 + models.N_CTX - 3))
    result = interp.generate(ids, n=50)
    assert len(result.ids) == 4 or result.stopped == "eos"  # the last one is not read
    if result.stopped == "window":
        assert str(models.N_CTX) in result.notes[0]


def test_an_interrupt_keeps_what_was_written(lend: Any) -> None:
    model = lend("gpt2")
    from interp.engine.model import hooks
    from interp.interface.session import session

    whole = interp.generate(PROMPT, n=9)
    model.store.clear()
    census = hooks.census(model.modules())

    def stop(done: int, total: int, said: str) -> None:
        assert total == 9
        if done == 4:
            assert "gener" not in said
            raise KeyboardInterrupt

    session.on_step = stop
    with pytest.raises(Interrupted) as caught:
        interp.generate(PROMPT, n=9)
    session.on_step = None
    kept = caught.value.result
    assert kept.ids.tolist() == whole.ids[:4].tolist()
    assert "interrupted after 4 of 9 tokens" in kept.notes[0]
    assert hooks.census(model.modules()) == census
    assert torch.is_grad_enabled()
    assert interp.generate(PROMPT, n=9).ids.tolist() == whole.ids.tolist()


def test_a_function_that_fails_later_keeps_what_was_written(lend: Any) -> None:
    lend("gpt2")
    calls: list[int] = []

    def breaks(tensor: torch.Tensor, hook: Any) -> None:  # noqa: ARG001
        calls.append(1)
        if len(calls) == 4:
            raise ValueError("no more")

    one = Intervention(Site("mlp_out", 0), mode="function", value=breaks)
    result = interp.generate(PROMPT, n=9, interventions=[one])
    assert len(result.ids) == 3
    assert "ValueError: no more" in result.notes[0]
    calls[:] = [1, 1, 1]
    with pytest.raises(ValueError, match="no more"):
        interp.generate(PROMPT, n=9, interventions=[one])


def test_the_same_text_again_runs_nothing_and_an_edited_change_runs_anew(lend: Any) -> None:
    model = lend("llama")
    interp.generate(PROMPT, n=6)
    assert interp.generate(PROMPT, n=6).provenance.forwards == 0
    longer = interp.generate(PROMPT, n=8)
    assert longer.provenance.forwards == len(longer.ids) - 6
    model.store.clear()
    assert interp.generate(PROMPT, n=8).ids.tolist() == longer.ids.tolist()
    for size in (1.0, 2.0):
        one = Intervention(Site("resid_post", 0), mode="add", value=vector(model, size=size))
        assert interp.generate(PROMPT, n=4, interventions=[one]).provenance.forwards > 0
        assert interp.generate(PROMPT, n=4, interventions=[one]).provenance.forwards == 0
        assert interp.generate(PROMPT, n=4, interventions=[one], at="prompt").provenance.forwards > 0


def test_logits_that_are_no_numbers_end_it(lend: Any) -> None:
    model = lend("gpt2")
    one = Intervention(Site("resid_post", 0), mode="scale", value=float("nan"))
    result = interp.generate(PROMPT, n=4, interventions=[one])
    assert len(result.ids) == 0
    assert "NaN" in result.notes[0]
    assert result.html()
    assert result.svg()
    assert model.geometry.causal


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n": 0}, "1 or more"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": 1.0, "top_k": 0}, "--top-k 0"),
        ({"temperature": 1.0, "top_p": 1.01}, "--top-p 1.01"),
        ({"temperature": 1.0, "samples": 0}, "--samples 0"),
        ({"samples": 2}, "--samples changes nothing at temperature 0"),
        ({"top_k": 3, "top_p": 0.5}, "--top-k and --top-p changes nothing at temperature 0"),
        ({"temperature": float("nan")}, "temperature"),
        ({"interventions": "x"}, "interp.Intervention"),
        ({"interventions": [3]}, "interp.Intervention"),
        ({"interventions": [Intervention(Site("z", 9), mode="zero")]}, "layers are 0–1"),
        ({"interventions": [Intervention(Site("z", 0), mode="add", value="x")]}, "array"),
        ({"interventions": [Intervention(Site("resid_post", 0), mode="add", value=np.ones(5))]}, "does not fit"),
        ({"interventions": [Intervention(Site("z", 0), position=99, mode="zero")]}, "no position 99"),
        ({"at": "never"}, "all, prompt, new"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(options: dict[str, Any], words: str, lend: Any) -> None:
    lend("gpt2")
    with pytest.raises(InputError, match=words):
        interp.generate(PROMPT, **options)


def test_a_bidirectional_model_is_refused(lend: Any) -> None:
    lend("bert")
    with pytest.raises(InputError, match="both directions"):
        interp.generate("Mary gave")


def test_the_magic_takes_a_variable_and_streams(shell: Any, lend: Any) -> None:
    model = lend("gpt2")
    one = Intervention(Site("resid_post", 0), mode="add", value=vector(model))
    shell.user_ns["mine"] = [one]
    shell.run_cell(f"%%interp generate --n 5 --interventions mine --at prompt -o out\n{PROMPT}\n")
    expected = interp.generate(PROMPT, n=5, interventions=[one], at="prompt")
    assert shell.user_ns["out"].ids.tolist() == expected.ids.tolist()
    ran = shell.run_cell(f"%%interp generate --interventions min\n{PROMPT}\n")
    assert "mine" in str(ran.error_in_exec)
    said: list[str] = []
    from interp.interface.session import session

    session.on_step = lambda done, total, what: said.append(what)  # noqa: ARG005
    result = interp.generate(PROMPT, n=3)
    session.on_step = None
    assert len(said) == len(result.ids)
    assert said[-1].rstrip() in result.continuation.replace("\n", "⟨U+000A⟩") or "⟨" in said[-1]


def test_smollm2_says_paris_as_huggingface_does(smollm2: Any, smollm2_folder: Path) -> None:
    result = interp.generate(real.PROMPT, n=12)
    assert result.continuation.startswith(" Paris")
    assert result.ids.tolist() == huggingface(smollm2_folder, result.provenance.tokens[0], 12)
    assert smollm2.geometry.n_layers == 30
    assert "␣Paris" in result.html().replace("<tspan>␣</tspan>", "␣")


# -- a trace -----------------------------------------------------------------------------------------------------------


@families
def test_a_traced_text_is_the_same_text_and_no_run_more(family: str, lend: Any) -> None:
    model = lend(family)
    plain = interp.generate(PROMPT, n=N)
    model.store.clear()
    result = interp.generate(PROMPT, n=N, trace=True)
    assert result.provenance.forwards == len(result.ids)
    assert result.ids.tolist() == plain.ids.tolist()
    assert result.logprobs.tobytes() == plain.logprobs.tobytes()
    count, g = len(result.ids), model.geometry
    assert result.lens_ids.shape == result.written_logprobs.shape == (g.n_layers, count)
    assert result.attended.shape == result.attended_weights.shape == (g.n_layers, g.n_heads, count, 5)
    np.testing.assert_allclose(result.written_logprobs[-1], result.logprobs, atol=1e-5)
    text = interp.lens([*result.provenance.tokens[0], *result.ids[:-1].tolist()])
    at = len(result.tokens) - 1
    assert (result.lens_ids == text.ids[:, at:, 0]).all()
    np.testing.assert_allclose(result.lens_probabilities, text.probabilities[:, at:, 0], atol=1e-5)
    assert result.settled.tolist() == [
        next((n for n in range(g.n_layers) if (result.lens_ids[n:, k] == result.ids[k]).all()), -1)
        for k in range(count)
    ]
    patterns = interp.attention([*result.provenance.tokens[0], *result.ids[:-1].tolist()]).pattern
    mean = patterns.mean((0, 1))[at:]
    for k in range(count):
        for place, weight, head, most in result.looked_at(k):
            assert weight == pytest.approx(mean[k, place], abs=1e-5)
            if head:
                assert most == pytest.approx(patterns[:, :, at + k, place].max(), abs=1e-5)


def test_a_trace_of_a_changed_run_is_that_of_the_changed_run(lend: Any) -> None:
    model = lend("llama")
    one = Intervention(Site("resid_post", 1), mode="add", value=vector(model))
    along = vector(model).numpy()
    plain = interp.generate(PROMPT, n=1, trace=True, direction=along)
    result = interp.generate(PROMPT, n=1, trace=True, direction=along, interventions=[one])
    np.testing.assert_allclose(result.written_logprobs[-1], result.logprobs, atol=1e-5)
    moved = result.projection - plain.projection
    assert result.projection_layers == (0, 1)
    np.testing.assert_allclose(moved[:, 0], [0, np.linalg.norm(along)], atol=1e-4)


def test_a_trace_has_features_and_is_a_table_and_a_page(shell: Any, lend: Any, tmp_path: Path) -> None:
    model = lend("gpt2")
    interp.features_load(str(dictionaries.written(tmp_path / "axes", model.geometry.d_model)))
    name = features.names(model)[-1]
    shell.run_cell(f"%%interp generate --n 5 --trace --features {name} --direction F0.3 -o out\n{PROMPT}").raise_error()
    result = shell.user_ns["out"]
    ids = [*result.provenance.tokens[0], *result.ids[:-1].tolist()]
    stream = model.run(ids).activations["blocks.0.hook_resid_post"][0, len(result.tokens) - 1 :]
    for k, row in enumerate(stream):
        found = dict(result.features_of(k))
        assert len(found) == model.geometry.d_model
        assert found["0.3" if row[3] > 0 else f"0.{3 + model.geometry.d_model}"] == pytest.approx(
            abs(float(row[3])), abs=1e-5
        )
        assert list(found.values()) == sorted(found.values(), reverse=True)
        assert result.projection[0, k] == pytest.approx(float(row[3]), abs=1e-5)
    frame = result.to_frame()
    assert len(frame) == len(result.ids)
    assert {"settled", "looked at", "active", "strongest feature", "projection 0"} <= set(frame.columns)
    page = result.html()
    assert page.count('type="radio"') == len(result.ids)
    assert page.count(" checked") == 1
    assert f"Features of {name}" in page
    assert "<script" not in page
    assert result.svg()
    result.save(tmp_path / "traced.npz")
    with np.load(tmp_path / "traced.npz", allow_pickle=False) as again:
        assert (again["attended"] == result.attended).all()


def test_an_interrupted_trace_is_of_what_was_written(lend: Any) -> None:
    lend("gpt2")
    from interp.interface.session import session

    def stop(done: int, total: int, said: str) -> None:  # noqa: ARG001
        if done == 3:
            raise KeyboardInterrupt

    session.on_step = stop
    with pytest.raises(Interrupted) as caught:
        interp.generate(PROMPT, n=6, trace=True)
    session.on_step = None
    kept = caught.value.result
    assert kept.lens_ids.shape[1] == len(kept.ids) == len(kept.attention) == 3
    assert kept.html()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"trace": True, "samples": 2, "temperature": 1.0}, "--trace follows one text; drop --samples"),
        ({"direction": "F0.3"}, "--direction is about a trace; add --trace"),
        ({"features": "mine"}, "--features is about a trace; add --trace"),
        ({"trace": True, "features": "mine"}, "no features are loaded"),
        ({"trace": True, "direction": np.ones(5)}, "the direction has shape"),
    ],
    ids=str,
)
def test_what_cannot_be_traced_is_refused(options: dict[str, Any], words: str, lend: Any) -> None:
    lend("gpt2")
    with pytest.raises(InputError, match=words):
        interp.generate(PROMPT, **options)
