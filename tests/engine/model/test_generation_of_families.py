"""Every family writes with kept keys and values what it writes without them, changed or not, alone or side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import dictionaries
import zoo
from engine.transformer.test_every_family import KNOWN
from interp.engine.features import held
from interp.engine.features.measure import Measured
from interp.engine.model.changes import Changes
from interp.engine.model.generation import Generated, generate
from interp.engine.model.interventions import unread
from interp.engine.model.load import Options, load
from interp.engine.model.sampling import Sampling
from interp.engine.readouts.text_trace import RANKS, TextTrace
from interp.sites import SITES, Site
from interp.spec import Intervention

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

IDS = (5, 9, 12, 33, 7, 50, 61, 90)  # longer than every window of the zoo
LONG = ["gpt2", "llama", "gemma3_text", "gpt_oss", "gpt_neox"]
BOUND = 1e-5


def loaded(family: str, **settings: Any) -> Any:
    model = zoo.drawn(family, **settings)
    model.generation_config.eos_token_id = None
    return load(model, tokenizer=zoo.tokenizer(family), name=family, options=Options(device="cpu"))


@pytest.fixture(scope="module", params=KNOWN)
def model(request: pytest.FixtureRequest) -> Any:
    return loaded(request.param)


def vector(model: Any) -> torch.Tensor:
    return torch.randn(model.geometry.d_model, generator=torch.Generator().manual_seed(0))


def written(model: Any, changes: Changes, n: int = 10, **how: Any) -> list[Generated]:
    model.store.clear()
    return model.operate("generate", {}, lambda _: generate(model, IDS, n, changes=changes, **how))


def without_keeping(model: Any, changes: Changes, monkeypatch: pytest.MonkeyPatch) -> Generated:
    with monkeypatch.context() as patch:
        patch.setattr(Changes, "stepwise", False)
        return written(model, changes)[0]


def same(one: Generated, other: Generated) -> None:
    assert one.ids == other.ids
    np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-4)


def changed(model: Any) -> dict[str, Changes]:
    """Return steering at the prompt, at new tokens and at all, at positions, of a head, and of a feature."""
    one = dictionaries.perfect(model.geometry.d_model)
    unknown = (Measured(0, *[float("nan")] * 3),)
    held.hold(model, held.FeatureSet("axes", "tests", "", (one,), measured=unknown))
    found = {
        f"steered at {at}": Changes((Intervention(Site("resid_post", 0), mode="add", value=vector(model)),), at)
        for at in ("all", "prompt", "new")
    }
    for position in (2, len(IDS) + 3):  # of the prompt, and of what is written
        one = Intervention(Site("resid_pre", 1), position=position, mode="scale", value=-1.5)
        found[f"at position {position}"] = Changes((one,))
    head = Site("z", 1)
    if SITES["z"].within(model.bridge.hook_dict, 1) and not unread(model, head):
        found["a head"] = Changes((Intervention(head, head=1, mode="zero"),), "new")
    for at in ("prompt", "new"):
        one = Intervention(Site("features", 0), feature=3, mode="add", value=2.0)
        found[f"a feature at {at}"] = Changes((one,), at)
    return found


def test_steering_is_the_same_with_and_without_keeping(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = written(model, Changes())[0]
    same(plain, without_keeping(model, Changes(), monkeypatch))
    for changes in changed(model).values():
        found = written(model, changes)[0]
        assert found.logprobs != plain.logprobs
        same(found, without_keeping(model, changes, monkeypatch))


def test_a_sample_is_the_one_that_is_written_alone(model: Any) -> None:
    changes = Changes((Intervention(Site("resid_post", 0), mode="add", value=vector(model)),), "new")
    together = written(model, changes, sampling=Sampling(1.0, top_k=50, seed=3), samples=3)
    for k, made in enumerate(together):
        same(made, written(model, changes, sampling=Sampling(1.0, top_k=50, seed=3 + k))[0])
    assert len({tuple(made.ids) for made in together}) == 3


# -- a trace: what one forward over the whole text has -----------------------------------------------------------------


def traced(model: Any, n: int, changes: Changes | None = None, **given: Any) -> tuple[list[int], Any]:
    model.store.clear()

    def run(_: Any) -> tuple[list[int], Any]:
        watch = TextTrace(model, **given)
        (made,) = generate(model, IDS, n, changes=changes, watch=watch)
        return made.ids, watch.finished(made.ids)

    return model.operate("generate", {}, run)


def expect(model: Any, ids: list[int], found: Any, given: dict[str, Any]) -> None:
    """Compare with transformer-lens' own forward over the whole text."""
    text = torch.tensor([[*IDS, *ids[:-1]]])
    with torch.no_grad():
        logits, cache = model.bridge.run_with_cache(text)
        at = range(len(IDS) - 1, text.shape[1])
        layers, rows = TextTrace(model).layers, torch.arange(len(ids))
        ends = [cache[Site("resid_post", layer).hook_name][0, at] for layer in layers]
        logs = torch.stack([model.bridge.unembed(model.bridge.ln_final(end)) for end in ends])
        after = model.bridge.adapter.apply_output_logits_transform
        logs = after(logs).float().log_softmax(-1)
        np.testing.assert_allclose(logs[-1], logits[0, at].float().log_softmax(-1), atol=1e-4)
        top = torch.from_numpy(found.lens_ids)[..., None]
        np.testing.assert_allclose(logs.gather(-1, top)[..., 0].exp(), logs.exp().max(-1).values, atol=BOUND)
        np.testing.assert_allclose(found.lens_probabilities, logs.exp().max(-1).values, atol=BOUND)
        np.testing.assert_allclose(np.exp(found.written_logprobs), logs[:, rows, ids].exp(), atol=BOUND)
        patterns = [cache[SITES["pattern"].hook(layer)][0, :, at] for layer in found.attention_layers]
        mean = torch.stack(patterns).float().mean((0, 1))
        np.testing.assert_allclose(np.nan_to_num(found.attention), mean, atol=BOUND)
        for layer, pattern in enumerate(patterns):
            best = pattern.float().sort(dim=-1, descending=True).values[..., :RANKS]
            np.testing.assert_allclose(np.nan_to_num(found.weights[layer]), best, atol=BOUND)
            places = torch.from_numpy(found.attended[layer].astype(np.int64))
            there = np.where(places >= 0, pattern.gather(-1, places.clamp(min=0)), 0)
            np.testing.assert_allclose(np.nan_to_num(found.weights[layer]), there, atol=BOUND)
        for row, (site, direction) in zip(found.projections, given.get("directions", {}).items(), strict=True):
            along = cache[site.hook_name][0, at].double() @ direction.double() / direction.double().norm()
            np.testing.assert_allclose(row, along, atol=BOUND * (1 + float(along.abs().max())))
        tokens, _, features, values = found.active
        dense = torch.zeros(len(ids), 2 * model.geometry.d_model)
        dense[tokens.astype(np.int64), features.astype(np.int64)] = torch.from_numpy(values)
        stream = cache[Site("resid_post", 0).hook_name][0, at].float()
        bound = BOUND * (1 + float(stream.abs().max()))
        np.testing.assert_allclose(dense, torch.cat([stream, -stream], -1).relu(), atol=bound)


