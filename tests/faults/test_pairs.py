"""Rows 9, 17–27, 29, 30 and 34: pairs that do not line up, sweeps that break off, and views that ask meanwhile."""

from __future__ import annotations

import contextlib
import re
import signal
import threading

import numpy as np
import pytest
import torch

import interp
from faults import harness
from interp.engine import memory
from interp.engine.model import forward as passes
from interp.engine.transformer import incremental, network
from interp.errors import InputError, Interrupted
from interp.interface.session import session
from interp.spec import Pair, Prompt

pytestmark = pytest.mark.usefixtures("every_sweep_runs")

GIFT = "When Mary and John went to the store, John gave a drink to"
SWAP = "When Mary and John went to the store, Mary gave a drink to"
BODY = f"clean: {GIFT}\ncorrupted: {SWAP}\nanswer: Mary\nwrong: John"
each_door = pytest.mark.parametrize("door", harness.DOORS)
each_path = pytest.mark.parametrize("path", ["replay", "hooked"])


def cell(body=BODY, **arguments):
    return harness.Cell("patch", arguments, body)


def body(clean=GIFT, corrupted=SWAP, answer="Mary", wrong="John"):
    lines = {"clean": clean, "corrupted": corrupted, "answer": answer, "wrong": wrong}
    return "\n".join(f"{key}: {value}" for key, value in lines.items() if value is not None)


def go(monkeypatch, path):
    """Make sweeps go one way, in many small steps."""
    monkeypatch.setattr(memory, "WAVE_ROWS", 20)
    if path == "hooked":
        monkeypatch.setattr(network, "FAMILIES", {})
        monkeypatch.setattr(memory, "free_bytes", lambda _: 10**6)


def of(ids, corrupted, answer=7, wrong=9):
    return Pair(Prompt(ids=tuple(ids)), Prompt(ids=tuple(corrupted)), (answer,), (wrong,))


# -- row 9 -----------------------------------------------------------------------------------------------------------


@each_door
@each_path
def test_row_9_a_metric_that_is_not_a_number(path, door, shell, lend, monkeypatch):
    model = lend("gpt2")
    go(monkeypatch, path)
    plain = harness.worked(harness.ask(door, shell, cell()))
    bar = float(np.sort(plain.per_pair.reshape(-1))[-3:].mean())
    ids = [plain.checks.answer[0][0][1], plain.checks.wrong[0][0][1]]

    def holes(logits):
        value = logits[:, ids[0]] - logits[:, ids[1]]
        return torch.where(value > bar, torch.nan if bar > 0 else torch.inf, value)

    shell.user_ns["holes"] = holes
    with harness.unharmed(model, shell):
        asked = cell(metric="holes" if door == "magic" else holes)
        result = harness.worked(harness.ask(door, shell, asked))
        bad = ~np.isfinite(result.patched)
        assert 0 < bad.sum() < bad.size
        first = int(np.argwhere(bad)[0][0])
        expected = f"the metric is NaN or infinite in {bad.sum()} cells, first in layer {first}"
        assert expected in result.notes
        assert result.done.all()
        same = np.isfinite(result.per_pair)
        assert np.abs(result.per_pair - plain.per_pair)[same].max() < 1e-4
        assert expected in result.text()
        assert "hatch" in result.html()
        result.to_frame(), result.svg()


def test_row_9_weights_that_are_not_numbers(shell, folder, clean_session):
    model = clean_session.load(folder("gpt2"), name="gpt2")
    with torch.no_grad():
        model.bridge.blocks[1].mlp.original_component.c_proj.weight.data[0, 0] = float("nan")
    with same_hooks(model):
        for site in ("z", "resid_pre"):
            result = harness.worked(harness.ask("magic", shell, cell(site=site, by="layer")))
            assert any("NaN or infinite in 2 cells, first in layer 0" in note for note in result.notes)
            result.html(), result.text()


