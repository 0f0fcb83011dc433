"""Sentence pairs and padded ids are read as Hugging Face's own forward reads them, by every command that takes them."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import numpy as np
import pytest
import torch

import interp
import models
import zoo
from interp.engine.model.load import Options, load
from interp.engine.readouts.text_activations import pooled
from interp.errors import InputError
from interp.spec import Prompt, as_prompt

pytestmark = pytest.mark.usefixtures("one_thread")

PAIR = ("Mary gave [MASK]", "the drink to John")
OTHER = ("Mary gave [MASK]", "the cat to John")
ANSWER, WRONG = 46, 39


class Both:
    """A random encoder by Hugging Face and the same one loaded by interp."""

    def __init__(self, family: str, session: Any) -> None:
        self.hf = zoo.FAMILIES[family]()
        self.hf.set_attn_implementation("eager")
        self.tokenizer: Any = models.tokenizer(encoder=True)
        self.typed = family == "bert"
        if self.typed:  # as BERT's own tokenizer and not RoBERTa's
            self.tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
        own = copy.deepcopy(self.hf)
        self.model = session.models["own"] = load(own, tokenizer=self.tokenizer, options=Options(device="cpu"))
        session.current = "own"

    def encoded(self, pair: tuple[str, ...] = PAIR, **settings: Any) -> Any:
        return self.tokenizer(*pair, return_tensors="pt", **settings)

    def run(self, encoded: Any = None) -> Any:
        with torch.no_grad():
            given = self.encoded() if encoded is None else encoded
            return self.hf(**given, output_attentions=True, output_hidden_states=True)

    @property
    def patterns(self) -> Any:
        return torch.stack(self.run().attentions)[:, 0].numpy()

    @property
    def mask(self) -> int:
        return self.encoded()["input_ids"][0].tolist().index(self.tokenizer.mask_token_id)


@pytest.fixture(params=["bert", "roberta"])
def both(request: pytest.FixtureRequest, clean_session: Any) -> Both:
    return Both(request.param, clean_session)


@pytest.fixture
def bert(clean_session: Any) -> Both:
    return Both("bert", clean_session)


def off(found: Any, expected: Any) -> float:
    return float(np.abs(np.asarray(found) - np.asarray(expected)).max())


def test_patterns_and_logits(both: Both) -> None:
    result = interp.attention(PAIR)
    assert result.tokens.count("[SEP]") == 2
    assert off(result.pattern, both.patterns) <= 1e-5
    assert off(both.model.run(PAIR).logits, both.run().logits) <= 1e-4
    best = interp.predict(PAIR).top[0]
    assert best[1] == int(both.run().logits[0, both.mask].argmax())


def test_types_matter_and_reach_the_provenance(bert: Both) -> None:
    types = bert.encoded()["token_type_ids"][0].tolist()
    assert 0 < sum(types) < len(types)
    result = interp.attention(PAIR)
    assert result.provenance.types == [types]
    bare = interp.attention(bert.encoded()["input_ids"])
    assert bare.provenance.types == []
    assert off(bare.pattern, bert.patterns) > 0.01
    assert "('first', 'second')" in " ".join(bare.notes)
    assert json.loads(json.dumps(interp.tokens(PAIR).types)) == types
    assert interp.tokens(PAIR).to_frame()["type"].tolist() == types
    assert pickle.loads(pickle.dumps(result.provenance)).prompts == result.provenance.prompts


def test_the_store_never_answers_with_other_types(bert: Both) -> None:
    ids = bert.encoded()["input_ids"]
    first = interp.attention(PAIR).pattern
    bare = interp.attention(ids)
    assert bare.provenance.path == "forward"
    again = interp.attention(PAIR)
    assert again.provenance.path == "store"
    assert off(again.pattern, first) == 0
    assert off(interp.attention(ids).pattern, bare.pattern) == 0
    values = [interp.saliency(prompt, answer=ANSWER).value for prompt in (PAIR, ids, PAIR, ids)]
    assert values[0] == values[2] != values[1] == values[3]


def test_what_asks_again_keeps_the_types(bert: Both) -> None:
    norms = interp.attention(PAIR).value_norms()
    layer = bert.hf.bert.encoder.layer[0]
    with torch.no_grad():
        hidden = bert.run().hidden_states[0]
        value = layer.attention.self.value(hidden)[0].view(hidden.shape[1], 4, 8)
        output = layer.attention.output.dense.weight.view(32, 4, 8)
        expected = torch.einsum("phd,mhd->hpm", value, output).norm(dim=-1)
    assert off(norms[0], expected) <= 1e-4
    again = eval(interp.attention(bert.encoded()).code(), {"interp": interp})
    assert off(again.pattern, bert.patterns) <= 1e-5


def test_direct_attribution_sums_to_the_logit(both: Both) -> None:
    result = interp.dla(PAIR, answer=ANSWER)
    logit = float(both.run().logits[0, both.mask, ANSWER])
    assert sum(result.contributions.values()) == pytest.approx(logit, abs=1e-4)


@pytest.mark.parametrize("counterfactual", [None, ("John gave [MASK]", "the drink to Mary")])
def test_saliency(both: Both, counterfactual: Any) -> None:
    result = interp.saliency(PAIR, answer=ANSWER, counterfactual=counterfactual)
    logit = float(both.run().logits[0, both.mask, ANSWER])
    assert result.value == pytest.approx(logit, abs=1e-4)
    assert abs(result.gap) < 0.05 * max(1.0, abs(result.value - result.reference))


def test_a_counterfactual_parted_elsewhere_is_refused(bert: Both) -> None:
    ids, types = (bert.encoded()[name][0].tolist() for name in ("input_ids", "token_type_ids"))
    moved = {"input_ids": [*ids[:-1], 50], "token_type_ids": [0, *types[:-1]]}
    with pytest.raises(InputError, match="part their two sentences at different tokens"):
        interp.saliency(PAIR, answer=ANSWER, counterfactual=moved)


def test_lens_of_the_last_layer_is_the_models_own(both: Both) -> None:
    result = interp.lens(PAIR, target=ANSWER)
    logits = both.run().logits[0, both.mask]
    assert int(result.ids[-1, both.mask, 0]) == int(logits.argmax())
    assert result.probabilities[-1, both.mask, 0] == pytest.approx(float(logits.softmax(-1).max()), abs=1e-5)


def test_neurons_and_probes_read_the_pairs_own_activations(both: Both) -> None:
    hidden = both.run().hidden_states
    texts = [PAIR, "a cat", OTHER, "a dog", ("x", "y"), "the mat"]
    found = interp.neurons("0.3", [PAIR], top=3, context=0)
    module = (both.hf.bert if both.typed else both.hf.roberta).encoder.layer[0]
    with torch.no_grad():
        inner = module.intermediate(module.attention(hidden[0])[0])[0, :, 3]
    assert off(np.sort(found.activations.reshape(-1)), inner.sort().values[-3:]) <= 1e-4

    encoded = [both.model.tokens.encode(as_prompt(text)).ids for text in texts]
    values = pooled(both.model, encoded, "resid_pre", "last").values
    assert off(values[1, 0], hidden[1][0, -1]) <= 1e-4
    assert interp.probe(texts, ["a", "b"] * 3, folds=2, shuffles=1).counts == (3, 3)


def by_hand(both: Both, position: int, base: Any, source: Any) -> float:
    """Return the logit difference of `base` with one position before layer 1 as `source` has it."""
    layers = (both.hf.bert if both.typed else both.hf.roberta).encoder.layer
    there = both.run(source).hidden_states[1]

    def put(module: Any, args: Any, output: Any) -> Any:  # noqa: ARG001
        hidden = (output[0] if isinstance(output, tuple) else output).clone()
        hidden[:, position] = there[:, position]
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handle = layers[0].register_forward_hook(put)
    try:
        logits = both.run(base).logits[0, both.mask]
    finally:
        handle.remove()
    return float(logits[ANSWER] - logits[WRONG])


def test_patching_is_the_loop_by_hand(both: Both) -> None:
    corrupted = ("John gave [MASK]", "the drink to Mary")
    clean = ("Mary gave [MASK]", "the drink to John")
    result = interp.patch(clean, corrupted, answer=ANSWER, wrong=WRONG, site="resid_pre", by="position")
    base, source = both.encoded(corrupted), both.encoded(clean)
    for position in range(3):
        assert result.patched[1, position] == pytest.approx(by_hand(both, position, base, source), abs=1e-4)
    estimate = interp.patch(clean, corrupted, answer=ANSWER, wrong=WRONG, method="attribution", steps=5)
    ends = [both.run(one).logits[0, both.mask] for one in (base, source)]
    whole = [float(end[ANSWER] - end[WRONG]) for end in ends]
    assert estimate.checks.corrupted_metric[0] == pytest.approx(whole[0], abs=1e-4)
    assert estimate.checks.clean_metric[0] == pytest.approx(whole[1], abs=1e-4)
    rows = interp.patch(pairs=(clean, corrupted, ANSWER, WRONG), site="resid_pre", by="position")
    assert off(rows.patched, result.patched) == 0


def test_attribution_and_ablation_run_with_the_types(bert: Both) -> None:
    """The estimate along the way between the prompts sums to what lies between Hugging Face's two metrics."""
    corrupted = ("John gave [MASK]", "the drink to Mary")
    result = interp.patch(PAIR, corrupted, answer=ANSWER, wrong=WRONG, method="attribution", steps=60)
    ends = [bert.run(bert.encoded(one)).logits[0, bert.mask] for one in (corrupted, PAIR)]
    low, high = (float(end[ANSWER] - end[WRONG]) for end in ends)
    assert float(result.estimates["resid_pre"][0].sum()) == pytest.approx(high - low, abs=0.02 * abs(high - low) + 1e-3)
    ablated = interp.ablate(heads="1.0", pairs=[(PAIR, corrupted, ANSWER, WRONG)])
    assert ablated.values[0] == pytest.approx(high, abs=1e-4)


