"""Metrics of several positions: whole answers, the loss of a text and functions of all logits, against naive runs.

The reference is written here from the definitions: a forward over a prompt and its answer with one hook on it, and
log-probabilities of its logits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

import interp
from interp.engine.model.loaded import LoadedModel
from interp.engine.transformer import network
from interp.errors import InputError
from interp.spec import Metric, Pair
from methods.patching.test_patch import HEADED, build, captured, hook_name, logits_of, patched, use

__all__ = ["use"]
pytestmark = pytest.mark.usefixtures("one_thread")

BOUND = 5e-5
CLEAN, CORRUPTED = "When Mary and John went to the", "When John and Mary went to the"
RIGHT, WRONG = " store, and", " mat"
FAMILIES = ("gpt2", "neox", "llama", "qwen3")
SPANNED = ("one two one [two three]{again}", "six two one [two three]{again}")


def ids_of(model: LoadedModel, text: str) -> tuple[int, ...]:
    return tuple(model.tokens.tokenizer(text, add_special_tokens=False)["input_ids"])


def prompt_of(model: LoadedModel, text: str) -> tuple[int, ...]:
    return model.tokens.encode(interp.Prompt(text)).ids


def logprob(logits: torch.Tensor, answer: Sequence[int], first: int) -> float:
    """Return what logits ``[position, d_vocab]`` say of the tokens that stand behind `first`."""
    logs = logits.double().log_softmax(-1)
    return float(sum(logs[first + n, token] for n, token in enumerate(answer)))


def naive(model: LoadedModel, site: str, by: str, answers: Sequence[str], direction: str = "denoise") -> Any:
    """Return each cell's log-probability of each answer, and those of the base and the source run, ``[answer, …]``."""
    clean, corrupted = prompt_of(model, CLEAN), prompt_of(model, CORRUPTED)
    layers, length = range(model.geometry.n_layers), len(clean)
    cells, base_values, source_values = [], [], []
    for text in answers:
        answer = ids_of(model, text)
        runs = [ids + answer[:-1] for ids in (clean, corrupted)]
        base, source = runs if direction == "noise" else runs[::-1]
        held = captured(model, source, [hook_name(site, layer) for layer in layers])
        own = captured(model, base, [f"blocks.{layer}.hook_resid_pre" for layer in layers])
        heads = next(iter(held.values())).shape[2] if site in HEADED else 0
        shape = {"head": (len(layers), heads), "position": (len(layers), length), "layer": (len(layers),)}[by]
        values = np.zeros(shape)
        for index in np.ndindex(*shape):
            at = dict(zip(("layer", by), index, strict=False))
            values[index] = logprob(patched(model, base, held, own, site, at, slice(None)), answer, length - 1)
        cells.append(values)
        base_values.append(logprob(logits_of(model, base), answer, length - 1))
        source_values.append(logprob(logits_of(model, source), answer, length - 1))
    return np.stack(cells), np.array(base_values), np.array(source_values)


@pytest.mark.parametrize(
    ("kind", "site", "by", "direction"),
    [
        *((kind, "z", "head", "denoise") for kind in FAMILIES),
        ("gpt2", "resid_pre", "position", "noise"),
        ("llama", "resid_post", "position", "denoise"),
        ("neox", "mlp_out", "layer", "noise"),
        ("llama", "k", "head", "denoise"),
    ],
)
def test_a_whole_answer_is_measured_in_every_cell(use: Any, kind: str, site: str, by: str, direction: Any) -> None:
    model = use(build(kind))
    cells, base, source = naive(model, site, by, (RIGHT, WRONG), direction)
    assert len(ids_of(model, RIGHT)) > 2
    result = interp.patch(CLEAN, CORRUPTED, answer=RIGHT, wrong=WRONG, site=site, by=by, direction=direction)
    assert result.provenance.path == "replay"
    assert np.abs(result.per_pair[0] - (cells[0] - cells[1])).max() < BOUND
    ends = {"clean": source, "corrupted": base} if direction == "denoise" else {"clean": base, "corrupted": source}
    assert abs(result.clean_metric - (ends["clean"][0] - ends["clean"][1])) < BOUND
    assert abs(result.corrupted_metric - (ends["corrupted"][0] - ends["corrupted"][1])) < BOUND
    alone = interp.patch(CLEAN, CORRUPTED, answer=RIGHT, metric="logprob", site=site, by=by, direction=direction)
    assert np.abs(alone.per_pair[0] - cells[0]).max() < BOUND
    chance = interp.patch(CLEAN, CORRUPTED, answer=RIGHT, metric="prob", site=site, by=by, direction=direction)
    assert np.abs(chance.per_pair[0] - np.exp(cells[0])).max() < BOUND