@contextlib.contextmanager
def same_hooks(model):
    """Assert that the hooks stay: the logits of this model are NaN, and never equal to themselves."""
    before = harness.census(model)
    yield
    assert harness.census(model) == before


# -- rows 17–19 ------------------------------------------------------------------------------------------------------


@each_door
@pytest.mark.parametrize("family", ["gpt2", "llama", "neox"])
def test_row_17_prompts_of_different_lengths(family, door, shell, lend):
    model = lend(family)
    with harness.unharmed(model, shell):
        before = model.forwards
        asked = cell(body(corrupted=SWAP.replace("store", "old store")))
        message = harness.refused(harness.ask(door, shell, asked), "must line up")
        counts = re.search(r"clean has (\d+) tokens and corrupted (\d+)", message)
        lengths = [len(model.encode(Prompt(p)).ids) for p in (GIFT, SWAP.replace("store", "old store"))]
        assert [int(n) for n in counts.groups()] == lengths
        assert " against " in message
        assert "|" in message
        assert model.forwards == before, "it ran before it was refused"
        good = body()
        message = harness.refused(harness.ask(door, shell, cell(f"{good}\n\n{asked.body}")))
        assert message.startswith("pair 1: clean has ")


@each_door
def test_row_18_an_answer_of_several_tokens(door, shell, lend):
    model = lend("gpt2")
    with harness.unharmed(model, shell):
        before = model.forwards
        asked = harness.Cell("circuit", {}, body(answer="Bartholomew"))  # of which one position is measured
        message = harness.refused(harness.ask(door, shell, asked), "answer 'Bartholomew'")
        split = re.search(r"is (\d+) tokens \((.*?)\)", message)
        pieces = split.group(2).split("|")
        assert len(pieces) == int(split.group(1)) > 1
        assert "".join(pieces) == " Bartholomew"
        assert f"take its first token, {pieces[0]!r}" in message
        assert model.forwards == before
    with harness.unharmed(model, shell), pytest.raises(InputError, match=r"' John' with a space in front is one"):
        interp.circuit(f"{GIFT} (", f"{SWAP} (", answer=" Mary", wrong="John")
    whole = harness.worked(harness.ask(door, shell, cell(body(answer="Bartholomew"))))
    assert any("answers of several tokens stand behind both prompts" in note for note in whole.notes)


@each_door
def test_row_19_answers_that_are_empty_alike_or_missing(door, shell, lend):
    model = lend("gpt2")
    with harness.unharmed(model, shell):
        before = model.forwards
        harness.refused(harness.ask(door, shell, cell(body(answer=""))), "the answer is empty", "answer: John")
        harness.refused(harness.ask(door, shell, cell(body(wrong=" "))), "the wrong is empty")
        harness.refused(harness.ask(door, shell, cell(body(wrong="Mary"))), "share the token ' Mary'", "must differ")
        harness.refused(harness.ask(door, shell, cell(body(answer=None))), "logit-diff needs an answer", "answer: …")
        harness.refused(harness.ask(door, shell, cell(body(wrong=None))), "logit-diff needs a wrong answer", "wrong: …")
        harness.refused(harness.ask(door, shell, cell(body(answer=None), metric="prob")), "prob needs an answer")
        assert model.forwards == before
        harness.worked(harness.ask(door, shell, cell(body(wrong=None), metric="logprob")))
        harness.worked(harness.ask(door, shell, cell(body(answer=None, wrong=None), metric="kl")))