def test_pairs_whose_types_alone_differ_differ_there(bert: Both) -> None:
    ids = bert.encoded()["input_ids"][0].tolist()
    types = bert.encoded()["token_type_ids"][0].tolist()
    at = types.index(1)
    clean = {"input_ids": ids, "token_type_ids": types}
    corrupted = {"input_ids": ids, "token_type_ids": [*types[:at], 0, *types[at + 1 :]]}
    result = interp.patch(clean, corrupted, answer=ANSWER, wrong=WRONG, site="resid_pre", by="position")
    assert result.checks.differing == ((at,),)
    assert result.provenance.types == [types, corrupted["token_type_ids"]]
    assert result.checks.clean_metric[0] != result.checks.corrupted_metric[0]


def test_a_cell(bert: Both, shell: Any) -> None:
    typed = shell.run_cell("%%interp attention\nMary gave [MASK] ||| the drink to John\n").result
    assert off(typed.pattern, bert.patterns) <= 1e-5
    assert typed.code() == f"interp.attention({PAIR!r})"
    quoted = shell.run_cell('%interp attention "Mary gave [MASK] ||| the drink to John"').result
    assert off(quoted.pattern, bert.patterns) <= 1e-5
    over_lines = shell.run_cell("%%interp attention\nMary gave [MASK] |||\nthe drink to John").result
    assert off(over_lines.pattern, bert.patterns) <= 1e-5
    several = shell.run_cell("%%interp neurons 0.3\nMary gave [MASK] ||| the drink to John").result
    assert several.provenance.arguments["texts"] == [PAIR]
    asked = 'saliency --answer John --counterfactual "John gave [MASK] ||| the drink to Mary"'
    explained = shell.run_cell(f"%%interp {asked}\nMary gave [MASK] ||| the drink to John").result
    called = interp.saliency(PAIR, answer="John", counterfactual=("John gave [MASK]", "the drink to Mary"))
    assert explained.provenance.types == called.provenance.types
    assert off(explained.attribution, called.attribution) == 0


