"""features-train: streams, held-out figures, files, going on after an interrupt or a kill, refusals."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import interp
from bundled import corpus
from interp.engine.features import activations, checkpoints, held
from interp.engine.features.measure import begins, measure
from interp.engine.features.places import Place, captured
from interp.errors import InputError, Interrupted
from interp.spec import Prompt

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL: dict[str, Any] = {"layer": (0, 2), "width": 48, "k": 8, "steps": 24, "batch": 256}


def documents(count: int, seed: int = 0) -> list[str]:
    """Return documents, none twice."""
    rng = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join(corpus.document(rng))] = None
    return list(found)


@pytest.fixture
def model(clean_session: Any) -> Any:
    return clean_session.load()


def weights(folder: Path, layer: int = 0) -> dict[str, torch.Tensor]:
    return load_file(folder / f"layer_{layer}" / "sae_weights.safetensors")


def same(one: Path, other: Path) -> bool:
    return all(torch.equal(weights(one, n)[name], weights(other, n)[name]) for n in (0, 2) for name in weights(one, n))


# -- the stream --------------------------------------------------------------------------------------------------------


def operated(model: Any, work: Any) -> Any:
    return model.operate("test", {}, lambda operation: work())  # noqa: ARG005


def streamed(model: Any, texts: list[str], budget: int, **more: Any) -> activations.Stream:
    prompts = [model.encode(Prompt(text)) for text in texts]
    reader = activations.Reader(model, [Place(1, "mlp_normed"), Place(1, "mlp_out")], [one.ids for one in prompts])
    first = [int(begins(model, one)) for one in prompts]
    return activations.Stream(
        model, reader, [one.ids for one in prompts], first, batch=32, seed=0, budget=budget, **more
    )


@pytest.mark.parametrize("site", ["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "z", "neuron"])
def test_what_is_read_without_hooks_is_what_hooks_show(model: Any, site: str) -> None:
    places = [Place(0, site), Place(2, site), Place(1, "mlp_normed"), Place(3, "mlp_in")]
    prompts = [model.encode(Prompt(text)) for text in documents(3)]

    def work() -> None:
        reader = activations.Reader(model, places, [one.ids for one in prompts])
        assert reader.path == "forward"
        for one in prompts:
            expected = captured(model, one, places)
            for place, found in zip(places, reader([one.ids]), strict=True):
                torch.testing.assert_close(found[0], expected[place], rtol=1e-4, atol=1e-5)

    operated(model, work)


def test_a_pool_is_bounded_and_a_pass_has_every_row_once(model: Any) -> None:
    texts = documents(30)
    sizes: list[int] = []

    def work() -> None:
        stream = streamed(model, texts, budget=100 * 4 * 256)
        pool = stream._pool

        def kept(chosen: tuple[int, ...]) -> list[torch.Tensor]:
            made = pool(chosen)
            sizes.append(len(made[0]))
            return made

        stream._pool = kept  # pyright: ignore[reportAttributeAccessIssue]
        batches = stream.batches()
        rows = 0
        seen: list[torch.Tensor] = []
        while rows < stream.rows:
            batch = next(batches)
            rows += len(batch[0])
            seen.append(batch[0])
        assert rows == stream.rows
        everything = [captured(model, model.encode(Prompt(text)), [Place(1, "mlp_normed")]) for text in texts]
        expected = torch.cat([next(iter(one.values()))[1:] for one in everything])
        found = torch.cat(seen)
        torch.testing.assert_close(found.sum(1).sort().values, expected.sum(1).sort().values, rtol=1e-3, atol=1e-4)

    operated(model, work)
    assert max(sizes) <= 100
    assert len(sizes) > 4


@pytest.mark.parametrize("passes", [1, 3])
def test_batches_from_any_one_on_are_those_of_the_whole(model: Any, passes: int) -> None:
    texts = documents(20)

    def work() -> None:
        whole = streamed(model, texts, 100 * 4 * 256, passes=passes).batches()
        expected = [next(whole) for _ in range(40)]
        for skip in (1, 7, 26):
            later = streamed(model, texts, 100 * 4 * 256, passes=passes).batches(skip)
            for batch in expected[skip : skip + 5]:
                assert all(torch.equal(a, b) for a, b in zip(batch, next(later), strict=True))

    operated(model, work)


# -- the command -------------------------------------------------------------------------------------------------------


def test_it_trains_measures_holds_and_saves(model: Any, tmp_path: Path) -> None:
    texts = documents(120)
    result = interp.features_train(texts, out=str(tmp_path / "mine"), **{**SMALL, "steps": 80})
    assert result.layers == (0, 2)
    assert result.loss.shape == (80, 2)
    assert (result.batch_fvu[-10:].mean(0) < 0.7 * result.batch_fvu[:5].mean(0)).all()
    np.testing.assert_allclose(result.batch_l0, 8, atol=0.01)
    own = held.current(model)
    assert own.name == "mine"
    assert own.points == ("mlp_normed",)
    assert own.doubts == ()
    # The last tenth of the texts, and nothing else, is what it was measured on.
    tenth = [model.encode(Prompt(text)) for text in texts[-12:]]
    assert result.tokens[1] == sum(len(one.ids) - 1 for one in tenth)
    again = measure(model, own.dictionaries, tenth)
    np.testing.assert_allclose(result.fvu, [one.fvu for one in again], rtol=1e-5)
    np.testing.assert_allclose(result.ce_recovered, [one.ce_recovered for one in again], rtol=1e-4)
    assert own.sample == tuple(texts[-12 : -12 + len(own.sample)])
    # What is saved is what is held, without anything left of the way there.
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["layer_0", "layer_2"]
    loaded = interp.features_load(str(tmp_path / "mine"), name="loaded")
    assert loaded.notes == ()
    for one, other in zip(own.dictionaries, held.current(model, "loaded").dictionaries, strict=True):
        torch.testing.assert_close(one.encoder, other.encoder, rtol=0, atol=0)
        assert other.declared["fvu"] == pytest.approx(one.declared["fvu"])
    assert "FVU" in result.summary()
    assert list(result.to_frame()["layer"]) == [0, 2]
    assert result.svg().count("<path") > 8
    assert "partial" not in result.html()


@pytest.mark.parametrize("site", ["resid_post", "z", "neuron"])
def test_saes_at_other_sites(model: Any, site: str) -> None:
    result = interp.features_train(documents(60), site=site, **{**SMALL, "steps": 60, "k": 16, "kind": "topk"})
    own = held.current(model)
    assert (own.name, own.points) == ("trained", (site,))
    assert all(one.kind == "sae" for one in own.dictionaries)
    assert (result.fvu < 0.8).all()
    np.testing.assert_allclose(result.l0, 16, atol=0.5)


def test_a_skip_transcoder_misses_less(model: Any) -> None:
    texts = documents(100)
    plain, skipping = (interp.features_train(texts, skip=skip, **{**SMALL, "steps": 60}) for skip in (False, True))
    assert (skipping.fvu < plain.fvu).all()
    assert held.current(model).dictionaries[0].skip is not None


def test_training_again_gives_the_same(model: Any, tmp_path: Path) -> None:  # noqa: ARG001
    texts = documents(40)
    for name in ("one", "two"):
        interp.features_train(texts, out=str(tmp_path / name), **SMALL)
    assert same(tmp_path / "one", tmp_path / "two")


# -- going on ----------------------------------------------------------------------------------------------------------

_KILLED = """
import json, os, signal, sys, torch
torch.set_num_threads(1)
import interp
from interp.interface.session import session
texts, out, small = json.loads(sys.stdin.read())
interp.load()
def kill(done, total, what):
    if what == "features-train" and done == 17:
        os.kill(os.getpid(), signal.SIGKILL)