def test_rows_10_12_and_14_in_a_pair(shell, lend):
    model = lend("gpt2")
    last = model.geometry.d_vocab - 1
    with harness.unharmed(model, shell):
        before = model.forwards
        harness.refused(harness.ask("magic", shell, cell(body(clean=""))), "empty")
        harness.refused(harness.ask("magic", shell, cell(body(clean=" a" * 99))), "48")
        for pair in (of([5, 6, last + 1], [5, 6, 7]), of([5, 6, 7], [5, -1, 7]), of([5, 6], [5, 7], answer=last + 1)):
            with pytest.raises(InputError, match=f"0–{last}"):
                interp.patch(pairs=[pair])
        with pytest.raises(InputError, match="there are no pairs"):
            interp.patch(pairs=[])
        with pytest.raises(InputError, match="needs a clean and a corrupted prompt"):
            interp.patch(clean=GIFT)
        with pytest.raises(InputError, match="patch needs a second prompt: give clean and corrupted"):
            interp.patch(GIFT)
        with pytest.raises(InputError, match="tasks are facts"):
            interp.patch("gifts")
        assert model.forwards == before


# -- rows 20–22 ------------------------------------------------------------------------------------------------------

LENGTHS = [of([5, 17, 3], [6, 17, 3]), of([8, 11, 23, 31, 8, 40, 2], [8, 11, 64, 31, 8, 40, 2]), of([9, 4], [9, 5])]


@each_path
@pytest.mark.parametrize("family", ["gpt2", "llama", "neox"])
def test_rows_20_and_21_pairs_of_different_lengths(family, path, shell, lend, monkeypatch):
    model = lend(family)
    if path == "hooked":
        monkeypatch.setattr(network, "FAMILIES", {})
    with harness.unharmed(model, shell):
        for site, by in (("z", "head"), ("v", "head"), ("resid_post", "layer"), ("pattern", "head")):
            together = interp.patch(pairs=LENGTHS, site=site, by=by)
            for number, pair in enumerate(LENGTHS):
                alone = interp.patch(pairs=[pair], site=site, by=by)
                assert np.abs(together.per_pair[number] - alone.per_pair[0]).max() < 1e-5
                # What is measured is the pair's own last token: as a plain forward has it, without padding.
                for prompt, measured in (
                    (pair.clean, together.checks.clean_metric[number]),
                    (pair.corrupted, together.checks.corrupted_metric[number]),
                ):
                    with torch.no_grad():
                        logits = model.bridge.forward(torch.tensor([prompt.ids]), return_type="logits")[0, -1]
                    assert measured == pytest.approx(float(logits[7] - logits[9]), abs=1e-5)
        with pytest.raises(InputError, match="2 to 7 tokens; by position they must have one length"):
            interp.patch(pairs=LENGTHS, site="resid_pre", by="position")


def test_row_22_keys_and_values_of_a_gqa_model(shell, lend):
    model = lend("llama")
    heads, shared = model.geometry.n_heads, model.geometry.n_kv_heads
    assert heads == 2 * shared
    with harness.unharmed(model, shell):
        for site, count in (("k", shared), ("v", shared), ("q", heads), ("z", heads), ("pattern", heads)):
            result = harness.worked(harness.ask("magic", shell, cell(site=site)))
            assert result.patched.shape == (model.geometry.n_layers, count)
            assert np.isfinite(result.patched).all()
            assert len(result.to_frame()) == model.geometry.n_layers * count
            assert f"0.{count}" not in {name for name, _, _ in result.top(100)}
            long = harness.worked(harness.ask("magic", shell, cell(site=site, by="head-position")))
            assert long.patched.shape[1] == count


# -- rows 23–25 ------------------------------------------------------------------------------------------------------


@each_door
def test_row_23_layers_that_are_not_there(door, shell, lend):
    model = lend("gpt2")
    with harness.unharmed(model, shell):
        for layer in (99, -1, 2):
            harness.refused(harness.ask(door, shell, cell(layer=layer)), "layers are 0–1")
        harness.refused(harness.ask("magic", shell, f"%%interp patch --layer 0-5\n{BODY}"), "layers are 0–1")


