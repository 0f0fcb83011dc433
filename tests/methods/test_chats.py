"""Commands over chats: the same at both doors, by span what a naive loop gives, written up to the turn's end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import interp
import templates
from interp.chats import TEMPLATE
from interp.engine.model.generation import end_ids
from interp.errors import InputError
from interp.prompts import as_prompt

pytestmark = pytest.mark.usefixtures("one_thread")

FAMILIES = ("gpt2", "llama", "neox")
ASKED = [{"role": "user", "content": "When [Mary]{IO} and John went"}]
OTHER = [{"role": "user", "content": "When [the cat]{IO} and John went"}]


@pytest.fixture
def chatting(lend: Any) -> Iterator[Any]:
    """Return ``chatting(family, template)``: a small model whose tokenizer has the template."""
    lent: dict[str, Any] = {}

    def of(family: str, template: str) -> Any:
        model = lent[family] = lend(family, added=templates.SPECIAL)
        model.tokens.tokenizer.chat_template = templates.TEMPLATES.get(template, template)
        return model

    yield of
    for model in lent.values():
        model.tokens.tokenizer.chat_template = None


def naive(model: Any, base: Any, source: Any, layer: int, places: Any, answer: int) -> float:
    """Return the answer's logit with what stands at `places` patched, by one forward with one hook."""
    name = f"blocks.{layer}.hook_resid_pre"
    held = model.run(list(source)).activations[name][0]

    def write(tensor: torch.Tensor, hook: Any) -> torch.Tensor:  # noqa: ARG001
        patched = tensor.clone()
        here, there = places
        for at, taken in zip(here, there, strict=True) if len(here) == len(there) else [(here[-1], there[-1])]:
            patched[0, at] = held[taken]
        return patched

    logits = model.bridge.run_with_hooks(torch.tensor([list(base)]), fwd_hooks=[(name, write)], return_type="logits")
    return float(logits[0, -1, answer].detach())


@pytest.mark.parametrize("template", ["gemma", "mistral"])
@pytest.mark.parametrize("family", FAMILIES)
def test_patches_by_turn_are_those_of_the_naive_loop(family: str, template: str, chatting: Any) -> None:
    model = chatting(family, template)
    found = interp.patch(ASKED, OTHER, site="resid_pre", by="span", metric="logit", answer=" Mary")
    assert found.provenance.path == "replay"
    assert set(found.positions) == {TEMPLATE, "user", "IO", "END"}
    clean, corrupted = found.provenance.prompts[:2]
    whole = [{"role": "user", "content": "When Mary and John went"}]
    expected = model.tokens.tokenizer.apply_chat_template(whole, add_generation_prompt=True)["input_ids"]
    assert list(clean) == expected
    spans = found.checks.spans[0]
    for side, ids in enumerate((clean, corrupted)):
        assert sorted(at for places in spans.values() for at in places[side]) == list(range(len(ids)))
        assert spans["END"][side] == (len(ids) - 1,)
    ((_, answer),) = found.checks.answer[0]
    for number, name in enumerate(found.positions):
        for layer in range(model.geometry.n_layers):
            value = naive(model, corrupted, clean, layer, spans[name][::-1], answer)
            assert found.patched[layer, number] == pytest.approx(value, abs=5e-5), (name, layer)


def test_a_mark_of_one_chat_alone_is_taken_out_of_the_others_turn(chatting: Any) -> None:
    chatting("gpt2", "mistral")
    plain = [{"role": "user", "content": "When John and John went"}]
    marked = [{"role": "user", "content": "When [Mary]{IO} and John went"}]
    spans = [
        interp.patch(*both, site="resid_pre", by="span", metric="logit", answer=" Mary").checks.spans[0]
        for both in ((marked, plain), (plain, marked))
    ]
    assert spans[0] == spans[1]
    assert set(spans[0]) == {TEMPLATE, "user", "IO", "END"}


