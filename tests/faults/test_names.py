"""Rows 23 and 24: a layer or a head that is not there, and misspelt names of every kind."""

from __future__ import annotations

import numpy as np
import pytest

import interp
import models
from faults import harness
from interp.errors import InputError
from sampled import crossed

INDICES = [
    (name, parameter.name)
    for name, command in harness.commands().items()
    for parameter in command.parameters
    if parameter.names == "indices"
]
TYPED = [
    (name, parameter.name, parameter.kind)
    for name, command in harness.commands().items()
    for parameter in command.parameters
    if parameter.kind in {int, float} and not parameter.values.choices
]
CHOSEN = [
    (name, parameter.name, parameter.values.choices)
    for name, command in harness.commands().items()
    for parameter in command.parameters
    if parameter.values.choices
]
each_door = pytest.mark.parametrize("door", harness.DOORS)
each_command = pytest.mark.parametrize("name", list(harness.commands()))
each_technique = pytest.mark.parametrize("name", harness.techniques())


def last_of(model, parameter):
    counts = {"layer": model.geometry.n_layers, "head": model.geometry.n_heads}
    return f"{parameter}s are 0–{counts[parameter] - 1}" if parameter in counts else "0–"


@pytest.mark.parametrize(
    ("name", "parameter", "family", "door"),
    [(*index, family, door) for index, family, door in crossed(INDICES, harness.FAMILIES, harness.DOORS)],
)
def test_row_23_an_index_that_is_not_there(family, name, parameter, door, shell, lend):
    model = lend(family)
    with harness.unharmed(model, shell):
        before = model.forwards
        # A prompt has more positions than the model has heads, and its last position is −1 too.
        for bad in (
            99,
            -99 if parameter == "position" else -1,
            *([models.HEADS] if parameter != "position" else []),
            10**30,
        ):
            cell = harness.valid(name, family, **{parameter: bad})
            message = harness.refused(harness.ask(door, shell, cell), last_of(model, parameter))
            assert str(bad) in message
        assert model.forwards == before


@pytest.mark.parametrize(("name", "parameter"), INDICES)
def test_row_23_what_is_no_index(name, parameter, shell, lend):
    model = lend("gpt2")
    with harness.unharmed(model, shell):
        for text in ("x", "1.5", "3-1", "0-99", "0,99", "-2,0", "1-", "", "0-99999999999", "0;1"):
            cell = harness.valid(name, **{parameter: text})
            harness.refused(harness.ask("magic", shell, cell), parameter)
        for value in (
            1.5,
            "1-",
            "x",
            "0,99",
            [0.5],
            [],
            (),
            True,
            [True],
            [0, -99],
            [0, 99],
            [[0]],
            np.float64(1),
            b"1",
            {},
        ):
            harness.refused(harness.ask("python", shell, harness.valid(name, **{parameter: value})), parameter)


@pytest.mark.parametrize(("name", "parameter"), INDICES)
def test_row_23_indices_that_are_there(name, parameter, shell, lend):
    lend("gpt2")
    one = harness.answer(harness.worked(harness.ask("python", shell, harness.valid(name, **{parameter: 1}))))
    for value in ("1", [1], (1,), np.int64(1), np.array([1]), range(1, 2), [1, 1]):
        cell = harness.valid(name, **{parameter: value})
        assert harness.answer(harness.worked(harness.ask("python", shell, cell))) == one
    for text in ("1", "1-1", "1,1", "01"):
        cell = harness.valid(name, **{parameter: text})
        assert harness.answer(harness.worked(harness.ask("magic", shell, cell))) == one


def test_row_23_a_head_of_a_result(shell, lend):
    model = lend("llama")
    result = harness.worked(harness.ask("magic", shell, harness.valid("attention", layer="0")))
    with harness.unharmed(model, shell):
        for bad in ("1.0", "0.99", "0.-1", "-1.0", "0", "", "L0H99", "0.1.2"):
            with pytest.raises(InputError) as caught:
                result.head(bad)
            assert "0" in str(caught.value)


@each_door
@pytest.mark.parametrize(("name", "parameter", "kind"), TYPED)
def test_row_24_a_number_that_is_none(name, parameter, kind, door, shell, lend):
    model = lend("gpt2")
    said = parameter.rstrip("_").replace("_", "-") if door == "magic" else parameter
    with harness.unharmed(model, shell):
        for bad in ("many", "1.5" if kind is int else "one", "0x10"):
            cell = harness.valid(name, **{parameter: bad})
            harness.refused(harness.ask(door, shell, cell), said, bad)


@each_door
@pytest.mark.parametrize(("name", "parameter", "choices"), CHOSEN)
def test_row_24_a_misspelt_choice(name, parameter, choices, door, shell, lend):
    model = lend("gpt2")
    with harness.unharmed(model, shell):
        cell = harness.valid(name, **{parameter: choices[0][:-1] + "~"})
        harness.refused(harness.ask(door, shell, cell), choices[0])