@each_door
def test_row_24_words_that_are_misspelt(door, shell, lend):
    model = lend("neox")
    with harness.unharmed(model, shell):
        before = model.forwards
        for arguments, hint in (
            ({"site": "resid_per"}, "did you mean resid_pre"),
            ({"site": "attn-out"}, "did you mean attn_out"),
            ({"site": "resid_mid", "by": "layer"}, "neox has no resid_mid; it has resid_pre"),
            ({"by": "heads"}, "did you mean head"),
            ({"by": "neuron"}, "use --site neuron"),
            ({"site": "mlp_out"}, "mlp_out has no heads; use --by position or --by layer"),
            ({"metric": "logit-dif"}, "did you mean logit-diff"),
            ({"direction": "denoice"}, "did you mean denoise"),
            ({"from_model": "noex"}, "did you mean neox"),
            ({"lyer": 1}, "did you mean"),
        ):
            harness.refused(harness.ask(door, shell, cell(**arguments)), hint)
        assert model.forwards == before
    outcome = harness.ask("magic", shell, f"%%interp patchh\n{BODY}")
    harness.refused(outcome, "did you mean patch")


WRONG = {
    "a number": lambda logits: float(logits.sum()),
    "a scalar": lambda logits: logits.sum(),
    "a matrix": lambda logits: logits,
    "one too many": lambda logits: [*logits[:, 0].tolist(), 0.0],
    "nothing": lambda logits: None,  # noqa: ARG005
    "a text": lambda logits: "good",  # noqa: ARG005
    "complex": lambda logits: logits[:, 0] * 1j,
    "an error": lambda logits: logits[:, 10**6],
}


@each_door
@pytest.mark.parametrize("kind", WRONG)
def test_row_25_a_metric_of_the_wrong_shape(kind, door, shell, lend):
    model = lend("gpt2")
    shell.user_ns["mine"] = WRONG[kind]
    with harness.unharmed(model, shell):
        before = model.forwards
        outcome = harness.ask(door, shell, cell(metric="mine" if door == "magic" else WRONG[kind]))
        message = harness.refused(outcome, "the metric")
        assert "[2, " in message or "one number for each run" in message
        assert model.forwards == before, "the sweep had begun"


# -- rows 26–30 ------------------------------------------------------------------------------------------------------


class Raising:
    """Calls a function and raises at given calls of it."""

    def __init__(self, function, at, error):
        self.function, self.at, self.error, self.calls = function, at, error, 0

    def of(self):
        def call(*arguments, **options):
            self.calls += 1
            if self.at(self.calls - 1):
                if callable(self.error):
                    self.error()
                else:
                    raise self.error
            return self.function(*arguments, **options)

        return call


SEAMS = {"replay": (incremental, "replay"), "hooked": (passes, "forward")}


@each_path
@each_door
def test_row_26_memory_runs_out_at_every_step(door, path, shell, lend, monkeypatch):
    model = lend("llama")
    go(monkeypatch, path)
    expected = harness.worked(harness.ask(door, shell, cell(by="head-position")))
    assert expected.provenance.path.startswith(path)
    owner, name = SEAMS[path]
    with harness.unharmed(model, shell):
        steps = 0
        for k in range(100):
            raising = Raising(getattr(owner, name), lambda n, k=k: n == k, torch.OutOfMemoryError("CUDA out of memory"))
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, raising.of())
                result = harness.worked(harness.ask(door, shell, cell(by="head-position")))
            if raising.calls <= k:
                break
            steps += 1
            assert result.done.all()
            assert np.abs(result.per_pair - expected.per_pair).max() < 1e-5
            assert not any(note.startswith("partial") for note in result.notes)
        assert 3 < steps < 100


@each_path
@each_door
def test_row_27_memory_for_not_one_cell(door, path, shell, lend, monkeypatch):
    model = lend("llama")
    go(monkeypatch, path)
    expected = harness.worked(harness.ask(door, shell, cell(by="head-position")))
    owner, name = SEAMS[path]
    with harness.unharmed(model, shell):
        raising = Raising(getattr(owner, name), lambda n: n >= 2, MemoryError())
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, raising.of())
            result = harness.worked(harness.ask(door, shell, cell(by="head-position")))
        count = int(result.done.sum())
        assert 0 < count < result.done.size
        assert f"partial: out of memory after {count}/{result.done.size}, one cell at a time" in result.notes[0]
        assert np.abs(result.patched - expected.patched)[result.done].max() < 1e-5
        assert np.isnan(result.patched[~result.done]).all()
        assert f"{count}/{result.done.size}" in result.summary()