def test_the_last_token_of_a_turn_that_goes_on_is_the_end(chatting: Any) -> None:
    model = chatting("gpt2", "mistral")
    both = [[*chat, {"role": "assistant", "content": "It was the"}] for chat in (ASKED, OTHER)]
    found = interp.patch(*both, site="resid_pre", by="span", metric="logit", answer=" Mary")
    spans = found.checks.spans[0]
    tokens = [found.checks.clean[0][at] for at in spans["assistant"][0]]
    assert "".join(tokens).strip() == "It was"
    assert spans["END"][0] == (len(found.provenance.prompts[0]) - 1,)
    assert model.tokens.string(found.provenance.prompts[0][-1]).strip() == "the"


def test_chats_of_other_turns_do_not_line_up(chatting: Any) -> None:
    chatting("gpt2", "mistral")
    more = [*OTHER, {"role": "assistant", "content": "the"}]
    with pytest.raises(InputError, match="clean has no turn assistant: both chats of a pair need the same turns"):
        interp.patch(ASKED, more, site="resid_pre", by="span", metric="logit", answer=" Mary")
    with pytest.raises(InputError, match="corrupted has no turn"):
        interp.patch(ASKED, "When [Mary]{IO} and John", site="resid_pre", by="span", metric="logit", answer=" Mary")


def typed(chat: list[dict[str, str]]) -> str:
    return "\n".join(f"{message['role']}: {message['content']}" for message in chat)


def cell(shell: Any, text: str) -> Any:
    done = shell.run_cell(text)
    done.raise_error()
    return done.result


def test_a_cell_and_a_call_are_the_same(shell: Any, chatting: Any) -> None:
    chatting("llama", "gemma")
    chat = [{"role": "system", "content": "Mary"}, *ASKED]
    called = interp.predict(chat)
    shown = cell(shell, f"%%interp predict\n{typed(chat)}\n")
    assert called.provenance.tokens == shown.provenance.tokens
    assert called.top == shown.top
    for result in (called, shown, interp.predict(typed(chat))):
        again = eval(result.code(), {"interp": interp})
        assert again.provenance.tokens == called.provenance.tokens
    as_they_are = cell(shell, f"%%interp tokens --no-template\n{typed(ASKED)}\n")
    assert "".join(as_they_are.tokens).removeprefix(templates.BOS) == typed(ASKED).replace("[Mary]{IO}", "Mary")
    assert as_they_are.spans.keys() == {"IO"}
    assert eval(as_they_are.code(), {"interp": interp}).ids == as_they_are.ids
    text = interp.tokens(interp.Prompt("user: Mary"))
    assert eval(text.code(), {"interp": interp}).ids == text.ids


def test_pairs_of_chats_at_both_doors(shell: Any, chatting: Any) -> None:
    chatting("neox", "mistral")
    called = interp.patch(ASKED, OTHER, site="resid_pre", by="span", metric="logit", answer=" Mary")
    body = f"clean:\n  {typed(ASKED)}\ncorrupted: {typed(OTHER)}\nanswer: Mary\n"
    shown = cell(shell, f"%%interp patch --site resid_pre --by span --metric logit\n{body}")
    assert called.positions == shown.positions
    assert np.array_equal(called.patched, shown.patched)
    assert np.array_equal(eval(shown.code(), {"interp": interp}).patched, called.patched)
    plain = cell(shell, f"%%interp patch --site resid_pre --by span --metric logit --no-template\n{body}")
    assert set(plain.positions) == {"IO", "END"}
    assert np.array_equal(eval(plain.code(), {"interp": interp}).patched, plain.patched)


