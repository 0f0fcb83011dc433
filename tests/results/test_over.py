"""--over: one command over models, checkpoints and revisions, against the calls made one by one."""

from __future__ import annotations

import copy
import gc
import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from transformers import GPT2LMHeadModel

import interp
import models
from faults import harness
from interp.engine.model import load as loading
from interp.errors import InputError, Interrupted, Stopped
from interp.interface import over
from interp.interface.session import session
from interp.magics.completer import complete
from interp.magics.parser import parse
from interp.results.over import OverResult
from interp.spec import resolve_metric

pytestmark = pytest.mark.usefixtures("one_thread")

CLEAN = "When Mary and John went to the store, John gave a drink to"
OTHER = "When John and Mary went to the store, Mary gave a drink to"
PAIRS = [(CLEAN, OTHER, " Mary", " John"), (CLEAN[:20], OTHER[:20], " to", " the")]
STEPS = (20, 100, 3)  # in no order, so that the order of numbers is seen


@pytest.fixture
def run(tmp_path: Path, clean_session: Any) -> Callable[..., Path]:
    """Return ``run(family)``: the folder of a training with checkpoints, which is loaded as "run"."""

    def made(family: str = "gpt2", *, tokenizer: bool = True) -> Path:
        plain = models.FAMILIES[family](len(models.tokenizer()))
        place = tmp_path / "training"
        for count in STEPS:
            other = copy.deepcopy(plain)
            source = torch.Generator().manual_seed(count)
            with torch.no_grad():
                for parameter in other.parameters():
                    parameter += torch.randn(parameter.shape, generator=source) * 0.02
            other.save_pretrained(place / f"checkpoint-{count}")
            if tokenizer:
                models.tokenizer().save_pretrained(place / f"checkpoint-{count}")
        plain.save_pretrained(place)
        models.tokenizer().save_pretrained(place)
        clean_session.load(place, device="cpu", name="run")
        return place

    return made


CALLS: dict[str, Callable[..., Any]] = {
    "patch": lambda **more: interp.patch(pairs=PAIRS, **more),
    "loss": lambda **more: interp.loss(CLEAN, **more),
    "predict": lambda **more: interp.predict(CLEAN, answer=" Mary", **more),
    "dla": lambda **more: interp.dla(CLEAN, answer=" Mary", **more),
    "circuit": lambda **more: interp.circuit(pairs=PAIRS, edges=10, **more),
    "compose": lambda **more: interp.compose(**more),
}


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("name", CALLS)
def test_each_step_is_the_call_made_alone(name: str, family: str, run: Any, clean_session: Any) -> None:
    place = run(family)
    result = CALLS[name](over="checkpoints")
    assert isinstance(result, OverResult)
    assert result.steps == ("checkpoint-3", "checkpoint-20", "checkpoint-100")
    assert result.places.tolist() == [3, 20, 100]
    assert list(clean_session.models) == ["run"]
    assert clean_session.current == "run"
    for n, step in enumerate(result.steps):
        model = clean_session.load(place / step, device="cpu", name="alone")
        alone = CALLS[name](model="alone")
        assert harness.content(result.results[n], {"provenance", "notes"}) == harness.content(
            alone, {"provenance", "notes"}
        )
        assert result.at(step).provenance.fingerprint == model.fingerprint()
        assert result.at(step).provenance.model == step
        if result.measure:
            table: Any = alone.to_frame()
            held = table.set_index(list(result.keys)) if result.keys[0] in table else table
            own = {key if isinstance(key, tuple) else (key,): value for key, value in held[result.measure].items()}
            found = dict(zip(result.rows, result.values[:, n], strict=True))
            assert own.keys() <= found.keys()
            assert all(np.array_equal(value, own.get(row, np.nan), equal_nan=True) for row, value in found.items())
    frame = result.to_frame()
    assert list(frame.columns) == ["step", "place", "quantity", "row", "value"]
    assert len(frame) == 3 * (len(result.numbers) + len(result.rows))
    assert result.provenance.technique == name
    assert result.provenance.forwards == sum(one.provenance.forwards for one in result.results)
    for draw in (result.html, result.svg, result.to_plotly, result.text):
        assert draw()


