"""Patching features: every cell is what a naive hooked forward gives; estimates are decoder times gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import dictionaries
import interp
from engine.features import made, naive
from interp.engine.features.dictionary import Dictionary
from interp.engine.features.places import flat
from interp.errors import InputError, Interrupted

pytestmark = pytest.mark.usefixtures("one_thread")

CLEAN, CORRUPTED = [5, 11, 23, 31, 8, 40], [5, 11, 29, 31, 8, 40]
LONGER = ([7, 12, 9, 21, 33, 2, 14], [7, 3, 9, 21, 33, 2, 14])
FAMILIES = ("gpt2", "llama", "neox", "gemma2")
KINDS = ("stream", "before", "attention", "heads", "mlp", "neurons", "transcoder", "skip", "clt")
BOUND = 5e-5
BY = ("feature", "feature-position", "position", "layer")


def logit(logits: Tensor) -> Tensor:
    return logits[:, 7]


def loaded(model: Any, kind: str) -> list[Dictionary]:
    found = [made.every(model, layer)[kind] for layer in range(model.geometry.n_layers)]
    made.load(model, *found)
    return found


def cell(model: Any, one: Dictionary, base: list[int], source: list[int], feature: Any, position: Any) -> float:
    """Return the metric with some of a dictionary's features, at some positions, as in the source run."""
    there = naive.plain(model, source, one)

    def edit(now: Tensor) -> Tensor:
        now[position, feature] = there[position, feature]
        return now

    return float(naive.hooked(model, base, [(one, edit)])[-1, 7])


def by_hand(model: Any, found: list[Dictionary], result: Any, base: list[int], source: list[int]) -> Any:
    """Return every cell of a sweep, each in a forward of its own."""
    values = np.zeros(result.patched.shape)
    for index in np.ndindex(*values.shape):
        at = dict(zip(result.axes, index, strict=True))
        number, feature = at.get("layer"), slice(None)
        if number is None:
            number, feature = map(int, result.features[at["feature"]].split("."))
        position = at.get("position", slice(None))
        values[index] = cell(model, found[number], base, source, feature, position)
    return values


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_cells_are_those_of_the_naive_forward(family: str, kind: str, lend: Any) -> None:
    model = lend(family)
    found = loaded(model, kind)
    for by in BY:
        result: Any = interp.patch(CLEAN, CORRUPTED, site="features", by=by, metric=logit)
        assert result.provenance.path == "replay"
        expected = by_hand(model, found, result, CORRUPTED, CLEAN)
        np.testing.assert_allclose(result.patched, expected, atol=BOUND, rtol=0)
        assert len({round(value, 4) for value in expected.flatten().tolist()}) > (4 if "feature" in by else 1)
        assert result.provenance.features == {"made": model.feature_sets["made"].digest}


@pytest.mark.usefixtures("clean_session")
def test_what_a_cross_layer_feature_writes_above_is_added_on_the_way(monkeypatch: Any) -> None:
    """Four layers, of pairs that stand at several positions: the replay and the hooked forward, cell by cell."""
    from interp.engine import exactness
    from interp.engine.transformer import network

    model = interp.load("bundled", device="cpu")
    depth, width = model.geometry.n_layers, model.geometry.d_model
    made.load(model, *(made.random(layer, width, act=made.jump, n_layers=depth) for layer in range(depth)))
    asked = [dict[str, Any](task="ioi", n=2, site="features", by=by) for by in BY]
    lean = [interp.patch(**one) for one in asked]

    def unreadable(*_: Any, **__: Any) -> Any:
        raise exactness.Unreadable("not now")

    monkeypatch.setattr(network, "read", unreadable)
    for one, result in zip(asked, lean, strict=True):
        hooked = interp.patch(**one)
        assert (result.provenance.path, hooked.provenance.path) == ("replay", "hooked: not now")
        np.testing.assert_allclose(result.per_pair, hooked.per_pair, atol=BOUND, rtol=0)
        assert np.abs(result.effect).max() > 0.1


