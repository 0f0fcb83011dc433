"""Interchanges of features, as a patch makes them, with and without hooks, and where something goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dictionaries
import interp
from engine.interchange.test_answers import BOUND, CLASSES, FAMILIES, PAIRED, PLACES, naive, swaps, whole
from interp import truth
from interp.engine import exactness, memory
from interp.engine.features import held
from interp.engine.features.measure import Measured
from interp.engine.interchange import lean
from interp.engine.interchange.changes import SameNorm, Subspace, Whole, random_basis
from interp.engine.interchange.das import fit
from interp.engine.interchange.places import Place, Swap
from interp.engine.interchange.run import answers, plain
from interp.engine.model import load
from interp.engine.model.loaded import LoadedModel
from interp.engine.transformer import network
from interp.errors import InputError
from interp.sites import Site
from interp.spec import Pair, Prompt


def operated(model: Any, places: Sequence[Place], some: Sequence[Swap], change: Any = None) -> tuple[Tensor, str]:
    """Return answers and how they were computed."""

    def body(operation: Any) -> tuple[Tensor, str]:
        return answers(model, places, some, CLASSES, Whole() if change is None else change), operation.path

    found: tuple[Tensor, str] = model.operate("test", {}, body)
    return found


def unreadable(*_: object, **__: object) -> None:
    raise exactness.Unreadable("of the test")


@pytest.mark.parametrize("name", ["resid_post", "z", "head", "several", "neuron"])
@pytest.mark.parametrize("family", FAMILIES)
def test_both_ways_are_taken_and_agree(
    family: str, name: str, lend: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, places = lend(family), PLACES[name]
    some = swaps(len(places), 1)
    found, path = operated(model, places, some)
    assert path == "replay"
    monkeypatch.setattr(network, "read", unreadable)
    by_hooks, path = operated(model, places, some)
    assert path == "hooked: of the test"
    assert torch.allclose(found, by_hooks, atol=BOUND)
    assert torch.allclose(by_hooks, naive(model, places, some, whole), atol=BOUND)


def test_a_lean_way_that_is_wrong_is_not_used(lend: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, places = lend("llama"), PLACES["resid_post"]
    ends = lean.ends
    exactness.forget(model)

    def off(*given: Any) -> Tensor:
        return ends(*given) + 0.1

    monkeypatch.setattr(lean, "ends", off)
    found, path = operated(model, places, swaps())
    assert "differed by" in path
    assert torch.allclose(found, naive(model, places, swaps(), whole), atol=BOUND)
    exactness.forget(model)


@pytest.mark.parametrize("site", ["resid_post", "mlp_out", "z"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_whole_place_is_what_a_patch_gives(family: str, site: str, lend: Callable[..., Any]) -> None:
    lend(family)
    pair = Pair(Prompt(ids=(5, 11, 23, 31, 8, 40)), Prompt(ids=(5, 11, 64, 31, 9, 41)), (7,), (30,))
    head = site == "z"
    patched = interp.patch(pairs=[pair], site=site, by="head-position" if head else "position", metric="logit-diff")
    model = interp.model
    ids = [tuple(prompt.ids or ()) for prompt in (pair.clean, pair.corrupted)]
    base, source = ids if patched.direction == "noise" else ids[::-1]
    for layer in range(2):
        for at in range(6):
            for number in range(4) if head else [None]:
                swap = Swap(base, source, ((at,),), ((at,),), 5, 7)
                place = Place(Site(site, layer), head=number)
                ((right, wrong),) = answers(model, [place], [swap], (7, 30), Whole()).tolist()
                cell = (layer, at) if number is None else (layer, number, at)
                assert right - wrong == pytest.approx(float(patched.patched[cell]), abs=BOUND)


@pytest.mark.parametrize("way", ["lean", "hooked"])
@pytest.mark.parametrize("family", FAMILIES)
def test_features_are_set_to_the_source_s(
    family: str, way: str, lend: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = lend(family)
    width = model.geometry.d_model
    one = dictionaries.perfect(width, 0)
    held.hold(model, held.FeatureSet("axes", "tests", "", (one,), measured=(Measured(0, *[float("nan")] * 3),)))
    if way == "hooked":
        monkeypatch.setattr(network, "read", unreadable)
    # A feature for each axis and either way along it: relu(x) and relu(-x).
    chosen = (1, 4, width + 4, 9)
    stream = [Place(Site("resid_post", 0))]

    def new(number: int, base: Tensor, source: Tensor, swap: Swap, at: int) -> Tensor:  # noqa: ARG001
        out = base.clone()
        for feature in chosen:
            axis, sign = feature % width, -1.0 if feature >= width else 1.0
            out[axis] += sign * ((sign * source[axis]).relu() - (sign * base[axis]).relu())
        return out

    some = swaps()
    places = [Place(Site("features", 0), features=chosen, dictionary="axes")]
    found, path = operated(model, places, some)
    assert path == ("replay" if way == "lean" else "hooked: of the test")
    assert torch.allclose(found, naive(model, stream, some, new), atol=BOUND)
    # All of them of a dictionary that explains all: the whole stream.
    everything = [Place(Site("features", 0))]
    assert torch.allclose(
        answers(model, everything, some, CLASSES, Whole()), naive(model, stream, some, whole), atol=1e-4
    )
    # Two places are one interchange, whether or not they are of one dictionary.
    parts = [Place(Site("features", 0), features=some_of) for some_of in (chosen[:2], chosen[2:])]
    double = [Swap(s.base, s.source, s.at * 2, s.taken * 2, s.position, 7) for s in some]
    assert torch.allclose(answers(model, parts, double, CLASSES, Whole()), found, atol=BOUND)
    other = answers(model, places, some, CLASSES, SameNorm(Whole(), 0))
    assert torch.equal(other, answers(model, places, some, CLASSES, SameNorm(Whole(), 0)))
    assert not torch.allclose(other, found, atol=1e-4)
    with pytest.raises(InputError, match="there are no others to compare with"):
        answers(model, everything, some, CLASSES, SameNorm(Whole(), 0))
    with pytest.raises(InputError, match="features have no subspace"):
        answers(model, places, some, CLASSES, Subspace((random_basis(width, 1, 0),)))
    with pytest.raises(InputError, match="features are interchanged as they are"):
        fit(model, places, some, [7] * len(some), CLASSES, rank=1, seed=0)
    with pytest.raises(InputError, match="no feature 999"):
        answers(model, [Place(Site("features", 0), features=(999,))], some, CLASSES, Whole())


def test_the_other_features_are_active_ones_as_many() -> None:
    change = SameNorm(Whole(), 5)
    from interp.engine.interchange.changes import Row

    row = Row(0, (1, 2), (3, 4), 1)
    chosen = change.features((3, 7), [1, 3, 5, 9, 11], row)
    assert len(set(chosen)) == 2
    assert set(chosen) <= {1, 5, 9, 11}
    assert change.features((3, 7), [3, 5], row) == [5]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_goes_by_hooks(dtype: str, folder: Callable[..., Any]) -> None:
    model = load.load(folder("llama"), options=load.Options(device="cpu", dtype=dtype))
    places = PLACES["several"]
    some = swaps(3, 1)
    found, path = operated(model, places, some)
    assert path == f"hooked: {dtype} rounds differently from one batch to the next"
    expected = naive(model, places, some, whole)
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()
    subspace = fit(model, places, some, [7, 12, 30, 31, 64, 7], CLASSES, rank=2, seed=0, steps=6)
    assert subspace.losses[-1] < subspace.losses[0]
    assert torch.isfinite(answers(model, places, some, CLASSES, subspace)).all()
    model.close()


def test_training_mode_and_hooks_of_the_user_s(folder: Callable[..., Any]) -> None:
    model = load.load(folder("gpt2"), options=load.Options(device="cpu"))
    places, some = PLACES["resid_post"], swaps()
    expected = answers(model, places, some, CLASSES, Whole())
    layer: Any = model.bridge.blocks[1].mlp
    seen: list[int] = []

    def own(module: nn.Module, given: Any, out: Any) -> Any:  # noqa: ARG001
        seen.append(1)
        return out * 0

    handle = layer.register_forward_hook(own)
    found, path = operated(model, places, some)
    assert path == "hooked: hooks of the user's own"
    assert seen
    assert not torch.allclose(found, expected, atol=1e-3)
    assert torch.allclose(found, naive(model, places, some, whole), atol=BOUND)
    handle.remove()
    for dropout in [module for module in model.hf_model.modules() if isinstance(module, nn.Dropout)]:
        dropout.p = 0.0
    model.bridge.train()
    found, path = operated(model, places, some)
    assert path == "hooked: the model is in training mode"
    assert torch.allclose(found, expected, atol=BOUND)
    assert model.bridge.training
    fit(model, places, some, [7] * len(some), CLASSES, rank=1, seed=0, steps=2)
    assert model.bridge.training
    model.bridge.eval()
    assert torch.allclose(answers(model, places, some, CLASSES, Whole()), expected, atol=BOUND)
    model.close()


def test_weights_that_stay_in_their_files(folder: Callable[..., Any], lend: Callable[..., Any]) -> None:
    places, some = PLACES["several"], swaps(3, 1)
    expected = answers(lend("llama"), places, some, CLASSES, Whole())
    targets = [CLASSES[n % 3] for n in range(len(some))]
    learned = fit(lend("llama"), places, some, targets, CLASSES, rank=2, seed=0, steps=3)
    model = load.load(folder("llama"), options=load.Options(device="cpu", max_memory=120_000))
    assert model.streamed is not None
    found, path = operated(model, places, some)
    assert path == "replay"
    assert torch.allclose(found, expected, atol=BOUND)
    again = fit(model, places, some, targets, CLASSES, rank=2, seed=0, steps=3)
    assert again.losses == pytest.approx(learned.losses, rel=1e-4)
    model.close()


def test_interventions_of_the_command_come_first(lend: Callable[..., Any]) -> None:
    model, places, some = lend("gpt2"), PLACES["resid_post"], swaps()

    def body(operation: Any) -> tuple[Tensor, str]:
        model.intervene([interp.Intervention(Site("z", 1), mode="zero")])
        return answers(model, places, some, CLASSES, Whole()), operation.path

    found, path = model.operate("test", {}, body)
    assert path == "hooked: interventions"
    assert not torch.allclose(found, answers(model, places, some, CLASSES, Whole()), atol=1e-3)


def test_an_interrupt_leaves_what_is_done(lend: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, places, some = lend("gpt2"), PLACES["resid_post"], swaps()
    expected = answers(model, places, some, CLASSES, Whole())
    monkeypatch.setattr(memory, "ROWS", 1)
    steps: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        steps.append((done, total))
        if done == 4:
            raise KeyboardInterrupt

    before, held_out = model.fingerprint(), torch.empty(len(some), len(CLASSES), dtype=torch.float64)
    with pytest.raises(KeyboardInterrupt):
        answers(model, places, some, CLASSES, Whole(), on_step=stop, into=held_out)
    assert steps == [(n, len(some)) for n in range(1, 5)]
    done = ~held_out.isnan().any(1)
    assert int(done.sum()) == 4
    assert torch.allclose(held_out[done], expected[done], atol=BOUND)
    assert torch.allclose(answers(model, places, some, CLASSES, Whole()), expected, atol=BOUND)
    with pytest.raises(KeyboardInterrupt):
        fit(model, places, some, [7] * len(some), CLASSES, rank=1, seed=0, steps=9, on_step=stop)
    assert model.fingerprint() == before


@pytest.mark.parametrize("way", ["lean", "hooked"])
def test_memory_that_runs_out_halves_what_runs_together(
    way: str, lend: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, places = lend("llama"), PLACES["resid_post"]
    some = [swap for swap in swaps() for _ in range(4)]
    expected = answers(model, places, some, CLASSES, Whole())
    targets = [CLASSES[n % 3] for n in range(len(some))]
    learned = fit(model, places, some, targets, CLASSES, rank=2, seed=0, steps=3)
    if way == "hooked":
        monkeypatch.setattr(network, "read", unreadable)
    owner, name = (lean, "forward") if way == "lean" else (LoadedModel, "forward")
    run, sizes = getattr(owner, name), list[int]()

    def scarce(*given: Any, **more: Any) -> Any:
        rows = len(more["resid"]) if way == "lean" else len(given[1])
        sizes.append(rows)
        if rows > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(*given, **more)

    monkeypatch.setattr(owner, name, scarce)
    assert torch.allclose(answers(model, places, some, CLASSES, Whole()), expected, atol=BOUND)
    again = fit(model, places, some, targets, CLASSES, rank=2, seed=0, steps=3)
    assert again.losses == pytest.approx(learned.losses, rel=1e-4)
    assert max(sizes) > 3


def test_no_tokenizer_and_unpatched_answers() -> None:
    made = truth.build("induction")
    model = load.load(made.bridge(), options=load.Options(device="cpu"))
    prompts = [pair.clean.ids or () for pair in made.pairs(6).pairs]
    every = range(len(made.program.vocabulary))
    found = plain(model, prompts, [len(ids) - 1 for ids in prompts], every)
    assert found.argmax(1).tolist() == [made.program.answer(ids) for ids in prompts]
    with torch.no_grad():
        logits = model.bridge.forward(torch.tensor(prompts), return_type="logits")
    assert torch.allclose(found, logits[:, -1].double(), atol=BOUND)
    assert torch.allclose(plain(model, prompts, [4] * 6, (3, 3, 1)), logits[:, 4, [3, 3, 1]].double(), atol=BOUND)


def test_what_cannot_be_interchanged_is_refused(lend: Callable[..., Any]) -> None:
    model, some = lend("llama"), swaps()
    refused: dict[str, tuple[list[Place], list[Swap], Sequence[int]]] = {
        "needs a place": ([], some, CLASSES),
        "layers are 0–1": ([Place(Site("resid_post", 2))], some, CLASSES),
        "heads are 0–3": ([Place(Site("z", 0), head=4)], some, CLASSES),
        r"heads are 0–1 \(of keys and values\)": ([Place(Site("v", 0), head=2)], some, CLASSES),
        "resid_post has no heads": ([Place(Site("resid_post", 0), head=1)], some, CLASSES),
        "no features are loaded": ([Place(Site("features", 0), features=(1,))], some, CLASSES),
        "mlp_out has no features": ([Place(Site("mlp_out", 0), features=(1,))], some, CLASSES),
        "tokens are 0–": ([Place(Site("z", 0))], some, (10**6,)),
        "there are 2 places": ([Place(Site("z", 0))] * 2, some, CLASSES),
    }
    for message, given in refused.items():
        with pytest.raises(InputError, match=message):
            answers(model, *given, Whole())
    base, source = some[0].base, some[0].source
    wrong = {
        "no position 6 in a prompt of 6 tokens": ((6,), (1,), 5),
        "no position -1 in a prompt": ((1,), (-1,), 5),
        "2 positions of base and 1 of source": ((1, 2), (1,), 5),
        "stands there twice": ((1, 1), (1, 2), 5),
        "no position in one of the prompts": ((), (), 5),
        "the answer: no position 9": ((1,), (1,), 9),
    }
    for message, (at, taken, position) in wrong.items():
        with pytest.raises(InputError, match=message):
            answers(model, PLACES["resid_post"], [Swap(base, source, (at,), (taken,), position, 7)], CLASSES, Whole())
    uneven = [swap for swap in some if len(swap.base) != len(swap.source)]
    with pytest.raises(InputError, match="base and source need one length"):
        answers(model, [Place(Site("pattern", 0))], uneven, CLASSES, Whole())
    even = [swap for swap in some if len(swap.base) == len(swap.source)]
    assert len(even) + len(uneven) == len(PAIRED)
    assert torch.isfinite(answers(model, [Place(Site("pattern", 0), head=1)], even, CLASSES, Whole())).all()
    assert answers(model, PLACES["resid_post"], [], CLASSES, Whole()).shape == (0, len(CLASSES))
