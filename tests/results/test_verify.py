"""`verify`: what holds on an unchanged model, what is said to have changed after a planted change, what is lacking."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import interp
import models
from faults import harness
from interp.errors import InputError
from interp.interface import registry
from interp.interface.session import session
from interp.results.verified import moved, verified
from interp.spec import Pair, Prompt
from results import made

TEXT = "Mary gave the drink to"
PAIR = Pair(Prompt("Mary gave the drink"), Prompt("John gave the drink"), (" Mary",), (" John",))
OTHER = Pair(Prompt("John gave the drink"), Prompt("Mary gave the drink"), (" John",), (" Mary",))
# What a call's result cannot be checked by.
LISTS = frozenset({"claims", "connect", "disconnect", "workers", "help", "models", "status", "verify"})


@pytest.fixture
def own(clean_session: Any) -> Any:
    """Return a small model that a test may change, as the current one."""
    tokens = models.tokenizer()
    return clean_session.load(models.gpt2(len(tokens)), tokenizer=tokens, device="cpu", name="own")


def silence(model: Any, layer: int, head: int) -> None:
    """Zero what a head writes."""
    weights = dict(model.hf_model.named_parameters())
    name = next(one for one in weights if f"h.{layer}." in one and ".attn.o." in one and one.endswith("weight"))
    width = model.geometry.d_head
    with torch.no_grad():
        weights[name][head * width : (head + 1) * width] = 0


@pytest.mark.slow
@pytest.mark.parametrize("door", harness.DOORS)
@pytest.mark.parametrize("name", made.names())
def test_every_result_holds_on_an_unchanged_model(
    name: str, door: str, lend: Callable[..., Any], shell: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = lend("gpt2")
    result, given = made.result_of(name)
    files = {suffix: result.save(tmp_path / f"r{suffix}") for suffix in (".json", ".npz")}
    if door == "magic" and not given:
        shell.user_ns["r"] = result
        found = [
            harness.worked(harness.ask("magic", shell, f"%interp verify {one}"))
            for one in ("r", *map(str, files.values()))
        ]
    else:
        found = [result.verify(**given), *(interp.load_result(file).verify(**given) for file in files.values())]
    if name in LISTS | registry.MAKING:
        assert {one.state for one in found} == {"unverified"}
        return
    for one in found:
        assert one.holds, one.verdict
        assert one.largest.max(initial=0) <= 1e-5
        assert len(one.to_frame()) == len(one.names)
        assert one.names or name == "features"  # of words alone
        assert one.fingerprints[0] == one.fingerprints[1]
        assert one.fingerprints[0] == ("" if name == "selfcheck" else model.fingerprint())


def test_the_call_is_computed_and_not_looked_up(own: Any) -> None:
    result = interp.attention(TEXT)
    before = own.forwards
    store = own.store
    assert result.verify().holds
    assert own.forwards > before
    assert own.store is store


def test_a_silenced_head_is_what_changed_most(own: Any, shell: Any, tmp_path: Path) -> None:
    result = interp.patch(pairs=[PAIR, OTHER])
    file = result.save(tmp_path / "p.json")
    size = np.abs(result.effect)
    layer, head = (int(n) for n in np.unravel_index(size[1:].argmax(), size[1:].shape))
    layer += 1
    silence(own, layer, head)
    found = result.verify()
    now = interp.patch(pairs=[PAIR, OTHER])
    apart = np.abs(now.effect - result.effect)
    row = found.to_frame().set_index("field").loc["effect"]
    assert found.state == "changed"
    assert row["values"] == result.effect.size
    assert row["changed"] == (apart > row["tolerance"]).sum() > 0
    assert row["largest difference"] == apart.max()
    assert (row["then"], row["now"]) == (result.effect.flat[apart.argmax()], now.effect.flat[apart.argmax()])
    assert row["correlation"] == pytest.approx(np.corrcoef(result.effect.ravel(), now.effect.ravel())[0, 1])
    at = tuple(int(n) for n in np.unravel_index(apart.argmax(), apart.shape))
    assert f"{row['changed']} of {result.effect.size} values of effect" in found.verdict
    assert f"the largest L{at[0]}H{at[1]} {moved(row['then'], row['now'])}" in found.verdict
    assert now.effect[layer, head] == pytest.approx(0, abs=1e-5)
    assert len(set(found.fingerprints)) == 2
    assert "model changed" in found.text()
    assert found.code() == "interp.verify(result=result)  # first: result = your PatchingResult"
    typed = harness.worked(harness.ask("magic", shell, f"%interp verify {file}"))
    assert typed.verdict == found.verdict
    assert "≠ changed" in typed.html()
    assert "≠ changed" in typed.svg("dark")


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: interp.lens(TEXT), "kl"),
        (lambda: interp.attention(TEXT), "pattern"),
        (lambda: interp.dla(TEXT, answer=" Mary"), "heads"),
        (lambda: interp.loss(TEXT), "loss"),
        (lambda: interp.predict(TEXT), "entropy"),
        (lambda: interp.circuit(pairs=[PAIR], edges=20), "scores"),
        (lambda: interp.ov("0.0"), "rows"),
    ],
)
def test_a_silenced_head_changes_what_depends_on_it(call: Callable[[], Any], field: str, own: Any) -> None:
    result = call()
    silence(own, 0, 0)
    found = result.verify()
    assert found.state == "changed"
    assert found.changed[found.names.index(field)] > 0


def test_what_does_not_depend_on_the_change_holds_on_the_changed_model(own: Any) -> None:
    first, second = interp.tokens(TEXT), interp.attention(TEXT, layer=0)
    silence(own, 1, 1)
    for result in (first, second):
        found = result.verify()
        assert found.holds
        assert len(set(found.fingerprints)) == 2


def test_random_draws_are_made_with_the_seed_they_were_made_with(own: Any) -> None:  # noqa: ARG001
    for result in (
        interp.generate(TEXT, n=4, temperature=1.5, seed=3, samples=3),
        interp.generate(TEXT, n=4, temperature=1.5),
        interp.heads(seed=5),
    ):
        assert result.verify().holds


def test_interventions_and_functions_of_a_result_that_was_not_saved_are_used_again(own: Any) -> None:  # noqa: ARG001
    def gap(logits: Any) -> Any:
        return logits[:, 5] - logits[:, 6]

    assert interp.patch(pairs=[PAIR], metric=gap).verify().holds


# -- what is lacking ----------------------------------------------------------------------------------------------


def lacks(found: Any, *words: str) -> None:
    assert found.state == "unverified"
    assert found.verdict.startswith("cannot be verified: ")
    assert "\n" not in found.verdict
    for word in words:
        assert word in found.verdict
    assert "? not verified" in found.html()
    assert len(found.to_frame()) == 0


def test_a_function_that_the_file_does_not_keep_is_named_and_can_be_given(own: Any, tmp_path: Path) -> None:  # noqa: ARG001
    def gap(logits: Any) -> Any:
        return logits[:, 5] - logits[:, 6]

    held = interp.load_result(interp.patch(pairs=[PAIR], metric=gap).save(tmp_path / "p.npz"))
    lacks(held.verify(), "metric was your function", "give it: verify(metric=…)")
    assert held.verify(metric=gap).holds
    assert held.verify(metric="logit-diff").state == "changed"
    with pytest.raises(InputError, match="no argument 'metrik'"):
        held.verify(metrik=gap)


def test_an_array_that_the_file_does_not_keep(own: Any, tmp_path: Path) -> None:
    direction = np.ones(own.geometry.d_model)
    result = interp.ablate(pairs=[PAIR], direction=direction, layer=1)
    assert result.verify().holds
    held = interp.load_result(result.save(tmp_path / "a.json"))
    lacks(held.verify(), f"direction was your ndarray ({own.geometry.d_model},)")
    assert held.verify(direction=direction).holds


def test_a_circuit_that_a_report_is_of(own: Any, tmp_path: Path) -> None:  # noqa: ARG001
    circuit = interp.circuit(pairs=[PAIR], edges=20)
    held = interp.load_result(interp.validate(circuit, random=2, top=2).save(tmp_path / "v.json"))
    lacks(held.verify(), "circuit was your CircuitResult", "verify(circuit=…)")
    assert held.verify(circuit=interp.load_result(circuit.save(tmp_path / "c.json"))).holds


@pytest.mark.usefixtures("own")
def test_a_model_that_is_not_loaded_is_named(shell: Any, tmp_path: Path) -> None:
    result = interp.attention(TEXT)
    file = result.save(tmp_path / "a.json")
    session.unload("own")
    lacks(result.verify(), "its model 'own' is not loaded")
    lacks(harness.worked(harness.ask("magic", shell, f"%interp verify {file}")), "its model 'own' is not loaded")
    tokens = models.tokenizer()
    silence(session.load(models.gpt2(len(tokens)), tokenizer=tokens, device="cpu", name="second"), 0, 0)
    lacks(result.verify(), "second is another", "verify(model='second')")
    assert result.verify(model="second").state == "changed"
    assert result.verify("second").models == ("own", "second")
    with pytest.raises(InputError, match=r"did you mean second\?"):
        result.verify("secnd")


def test_the_same_weights_under_another_name_are_taken(folder: Callable[..., Path], clean_session: Any) -> None:
    clean_session.load(folder("gpt2"), device="cpu", name="first")
    result = interp.attention(TEXT)
    clean_session.unload("first")
    clean_session.load(folder("gpt2"), device="cpu", name="renamed")
    found = result.verify()
    assert found.holds
    assert found.models == ("first", "renamed")


def test_a_seed_that_is_not_known(own: Any, tmp_path: Path) -> None:  # noqa: ARG001
    file = interp.generate(TEXT, n=3, temperature=1.0).save(tmp_path / "g.json")
    data = json.loads(file.read_text("utf-8"))
    data["provenance"]["seed"] = None
    file.write_text(json.dumps(data), "utf-8")
    lacks(interp.load_result(file).verify(), "with which seed is not known", "verify(seed=…)")
    assert interp.load_result(file).verify(seed=0).holds


def test_another_version_of_interp_is_said(own: Any, tmp_path: Path) -> None:  # noqa: ARG001
    file = interp.attention(TEXT).save(tmp_path / "a.json")
    data = json.loads(file.read_text("utf-8"))
    data["provenance"]["versions"]["interp"] = "0.0.1"
    file.write_text(json.dumps(data), "utf-8")
    found = interp.load_result(file).verify()
    assert found.holds
    assert "interp: 0.0.1 → " in found.text()
    at = next(one for one in data["interp"]["exact"] if one["at"] == ["provenance", "arguments"])
    at["value"]["map"].append(["gone", 1])
    file.write_text(json.dumps(data), "utf-8")
    lacks(interp.load_result(file).verify(), "no argument 'gone'", "it was made by interp 0.0.1, and this is ")
    data["provenance"]["technique"] = "atention"
    file.write_text(json.dumps(data), "utf-8")
    lacks(interp.load_result(file).verify(), "there is no command 'atention'")


def test_results_that_no_call_made_or_that_make_something(own: Any) -> None:  # noqa: ARG001
    a, b = interp.attention(TEXT), interp.attention("John gave the drink to")
    lacks(interp.compare(a, b).verify(), "verify .a and .b")
    lacks(interp.patch(pairs=[PAIR], dry_run=True).verify(), "forecast")
    lacks(interp.models().verify(), "computes nothing")
    lacks(a.verify().verify(), "verify the result anew")
    lacks(interp.lens_train([TEXT], steps=2).verify(), "would replace that")
    lacks(interp.Result().verify(), "not in it")


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("verify", "needs RESULT"),
        ("verify nothing", "is no variable of this notebook"),
        ("verify held", "int is none"),
        ("verify nowhere.json", "there is no file 'nowhere.json'"),
        ("verify bad.json", "is not JSON"),
    ],
)
def test_what_cannot_be_verified_at_all_is_refused(
    line: str, word: str, shell: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.json").write_text("{")
    shell.user_ns["held"] = 5
    harness.refused(harness.ask("magic", shell, f"%interp {line}"), word)


# -- what counts as the same -----------------------------------------------------------------------------------------


def test_tolerances_follow_the_dtype_the_noise_and_the_libraries(own: Any) -> None:  # noqa: ARG001
    from dataclasses import replace

    result = interp.patch(pairs=[PAIR])

    def changed(by: float, *, noise: float = 0.0, **provenance: Any) -> bool:
        a = replace(
            result, noise=noise, provenance=replace(result.provenance, dtype=provenance.get("dtype", "float32"))
        )
        b = replace(a, effect=result.effect + by, provenance=replace(a.provenance, **provenance))
        return verified(a, b).state == "changed"

    assert not changed(5e-6)
    assert changed(2e-5)
    assert not changed(5e-5, device="cuda")
    assert not changed(5e-5, versions={"torch": "9"})
    assert changed(2e-4, versions={"torch": "9"})
    assert not changed(0.02, dtype="bfloat16")
    assert changed(0.1, dtype="bfloat16")
    assert not changed(0.1, dtype="bfloat16", noise=0.06)
    assert changed(0.1, dtype="bfloat16", noise=0.01)


def test_numbers_that_are_none_shapes_and_words(own: Any) -> None:  # noqa: ARG001
    from dataclasses import replace

    result = interp.patch(pairs=[PAIR])
    holes = result.effect.copy()
    holes[0, 0] = np.nan
    other = replace(result, effect=holes)
    assert verified(other, replace(result, effect=holes.copy())).holds
    assert verified(result, other).changed[verified(result, other).names.index("effect")] == 1
    assert verified(other, result).state == "changed"
    partial = replace(other, notes=("partial: 1 of 4 layers",))
    assert verified(partial, result).holds
    assert "partial then" in verified(partial, result).verdict
    assert "(2, 4) → (1, 4)" in verified(result, interp.patch(pairs=[PAIR], layer=0)).places
    words = verified(result, replace(result, site="attn_out"))
    assert words.state == "changed"
    assert "of site" in words.verdict


def test_half_precision_holds_within_its_noise(clean_session: Any) -> None:
    tokens = models.tokenizer()
    clean_session.load(models.gpt2(len(tokens)), tokenizer=tokens, device="cpu", dtype="bfloat16", name="half")
    for result in (interp.patch(pairs=[PAIR, OTHER]), interp.attention(TEXT)):
        assert result.verify().holds


def test_what_was_computed_over_models_is_verified_step_by_step(own: Any, folder: Any, tmp_path: Path) -> None:
    session.load(folder("gpt2"), device="cpu", name="other")
    result = interp.patch(pairs=[PAIR, OTHER], over=[own.name, "other"])
    for one in (result, *(interp.load_result(result.save(tmp_path / f"o{suffix}")) for suffix in (".json", ".npz"))):
        assert one.verify().holds
    silence(own, 1, 0)
    found = result.verify()
    assert found.state == "changed"
    changed = {name for name, share in zip(found.names, found.changed, strict=True) if share}
    assert "results.0.effect" in changed
    assert "results.1.effect" not in changed
    assert not any("seconds" in name or "forwards" in name for name in found.names)
