"""Saliency: closed forms, completeness, naive quadrature, rollout, classifiers, what is refused, and SmolLM2."""

from __future__ import annotations

import importlib.util
import signal
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

import interp
import models
from interp.engine.readouts import saliency as engine
from interp.errors import InputError, Interrupted
from interp.interface import registry
from real import PROMPT, STORE

pytestmark = pytest.mark.usefixtures("one_thread")

FAMILIES = ("gpt2", "llama", "neox", "bert")
CAUSAL = FAMILIES[:3]
CLEAN, OTHER = "Mary gave the drink to John and", "Mary gave the drink to Mary and"


def text(family: str) -> str:
    return "Mary gave the [MASK] to John" if family == "bert" else CLEAN


def other(family: str) -> str:
    return text(family).replace("John", "Mary")


def naive(model: Any, prompt: str, counterfactual: str, answer: int, wrong: int, points: int = 1000) -> np.ndarray:
    """Integrate by the midpoint rule over the model's own hooked forward, one point at a time."""
    tok = model.tokens
    ids, start = (tok.encode(interp.Prompt(p)).ids for p in (prompt, counterfactual))
    bridge = model.bridge
    weight = bridge.embed.original_component.weight.detach()
    ends = weight[list(ids)], weight[list(start)]
    position = ids.index(tok.tokenizer.mask_token_id) if not model.geometry.causal else -1
    total = torch.zeros_like(ends[0], dtype=torch.float64)
    for n in range(points):
        point = (ends[1] + (n + 0.5) / points * (ends[0] - ends[1])).requires_grad_()
        hook = ("embed.hook_out", lambda tensor, hook, point=point: point[None].to(tensor))  # noqa: ARG005
        with torch.enable_grad():
            logits = bridge.run_with_hooks(torch.tensor([ids]), fwd_hooks=[hook], return_type="logits")[0, position]
            (slope,) = torch.autograd.grad(logits[answer] - logits[wrong], point)
        total += slope.double() / points
    return ((ends[0] - ends[1]).double() * total).sum(-1).numpy()


@pytest.mark.parametrize("family", FAMILIES)
def test_integrated_gradients_are_the_hooked_integral(lend: Any, family: str) -> None:
    model = lend(family)
    result = interp.saliency(text(family), counterfactual=other(family), answer=" Mary", wrong=" John", steps=64)
    expected = naive(model, text(family), other(family), result.answer[1], result.wrong[1], 200)
    np.testing.assert_allclose(result.attribution, expected, atol=2e-3 * np.abs(expected).max())
    assert result.provenance.path == "gradients"


@pytest.mark.parametrize("metric", ["logit-diff", "logprob", "prob"])
@pytest.mark.parametrize("family", [*FAMILIES, "gemma2", "granite"])  # these scale their embeddings
def test_with_a_counterfactual_the_parts_are_complete(lend: Any, family: str, metric: str) -> None:
    model = lend(family)
    wrong = {"wrong": " John"} if metric == "logit-diff" else {"metric": metric}
    result = interp.saliency(text(family), counterfactual=other(family), answer=" Mary", **wrong)
    ends = []
    for prompt in (text(family), other(family)):
        run = model.run(prompt)
        at = -1 if family != "bert" else run.tokens.strings.index(models.MASK)
        logits = run.logits[0, at].double()
        logs = logits.log_softmax(-1)
        right = result.answer[1]
        ends.append({"logprob": logs[right], "prob": logs[right].exp()}.get(metric))
        if metric == "logit-diff":
            ends[-1] = logits[right] - logits[result.wrong[1]]
    assert result.value == pytest.approx(float(ends[0]), abs=1e-4)
    assert result.reference == pytest.approx(float(ends[1]), abs=1e-4)
    assert abs(result.gap) <= 0.01 * abs(result.value - result.reference) + 1e-4
    assert result.attribution.dtype == np.float64
    same = [a == b for a, b in zip(result.tokens, result.counterfactual, strict=True)]
    assert not result.attribution[same].any()
    assert result.attribution[~np.array(same)].all()
    assert result.notes == ()