def test_a_cell_of_pairs(bert: Both, shell: Any) -> None:  # noqa: ARG001
    lines = "clean: Mary gave [MASK] ||| the drink to John\ncorrupted: John gave [MASK] ||| the drink to Mary"
    typed = shell.run_cell(f"%%interp patch --metric kl\n{lines}").result
    called = interp.patch(PAIR, ("John gave [MASK]", "the drink to Mary"), metric="kl")
    assert typed.provenance.types == called.provenance.types != []
    assert off(typed.patched, called.patched) == 0


def test_bars_that_divide_nothing(bert: Both, shell: Any) -> None:
    own = bert.tokenizer("a ||| b")["input_ids"]
    assert shell.run_cell("%%interp tokens\na \\||| b").result.ids == tuple(own)
    assert interp.tokens("a ||| b").ids == tuple(own)
    four = shell.run_cell("%%interp tokens\na |||| b").result
    assert four.ids == tuple(bert.tokenizer("a |||| b")["input_ids"])


def test_bars_in_a_decoders_prompt_are_text(lend: Any, shell: Any) -> None:
    model = lend("gpt2")
    for text in ("if a ||| b:", "a \\||| b", "|||", "a ||| b ||| c"):
        typed = shell.run_cell(f"%%interp tokens\n{text}").result
        assert typed.ids == interp.tokens(text).ids
        assert "".join(typed.tokens[1:]) == text
    assert model.tokens.bidirectional is False


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("a |||", "second sentence of the prompt is empty"),
        ("||| a", "first sentence of the prompt is empty"),
        ("a ||| b ||| c", r"two sentences at most.*this one 3.*\\\|\|\|"),
    ],
)
def test_bars_that_make_no_pair_are_refused(bert: Both, shell: Any, body: str, words: str) -> None:  # noqa: ARG001
    error = shell.run_cell(f"%%interp tokens\n{body}").error_in_exec
    assert error is not None
    assert len(str(error)) <= 400
    with pytest.raises(type(error), match=words):
        raise error