def test_running_text_is_a_chat_where_it_is_one_text(shell: Any, chatting: Any) -> None:
    model = chatting("gpt2", "mistral")
    chat = [*ASKED, {"role": "assistant", "content": "to the store"}]
    ids = list(model.encode(as_prompt(chat, literal=True)).ids)
    for result in (
        interp.loss(chat),
        interp.loss([chat]),
        interp.loss(typed(chat)),
        cell(shell, f"%%interp loss\n{typed(chat)}\n"),
    ):
        assert result.provenance.tokens == [ids]
        assert eval(result.code(), {"interp": interp}).provenance.tokens == [ids]
    assert interp.loss([typed(chat)]).provenance.tokens != [ids]  # a list of texts is read as it is
    assert interp.loss(typed(chat), template=False).provenance.tokens == interp.loss([typed(chat)]).provenance.tokens


def test_what_says_nothing_of_a_chat_is_refused(lend: Any, chatting: Any) -> None:
    chatting("gpt2", "mistral")
    for bos in (True, False):
        with pytest.raises(InputError, match="a chat begins as its template says: leave --"):
            interp.tokens(ASKED, bos=bos)
    with pytest.raises(InputError, match=r"pair 1: .*leave --no-bos out"):
        interp.patch(pairs=[("a b", "a c", "Mary"), (ASKED, OTHER, " Mary")], metric="logit", bos=False)
    with pytest.raises(InputError, match="--no-template takes lines"):
        interp.tokens(ASKED, template=False)
    lend("gpt2")
    with pytest.raises(InputError, match="no chat template: add --no-template"):
        interp.generate("user: Mary")


def test_a_counterfactual_and_a_direction_may_be_chats(chatting: Any) -> None:
    model = chatting("llama", "mistral")
    one, other = ([{"role": "user", "content": f"When {name} and John"}] for name in ("Mary", "John"))
    whole = [model.tokens.tokenizer.apply_chat_template(chat)["input_ids"] for chat in (one, other)]
    found = interp.saliency(one, counterfactual=typed(other), answer=" John")
    assert found.provenance.tokens == whole
    plain = interp.saliency(typed(one), counterfactual=typed(other), answer=" John", template=False)
    assert "".join(model.tokens.strings(plain.provenance.tokens[1])[0]).removeprefix(templates.BOS) == typed(other)
    steered = interp.steer("Mary", layer=1, toward=[one], against=[other], n=1)
    ends = [model.run(ids).activations["resid_post", 1][0, -1] for ids in whole]
    assert np.allclose(steered.direction, (ends[0] - ends[1]).detach().numpy(), atol=1e-5)
    assert steered.source.startswith("[{'role': 'user'")


def test_what_a_session_says_of_chats(lend: Any, chatting: Any) -> None:
    lend("gpt2")
    assert ("chat template", "none: chats need --no-template") in interp.status().rows
    chatting("gpt2", "mistral")
    assert ("chat template", "there is one") in interp.status().rows
    with pytest.raises(AttributeError, match="type user: and what is asked"):
        _ = interp.chat


# -- what is written ---------------------------------------------------------------------------------------------------

END = "<|eot_id|>"
# A user's turn ends otherwise than the assistant's, so that only one of them is what a text ends at.
PLAINLY = (
    "{% for m in messages %}{{ m['role'] + ' ' + m['content'] }}"
    "{{ '<|eot_id|>' if m['role'] == 'assistant' else ' ' }}{% endfor %}"
)
TOLD = [{"role": "user", "content": "When Mary and John"}]


@pytest.fixture(params=FAMILIES)
def ending(request: Any, folder: Any, tmp_path: Path, clean_session: Any) -> Any:  # noqa: ARG001
    """Return a loaded model that soon ends its turn, and Hugging Face's: the end outdoes what it writes third."""
    source = folder(request.param, added=templates.SPECIAL)
    hf = AutoModelForCausalLM.from_pretrained(source)
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.chat_template = PLAINLY
    batch = torch.tensor([tokenizer.apply_chat_template(TOLD)["input_ids"]])
    third = hf.generate(batch, attention_mask=torch.ones_like(batch), do_sample=False, max_new_tokens=3)[0, -1]
    with torch.no_grad():
        rows = hf.get_output_embeddings().weight
        rows[tokenizer.convert_tokens_to_ids(END)] = 1.5 * rows[third]
    hf.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return interp.load(tmp_path, device="cpu"), hf