@pytest.mark.parametrize("by", ["head", "position"])
def test_the_hooked_way_gives_the_same(use: Any, by: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    use(build("llama"))
    site = "z" if by == "head" else "resid_mid"
    options: dict[str, Any] = {"answer": RIGHT, "wrong": WRONG, "site": site, "by": by}
    lean = interp.patch(CLEAN, CORRUPTED, **options)
    monkeypatch.setattr(network, "FAMILIES", {})
    hooked = interp.patch(CLEAN, CORRUPTED, **options)
    assert hooked.provenance.path.startswith("hooked")
    assert np.abs(hooked.patched - lean.patched).max() < BOUND
    assert hooked.patched.shape == lean.patched.shape


def test_the_probability_of_a_set_of_answers_is_the_sum(use: Any) -> None:
    model = use(build("gpt2"))
    cells, _, _ = naive(model, "z", "head", (RIGHT, WRONG))
    pair = Pair(CLEAN, CORRUPTED, (RIGHT, WRONG))  # pyright: ignore[reportArgumentType]
    both = interp.patch(pairs=[pair], metric="prob")
    assert np.abs(both.per_pair[0] - np.exp(cells).sum(0)).max() < BOUND
    logs = interp.patch(pairs=[pair], metric="logprob")
    assert np.abs(logs.per_pair[0] - np.log(np.exp(cells).sum(0))).max() < BOUND


def test_an_answer_has_the_log_probability_that_hugging_face_gives(use: Any) -> None:
    for kind in FAMILIES:
        model = use(build(kind))
        prompt, answer = prompt_of(model, CLEAN), ids_of(model, RIGHT)
        with torch.no_grad():
            logits = model.hf_model(torch.tensor([prompt + answer])).logits[0]
        expected = logprob(logits, answer, len(prompt) - 1)
        result = interp.patch(CLEAN, CORRUPTED, answer=RIGHT, metric="logprob", site="resid_pre", by="layer")
        assert abs(result.clean_metric - expected) < 1e-5
        assert abs(result.clean_metric - float(interp.predict(CLEAN, answer=RIGHT).answer_logprob)) < 1e-5


def test_pairs_of_one_token_among_whole_answers(use: Any) -> None:
    use(build("llama"))
    plain = Pair(CLEAN, CORRUPTED, (" store",), (" mat",))  # pyright: ignore[reportArgumentType]
    whole = Pair(CLEAN, CORRUPTED, (RIGHT,), (" mat",))  # pyright: ignore[reportArgumentType]
    both = interp.patch(pairs=[plain, whole])
    for number, pair in enumerate((plain, whole)):
        assert np.abs(both.per_pair[number] - interp.patch(pairs=[pair]).per_pair[0]).max() < BOUND
    assert [row[0][0] for row in both.checks.answer] == [" store", RIGHT]


def test_a_shorter_sweep_and_verified_cells_are_those_of_all(use: Any) -> None:
    use(build("gpt2"))
    options: dict[str, Any] = {"answer": RIGHT, "wrong": WRONG, "site": "resid_pre", "by": "position"}
    whole = interp.patch(CLEAN, CORRUPTED, **options)
    some = interp.patch(CLEAN, CORRUPTED, **options, method="attribution", verify=3)
    assert some.estimate is not None
    assert some.estimate.shape == whole.patched.shape == some.estimates["resid_pre"].shape
    assert some.done.sum() == 3
    assert np.abs(some.patched[some.done] - whole.patched[some.done]).max() < BOUND
    assert set(zip(*np.nonzero(some.done), strict=True)) == {
        tuple(np.unravel_index(n, whole.patched.shape)) for n in np.argsort(-np.abs(some.estimate).ravel())[:3]
    }


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_estimates_are_gradients_of_the_whole_answer(use: Any, kind: str) -> None:
    model = use(build(kind))
    clean, corrupted = prompt_of(model, CLEAN), prompt_of(model, CORRUPTED)
    expected = np.zeros((model.geometry.n_layers, model.geometry.n_heads))
    for sign, text in ((1, RIGHT), (-1, WRONG)):
        answer = ids_of(model, text)
        names = [hook_name("z", layer) for layer in range(model.geometry.n_layers)]
        source, base = captured(model, clean + answer[:-1], names), dict[str, torch.Tensor]()

        def keep(name: str, base: dict[str, torch.Tensor] = base) -> Any:
            def hook(tensor: torch.Tensor, hook: Any) -> torch.Tensor:  # noqa: ARG001
                base[name] = tensor
                return tensor

            return hook

        hooks = [(name, keep(name)) for name in names]
        run = torch.tensor([corrupted + answer[:-1]])
        logits = model.bridge.run_with_hooks(run, fwd_hooks=hooks, return_type="logits")[0]
        logs = logits.log_softmax(-1)
        score = sum(logs[len(clean) - 1 + n, token] for n, token in enumerate(answer))
        assert isinstance(score, torch.Tensor)
        slopes = torch.autograd.grad(score, [base[name] for name in names])
        for layer, (name, slope) in enumerate(zip(names, slopes, strict=True)):
            moved = (source[name] - base[name].detach()) * slope
            expected[layer] += sign * moved.sum((0, 1, 3)).numpy()
    found = interp.patch(CLEAN, CORRUPTED, answer=RIGHT, wrong=WRONG, method="attribution")
    assert found.provenance.path == "gradients"
    assert found.estimate is not None
    assert np.abs(found.estimate - expected).max() < BOUND
    with pytest.raises(InputError, match="one answer by logprob"):
        interp.patch(CLEAN, CORRUPTED, answer=RIGHT, metric="prob", method="attribution")


# -- the loss, and all logits ------------------------------------------------------------------------------------------


def text_loss(logits: torch.Tensor, ids: Sequence[int], first: int = 1, stop: int | None = None) -> float:
    stop = len(ids) if stop is None else stop
    return float(functional.cross_entropy(logits[first - 1 : stop - 1].double(), torch.tensor(ids[first:stop])))


@pytest.mark.parametrize("kind", ["gpt2", "neox", "llama"])
@pytest.mark.parametrize("metric", ["loss", "loss:again"])
def test_the_loss_of_a_text_is_measured_in_every_cell(use: Any, kind: str, metric: Any) -> None:
    model = use(build(kind))
    clean, corrupted = (
        model.tokens.encode(interp.Prompt(text.replace("[two three]{again}", "two three"))).ids for text in SPANNED
    )
    first, stop = (1, len(clean)) if metric == "loss" else (len(clean) - len(ids_of(model, " two three")), len(clean))
    result = interp.patch(*SPANNED, metric=metric, site="resid_pre", by="position")
    layers = range(model.geometry.n_layers)
    held = captured(model, clean, [hook_name("resid_pre", layer) for layer in layers])
    for index in np.ndindex(*result.patched.shape):
        at = dict(zip(("layer", "position"), index, strict=True))
        logits = patched(model, corrupted, held, held, "resid_pre", at, slice(None))  # pyright: ignore
        assert abs(result.per_pair[0][index] - text_loss(logits, clean, first, stop)) < BOUND
    assert abs(result.clean_metric - text_loss(logits_of(model, clean), clean, first, stop)) < BOUND
    assert abs(result.corrupted_metric - text_loss(logits_of(model, corrupted), clean, first, stop)) < BOUND
    if metric == "loss":
        labels = torch.tensor([clean])
        assert abs(result.clean_metric - model.hf_model(labels, labels=labels).loss.item()) < 1e-5


def peak(logits: torch.Tensor) -> torch.Tensor:
    """The largest logit at the second position, and the spread of all."""
    return logits[:, 1].amax(-1) + logits.std((1, 2))


peak.positions = "all"  # pyright: ignore[reportFunctionMemberAccess]


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_function_of_all_logits(use: Any, kind: str) -> None:
    model = use(build(kind))
    clean, corrupted = prompt_of(model, CLEAN), prompt_of(model, CORRUPTED)
    result = interp.patch(CLEAN, CORRUPTED, metric=peak)
    held = captured(model, clean, [hook_name("z", layer) for layer in range(model.geometry.n_layers)])
    for index in np.ndindex(*result.patched.shape):
        at = dict(zip(("layer", "head"), index, strict=True))
        logits = patched(model, corrupted, held, held, "z", at, slice(None))  # pyright: ignore
        assert abs(result.per_pair[0][index] - float(peak(logits[None])[0])) < BOUND
    assert result.metric == "peak"
    declared = interp.patch(CLEAN, CORRUPTED, metric=Metric("peak", lambda logits: peak(logits), positions="all"))
    assert np.array_equal(declared.patched, result.patched)


def test_a_function_of_all_logits_is_given_them_in_pieces(use: Any, monkeypatch: Any) -> None:
    use(build("llama"))
    whole = interp.patch(CLEAN, CORRUPTED, metric=peak, site="neuron", by="neuron")
    monkeypatch.setattr("interp.engine.memory.LOGIT_ROWS", 16)
    seen: list[int] = []

    def watching(logits: torch.Tensor) -> torch.Tensor:
        seen.append(len(logits))
        return peak(logits)

    pieces = interp.patch(
        CLEAN, CORRUPTED, metric=Metric("peak", watching, positions="all"), site="neuron", by="neuron"
    )
    assert max(seen) <= 2
    assert np.abs(pieces.patched - whole.patched).max() < BOUND


# -- ablations, mediators and paths ------------------------------------------------------------------------------------


def without(model: LoadedModel, ids: Sequence[int], layer: int, head: int) -> torch.Tensor:
    def zero(tensor: torch.Tensor, hook: Any) -> torch.Tensor:  # noqa: ARG001
        changed = tensor.clone()
        changed[:, :, head] = 0
        return changed

    return logits_of(model, ids, [(hook_name("z", layer), zero)])


@pytest.mark.parametrize("kind", ["gpt2", "neox", "llama"])
def test_ablations_measure_whole_answers_and_texts(use: Any, kind: str) -> None:
    model = use(build(kind))
    clean = prompt_of(model, CLEAN)
    result = interp.ablate(CLEAN, CORRUPTED, answer=RIGHT, wrong=WRONG, heads="1.2")
    expected = 0.0
    for sign, text in ((1, RIGHT), (-1, WRONG)):
        answer = ids_of(model, text)
        expected += sign * logprob(without(model, clean + answer[:-1], 1, 2), answer, len(clean) - 1)
    assert abs(result.values[1] - expected) < BOUND
    loss = interp.ablate(CLEAN, CORRUPTED, metric="loss", heads="1.2")
    assert abs(loss.values[1] - text_loss(without(model, clean, 1, 2), clean)) < BOUND
    texts = interp.ablate([CLEAN, "one two three"], heads="1.2")
    losses = [text_loss(without(model, ids, 1, 2), ids) for ids in (clean, prompt_of(model, "one two three"))]
    assert np.abs(texts.per_prompt[1] - losses).max() < BOUND
    of_texts = interp.ablate([CLEAN, "one two three"], metric=peak, heads="1.2")
    assert abs(of_texts.per_prompt[1, 0] - float(peak(without(model, clean, 1, 2)[None])[0])) < BOUND
    several = interp.ablate(CLEAN, CORRUPTED, metric=peak, heads="1.2")
    assert abs(several.values[1] - float(peak(without(model, clean, 1, 2)[None])[0])) < BOUND


def test_means_are_over_the_runs_with_their_answers(use: Any) -> None:
    model = use(build("gpt2"))
    answer = ids_of(model, RIGHT)
    runs = [prompt_of(model, text) + answer[:-1] for text in (CLEAN, CORRUPTED)]
    name = hook_name("z", 0)
    mean = torch.stack([captured(model, run, [name])[name][0] for run in runs]).mean(0)[:, 1]

    def fill(tensor: torch.Tensor, hook: Any) -> torch.Tensor:  # noqa: ARG001
        changed = tensor.clone()
        changed[:, :, 1] = mean
        return changed

    expected = logprob(logits_of(model, runs[0], [(name, fill)]), answer, len(runs[0]) - len(answer))
    result = interp.ablate(CLEAN, CORRUPTED, answer=RIGHT, metric="logprob", heads="0.1", mode="mean")
    assert abs(result.values[1] - expected) < BOUND


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_mediators_and_paths_measure_whole_answers(use: Any, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use(build(kind))
    options: dict[str, Any] = {"answer": RIGHT, "wrong": WRONG}
    mediated = interp.mediate(CLEAN, CORRUPTED, **options)
    denoised = interp.patch(CLEAN, CORRUPTED, **options)
    noised = interp.patch(CLEAN, CORRUPTED, **options, direction="noise")
    assert np.abs(mediated.indirect - denoised.effect).max() < BOUND
    assert np.abs(mediated.direct - (noised.patched - noised.corrupted_metric)).max() < BOUND
    lean = interp.path(CLEAN, CORRUPTED, **options, from_="all", to="logits")
    monkeypatch.setattr(network, "FAMILIES", {})
    hooked = interp.path(CLEAN, CORRUPTED, **options, from_="all", to="logits")
    assert lean.provenance.path != hooked.provenance.path
    assert np.nanmax(np.abs(lean.patched - hooked.patched)) < BOUND


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"answer": RIGHT, "wrong": WRONG, "metric": "logit"}, "must be one.*--metric logprob measures all of it"),
        ({"answer": RIGHT, "wrong": RIGHT}, "are the same tokens"),
        ({"metric": "loss:here"}, "clean has no span here; mark one"),
        ({"metric": "loss", "corrupted": "When John and Mary went"}, "tokens and corrupted"),
        ({"answer": RIGHT * 8, "metric": "logprob"}, "reads 24"),
        ({"metric": Metric("flat", lambda logits: logits[:, -1], positions="all")}, "one number for each run"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(use: Any, options: dict[str, Any], said: str) -> None:
    use(build("gpt2"))
    given = {"corrupted": CORRUPTED, **options}
    with pytest.raises(InputError, match=said) as refused:
        interp.patch(CLEAN, given.pop("corrupted"), **given)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("command", ["circuit"])
def test_other_commands_say_which_measure_several_positions(use: Any, command: str) -> None:
    use(build("gpt2"))
    call: Callable[..., Any] = getattr(interp, command)
    with pytest.raises(InputError, match="as patch, ablate, mediate and path do"):
        call(CLEAN, CORRUPTED, metric="loss")
    with pytest.raises(InputError, match="must be one"):
        call(CLEAN, CORRUPTED, answer=RIGHT, wrong=WRONG)


# -- the real model ----------------------------------------------------------------------------------------------------


def test_smollm2_says_whole_answers_as_hugging_face_does(smollm2: LoadedModel) -> None:
    clean, corrupted = "The Eiffel Tower stands in the city of", "The Colosseum stands in the city of"
    right, wrong = " Paris, France", " Rome, Italy"
    result = interp.patch(clean, corrupted, answer=right, wrong=wrong, site="resid_pre", by="layer", layer="0,10,29")
    prompt = prompt_of(smollm2, clean)
    expected = 0.0
    for sign, text in ((1, right), (-1, wrong)):
        answer = ids_of(smollm2, text)
        with torch.no_grad():
            logits = smollm2.hf_model(torch.tensor([prompt + answer])).logits[0]
        expected += sign * logprob(logits, answer, len(prompt) - 1)
    assert result.provenance.path == "replay"
    assert abs(result.clean_metric - expected) < 1e-4
    assert result.clean_metric > 0 > result.corrupted_metric
    # The whole stream before the first layer is the other prompt.
    assert abs(result.patched[0] - result.clean_metric) < 1e-4
    loss = interp.patch(clean, corrupted, metric="loss", site="resid_pre", by="layer", layer=0)
    labels = torch.tensor([prompt])
    assert abs(loss.clean_metric - smollm2.hf_model(labels, labels=labels).loss.item()) < 1e-5