def test_a_pair_is_cut_and_bare_as_it_is_asked(bert: Both) -> None:
    long = ("Mary gave " * 12, "the drink " * 12)
    with pytest.raises(InputError, match="--truncate"):
        interp.tokens(long)
    cut = interp.tokens(long, truncate=True)
    full = bert.encoded(long)
    assert cut.ids == tuple(full["input_ids"][0, : len(cut.ids)].tolist())
    assert cut.types == tuple(full["token_type_ids"][0, : len(cut.ids)].tolist())
    bare = interp.attention(PAIR, bos=False)
    own = bert.encoded(add_special_tokens=False)
    assert bare.provenance.types == own["token_type_ids"].tolist()
    assert off(bare.pattern, torch.stack(bert.run(own).attentions)[:, 0]) <= 1e-5


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (("a", ""), "second sentence of the prompt is empty"),
        (("", "b"), "first sentence of the prompt is empty"),
        (("a", "b", "c"), r"a tuple of 3 texts is none.*\('first', 'second'\)"),
        (("a", 3), "one prompt at a time"),
        (("a\ud800", "b"), "surrogate"),
        (Prompt(second="b"), "first sentence of the prompt is empty"),
        (Prompt(ids=(5, 6), types=(0, 1, 1)), "2 ids and 3 token types"),
        ({"input_ids": [5, 6], "token_type_ids": [0, 2]}, "token type 2; the model has 0–1"),
    ],
)
def test_what_is_no_pair_is_refused_in_one_line(bert: Both, prompt: Any, words: str) -> None:  # noqa: ARG001
    with pytest.raises(InputError, match=words) as refused:
        interp.attention(prompt)
    assert len(str(refused.value)) <= 400
    assert "\n" not in str(refused.value)


def test_a_list_of_two_is_no_pair(bert: Both) -> None:  # noqa: ARG001
    assert interp.attention(["a", "b"]).n == 2
    with pytest.raises(InputError, match=r"2 were given.*\('first', 'second'\)"):
        interp.tokens(["a", "b"])


def test_a_decoder_refuses_a_pair_and_says_what_to_type(lend: Any) -> None:
    lend("llama")
    calls = [
        lambda: interp.attention(PAIR),
        lambda: interp.neurons("0.1", ["a", PAIR]),
        lambda: interp.patch(PAIR, OTHER, answer=5, wrong=6),
        lambda: interp.probe([PAIR, "b"], ["x", "y"]),
        lambda: interp.generate(PAIR),
    ]
    for call in calls:
        with pytest.raises(InputError, match="type them as one, 'first second'") as refused:
            call()
        assert len(str(refused.value)) <= 400
    assert len(interp.neurons("0.1", ("a", "b")).provenance.arguments["texts"]) == 2  # a tuple alone is several texts