@each_command
def test_row_24_a_misspelt_command(name, shell, lend):
    model = lend("gpt2")
    for misspelt in (name[:-1], name + "x", name.upper(), name[0] + name):
        if misspelt in {*harness.commands(), "model"}:
            continue
        with harness.unharmed(model, shell):
            for source in (f"%interp {misspelt}", f"%%interp {misspelt}\nsome text", f"%interp help {misspelt}"):
                outcome = harness.ask("magic", shell, source)
                harness.refused(outcome, misspelt, "did you mean")
                assert outcome.shown.startswith("UsageError: ")
            with pytest.raises(AttributeError, match="did you mean"):
                getattr(interp, misspelt.replace("-", "_"))
    with harness.unharmed(model, shell):
        assert harness.worked(harness.ask("magic", shell, "%interp")).provenance.technique == "help"
        harness.refused(harness.ask("magic", shell, "%%interp\nsome text"), "%interp help")


@each_command
def test_row_24_the_nearest_command_is_the_one_meant(name, shell):
    if len(name) > 3:
        near = name[:-2] + name[-1] + name[-2] if name[-1] != name[-2] else name + name[-1]
        if near not in harness.commands():
            harness.refused(harness.ask("magic", shell, f"%interp {near}"), f"did you mean {name}?")


@each_door
@each_command
def test_row_24_a_misspelt_flag(name, door, shell, lend):
    model = lend("gpt2")
    flags = [p.name for p in harness.commands()[name].parameters if not p.positional]
    with harness.unharmed(model, shell):
        for flag in (*flags, "nothing_like_it"):
            misspelt = flag + "z" if flag + "z" not in flags else flag + "zz"
            cell = harness.valid(name, **{misspelt: "1"})
            outcome = harness.ask(door, shell, cell)
            spelled = (lambda word: "--" + word.rstrip("_").replace("_", "-")) if door == "magic" else str
            words = [spelled(misspelt)]
            if flag in flags and len(flag) > 2:
                meant = "--no-" + flag.replace("_", "-") if door == "magic" else flag
                words.append(f"did you mean {spelled(flag)}" if meant not in str(outcome.error) else meant)
            harness.refused(outcome, *words)


@each_command
def test_row_24_arguments_too_many_or_too_few(name, shell, lend):
    model = lend("gpt2")
    command = harness.commands()[name]
    body = f"\n{harness.texts('gpt2')}" if command.body else ""
    places = [p for p in command.parameters if p.positional]
    start = f"{'%%' if body else '%'}interp {name}"
    with harness.unharmed(model, shell):
        harness.refused(harness.ask("magic", shell, f"{start} {'a ' * (len(places) + 1)}{body}"))
        harness.refused(harness.ask("magic", shell, f"{start} -x{body}"), "-x")
        harness.refused(harness.ask("magic", shell, f"{start} -o{body}"), "-o")
        harness.refused(harness.ask("magic", shell, f"{start} -o not-a-name{body}"), "not-a-name")
        harness.refused(harness.ask("magic", shell, f"{start} -o class{body}"), "class")
        harness.refused(harness.ask("magic", shell, f'{start} "unclosed{body}'), "quote")
        if any(p.required for p in places):
            harness.refused(harness.ask("magic", shell, start + body), f"help {name}")
        if not body:
            harness.refused(harness.ask("magic", shell, f"%{start}\nsome text"))
        cell = harness.valid(name)
        surplus = [*([] if cell.body is None else [cell.body]), *("a" for _ in range(len(places) + 1))]
        with pytest.raises((InputError, TypeError)):
            getattr(interp, name.replace("-", "_"))(*surplus)


@each_door
@each_technique
def test_row_24_a_misspelt_model(name, door, shell, lend):
    model = lend("gpt2")
    with harness.unharmed(model, shell):
        cell = harness.valid(name, **{harness.commands()[name].model: "gtp2"})
        harness.refused(harness.ask(door, shell, cell), "gtp2", "did you mean gpt2?")


@each_door
@pytest.mark.parametrize(
    ("name", "parameter"),
    [
        (n, p.name)
        for n, c in harness.commands().items()
        if not c.needs_model
        for p in c.parameters
        if p.names == "model"
    ],
)
def test_row_24_a_misspelt_model_of_a_session_command(name, parameter, door, shell, lend):
    model = lend("gpt2")
    with harness.unharmed(model, shell):
        cell = harness.valid(name, **{parameter: "gtp2"})
        harness.refused(harness.ask(door, shell, cell), "gtp2", "did you mean gpt2?")


@each_door
@each_technique
def test_row_24_no_model_at_all(name, door, shell):
    message = harness.refused(harness.ask(door, shell, harness.valid(name)))
    assert "%interp load" in message