@pytest.mark.slow
@each_path
@pytest.mark.parametrize("times", [1, 2])
def test_row_29_an_interrupt_at_every_step(times, path, shell, lend, monkeypatch):
    model = lend("gpt2")
    go(monkeypatch, path)
    asked = cell(by="head-position")
    expected = harness.worked(harness.ask("magic", shell, asked))
    owner, name = SEAMS[path]
    handler = signal.getsignal(signal.SIGINT)

    def interrupt():
        for _ in range(times):
            signal.raise_signal(signal.SIGINT)

    with harness.unharmed(model, shell):
        counts = set()
        for k in range(100):
            shell.user_ns.pop("part", None)
            raising = Raising(getattr(owner, name), lambda n, k=k: n == k, interrupt)
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, raising.of())
                outcome = harness.ask("magic", shell, asked.source(out="part"))
            if raising.calls <= k:
                harness.worked(outcome)
                break
            assert isinstance(outcome.error, KeyboardInterrupt)
            result = shell.user_ns["part"]
            assert result is outcome.error.result
            finished = np.isfinite(result.per_pair)
            progress = f"{finished.sum()}/{finished.size}"
            assert f"partial: interrupted after {progress}" in result.notes[0]
            assert progress in outcome.shown, "the partial result was not shown"
            assert np.abs(result.per_pair - expected.per_pair)[finished].max(initial=0) < 1e-5
            assert np.array_equal(result.done, finished[0])
            assert result.provenance.path.startswith(path)
            assert signal.getsignal(signal.SIGINT) is handler
            counts.add(int(finished.sum()))
        assert len(counts) > 3
        assert harness.answer(harness.worked(harness.ask("magic", shell, asked))) == harness.answer(expected)


def test_row_29_an_interrupted_call_in_python(shell, lend, monkeypatch):
    model = lend("gpt2")
    go(monkeypatch, "replay")
    raising = Raising(incremental.replay, lambda n: n == 2, lambda: signal.raise_signal(signal.SIGINT))
    with harness.unharmed(model, shell), monkeypatch.context() as patch:
        patch.setattr(incremental, "replay", raising.of())
        with pytest.raises(Interrupted) as stopped:
            interp.patch(GIFT, SWAP, answer=" Mary", wrong=" John", by="head-position")
        result = stopped.value.result
        assert 0 < result.done.sum() < result.done.size
        assert result.provenance.technique == "patch"
        assert str(stopped.value) == repr(result)


@each_path
@each_door
def test_row_30_a_metric_that_fails_on_the_way(door, path, shell, lend, monkeypatch):
    model = lend("gpt2")
    go(monkeypatch, path)
    expected = harness.worked(harness.ask(door, shell, cell(by="head-position", metric="logit")))
    right = expected.checks.answer[0][0][1]
    with harness.unharmed(model, shell):
        seen = set()
        for k in (1, 2, 3, 4, 5, 6, 8, 12):
            calls = []

            def mine(logits, calls=calls, k=k):
                calls.append(1)
                if len(calls) > k:
                    raise ValueError("no such\nluck")
                return logits[:, right]

            shell.user_ns["mine"] = mine
            asked = cell(by="head-position", metric="mine" if door == "magic" else mine)
            result = harness.worked(harness.ask(door, shell, asked))
            if len(calls) <= k:
                assert result.done.all()
                break
            finished = np.isfinite(result.per_pair)
            progress = f"{finished.sum()}/{finished.size}"
            assert f"partial: the metric failed after {progress}: ValueError: no such;" in result.notes[0]
            assert np.abs(result.per_pair - expected.per_pair)[finished].max(initial=0) < 1e-4
            seen.add(int(finished.sum()))
            result.html(), result.text()
        assert len(seen) > 2