def test_only_what_is_active_is_a_cell(lend: Any) -> None:
    model = lend("llama")
    found = loaded(model, "skip")
    clean, corrupted = [5, 11], [5, 29]
    result: Any = interp.patch(clean, corrupted, site="features", layer=1, metric=logit)
    active = sum(naive.plain(model, ids, found[1]).sum(0) for ids in (clean, corrupted))
    assert isinstance(active, Tensor)
    assert result.features == tuple(f"1.{feature}" for feature in active.nonzero()[:, 0].tolist())
    assert 0 < len(result.features) < made.WIDTH
    assert result.axes == ("feature",)
    assert result.layers == (1,)
    assert result.to_frame()["feature"].tolist() == list(result.features)
    (name, effect, _), *_ = result.top(1)
    assert effect == pytest.approx(np.abs(result.effect).max() * np.sign(effect))
    assert name in result.features


def test_features_that_do_not_differ_leave_the_run_as_it_is(lend: Any) -> None:
    loaded(lend("gpt2"), "transcoder")
    result: Any = interp.patch(CLEAN, CORRUPTED, site="features", by="feature-position", metric=logit)
    before = result.patched[:, :2]  # the prompts are the same there
    assert np.array_equal(before, np.full_like(before, result.corrupted_metric))
    assert np.array_equal(result.effect[:, :2], np.zeros_like(before))


@pytest.mark.parametrize("direction", ["denoise", "noise"])
def test_pairs_of_several_lengths(direction: Any, lend: Any) -> None:
    model = lend("llama")
    found = loaded(model, "skip")
    pairs = [(CLEAN, CORRUPTED), LONGER]
    result: Any = interp.patch(pairs=pairs, site="features", metric=logit, direction=direction)
    for number, (clean, corrupted) in enumerate(pairs):
        base, source = (clean, corrupted) if direction == "noise" else (corrupted, clean)
        expected = by_hand(model, found, result, base, source)
        np.testing.assert_allclose(result.per_pair[number], expected, atol=BOUND, rtol=0)
    with pytest.raises(InputError, match="by position they must have one length"):
        interp.patch(pairs=pairs, site="features", by="feature-position", metric=logit)


def test_another_models_features(lend: Any) -> None:
    other = lend("gpt2", bos=False)
    model = lend("gpt2")
    found = loaded(model, "stream")
    result: Any = interp.patch(CLEAN, CLEAN, site="features", metric=logit, from_model=other.name)
    there = [naive.plain(other, CLEAN, one) for one in found]
    for at, name in enumerate(result.features[:6]):
        layer, feature = map(int, name.split("."))

        def edit(now: Tensor, layer: int = layer, feature: int = feature) -> Tensor:
            now[:, feature] = there[layer][:, feature]
            return now

        expected = float(naive.hooked(model, CLEAN, [(found[layer], edit)])[-1, 7])
        assert result.patched[at] == pytest.approx(expected, abs=BOUND)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["stream", "before", "attention", "heads", "transcoder", "clt"])
def test_estimates_are_decoder_times_gradient(family: str, kind: str, lend: Any) -> None:
    model = lend(family)
    found = loaded(model, kind)
    result: Any = interp.patch(
        CLEAN, CORRUPTED, site="features", by="feature-position", metric=logit, method="attribution", verify=5
    )
    step = 1e-2
    for index in [*result.strongest(3), tuple(np.argwhere(~result.done)[0].tolist())]:
        layer, feature = map(int, result.features[index[0]].split("."))
        one = found[layer]
        change = naive.plain(model, CLEAN, one) - naive.plain(model, CORRUPTED, one)

        def moved(by: float, one: Any = one, change: Any = change, feature: int = feature, at: int = index[1]) -> float:
            def edit(now: Tensor) -> Tensor:
                now[at, feature] += by * change[at, feature]
                return now

            return float(naive.hooked(model, CORRUPTED, [(one, edit)])[-1, 7])

        slope = (moved(step) - moved(-step)) / (2 * step)
        assert result.estimate[index] == pytest.approx(slope, abs=2e-3, rel=0.02)
    assert result.done.sum() == 5
    verified = np.argwhere(result.done)
    for index in verified.tolist():
        layer, feature = map(int, result.features[index[0]].split("."))
        exact = cell(model, found[layer], CORRUPTED, CLEAN, feature, index[1])
        assert result.patched[tuple(index)] == pytest.approx(exact, abs=BOUND)
    assert result.agreement.verified == 5
    sums: Any = interp.patch(CLEAN, CORRUPTED, site="features", metric=logit, method="attribution")
    np.testing.assert_allclose(sums.estimate, result.estimate.sum(1), atol=1e-6)