session.on_step = kill
interp.features_train(texts, out=out, **small)
"""


@pytest.mark.slow
def test_a_killed_training_goes_on_to_the_same_end(model: Any, tmp_path: Path) -> None:  # noqa: ARG001
    texts = documents(40)
    given = json.dumps([texts, str(tmp_path / "killed"), SMALL])
    ended = subprocess.run([sys.executable, "-c", _KILLED], input=given, text=True, env=dict(os.environ), check=False)
    assert ended.returncode == -signal.SIGKILL
    assert [path.name for path in (tmp_path / "killed").iterdir()] == [checkpoints.FILE]
    result = interp.features_train(texts, out=str(tmp_path / "killed"), **SMALL)
    assert f"went on from step 16 of the training in {tmp_path / 'killed'}" in result.notes
    assert result.loss.shape == (24, 2)
    whole = interp.features_train(texts, out=str(tmp_path / "whole"), **SMALL)
    assert same(tmp_path / "killed", tmp_path / "whole")
    np.testing.assert_array_equal(result.loss, whole.loss)
    assert not (tmp_path / "killed" / checkpoints.FILE).exists()


def test_an_interrupt_keeps_what_was_trained_and_the_same_command_goes_on(
    model: Any, clean_session: Any, tmp_path: Path
) -> None:
    texts = documents(40)

    def stop(done: int, total: int, what: str) -> None:  # noqa: ARG001
        if what == "features-train" and done == 11:
            raise KeyboardInterrupt

    clean_session.on_step = stop
    with pytest.raises(Interrupted) as caught:
        interp.features_train(texts, out=str(tmp_path / "part"), **SMALL)
    clean_session.on_step = None
    result = caught.value.result
    assert result.steps == (11, 24)
    assert "partial: interrupted after 11 of 24 steps" in result.notes[0]
    assert np.isfinite(result.fvu).all()
    assert held.current(model).name == "part"
    assert interp.features_load(str(tmp_path / "part"), name="loaded").notes == ()
    assert torch.is_grad_enabled()
    again = interp.features_train(texts, out=str(tmp_path / "part"), **SMALL)
    assert again.notes[0].startswith("went on from step 11")
    interp.features_train(texts, out=str(tmp_path / "whole"), **SMALL)
    assert same(tmp_path / "part", tmp_path / "whole")


@pytest.fixture
def stopped(model: Any, clean_session: Any, tmp_path: Path) -> Path:  # noqa: ARG001
    """Return a folder with a training that was stopped."""

    def stop(done: int, total: int, what: str) -> None:  # noqa: ARG001
        if done == 3 and what == "features-train":
            raise KeyboardInterrupt

    clean_session.on_step = stop
    with pytest.raises(Interrupted):
        interp.features_train(documents(30), out=str(tmp_path / "part"), **SMALL)
    clean_session.on_step = None
    return tmp_path / "part"


@pytest.mark.parametrize(
    ("changed", "words"),
    [({"width": 32}, "of other width"), ({"seed": 1, "k": 4}, "of other k, seed"), ({"layer": 0}, "of other layers")],
)
def test_another_training_does_not_go_on_from_it(stopped: Path, changed: dict[str, Any], words: str) -> None:
    for path in stopped.glob("layer_*/*"):
        path.unlink()
    for path in stopped.glob("layer_*"):
        path.rmdir()
    with pytest.raises(InputError, match=words):
        interp.features_train(documents(30), out=str(stopped), **{**SMALL, **changed})


def test_other_texts_do_not_go_on_from_it(stopped: Path) -> None:
    with pytest.raises(InputError, match="of other texts"):
        interp.features_train(documents(30, seed=5), out=str(stopped), **SMALL)


def test_a_damaged_checkpoint_is_refused_in_one_line(stopped: Path) -> None:
    file = stopped / checkpoints.FILE
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match="is no training to go on with"):
        interp.features_train(documents(30), out=str(stopped), **SMALL)


# -- live, refused -----------------------------------------------------------------------------------------------------


def test_what_there_is_so_far_is_offered(model: Any, clean_session: Any) -> None:  # noqa: ARG001
    seen: list[Any] = []

    def offered(make: Any) -> bool:
        seen.append(make())
        return True

    clean_session.on_partial = offered
    interp.features_train(documents(30), **SMALL)
    clean_session.on_partial = None
    assert [one.steps[0] for one in seen] == list(range(1, 25))
    assert seen[4].loss.shape == (5, 2)
    assert np.isnan(seen[4].fvu).all()
    assert "partial: 5 of 24 steps" in seen[4].notes
    assert "interp-progress" in seen[4].html()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"steps": 0}, "--steps"),
        ({"batch": 0}, "--batch"),
        ({"width": 0}, "--width"),
        ({"k": 0}, "--k"),
        ({"k": 600}, "the 512 features"),
        ({"rate": 0.0}, "--rate"),
        ({"layer": 2}, "layers are 0–1"),
        ({"site": "resid_pots"}, "resid_post"),
        ({"site": "resid_post", "skip": True}, "--skip"),
        ({"out": "no/such/folder"}, "folder"),
        ({"out": "a_file"}, "is a file"),
        ({"out": "others"}, "layer_7"),
    ],
)
def test_what_cannot_be_is_refused_before_it_starts(
    lend: Any, arguments: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a_file").write_text("")
    Path("others/layer_7").mkdir(parents=True)
    model = lend("gpt2")
    before = model.forwards
    with pytest.raises(InputError) as caught:
        interp.features_train(["Alice met Bob"], **arguments)
    assert words in str(caught.value)
    assert model.forwards == before


def test_one_text_alone_is_said(lend: Any) -> None:
    lend("gpt2")
    notes = interp.features_train(["Alice gave a drink to Bob"], steps=2, width=16, k=2).notes
    assert any("one text alone" in note for note in notes)


def test_a_disk_that_is_full_loses_nothing(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from interp.engine.features.formats import saelens

    def full(*_: Any, **__: Any) -> None:
        raise InputError("no space is left")

    monkeypatch.setattr(saelens, "write", full)
    result = interp.features_train(documents(30), out=str(tmp_path / "full"), **SMALL)
    assert result.saved == ""
    assert any("were not written" in note for note in result.notes)
    assert held.current(model).name == "full"
    assert (tmp_path / "full" / checkpoints.FILE).is_file()