@pytest.mark.parametrize("baseline", ["zero", "mean"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_gap_is_what_the_parts_miss(lend: Any, family: str, baseline: str) -> None:
    model = lend(family)
    result = interp.saliency(text(family), baseline=baseline, steps=8)
    weight = model.bridge.embed.original_component.weight.detach()
    start = weight.mean(0).expand(len(result.tokens), -1) if baseline == "mean" else torch.zeros(len(result.tokens), 32)
    logits = model.forward(
        [model.encode(interp.Prompt(text(family))).ids],
        {"embed.hook_out": lambda t, hook: start[None].to(t)},  # noqa: ARG005
        last_only=False,
    )
    assert result.reference == pytest.approx(float(logits[0, result.position, result.answer[1]]), abs=1e-3)
    assert result.gap == pytest.approx(result.attribution.sum() - (result.value - result.reference))
    assert any("gap of" in note for note in result.notes) == (result.relative_gap > 0.05)
    assert 8 <= result.steps <= 32


def test_a_hook_on_the_embeddings_is_not_overwritten_in_silence(folder: Any, clean_session: Any) -> None:
    model = clean_session.load(folder("gpt2"), name="hooked")
    model.bridge.add_hook("embed.hook_out", lambda tensor, hook: tensor.flip(-1))  # noqa: ARG005
    with pytest.raises(InputError, match="take the hook off"):
        interp.saliency(CLEAN, counterfactual=OTHER, answer=" Mary")


@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_times_input(lend: Any, family: str) -> None:
    model = lend(family)
    result = interp.saliency(text(family), method="gradient-input", answer=" Mary")
    ids = model.encode(interp.Prompt(text(family))).ids
    point = model.bridge.embed.original_component.weight.detach()[list(ids)].requires_grad_()
    hook = ("embed.hook_out", lambda tensor, hook: point[None].to(tensor))  # noqa: ARG005
    with torch.enable_grad():
        logits = model.bridge.run_with_hooks(torch.tensor([ids]), fwd_hooks=[hook], return_type="logits")
        (slope,) = torch.autograd.grad(logits[0, result.position, result.answer[1]], point)
    np.testing.assert_allclose(result.attribution, (slope * point).sum(-1).detach(), atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_rollout_is_the_product_of_the_patterns(lend: Any, family: str) -> None:
    lend(family)
    result = interp.saliency(text(family), method="rollout")
    pattern = interp.attention(text(family)).pattern.astype(np.float64).mean(1)
    eye = np.eye(pattern.shape[-1])
    seen = eye
    for layer in pattern:
        mixed = layer + eye
        seen = mixed / mixed.sum(-1, keepdims=True) @ seen
    np.testing.assert_allclose(result.attribution, seen[result.position], atol=1e-7)
    assert result.total == pytest.approx(1, abs=1e-6)
    assert np.isnan(result.gap)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_question_again_runs_no_forward(lend: Any, family: str) -> None:
    model = lend(family)
    first = interp.saliency(text(family), answer=" Mary", steps=8)
    before = model.forwards
    again = interp.saliency(text(family), answer=" Mary", steps=8)
    assert model.forwards == before
    assert (again.attribution == first.attribution).all()
    assert (again.value, again.reference, again.steps) == (first.value, first.reference, first.steps)
    assert again.provenance.path == "store"
    others = [{"answer": " John"}, {"answer": " Mary", "baseline": "zero"}, {"answer": " Mary", "metric": "prob"}]
    for other in (*others, {"answer": " Mary", "wrong": " John"}, {"method": "gradient-input", "answer": " Mary"}):
        assert (interp.saliency(text(family), steps=8, **other).attribution != first.attribution).any()
        assert model.forwards > before
        before = model.forwards


def test_a_linear_function_is_exact_with_one_gradient() -> None:
    weight = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    x, b = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(1))
    found = engine.with_gradients(lambda: engine.integrated(lambda e: (e * weight).sum((1, 2)), x, b, 1))
    np.testing.assert_allclose(found.parts, (weight * (x - b)).sum(-1), atol=1e-5)
    assert found.steps == 1


def test_a_sharp_turn_is_found_by_halving() -> None:
    def turning(e: torch.Tensor) -> torch.Tensor:
        return torch.tanh(200 * (e.sum((1, 2)) - 0.03))

    x, b = torch.ones(1, 1), torch.zeros(1, 1)
    found = engine.with_gradients(lambda: engine.integrated(turning, x, b, 40))
    assert 40 < found.steps <= 160
    assert float(found.parts.sum()) == pytest.approx(found.value - found.reference, rel=0.01)


@pytest.mark.parametrize("of", ["model", "classifier"])
def test_an_interrupt_leaves_the_parts_of_the_whole_way(of: str, lend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped at any batch of gradients but the first, the result is a coarser one."""
    tok = tokenizer()
    lend("gpt2")
    bert = classifier("bert", tok)
    monkeypatch.setattr(engine, "_EXACT", -1.0)  # so that there are later rounds
    monkeypatch.setattr(engine, "_COMPLETE", -1.0)
    monkeypatch.setattr(engine.memory, "GRADIENT_ROWS", 64)  # so that the first round has several batches

    def ask() -> Any:
        if of == "model":
            return interp.saliency("Mary gave the drink to", answer=" John", baseline="zero", steps=16)
        return interp.saliency_of_classifier("Mary gave a drink", bert, tok, target=1, baseline="zero", steps=16)

    whole, kept = ask(), 0
    for stop in range(16):
        if of == "model":
            lend("gpt2")  # with an empty store
        plain, calls = torch.autograd.grad, []

        def stopping(*a: Any, stop: int = stop, calls: list[int] = calls, plain: Any = plain, **k: Any) -> Any:
            calls.append(1)
            if len(calls) == stop + 1:
                signal.raise_signal(signal.SIGINT)
            return plain(*a, **k)

        with monkeypatch.context() as patch:
            patch.setattr(torch.autograd, "grad", stopping)
            try:
                ask()
                break
            except Interrupted as stopped:
                result = stopped.result
            except KeyboardInterrupt:
                assert stop == 0
                continue
        kept += 1
        assert (
            result.notes[0]
            == f"partial: interrupted after {result.steps} gradients, before the parts met the difference"
        )
        assert result.value == pytest.approx(whole.value, abs=1e-5)
        assert result.total == pytest.approx(whole.total, abs=0.3 * abs(whole.value - whole.reference) + 0.3)
        assert result.steps < whole.steps + 8
        assert result.provenance.technique.startswith("saliency")
        assert "partial" in result.html()
    assert kept >= 5
    again = ask()
    assert again.steps == whole.steps
    np.testing.assert_allclose(again.attribution, whole.attribution, atol=1e-5)


def test_memory_that_runs_out_takes_fewer_points_at_once() -> None:
    rows: list[int] = []

    def hungry(e: torch.Tensor) -> torch.Tensor:
        if len(e) > 5:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes.")
        rows.append(len(e))
        return (e**2).sum((1, 2))

    x, b = torch.ones(2, 3), torch.zeros(2, 3)
    found = engine.with_gradients(lambda: engine.integrated(hungry, x, b, 40))
    np.testing.assert_allclose(found.parts, [3, 3], atol=1e-5)
    assert max(rows) == 5


@pytest.mark.parametrize("family", FAMILIES)
def test_the_users_gradients_and_hooks_are_left_alone(lend: Any, family: str) -> None:
    model = lend(family)
    parameters = list(model.hf_model.parameters())
    before = [(p.requires_grad, p.grad) for p in parameters]
    interp.saliency(text(family))
    assert [(p.requires_grad, p.grad) for p in parameters] == before
    assert torch.is_grad_enabled()
    with torch.inference_mode(), pytest.raises(InputError, match="inference_mode"):
        interp.saliency(text(family), steps=9)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"method": "deeplift"}, "use --method ig"),
        ({"method": "rollout", "answer": " Mary"}, "takes no answer"),
        ({"method": "gradient-input", "counterfactual": OTHER}, "takes no counterfactual"),
        ({"counterfactual": "Mary gave"}, "must line up"),
        ({"counterfactual": CLEAN}, "prompt itself"),
        ({"counterfactual": OTHER, "baseline": "zero"}, "is the baseline"),
        ({"metric": "logit-diff"}, "add --wrong"),
        ({"metric": "prob", "wrong": " John"}, "drop --wrong"),
        ({"answer": " Mary", "wrong": " Mary"}, "must differ"),
        ({"answer": " zzz"}, "tokens"),
        ({"steps": 0}, "--steps 0"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(lend: Any, arguments: dict[str, Any], words: str) -> None:
    lend("gpt2")
    with pytest.raises(InputError) as refused:
        interp.saliency(CLEAN, **arguments)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_without_captum_the_command_to_install_it_is_named(lend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lend("gpt2")
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "captum" else found(name, *a))
    with pytest.raises(InputError, match=r"pip install 'interp\[saliency\]'"):
        interp.saliency(CLEAN)
    assert interp.saliency(CLEAN, method="rollout").total == pytest.approx(1, abs=1e-6)


def test_pictures_and_tables(lend: Any, shell: Any) -> None:
    lend("llama")
    shell.run_cell(f'%%interp saliency --counterfactual "{OTHER}" --answer " Mary" --wrong " John" -o found\n{CLEAN}\n')
    result = shell.user_ns["found"]
    table = result.to_frame()
    assert list(table.columns) == ["position", "token", "attribution", "counterfactual"]
    assert table.attribution.sum() == pytest.approx(result.total)
    for picture in (result.html(), result.svg("dark")):
        assert "␣gave" in picture.replace("<tspan>", "").replace("</tspan>", "")
        assert "<script" not in picture
    assert result.png()[:4] == b"\x89PNG"
    assert list(result.to_plotly().data[0].y) == result.attribution.tolist()
    assert "interp.saliency(" in result.code()
    assert interp.help("saliency") is not None


def test_the_helps_example_runs(smollm2: Any) -> None:  # noqa: ARG001
    example, *_ = registry.find("saliency").examples
    found = eval(example.partition("  #")[0].replace(").top", ", steps=8).top"), {"interp": interp})
    assert [token for _, token, _ in found]


# -- classifiers ---------------------------------------------------------------------------------------------------


class Bag(nn.Module):
    """A classifier whose logits are a sum over tokens of a function of each: its closed form is known."""

    def __init__(self, vocabulary: int, act: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(vocabulary, 6)
        self.inner, self.act, self.head = nn.Linear(6, 5), act, nn.Linear(5, 2)
        self.config = SimpleNamespace(
            num_labels=2,
            label2id={"bad": 0, "good": 1},
            pad_token_id=0,
            max_position_embeddings=40,
            _name_or_path="bag",
        )

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding

    def forward(self, inputs_embeds: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        each = self.head(self.act(self.inner(inputs_embeds))) * attention_mask[..., None]
        return SimpleNamespace(logits=each.sum(1))


def tokenizer() -> Any:
    return models.tokenizer(encoder=True)


def ids_of(tok: Any, words: str) -> torch.Tensor:
    return torch.tensor(tok(words)["input_ids"])


def classifier(kind: str, tok: Any, **options: Any) -> Any:
    torch.manual_seed(0)
    if kind == "bert":
        config = BertConfig(
            num_hidden_layers=2,
            num_attention_heads=4,
            hidden_size=32,
            intermediate_size=64,
            vocab_size=len(tok),
            max_position_embeddings=40,
            num_labels=3,
            **options,
        )
        made = BertForSequenceClassification(config)
    else:
        config = DistilBertConfig(
            n_layers=2, n_heads=4, dim=32, hidden_dim=64, vocab_size=len(tok), max_position_embeddings=40, **options
        )
        made = DistilBertForSequenceClassification(config)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.2)
    return made.eval()


def test_a_classifier_given_to_saliency_is_told_where_it_goes(lend: Any) -> None:
    tok = tokenizer()
    for given, words in (
        (classifier("bert", tok), "interp.saliency_of_classifier(text, model, tokenizer, target=1)"),
        (lend("gpt2").hf_model, "interp.load("),
    ):
        with pytest.raises(InputError) as refused:
            interp.saliency("Mary gave a drink", answer="x", model=given)
        assert words in str(refused.value)
        assert len(str(refused.value)) < 150


def test_a_classifiers_code_gives_the_result_again() -> None:
    tok = tokenizer()
    bert = classifier("bert", tok)
    for options in ({"target": 1, "steps": 8}, {"method": "gradient-input", "wrong": 0}, {"baseline": "zero"}):
        found = interp.saliency_of_classifier("Mary gave a drink", bert, tok, **options)
        code = found.code()
        assert code.endswith(
            f"  # first: model = your BertForSequenceClassification; tokenizer = your {type(tok).__name__}"
        )
        again = eval(code, {"interp": interp, "model": bert, "tokenizer": tok})
        np.testing.assert_array_equal(again.attribution, found.attribution)
        assert again.code() == code
        assert bert not in found.provenance.arguments.values()


@pytest.mark.parametrize("method", ["ig", "gradient-input", "deeplift"])
def test_a_linear_classifiers_closed_form(method: str) -> None:
    tok = tokenizer()
    bag = Bag(len(tok), nn.Identity()).eval()
    options = {} if method == "gradient-input" else {"baseline": "zero"}
    found = interp.saliency_of_classifier("Mary gave a drink", bag, tok, target="good", method=method, **options)
    weight = bag.head.weight[1] @ bag.inner.weight
    expected = (bag.embedding(ids_of(tok, "Mary gave a drink")) @ weight).detach()
    np.testing.assert_allclose(found.attribution, expected, atol=1e-5)
    assert found.relative_gap < 1e-4
    assert found.answer == ("good", 1)


@pytest.mark.parametrize("act", [nn.ReLU(), nn.Tanh()], ids=["relu", "tanh"])
@pytest.mark.parametrize("method", ["ig", "deeplift"])
def test_each_tokens_own_difference_is_its_part(method: str, act: nn.Module) -> None:
    tok = tokenizer()
    bag = Bag(len(tok), act).eval()
    found = interp.saliency_of_classifier(
        "Mary gave a", bag, tok, target=1, wrong=0, method=method, counterfactual="John gave a"
    )
    with torch.no_grad():
        ends = [bag.head(bag.act(bag.inner(bag.embedding(ids_of(tok, t))))) for t in ("Mary gave a", "John gave a")]
    change = ends[0] - ends[1]
    np.testing.assert_allclose(found.attribution, change[:, 1] - change[:, 0], atol=5e-3)
    assert found.relative_gap < 0.01
    assert not any(module._forward_hooks or module._backward_hooks for module in bag.modules())


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_a_transformer_classifier_is_complete_and_left_as_it_is(kind: str) -> None:
    tok = tokenizer()
    model = classifier(kind, tok)
    keys = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = interp.saliency_of_classifier("Mary gave a drink", model, tok, target=1, counterfactual="John gave a drink")
    with torch.no_grad():
        ends = [float(model(ids_of(tok, t)[None]).logits[0, 1]) for t in ("Mary gave a drink", "John gave a drink")]
    assert found.value == pytest.approx(ends[0], abs=1e-5)
    assert found.reference == pytest.approx(ends[1], abs=1e-5)
    assert abs(found.gap) <= 0.01 * abs(ends[0] - ends[1]) + 1e-4
    assert found.tokens[0] == "[CLS]"
    assert found.tokens[-1] == "[SEP]"
    after = model.state_dict()
    assert after.keys() == keys.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in keys.items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert found.provenance.fingerprint
    assert found.png()[:4] == b"\x89PNG"
    likeliest = interp.saliency_of_classifier("Mary gave a drink", model, tok, method="gradient-input")
    with torch.no_grad():
        assert likeliest.answer[1] == int(model(ids_of(tok, "Mary gave a drink")[None]).logits.argmax())


def test_positions_that_count_from_behind_the_padding_make_the_window_smaller() -> None:
    tok = tokenizer()
    config = RobertaConfig(
        num_hidden_layers=1,
        num_attention_heads=2,
        hidden_size=16,
        intermediate_size=16,
        vocab_size=len(tok),
        max_position_embeddings=22,
        pad_token_id=1,
    )
    model = RobertaForSequenceClassification(config).eval()
    longest = "a" + " a" * 17
    assert len(tok(longest)["input_ids"]) == 20
    assert len(interp.saliency_of_classifier(longest, model, tok, steps=4).tokens) == 20
    with pytest.raises(InputError, match="the prompt has 21 tokens and the context window holds 20"):
        interp.saliency_of_classifier(f"{longest} a", model, tok, steps=4)


def test_rollout_of_a_classifier() -> None:
    tok = tokenizer()
    model = classifier("bert", tok, attn_implementation="eager")
    found = interp.saliency_of_classifier("Mary gave a drink", model, tok, method="rollout")
    with torch.no_grad():
        patterns = model(ids_of(tok, "Mary gave a drink")[None], output_attentions=True).attentions
    eye = torch.eye(len(found.tokens), dtype=torch.float64)
    first, second = ((p[0].double().mean(0) + eye) / 2 for p in patterns)
    np.testing.assert_allclose(found.attribution, (second @ first)[0], atol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"target": 3}, "0 (LABEL_0), 1 (LABEL_1)"),
        ({"target": "LABEL_9"}, "did you mean"),
        ({"target": 1, "wrong": 1}, "must differ"),
        ({"method": "deeplift"}, "DeepLIFT has no rule for LayerNorm"),
        ({"method": "gradients"}, "not one of ig"),
        ({"baseline": "pad"}, "not one of zero, mean"),
        ({"counterfactual": "John"}, "must line up"),
    ],
)
def test_what_a_classifier_cannot_do_is_refused(arguments: dict[str, Any], words: str) -> None:
    tok = tokenizer()
    with pytest.raises(InputError) as refused:
        interp.saliency_of_classifier("Mary gave a drink", classifier("bert", tok), tok, **arguments)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_is_no_classifier_is_refused() -> None:
    tok = tokenizer()
    with pytest.raises(InputError, match="training mode"):
        interp.saliency_of_classifier("a", classifier("bert", tok).train(), tok)
    with pytest.raises(InputError, match="ForSequenceClassification"):
        interp.saliency_of_classifier("a", "bert", tok)
    with pytest.raises(InputError, match="tokenizer"):
        interp.saliency_of_classifier("a", classifier("bert", tok), None)
    with pytest.raises(InputError, match="empty"):
        interp.saliency_of_classifier("", classifier("bert", tok), tok)


# -- SmolLM2 -------------------------------------------------------------------------------------------------------


def test_on_smollm2_the_second_john_decides(smollm2: Any) -> None:  # noqa: ARG001
    result = interp.saliency(
        STORE, counterfactual=STORE.replace("John gave", "Mary gave"), answer=" Mary", wrong=" John", steps=16
    )
    assert result.tokens[result.top(1)[0][0]] == " John"
    assert result.value > 0 > result.reference
    assert result.relative_gap < 0.01
    assert interp.saliency(PROMPT, method="rollout").total == pytest.approx(1, abs=1e-5)