def along(model: Any, one: Dictionary, share: float) -> tuple[Tensor, Tensor | float, list[Tensor]]:
    """Return features, what a unit is and the gradients where they write, at a point between the prompts' embeddings.

    From embedding to metric it is the bridge's own forward.
    """
    ends: list[Tensor] = []
    for ids in (CORRUPTED, CLEAN):
        model.bridge.run_with_hooks(
            torch.tensor([ids]),
            fwd_hooks=[("blocks.0.hook_resid_pre", lambda tensor, hook: ends.append(tensor))],  # noqa: ARG005
        )
    x: list[Tensor] = []
    written: list[Tensor] = []

    def begin(tensor: Tensor, hook: Any) -> Tensor:  # noqa: ARG001
        return (ends[0] + share * (ends[1] - ends[0])).detach().requires_grad_()

    def read(tensor: Tensor, hook: Any) -> None:  # noqa: ARG001
        x.append(flat(one.reads, tensor)[0].detach())

    def write(tensor: Tensor, hook: Any) -> Tensor:  # noqa: ARG001
        written.append(tensor)
        return tensor

    hooks: list[tuple[str, Any]] = [("blocks.0.hook_resid_pre", begin), (one.reads.hook(model), read)]
    hooks += [(place.hook(model), write) for place in one.writes]
    score = model.bridge.run_with_hooks(torch.tensor([CORRUPTED]), fwd_hooks=hooks)[0, -1, 7]
    slopes = torch.autograd.grad(score, written)
    flats = [flat(place, slope)[0] for place, slope in zip(one.writes, slopes, strict=True)]
    return naive.encoded(one, x[0]), naive.unit(one, x[0]), flats


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_estimates_of_several_steps_are_the_integral_along_the_way(family: str, kind: str, lend: Any) -> None:
    """Against a loop over points, in each of which every feature is dense."""
    model = lend(family)
    found = loaded(model, kind)
    steps = 4
    result: Any = interp.patch(
        CLEAN, CORRUPTED, site="features", by="feature-position", metric=logit, method="attribution", steps=steps
    )
    assert result.provenance.path == "gradients"
    dense: list[Tensor] = []
    for one in found:
        points = [along(model, one, k / (steps - 1)) for k in range(steps)]
        total = torch.zeros_like(points[0][0])
        for k, (_, unit, slopes) in enumerate(points):
            moved = (points[min(k + 1, steps - 1)][0] - points[max(k - 1, 0)][0]) / 2
            total += moved * unit * sum(slope @ table.T for slope, table in zip(slopes, one.decoders, strict=True))
        dense.append(total)
    names = [tuple(map(int, name.split("."))) for name in result.features]
    expected = np.stack([dense[layer][:, feature].detach().numpy() for layer, feature in names])
    np.testing.assert_allclose(result.estimate, expected, atol=BOUND, rtol=0)
    assert np.abs(expected).max() > 0.01
    by_layer: Any = interp.patch(
        CLEAN, CORRUPTED, site="features", by="layer", metric=logit, method="attribution", steps=steps
    )
    sums = [float(total.sum()) for total in dense]  # with those that are active on the way alone
    np.testing.assert_allclose(by_layer.estimate, sums, atol=len(names) * BOUND, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_of_a_perfect_dictionary_the_estimates_sum_to_the_difference(family: str, lend: Any) -> None:
    model = lend(family)
    made.load(model, *(dictionaries.perfect(model.geometry.d_model, n) for n in range(model.geometry.n_layers)))
    asked = dict[str, Any](by="layer", metric=logit, method="attribution", steps=65)
    features: Any = interp.patch(CLEAN, CORRUPTED, site="features", **asked)
    stream: Any = interp.patch(CLEAN, CORRUPTED, site="resid_post", **asked)
    np.testing.assert_allclose(features.estimate, stream.estimate, atol=BOUND, rtol=0)
    np.testing.assert_allclose(features.estimate, features.clean_metric - features.corrupted_metric, rtol=0.02)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_estimates_with_hooks(kind: str, steps: int, lend: Any, monkeypatch: Any) -> None:
    from interp.engine import exactness
    from interp.engine.transformer import network

    def unreadable(*_: Any, **__: Any) -> Any:
        raise exactness.Unreadable("not now")

    loaded(lend("llama"), kind)
    pairs = [(CLEAN, CORRUPTED), LONGER, (CLEAN, CORRUPTED)]
    asked = dict[str, Any](site="features", metric=logit, method="attribution", steps=steps, pairs=pairs)
    lean: Any = interp.patch(**asked)
    monkeypatch.setattr(network, "read", unreadable)
    hooked: Any = interp.patch(**asked)
    assert (lean.provenance.path, hooked.provenance.path) == ("gradients", "hooked: not now")
    np.testing.assert_allclose(hooked.estimate, lean.estimate, atol=BOUND, rtol=0)


def test_a_way_that_is_cut_is_the_whole_one(lend: Any, monkeypatch: Any) -> None:
    """A pair's points in pieces, each of which knows its own ends: as where memory is short."""
    from interp.engine.patching import attribution

    model = lend("llama")
    loaded(model, "stream")
    asked = dict[str, Any](site="features", by="feature-position", metric=logit, method="attribution", steps=6)
    whole: Any = interp.patch(CLEAN, CORRUPTED, **asked)
    monkeypatch.setattr(attribution.Job, "_rows_that_fit", lambda self: 2 * len(CLEAN))  # noqa: ARG005
    cut: Any = interp.patch(CLEAN, CORRUPTED, **asked)
    assert cut.provenance.forwards > whole.provenance.forwards
    np.testing.assert_allclose(cut.estimate, whole.estimate, atol=1e-6, rtol=0)


def test_what_is_said_next_with_a_feature_patched(lend: Any) -> None:
    model = lend("llama")
    found = loaded(model, "stream")
    result, index = None, ()
    for by in BY:
        result: Any = interp.patch(CLEAN, CORRUPTED, site="features", by=by, metric=logit)
        index = result.strongest(1)[0]
        said = {token: after for token, _, after in result.likeliest(index, top=340)}
        assert said[model.tokens.string(7)] == pytest.approx(
            float(np.exp(result.patched[index] - logsum(model, found, result, index))), abs=1e-5
        )
    made.load(model, found[0])
    with pytest.raises(InputError, match="the features made were unloaded or replaced"):
        result.likeliest(index)


def logsum(model: Any, found: list[Dictionary], result: Any, index: Any) -> float:
    at = dict(zip(result.axes, index, strict=True))
    number, feature = at.get("layer"), slice(None)
    if number is None:
        number, feature = map(int, result.features[at["feature"]].split("."))
    there = naive.plain(model, CLEAN, found[number])
    position = at.get("position", slice(None))

    def edit(now: Tensor) -> Tensor:
        now[position, feature] = there[position, feature]
        return now

    return float(naive.hooked(model, CORRUPTED, [(found[number], edit)])[-1].logsumexp(-1))


def test_the_store_holds_codes_and_nothing_dense(lend: Any) -> None:
    model = lend("llama")
    loaded(model, "transcoder")
    interp.patch(CLEAN, CORRUPTED, site="features", metric=logit)
    held = model.store._held
    parts = [key[-1] for key in held if isinstance(key[-1], tuple) and key[-1][0] == "features"]
    assert {part[2] for part in parts} == {"starts", "features", "values", "unit"}
    assert all(tensor.shape[-1] != made.WIDTH for tensor in held.values() if tensor.dim())


@pytest.mark.parametrize("method", [{}, {"method": "attribution"}, {"method": "attribution", "steps": 4}])
def test_forecasts(method: dict[str, Any], lend: Any) -> None:
    """Which features are cells is known when the prompts are run: that is done before, and counted."""
    model = lend("llama")
    loaded(model, "stream")
    asked = dict[str, Any](site="features", metric=logit, **method)
    told = interp.patch(CLEAN, CORRUPTED, **asked, dry_run=True)
    assert told.path == "without hooks"
    model.store.clear()
    taken: Any = interp.patch(CLEAN, CORRUPTED, **asked)
    assert told.forwards == taken.provenance.forwards == taken.provenance.forecast.forwards


def test_a_stopped_sweep_keeps_what_is_done(lend: Any, clean_session: Any, monkeypatch: Any) -> None:
    from interp.engine import exactness
    from interp.engine.transformer import network

    def unreadable(*_: Any, **__: Any) -> Any:
        raise exactness.Unreadable("not now")

    loaded(lend("llama"), "clt")
    monkeypatch.setattr(network, "read", unreadable)  # cell by cell, with hooks
    whole: Any = interp.patch(CLEAN, CORRUPTED, site="features", by="feature-position", metric=logit)

    def stop(done: int, *_: Any) -> None:
        if done > 60:
            raise KeyboardInterrupt

    clean_session.on_step = stop
    with pytest.raises(Interrupted) as caught:
        interp.patch(CLEAN, CORRUPTED, site="features", by="feature-position", metric=logit)
    part: Any = caught.value.result
    assert 0 < part.done.sum() < part.done.size
    assert np.array_equal(part.patched[part.done], whole.patched[part.done])
    assert "partial" in part.notes[0]
    assert part.html()


@pytest.mark.parametrize("by", ["feature", "feature-position"])
def test_pictures(by: Any, lend: Any, tmp_path: Any) -> None:
    loaded(lend("llama"), "stream")
    for method in ("exact", "attribution"):
        result: Any = interp.patch(CLEAN, CORRUPTED, site="features", by=by, metric=logit, method=method)
        drawn = result.save(tmp_path / "features.svg").read_text("utf-8")
        strongest = "F" + result.top(1)[0][0].split(" ")[0]
        assert strongest in drawn
        assert strongest in result.html()
        assert strongest in result.to_plotly().data[0].y[0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"by": "head"}, "features have no heads; use --by feature, feature-position, position or layer"),
        ({"layer": 7}, "no layer 7"),
        ({"features": "mde"}, r"no features are called 'mde' \(did you mean made\?\)"),
        ({"method": "attribution", "verify": 9999}, "--verify 9999 is more than the"),
        ({"site": "z", "features": "made"}, "--features names a set of dictionaries, and z has none"),
        ({"site": "z", "by": "feature"}, "z has no features; use --site features"),
    ],
)
def test_what_cannot_be_asked(options: dict[str, Any], said: str, lend: Any) -> None:
    loaded(lend("gpt2"), "stream")
    with pytest.raises(InputError, match=said):
        interp.patch(CLEAN, CORRUPTED, **dict[str, Any]({"site": "features", "metric": logit}, **options))


def test_without_any_features(lend: Any) -> None:
    lend("gpt2")
    with pytest.raises(InputError, match=r"no features are loaded for .*; type %interp features-load"):
        interp.patch(CLEAN, CORRUPTED, site="features", metric=logit)
    with pytest.raises(
        InputError,
        match="patched by patch and mediate, taken away by ablate; here a site of the model is needed: resid_pre",
    ):
        interp.model.require_site("features", [0])
