"""claim and claims: against a hooked loop, on compiled programs whose variables' places are known, and as typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import interp
from faults import harness
from interp import truth
from interp.engine.model import load
from interp.errors import InputError, Interrupted
from interp.interface import claims as repeated
from interp.interface.session import session
from interp.magics.parser import parse
from interp.methods._shared.claims import controls
from interp.spec import Pair

pytestmark = pytest.mark.usefixtures("one_thread")

TYPED = """variable: name = {IO}
carried by: resid_post layer 2 at {S2}
swap name -> the answer becomes the other name"""
AT_END = TYPED.replace("{S2}", "END")
FAST = "labels,random"


def answered(model: Any, count: int = 12) -> list[Pair]:
    """Return prompts of a random model with what it says itself as their answers, of which there are several."""
    drawn = torch.Generator().manual_seed(3)
    found: dict[int, list[tuple[int, ...]]] = {}
    for _ in range(200):
        length = int(torch.randint(5, 8, (1,), generator=drawn))
        ids = tuple(torch.randint(1, model.geometry.d_vocab, (length,), generator=drawn).tolist())
        with torch.no_grad():
            said = model.bridge.forward(torch.tensor([ids]), return_type="logits")[0, -1].argmax()
        found.setdefault(int(said), []).append(ids)
    turns = [(ids, said) for n in range(count) for said, own in found.items() for ids in own[n : n + 1]]
    assert len({said for _, said in turns[:count]}) > 3
    return [Pair(ids, ids, said) for ids, said in turns[:count]]


@pytest.mark.parametrize("family", ["gpt2", "llama", "neox"])
@pytest.mark.parametrize("place", ["resid_post layer 0", "head 1.2", "mlp 1", "resid_pre layer 1"])
def test_the_accuracy_is_that_of_a_hooked_loop(family: str, place: str, lend: Any) -> None:
    model = lend(family)
    pairs = answered(model)
    result = interp.claim(
        f"variable: v = the answer\ncarried by: {place} at END\nswap v -> the answer becomes the other v",
        pairs=pairs,
        controls="none",
    )
    assert (result.prompts, result.solved, result.n) == (12, 12, 12)
    classes = sorted({int(pair.answer[0]) for pair in pairs})
    name = {
        "resid_post layer 0": "blocks.0.hook_resid_post",
        "head 1.2": "blocks.1.attn.hook_z",
        "mlp 1": "blocks.1.hook_mlp_out",
        "resid_pre layer 1": "blocks.1.hook_resid_pre",
    }[place]
    right: list[bool] = []
    for base, source in zip(result.base, result.source, strict=True):
        ids, other = (torch.tensor([pairs[n].clean.ids]) for n in (base, source))
        held: dict[str, Any] = {}

        def keep(tensor: Any, hook: Any, held: Any = held) -> None:  # noqa: ARG001
            held["given"] = tensor.clone()

        def put(tensor: Any, hook: Any, held: Any = held) -> Any:  # noqa: ARG001
            changed = tensor.clone()
            at = (0, -1, 2) if place.startswith("head") else (0, -1)
            changed[at] = held["given"][at]
            return changed

        with torch.no_grad():
            model.bridge.run_with_hooks(other, fwd_hooks=[(name, keep)], return_type=None)
            logits = model.bridge.run_with_hooks(ids, fwd_hooks=[(name, put)], return_type="logits")[0, -1]
        got = classes[int(logits[classes].argmax())]
        assert model.tokens.string(got) == result.got[len(right)]
        right.append(got == pairs[source].answer[0])
    assert right == result.correct.tolist()
    assert result.accuracy == pytest.approx(np.mean(right))


def test_each_prompt_gives_what_it_has_to_one_other(lend: Any) -> None:
    pairs = answered(lend("gpt2"))
    text = "variable: v = the answer\ncarried by: mlp 1 at END\nswap v -> the answer becomes the other v"
    first, again, other = (interp.claim(text, pairs=pairs, controls="none", seed=seed) for seed in (0, 0, 1))
    assert sorted(first.base) == sorted(first.source) == list(range(12))
    assert all(pairs[a].answer != pairs[b].answer for a, b in zip(first.base, first.source, strict=True))
    assert np.array_equal(first.source, again.source)
    assert not np.array_equal(first.source, other.source)


@pytest.fixture(scope="module")
def compiled() -> Any:
    made = truth.build("ioi")
    return made, load.load(made.bridge(), name="program", options=load.Options(device="cpu"))


@pytest.fixture
def program(compiled: Any, clean_session: Any) -> Any:
    made, model = compiled
    clean_session.models["program"] = model
    clean_session.current = "program"
    return made


def asked(made: Any, place: str, swap: str = "the answer becomes the other said", n: int = 24, **more: Any) -> Any:
    pairs = made.pairs(n, 0).pairs
    text = f"variable: said = given\ncarried by: {place}\nswap said -> {swap}"
    return interp.claim(text, pairs=pairs, variables={"said": [pair.answer[0] for pair in pairs]}, **more)


def test_what_a_program_does_is_supported_and_what_it_does_not_is_not(program: Any) -> None:
    true = asked(program, "head 2.1 at END")
    assert (true.verdict, true.accuracy, true.solved) == ("supported", 1.0, 24)
    assert asked(program, "resid_post layer 2 at END", controls=FAST).verdict == "supported"
    for place in ("head 2.0 at END", "resid_post layer 1 at END", "head 2.1 at position 7", "mlp 1 at END"):
        assert asked(program, place, controls=FAST).verdict == "rejected"
    assert list(true.controls) == list(controls.NAMES)
    known = dict(zip(true.controls, true.control_accuracy, strict=True))
    assert known["random"] < 0.5
    assert known["model"] < 0.5
    assert known["below"] < 0.5


def test_a_function_says_what_the_answer_becomes(program: Any) -> None:
    def always(base: Any, source: Any) -> int:
        assert base["said"] != source["said"]
        assert base["answer"] == base["said"]
        return source["said"]

    given = asked(program, "head 2.1 at END", "given", becomes=always, controls=FAST)
    assert (given.verdict, given.accuracy) == ("supported", 1.0)
    with pytest.raises(InputError, match="swap said -> given"):
        asked(program, "head 2.1 at END", becomes=always)
    with pytest.raises(InputError, match="becomes=function"):
        asked(program, "head 2.1 at END", "given")


def test_a_subspace_is_found_where_the_variable_is_and_not_a_layer_before(program: Any) -> None:
    found = asked(
        program, "a 24-dimensional subspace of resid_post layer 2 at END", n=64, controls="labels,random,below"
    )
    assert found.verdict == "supported"
    assert found.trained > 0
    known = dict(zip(found.controls, found.control_accuracy, strict=True))
    assert known["below"] < 0.5
    assert "the layer below" in found.names
    assert len(found.base) >= 24


def test_that_the_answer_stays_needs_more_than_a_change_that_does_nothing(program: Any) -> None:
    stays = asked(program, "head 2.0 at END", "the answer stays", controls=FAST)
    assert (stays.verdict, stays.accuracy) == ("supported", 1.0)
    assert stays.control_missing[stays.controls.index("labels")]
    assert asked(program, "head 2.1 at END", "the answer stays", controls=FAST).verdict == "rejected"
    inert = asked(program, "head 2.0 at position 3", "the answer stays", controls=FAST)
    assert inert.verdict == "not established"
    assert "whole residual stream" in inert.why


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"variables": {"sed": [1]}}, "variable sed has 1 values, and there are 24 prompts"),
        ({"variables": {"other": list(range(24))}}, "said has no values"),
        ({"variables": 3}, "dict of lists"),
        ({"controls": "lables"}, "did you mean labels?"),
        ({"rank": 0}, "--rank 0 is no number of dimensions"),
    ],
)
def test_arguments_that_do_not_fit(program: Any, change: dict[str, Any], said: str) -> None:
    pairs = program.pairs(24, 0).pairs
    text = "variable: said = given\ncarried by: head 2.1 at END\nswap said -> the answer becomes the other said"
    given: dict[str, Any] = {"variables": {"said": [0] * 24}} | change
    with pytest.raises(InputError) as error:
        interp.claim(text, pairs=pairs, **given)
    assert said in str(error.value)


@pytest.fixture
def bundled(clean_session: Any) -> Any:  # noqa: ARG001
    return interp.load(device="cpu")


@pytest.mark.parametrize("door", harness.DOORS)
def test_the_claim_of_the_readme_runs_as_typed(door: str, shell: Any, bundled: Any) -> None:  # noqa: ARG001
    if door == "magic":
        shell.run_cell(f"%%interp claim -o names --task ioi --n 32\n{TYPED}\n").raise_error()
        result = shell.user_ns["names"]
    else:
        result = interp.claim(TYPED, task="ioi", n=32)
    assert (result.solved, result.n, result.prompts) == (32, 32, 32)
    assert result.verdict == "rejected"  # the bundled model's S2 holds no name of IO in layer 2
    assert np.isfinite(result.control_accuracy).all()
    assert result.line().count("\n") == 0
    assert result.to_frame().shape == (6, 5)
    assert len(result.swaps()) == 32


def test_without_prompts_the_only_task_with_these_slots_is_taken(bundled: Any) -> None:  # noqa: ARG001
    result = interp.claim(TYPED, n=8, controls="none")
    assert result.task == "ioi"
    assert any("tested on the task ioi" in note for note in result.notes)
    with pytest.raises(InputError, match=r"no task has a slot S22 \(did you mean s2\?\)"):
        interp.claim(TYPED.replace("S2", "S22"))
    with pytest.raises(InputError, match="claim needs prompts: name a --task"):
        interp.claim("variable: v = the answer\ncarried by: mlp 1 at END\nswap v -> the other answer")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("{S2}", "{S22}", "no span 'S22' (did you mean s2?)"),
        ("layer 2", "layer 9", "no layer 9; layers are 0–3"),
        ("resid_post layer 2", "head 2.7", "no head 7"),
        ("resid_post layer 2", "feature F2.1", "no features are loaded"),
        ("{S2}", "position 99", "no position 99"),
    ],
)
def test_what_the_model_or_the_prompts_lack(old: str, new: str, said: str, bundled: Any) -> None:  # noqa: ARG001
    with pytest.raises(InputError) as error:
        interp.claim(TYPED.replace(old, new), task="ioi", n=8)
    assert said in str(error.value)


def test_prompts_below_the_claim(shell: Any, bundled: Any) -> None:  # noqa: ARG001
    names = [("Mary", "John"), ("John", "Mary"), ("Anna", "Mary"), ("Mary", "Anna")]
    block = "\n\n".join(
        f"clean: When [{io}]{{IO}} and [{s}]{{S}} went to the store, [{s}]{{S2}} gave a drink to\nanswer: {io}"
        for io, s in names
    )
    shell.run_cell(f"%%interp claim -o own --controls none\n{AT_END}\nprompts:\n{block}\n").raise_error()
    own = shell.user_ns["own"]
    assert own.prompts == 4
    assert own.verdict == "not established"
    assert eval(own.code(), {"interp": interp}).correct.tolist() == own.correct.tolist()


def test_features_are_exchanged(bundled: Any) -> None:  # noqa: ARG001
    interp.features_load("bundled")
    result = interp.claim(TYPED.replace("resid_post layer 2 at {S2}", "features F2.17, F2.18 at END"), task="ioi", n=12)
    known = dict(zip(result.controls, result.control_missing, strict=True))
    assert known["model"] == "a random model has no features"
    assert known["below"] == known["above"] == "the features of another layer are others"
    assert not known["random"]
    assert "features" in result.names[result.controls.index("random")]
    assert result.provenance.features


def test_ctrl_c_keeps_the_controls_that_were_made(bundled: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    said, _ = controls._CONTROLS["random"]
    monkeypatch.setitem(controls._CONTROLS, "random", (said, stop))
    with pytest.raises(Interrupted) as stopped:
        interp.claim(TYPED, task="ioi", n=8)
    result = stopped.value.result
    assert result.controls == ("labels", "model")
    assert any(note.startswith("partial") for note in result.notes)


def test_claims_say_what_a_change_of_the_model_broke(shell: Any, bundled: Any, tmp_path: Path) -> None:
    shell.run_cell(f"%%interp claim -o late --task ioi --controls {FAST}\n{AT_END}\n").raise_error()
    shell.run_cell(
        f"%%interp claim -o early --task ioi --controls {FAST}\n{TYPED.replace('layer 2 at {S2}', 'layer 0 at {IO}')}\n"
    ).raise_error()
    saved = str(shell.user_ns["late"].save(tmp_path / "late.json"))
    same = shell.run_cell("%interp claims").result
    assert (same.names, same.changes) == (("late", "early"), ("unchanged", "unchanged"))
    assert np.array_equal(same.accuracy[0], same.accuracy[1])
    with torch.no_grad():
        for layer in bundled.hf_model.transformer.h[1:]:
            layer.attn.c_proj.weight.zero_()
    broken = shell.run_cell("%interp claims").result
    assert "early" in broken.broke
    assert broken.names == ("late", "early")
    assert any("has changed since" in note for note in broken.notes)
    of_file = shell.run_cell(f"%interp claims {saved} {saved}").result
    assert of_file.names == (saved, saved)
    assert of_file.accuracy[0].tolist() == [1.0, 1.0]
    assert shell.run_cell("%interp claims").result.was == broken.was  # what is compared with stays


def test_a_claim_that_cannot_be_tested_says_why_and_the_others_go_on(program: Any, tmp_path: Path) -> None:
    def same(base: Any, source: Any) -> int:  # noqa: ARG001
        return source["said"]

    lost = asked(program, "head 2.1 at END", "given", becomes=same, controls="random").save(tmp_path / "lost.json")
    kept = asked(program, "head 2.1 at END", controls="random").save(tmp_path / "kept.json")
    found = interp.claims([lost, kept])
    assert found.changes == ("not run", "unchanged")
    assert "becomes" in found.missing[0]
    assert len(interp.claims().names) == 2  # the function is still there in the session
    assert interp.claims().changes == ("unchanged", "unchanged")
    (tmp_path / "none.json").write_text(json.dumps({"a": 1}))
    with pytest.raises(InputError):
        interp.claims(tmp_path / "none.json")


def test_files_stand_one_after_the_other_on_a_line() -> None:
    assert parse("claims a.json 'b c.json' --model mine").arguments == {
        "files": ("a.json", "b c.json"),
        "model": "mine",
    }
    assert parse("claims").arguments == {}
    with pytest.raises(InputError, match="are paths of files"):
        interp.claims(3)


def test_ctrl_c_between_claims_keeps_those_that_were_tested(program: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("head 2.1 at END", "head 2.0 at END"):
        asked(program, place, controls="random")
    once, calls = session.called, [0]

    def stopping(*given: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == 2:
            raise KeyboardInterrupt
        return once(*given, **named)

    monkeypatch.setattr(type(session), "called", lambda self, *given, **named: stopping(*given, **named))  # noqa: ARG005
    with pytest.raises(Interrupted) as stopped:
        repeated.claims(session)
    assert stopped.value.result.changes == ("unchanged", "not run")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_pictures(theme: str, program: Any) -> None:
    result = asked(program, "head 2.1 at END", controls=FAST)
    drawn = result.svg(theme)
    assert "Supported" in drawn
    assert "arbitrary labels" in drawn
    assert "head 2.1 at END" in result.html()
    assert result.png(theme)[:4] == b"\x89PNG"
    again = interp.claims()
    assert again.png(theme)[:4] == b"\x89PNG"
    assert "1.00 → 1.00" in again.html()


def test_on_the_real_model(smollm2: Any) -> None:  # noqa: ARG001
    late = interp.claim(AT_END.replace("layer 2", "layer 27"), task="ioi", n=12, controls=FAST)
    early = interp.claim(AT_END.replace("layer 2", "layer 10"), task="ioi", n=12, controls=FAST)
    assert (late.verdict, late.accuracy) == ("supported", 1.0)
    assert early.verdict == "rejected"