def test_typed_and_as_code(run: Any) -> None:
    run()
    call = parse("loss --over checkpoint-3,run --no-bos")
    assert call.arguments == {"over": ("checkpoint-3", "run"), "bos": False}
    result = interp.loss(CLEAN, over=["checkpoint-3", "run"], bos=False)
    assert result.code() == f"interp.loss(bos=False, texts=[{CLEAN!r}], over=['checkpoint-3', 'run'])"
    again = eval(result.code(), {"interp": interp})
    np.testing.assert_array_equal(again.values, result.values)
    assert again.results[1].provenance.fingerprint == session.get("run").fingerprint()


def test_it_is_saved(run: Any, tmp_path: Path) -> None:
    run()
    result = interp.loss(CLEAN, over="checkpoints")
    for suffix in ("json", "npz", "html", "svg", "png"):
        assert result.save(tmp_path / f"curve.{suffix}").stat().st_size > 500
    held = json.loads((tmp_path / "curve.json").read_text())
    assert held["numbers"]["mean"] == result.numbers["mean"].tolist()
    assert [one["provenance"]["model"] for one in held["results"]] == list(result.steps)
    arrays = np.load(tmp_path / "curve.npz")
    np.testing.assert_array_equal(arrays["numbers_mean"], result.numbers["mean"])
    np.testing.assert_array_equal(arrays["values"], result.values)


