"""Features taken away: what a naive hooked forward gives, alone and together, whatever they become."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch import Tensor
from torch.nn import functional

import interp
from engine.features import made, naive
from interp.errors import InputError

pytestmark = pytest.mark.usefixtures("one_thread")

PAIRS = [([5, 11, 23, 31, 8, 40], [5, 11, 29, 31, 8, 40]), ([7, 12, 9, 21, 33, 2], [7, 3, 9, 21, 33, 2])]
BOUND = 5e-5


def logit(logits: Tensor) -> Tensor:
    return logits[:, 7]


def strongest(model: Any, one: Any, count: int) -> list[int]:
    values = sum(naive.plain(model, pair[0], one)[1:].sum(0) for pair in PAIRS)
    assert isinstance(values, Tensor)
    return values.topk(count).indices.tolist()


def becoming(values: dict[int, Tensor]) -> naive.Edit:
    def edit(now: Tensor) -> Tensor:
        for feature, value in values.items():
            now[:, feature] = value
        return now

    return edit


@pytest.mark.parametrize("family", ["gpt2", "llama", "neox", "gemma2"])
@pytest.mark.parametrize("kinds", [("stream", "transcoder"), ("heads", "clt"), ("skip", "attention")])
@pytest.mark.parametrize("mode", ["zero", "mean"])
def test_features_taken_away(family: str, kinds: tuple[str, str], mode: Any, lend: Any) -> None:
    """The naive forward reads the higher layer's features in the run that the lower ones have changed."""
    model = lend(family)
    low, high = made.every(model, 0)[kinds[0]], made.every(model, 1)[kinds[1]]
    made.load(model, low, high)
    (one, two), (three,) = strongest(model, low, 2), strongest(model, high, 1)
    result = interp.ablate(pairs=PAIRS, feature=f"0.{one},F0.{two},L1.{three}", mode=mode, metric=logit)
    assert result.components == (f"F0.{one}", f"F0.{two}", f"F1.{three}")
    assert result.provenance.path == "forward"
    prompts = [ids for pair in PAIRS for ids in pair]

    def value(of: Any, feature: int) -> Tensor:
        held = [naive.plain(model, ids, of)[:, feature] for ids in prompts]
        mean = sum(held[1:], held[0]) / len(held)
        return mean if mode == "mean" else mean * 0

    def gone(of: Any, *features: int) -> tuple[Any, naive.Edit]:
        return of, becoming({feature: value(of, feature) for feature in features})

    asked = [[], [gone(low, one)], [gone(low, two)], [gone(high, three)], [gone(low, one, two), gone(high, three)]]
    for number, (ids, _) in enumerate(PAIRS):
        expected = [float(naive.hooked(model, ids, edits)[-1, 7]) for edits in asked]
        np.testing.assert_allclose(result.per_prompt[:, number], expected, atol=BOUND, rtol=0)
    assert len({round(value, 4) for value in result.values.tolist()}) > 3


def test_resampled_features_are_another_prompts(lend: Any) -> None:
    model = lend("llama")
    low = made.every(model, 0)["transcoder"]
    made.load(model, low)
    (one,) = strongest(model, low, 1)
    result = interp.ablate(pairs=PAIRS[:1], feature=f"0.{one}", mode="resample", metric=logit)
    ids, other = PAIRS[0]
    edit = becoming({one: naive.plain(model, other, low)[:, one]})
    assert result.values[1] == pytest.approx(float(naive.hooked(model, ids, [(low, edit)])[-1, 7]), abs=BOUND)


def test_with_heads_and_on_texts(lend: Any) -> None:
    model = lend("llama")
    low = made.every(model, 1)["heads"]
    made.load(model, low)
    (one,) = strongest(model, low, 1)
    text = "John gave a drink to Mary."
    result = interp.ablate(text, feature=f"1.{one}", heads="1.2")
    ids = model.encode(interp.Prompt(text)).ids

    def loss(edit: naive.Edit) -> float:
        logits = naive.hooked(model, ids, [(low, edit)])
        return float(functional.cross_entropy(logits[:-1], low.encoder.new_tensor(ids[1:]).long()))

    assert result.values[2] == pytest.approx(loss(becoming({one: low.bias.new_zeros(())})), abs=BOUND)
    assert result.conditions == ("unablated", "1.2", f"F1.{one}", "all")
    assert f"F1.{one}" in result.html()


def test_by_hooks_it_is_the_same(lend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from interp.engine import exactness
    from interp.engine.transformer import network

    model = lend("gemma2")
    low = made.every(model, 0)["clt"]
    made.load(model, low, made.every(model, 1)["stream"])
    asked: Any = {"pairs": PAIRS, "feature": "0.1,0.2,0.3,1.4", "mlps": 0, "metric": logit, "mode": "mean"}
    lean = interp.ablate(**asked)

    def unreadable(*_: Any, **__: Any) -> Any:
        raise exactness.Unreadable("not now")

    monkeypatch.setattr(network, "read", unreadable)
    hooked = interp.ablate(**asked)
    assert hooked.provenance.path == "hooked: not now"
    np.testing.assert_allclose(lean.per_prompt, hooked.per_prompt, atol=BOUND, rtol=0)


@pytest.mark.parametrize("mode", ["zero", "mean"])
def test_forecasts(mode: Any, lend: Any) -> None:
    model = lend("llama")
    made.load(model, made.every(model, 0)["skip"], made.every(model, 1)["stream"])
    asked = dict[str, Any](pairs=PAIRS, feature="0.1,1.2", metric=logit, mode=mode)
    told = interp.ablate(**asked, dry_run=True)
    assert told.forwards == interp.ablate(**asked).provenance.forwards


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"feature": "0.99"}, "no feature 99 in layer 0; they are 0–23"),
        ({"feature": "1.3"}, "made has no features of layer 1"),
        ({"feature": "x"}, "'x' names no feature; type its layer and its number, such as 2.417"),
        ({"features": "made", "mlps": 0}, "--features names the set that features are of: say which with --feature"),
        ({"heads": "F0.3"}, "'F0.3' is a feature, and this is about heads; ablate takes it as --feature F0.3"),
        ({}, "say what to ablate: .*--feature 2.417"),
    ],
)
def test_what_cannot_be_asked(options: dict[str, Any], said: str, lend: Any) -> None:
    model = lend("gpt2")
    made.load(model, made.every(model, 0)["stream"])
    with pytest.raises(InputError, match=said):
        interp.ablate(pairs=PAIRS, metric=logit, **options)