def test_a_trace_is_what_one_forward_over_the_whole_text_has(model: Any) -> None:
    given = {
        "directions": {Site("resid_pre", layer): vector(model) for layer in range(model.geometry.n_layers)},
        "dictionaries": [dictionaries.perfect(model.geometry.d_model)],
    }
    ids, found = traced(model, 16, **given)
    assert len(ids) == 16
    expect(model, ids, found, given)
    assert written(model, Changes(), 16)[0].ids == ids


@pytest.mark.parametrize("family", LONG)
def test_a_trace_of_two_hundred_tokens(family: str) -> None:
    length = "n_positions" if family == "gpt2" else "max_position_embeddings"
    model = loaded(family, **{length: 256})
    given = {
        "directions": {Site("resid_post", 1): vector(model)},
        "dictionaries": [dictionaries.perfect(model.geometry.d_model)],
    }
    ids, found = traced(model, 200, **given)
    assert len(ids) == 200
    expect(model, ids, found, given)


def test_of_a_deep_model_every_second_layer_is_read() -> None:
    model = loaded("gpt2", n_layer=19)
    assert TextTrace(model).layers == tuple(range(0, 19, 2))
    ids, found = traced(model, 4, dictionaries=[dictionaries.perfect(model.geometry.d_model)])
    assert found.attention_layers == tuple(range(19))
    expect(model, ids, found, {})