def test_a_pattern_paths_and_loaded_models(run: Any, clean_session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    place = run()
    assert interp.loss(CLEAN, over="checkpoint-*0*").steps == ("checkpoint-20", "checkpoint-100")
    monkeypatch.chdir(place.parent)
    assert interp.loss(CLEAN, over="training/checkpoint-3,run").steps == ("training/checkpoint-3", "run")
    assert interp.loss(CLEAN, over=[place / "checkpoint-3"]).steps == (str(place / "checkpoint-3"),)
    clean_session.load(place / "checkpoint-20", device="cpu")
    beside = interp.loss(CLEAN, over="checkpoints")  # those beside the current model, which is not loaded once more
    assert beside.steps == ("checkpoint-3", "checkpoint-20", "checkpoint-100")
    assert beside.varies == "folder/model"


def test_a_model_is_let_go_of_before_the_next_is_loaded(
    run: Any, clean_session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run()
    made: list[Any] = []
    most: list[int] = []
    load = loading.load

    def seen(*given: Any, **named: Any) -> Any:
        gc.collect()
        most.append(sum(one() is not None and one()._bridge is not None for one in made) + len(clean_session.models))
        found = load(*given, **named)
        made.append(weakref.ref(found))
        return found

    monkeypatch.setattr(loading, "load", seen)
    result = interp.loss(CLEAN, over="checkpoints")
    gc.collect()
    assert most == [1, 1, 1]
    assert all(one() is None or one()._bridge is None for one in made)
    assert all(one is not None for one in result.results)


def test_one_that_fails_is_a_row_that_says_why(run: Any, clean_session: Any) -> None:
    place = run()
    (place / "checkpoint-20" / "config.json").write_text("[1]")
    result = interp.loss(CLEAN, over="checkpoints")
    assert [one is None for one in result.results] == [False, True, False]
    assert "no model's configuration" in result.failures[1]
    assert np.isnan(result.values[:, 1]).all()
    assert np.isnan(result.numbers["mean"]).tolist() == [False, True, False]
    assert any(note.startswith("checkpoint-20: ") for note in result.notes)
    assert "1 failed" in result.summary()
    with pytest.raises(KeyError, match="configuration"):
        result.at("checkpoint-20")
    assert result.html()
    assert result.png()
    assert list(clean_session.models) == ["run"]


def test_what_fails_at_every_step_is_refused_in_its_own_words(run: Any) -> None:
    run()
    with pytest.raises(InputError, match="layer 7"):
        interp.attention(CLEAN, layer=7, over="checkpoints")


def test_a_stop_keeps_what_is_done(run: Any, clean_session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run()
    once, calls = over._one, []

    def stop(*given: Any) -> Any:
        calls.append(given)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return once(*given)

    monkeypatch.setattr(over, "_one", stop)
    with pytest.raises(Interrupted) as caught:
        interp.loss(CLEAN, over="checkpoints")
    result = caught.value.result
    assert result.steps == ("checkpoint-3", "checkpoint-20")
    assert result.notes[0] == "partial: stopped after 2 of 3"
    assert "partial" in repr(result)
    assert result.code().startswith("interp.loss(")
    calls[:] = [None, None]
    with pytest.raises(Stopped, match="stopped before there was anything"):
        interp.loss(CLEAN, over="checkpoints")
    assert list(clean_session.models) == ["run"]
    assert session.on_step is None


def test_weights_without_a_tokenizer_take_the_current_models(run: Any) -> None:
    run("llama", tokenizer=False)
    result = interp.loss(CLEAN, over="checkpoints")
    assert not any(result.failures)
    assert result.at("checkpoint-3").provenance.tokens == interp.loss(CLEAN).provenance.tokens


def test_revisions_are_of_the_current_models_repository(
    run: Any, clean_session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub is a folder here: what is asked of it is what counts."""
    place, load, asked = run(), loading.load, []

    def from_hub(source: Any, *, options: Any, **named: Any) -> Any:
        asked.append((source, options.revision, options.dtype))
        if options.revision == "step9":
            raise InputError("there is no revision step9")
        return load(
            place / f"checkpoint-{options.revision[4:]}" if source == "owner/model" else source,
            options=options,
            **named,
        )

    model = clean_session.get("run")
    origin = model.origin
    model.origin = type(origin)("owner/model", None, loading.Options(device="cpu", dtype="float64"))
    monkeypatch.setattr(loading, "load", from_hub)
    result = interp.loss(CLEAN, over="step3,step9,step20")
    assert asked == [("owner/model", f"step{n}", "float64") for n in (3, 9, 20)]
    assert result.varies == "revision"
    assert result.failures == ("", "there is no revision step9", "")
    assert result.at("step20").provenance.dtype == "float64"
    assert result.places.tolist() == [3, 9, 20]


def test_states_of_an_adapter(run: Any, clean_session: Any, tmp_path: Path) -> None:
    place = run()
    clean_session.unload("run")
    plain = GPT2LMHeadModel.from_pretrained(place)
    config = peft.LoraConfig(r=2, target_modules=["c_fc"], init_lora_weights=False, fan_in_fan_out=True)
    for count in (1, 2):
        torch.manual_seed(count)
        peft.get_peft_model(copy.deepcopy(plain), config).save_pretrained(tmp_path / "lora" / f"checkpoint-{count}")
    clean_session.load(place, adapter=tmp_path / "lora" / "checkpoint-2", device="cpu", name="tuned")
    result = interp.loss(CLEAN, over="checkpoints")
    assert result.steps == ("checkpoint-1", "tuned")
    clean_session.load(place, adapter=tmp_path / "lora" / "checkpoint-1", device="cpu", name="first")
    assert result.numbers["mean"].tolist() == [interp.loss(CLEAN, model=one).mean for one in ("first", "tuned")]


def test_what_names_nothing_is_refused(run: Any, clean_session: Any) -> None:
    run()
    for words, said in {
        "checkpoint-4": "no model of that name is loaded, and no folder is there.*did you mean checkpoint-3",
        "nothing-*": "matches no folder",
        "checkpoint-3,checkpoint-3": "names checkpoint-3 twice",
        ",": "names nothing",
    }.items():
        with pytest.raises(InputError, match=said):
            interp.loss(CLEAN, over=words)
    with pytest.raises(InputError, match="over takes a list"):
        interp.loss(CLEAN, over=3)
    with pytest.raises(InputError, match="--dry-run is about one run"):
        interp.patch(pairs=PAIRS, over="checkpoints", dry_run=True)
    with pytest.raises(InputError, match="models has no argument 'over'"):
        interp.models(over="checkpoints")
    with pytest.raises(InputError, match="models has no flag --over"):
        parse("models --over a")
    clean_session.models.clear()
    clean_session.current = None
    with pytest.raises(InputError, match="no model is loaded"):
        interp.loss(CLEAN, over="a")


def test_of_two_models_the_second_is_varied(run: Any) -> None:
    run()
    result = interp.diff("run", pairs=PAIRS[:1], over="checkpoints,run", tokens=0)
    assert [(one.base, one.tuned) for one in result.results] == [("run", name) for name in result.steps]
    assert result.numbers["change"][-1] == 0
    assert result.code().startswith("interp.diff(base='run', ")
    with pytest.raises(InputError, match="--over takes the place of TUNED"):
        interp.diff("run", tuned="run", pairs=PAIRS, over="checkpoints")


def test_tab_offers_models_and_checkpoints(run: Any) -> None:
    run()

    class Typed:
        full_text = "%interp loss --over run,check"
        cursor_line, cursor_position = 0, len(full_text)

    found = [one.text for one in complete(Typed)["completions"]]
    assert {"run,checkpoint-3", "run,checkpoint-20", "run,checkpoints"} <= set(found)


def test_places_of_names() -> None:
    for names, places in {
        ("step10", "step200"): [10, 200],
        ("10", "20", "15"): [10, 20, 15],
        ("gpt-2", "llama-7"): [0, 1],
        ("step10", "main"): [0, 1],
        ("step1",): [0],
    }.items():
        result = OverResult(
            varies="model", steps=names, results=(None,) * len(names), failures=("why",) * len(names),
            numbers={}, measure="", keys=(), rows=(), values=np.zeros((0, len(names))),
        )  # fmt: skip
        assert result.places.tolist() == places


@pytest.mark.slow
def test_the_curve_of_a_training_that_reaches_a_head_late(clean_session: Any, tmp_path: Path) -> None:
    """Until step 6 the last MLP alone is trained, from then on head 2.0 alone: diff sees it from step 8 on."""
    from interp.methods._shared.pairs import encode
    from interp.spec import Pairs

    base = clean_session.load(device="cpu", name="base")
    bundled = Path(interp.__file__).parent / "bundled" / "model"
    made = GPT2LMHeadModel.from_pretrained(bundled, dtype=torch.float32)
    found = encode(base, Pairs(tuple(interp.task("ioi", n=8, seed=3).pairs)), resolve_metric("logit-diff"))
    size = made.config.n_embd // made.config.n_head
    late = dict(made.named_parameters())["transformer.h.2.attn.c_proj.weight"]
    early = [value for name, value in made.named_parameters() if ".h.3.mlp" in name]
    for step in range(1, 13):
        learnt = early if step <= 6 else [late]
        ends = [made(torch.tensor([e.clean.ids])).logits[0, -1].log_softmax(-1) for e in found]
        loss = torch.stack([-end[list(e.wrong)].logsumexp(0) for e, end in zip(found, ends, strict=True)]).mean()
        made.zero_grad()
        loss.backward()
        with torch.no_grad():
            for value in learnt:
                change = value.grad if step <= 6 else value.grad * (torch.arange(len(value)) < size)[:, None]
                value -= 0.05 * change
        if step % 2 == 0:
            made.save_pretrained(tmp_path / f"step{step}")
    result = interp.diff("base", task="ioi", n=4, tokens=0, share=0.0, over=str(tmp_path / "step*"))
    assert result.places.tolist() == [2, 4, 6, 8, 10, 12]
    row = {name: result.values[result.rows.index((name,))] for name in ("2.0", "2.1", "3.mlp")}
    assert (row["2.0"] != 0).tolist() == [False, False, False, True, True, True]
    assert not row["2.1"].any()
    assert (np.diff(row["3.mlp"][:3]) < 0).all()
    assert (row["3.mlp"][2:] == row["3.mlp"][2]).all()
    assert (np.diff(row["2.0"][2:]) < 0).all()
    assert {result.rows[n] for n in result.strongest()} == {("2.0",), ("3.mlp",)}