def test_row_30_a_hook_of_the_users_that_fails_on_the_way(shell, lend):
    model = lend("gpt2")
    expected = harness.worked(harness.ask("magic", shell, cell()))
    calls = []

    def mine(tensor, hook):  # noqa: ARG001
        calls.append(1)
        if len(calls) > 2:
            raise ValueError("the user's own")

    with harness.unharmed(model, shell):
        model.bridge.add_hook("blocks.0.hook_mlp_out", mine)
        try:
            outcome = harness.ask("magic", shell, cell())
        finally:
            model.bridge.reset_hooks()
        assert isinstance(outcome.error, ValueError)
        again = harness.worked(harness.ask("magic", shell, cell()))
        assert harness.answer(again) == harness.answer(expected)


def test_row_31_a_forgotten_hook_is_named(shell, lend):
    model = lend("gpt2")
    with harness.unharmed(model, shell):
        model.bridge.add_hook("blocks.1.hook_mlp_out", lambda tensor, hook: tensor * 0)  # noqa: ARG005
        try:
            result = harness.worked(harness.ask("magic", shell, cell()))
        finally:
            model.bridge.reset_hooks()
        assert result.provenance.path == "hooked: hooks of the user's own"
        assert "blocks.1" in result.provenance.user_hooks[0]
        assert any("hooks of yours" in note for note in result.notes)


# -- row 34 ----------------------------------------------------------------------------------------------------------


@each_path
def test_row_34_views_that_ask_during_a_sweep(path, shell, lend, monkeypatch):
    model = lend("llama")
    go(monkeypatch, path)
    viewed = harness.worked(harness.ask("magic", shell, harness.valid("attention")))
    asked = cell(by="head-position")
    expected = harness.worked(harness.ask("magic", shell, asked))
    before = viewed._live.run(lambda held: held.run([1, 2, 3]).logits.clone())
    busy, right, other = [], [], []
    stop = threading.Event()
    started = threading.Barrier(2)

    def click():
        started.wait()
        while not stop.wait(0.0005):
            try:
                logits = viewed._live.run(lambda held: held.run([1, 2, 3]).logits)
            except InputError as error:
                (busy if "busy" in str(error) else other).append(str(error))
            except BaseException as error:  # whatever it is, the test says so
                other.append(repr(error))
            else:
                right.append(torch.equal(logits, before))

    with harness.unharmed(model, shell):
        thread = threading.Thread(target=click)
        thread.start()
        started.wait()
        try:
            results = [harness.worked(harness.ask("magic", shell, asked)) for _ in range(10)]
        finally:
            stop.set()
            thread.join()
        for result in results:
            assert np.array_equal(result.per_pair, expected.per_pair)
        assert other == []
        assert busy, "no click came during a sweep"
        assert all(right)
        print(f"{path}: {len(busy)} clicks refused, {len(right)} answered")


def test_row_34_a_click_at_every_step(shell, lend, monkeypatch):
    model = lend("gpt2")
    go(monkeypatch, "replay")
    asked = cell(by="head-position")
    expected = harness.worked(harness.ask("magic", shell, asked))
    answers = []

    def click():
        def ask():
            try:
                model.operate_if_free("view", lambda _: model.run([1, 2, 3]))
            except InputError as error:
                answers.append(str(error))

        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()

    raising = Raising(incremental.replay, lambda _: True, click)
    with harness.unharmed(model, shell):
        with monkeypatch.context() as patch:
            patch.setattr(incremental, "replay", raising.of())
            result = harness.worked(harness.ask("magic", shell, asked))
        assert len(answers) == raising.calls > 3
        assert all("busy" in answer for answer in answers)
        assert harness.answer(result) == harness.answer(expected)
        assert session.current == "gpt2"