def test_a_turn_is_written_up_to_its_end(ending: Any) -> None:
    model, hf = ending
    end, n = model.tokens.tokenizer.convert_tokens_to_ids(END), 12
    found = interp.generate(TOLD, n=n)
    batch = torch.tensor(found.provenance.tokens)
    how = {"attention_mask": torch.ones_like(batch), "do_sample": False, "pad_token_id": 0}
    made = hf.generate(batch, max_new_tokens=n, eos_token_id=[end, *end_ids(model)], **how)
    assert found.ids.tolist() == made[0, batch.shape[1] :].tolist()
    assert (found.stopped, int(found.ids[-1]), found.generated[-1]) == ("eos", end, END)
    assert found.continuation == model.tokens.tokenizer.decode(found.ids[:-1].tolist())
    traced = interp.generate(TOLD, n=n, trace=True)
    assert (traced.ids.tolist(), traced.continuation) == (found.ids.tolist(), found.continuation)
    steered = interp.steer(TOLD, layer=1, direction=torch.ones(model.geometry.d_model), n=n)
    assert (steered.continuations[0], steered.stopped[0]) == (found.continuation, "eos")
    plain = interp.generate(interp.Prompt(ids=found.provenance.prompts[0]), n=n)  # no chat: no turn ends
    assert (len(plain.ids), plain.ids[: len(found.ids)].tolist()) == (n, found.ids.tolist())


def test_samples_stop_at_the_turns_end_too(ending: Any) -> None:
    model, _ = ending
    end = model.tokens.tokenizer.convert_tokens_to_ids(END)
    found = interp.generate(TOLD, n=12, samples=8, temperature=0.5)
    assert "eos" in found.stopped
    for row, text, stop in zip(found.ids, found.continuations, found.stopped, strict=True):
        ids = [index for index in row.tolist() if index >= 0]
        assert end not in ids[:-1]
        assert (stop == "eos") == (ids[-1] in {end, *end_ids(model)})
        assert text == model.tokens.tokenizer.decode(ids[:-1] if stop == "eos" else ids)


# -- the real model ----------------------------------------------------------------------------------------------------


def test_smollm2_answers(smollm2: Any, smollm2_folder: Path, shell: Any) -> None:
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    found = cell(shell, f"%%interp generate --n 40\n{typed(chat)}")
    tokenizer = smollm2.tokens.tokenizer
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
    assert found.provenance.tokens == [ids]
    assert (found.continuation, found.stopped) == ("The capital of France is Paris.", "eos")
    hf = AutoModelForCausalLM.from_pretrained(smollm2_folder, dtype=torch.float32)
    batch = torch.tensor([ids])
    made = hf.generate(batch, attention_mask=torch.ones_like(batch), do_sample=False, max_new_tokens=40, pad_token_id=0)
    assert found.ids.tolist() == made[0, len(ids) :].tolist()


def test_smollm2_patched_by_turn(smollm2: Any) -> None:
    both = [
        [
            {"role": "user", "content": f"What is the capital of [{name}]{{country}}?"},
            {"role": "assistant", "content": "It is"},
        ]
        for name in ("France", "the Soviet Union")
    ]
    found = interp.patch(*both, site="resid_pre", by="span", layer="5,20", metric="logit", answer="Paris")
    clean, corrupted = found.provenance.prompts[:2]
    ((_, answer),) = found.checks.answer[0]
    for number, name in enumerate(found.positions):
        for row, layer in enumerate((5, 20)):
            value = naive(smollm2, corrupted, clean, layer, found.checks.spans[0][name][::-1], answer)
            assert found.patched[row, number] == pytest.approx(value, abs=1e-3), (name, layer)