@pytest.mark.parametrize("family", harness.FAMILIES)
def test_row_24_a_misspelt_hook(family, shell, lend):
    model = lend(family)
    with harness.unharmed(model, shell):
        activations = model.run(harness.texts(family)).activations
        before = model.forwards
        for bad, meant in (
            ("blocks.0.hook_resid_pots", "blocks.0.hook_resid_post"),
            ("blocks.1.attn.hook_patern", "blocks.1.attn.hook_pattern"),
            ("block.0.attn.hook_q", "blocks.0.attn.hook_q"),
            (f"blocks.{models.LAYERS}.hook_resid_post", f"layers are 0–{models.LAYERS - 1}"),
            ("blocks.99.attn.hook_z", f"layers are 0–{models.LAYERS - 1}"),
        ):
            with pytest.raises(InputError) as caught:
                activations[bad]
            assert meant in str(caught.value)
            assert len(str(caught.value).splitlines()) == 1
            assert bad not in activations
        assert "blocks.0.hook_resid_post" in activations
        assert 7 not in activations
        assert model.forwards == before, "asking whether a name is there ran the model"


def test_row_24_a_component_that_this_family_lacks(shell, lend):
    model = lend("neox")
    with harness.unharmed(model, shell), pytest.raises(InputError, match="has no resid_mid; it has resid_pre"):
        model.run("Mary").activations["blocks.0.hook_resid_mid"]


@each_door
@pytest.mark.parametrize(
    ("name", "given", "meant"),
    [
        ("patch", {"site": "features", "layer": 99}, "layers are 0–1"),
        ("patch", {"site": "featurs"}, "did you mean features?"),
        ("patch", {"site": "features", "by": "head"}, "use --by feature"),
        ("patch", {"site": "z", "by": "feature"}, "use --site features"),
        ("mediate", {"site": "features", "feature": "0.99999"}, "they are 0–63"),
        ("ablate", {"feature": "0.99999"}, "they are 0–63"),
        ("ablate", {"feature": "9.1"}, "it has layers 0-1, at resid_post"),
        ("ablate", {"feature": "0"}, "such as 2.417"),
        ("ablate", {"heads": "F0.1"}, "--feature F0.1"),
        ("steer", {"direction": "F0.99999"}, "they are 0–63"),
    ],
)
def test_rows_23_and_24_a_feature_that_is_not_there(name, given, meant, door, shell, lend):
    model = lend("gpt2")
    harness.worked(harness.ask(door, shell, harness.valid("features-load")))
    valid = harness.valid(name)
    kept = {key: value for key, value in valid.arguments.items() if key not in {"heads", "toward", "against"}}
    with harness.unharmed(model, shell):
        harness.refused(harness.ask(door, shell, harness.Cell(name, {**kept, **given}, valid.body)), meant)


@each_door
def test_row_24_a_misspelt_set_of_features(door, shell, lend):
    model = lend("gpt2")
    asked = {"patch": {"site": "features"}, "ablate": {"feature": "0.1"}}
    for name, given in asked.items():
        with harness.unharmed(model, shell):
            cell = harness.valid(name, **given, features="dictionarys")
            harness.refused(harness.ask(door, shell, cell), "no features are loaded", "features-load")
    harness.worked(harness.ask(door, shell, harness.valid("features-load")))
    for name, given in asked.items():
        with harness.unharmed(model, shell):
            cell = harness.valid(name, **given, features="dictionarys")
            harness.refused(harness.ask(door, shell, cell), "did you mean dictionaries?")


@pytest.mark.parametrize(
    ("flag", "bad", "meant"),
    [
        ("dtype", "flaot32", "float32"),
        ("device", "cpuu", "cpu"),
        ("device", "cuda:99", "--device"),
        ("device", "meta", "--device"),
    ],
)
@each_door
def test_row_24_a_misspelt_device_or_dtype(door, flag, bad, meant, shell, lend, folder):
    model = lend("gpt2")
    with harness.unharmed(model, shell):
        cell = harness.Cell("load", {"source": str(folder("gpt2")), flag: bad})
        harness.refused(harness.ask(door, shell, cell), bad.partition(":")[0], meant)


@each_door
def test_row_24_a_misspelt_folder_or_hub_name(door, shell, lend, tmp_path, monkeypatch):
    model = lend("gpt2")
    monkeypatch.chdir(tmp_path)
    with harness.unharmed(model, shell):
        for bad in ("./nowhere", str(tmp_path / "nowhere"), "~/nowhere-at-all", "a/b/c", "not a name!", ""):
            harness.refused(harness.ask(door, shell, harness.Cell("load", {"source": bad})), bad)
        harness.refused(harness.ask(door, shell, harness.Cell("load", {"source": "gtp2"})), "gtp2", "folder")
