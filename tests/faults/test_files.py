"""Rows 41–43: exports to places they must not go, pickled weights, and repositories that want to run code."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from faults import harness
from interp.errors import InputError

each_bodied = pytest.mark.parametrize("name", harness.bodied())
each_door = pytest.mark.parametrize("door", harness.DOORS)
SUFFIXES = (".json", ".npz", ".html", ".svg", ".png")


class Touch:
    """Unpickling this writes the file `marker`."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return (Path.touch, (Path(self.marker),))


# -- row 41 ------------------------------------------------------------------------------------------------------------


def tree(folder):
    return {path.relative_to(folder): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize("suffix", SUFFIXES)
@each_bodied
def test_row_41_exports_that_are_refused(name, suffix, shell, lend, tmp_path, monkeypatch):
    model = lend("gpt2")
    work = tmp_path / "a" / "b"
    work.mkdir(parents=True)
    monkeypatch.chdir(work)
    target = tmp_path / f"target{suffix}"
    target.write_text("not to be overwritten")
    (work / f"link{suffix}").symlink_to(target)
    (work / f"dangling{suffix}").symlink_to(tmp_path / f"nowhere{suffix}")
    (work / f"folder{suffix}").mkdir()
    with harness.unharmed(model, shell):
        result = harness.worked(harness.ask("magic", shell, harness.valid(name)))
        before = tree(tmp_path)
        for bad in (
            f"../../x{suffix}",
            f"../target{suffix}",
            f"sub/../../x{suffix}",
            f"{work}/../x{suffix}",
            f"link{suffix}",
            f"dangling{suffix}",
            str(work / f"link{suffix}"),
            f"x\0{suffix}",
            f"x{suffix}\0.txt",
            f"folder{suffix}",
            f"no-such-folder/x{suffix}",
            "",
            ".",
            "..",
            suffix,
            "x",
            "x.txt",
            f"x{suffix}.exe",
        ):
            for path in (bad, Path(bad)) if bad else (bad,):
                with pytest.raises(InputError) as caught:
                    result.save(path)
                assert len(str(caught.value).splitlines()) == 1
        assert tree(tmp_path) == before


@pytest.mark.parametrize("suffix", SUFFIXES)
@each_bodied
def test_row_41_exports_that_are_fine(name, suffix, shell, lend, tmp_path, monkeypatch):
    lend("gpt2")
    monkeypatch.chdir(tmp_path)
    result = harness.worked(harness.ask("magic", shell, harness.valid(name)))
    if suffix in {".svg", ".png"} and result._svg is None:
        with pytest.raises(InputError, match="html"):
            result.save(f"x{suffix}")
        return
    for path in (f"x{suffix}", tmp_path / f"y{suffix}", f"X{suffix.upper()}", f"..dots{suffix}", f"a..b{suffix}"):
        written = result.save(path)
        assert written.stat().st_size > 20
    first = (tmp_path / f"x{suffix}").read_bytes()
    (tmp_path / f"x{suffix}").write_text("old")
    result.save(f"x{suffix}")
    assert (tmp_path / f"x{suffix}").read_bytes()[:4] == first[:4]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".x")], "a temporary file was left behind"
    if suffix == ".json":
        assert json.loads(first)["provenance"]["technique"] == name
    if suffix == ".npz":
        held = np.load(tmp_path / "x.npz", allow_pickle=False)
        assert json.loads(str(held["meta"]))["provenance"]["technique"] == name


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_row_41_a_write_that_fails_leaves_the_old_file(suffix, shell, lend, tmp_path, monkeypatch):
    lend("gpt2")
    result = harness.worked(harness.ask("magic", shell, harness.valid("attention")))
    target = tmp_path / f"x{suffix}"
    target.write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(InputError, match=r"cannot be written .No space left on device.; free some space"):
            result.save(target)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


# -- row 42 ------------------------------------------------------------------------------------------------------------


def pickled(folder, where, file, marker):
    """Return a copy of a model's folder whose weights are the pickle `file`, which writes `marker` when opened."""
    target = where / "pickled"
    shutil.copytree(folder, target)
    for weights in target.glob("*.safetensors"):
        weights.unlink()
    with open(target / file, "wb") as opened:
        pickle.dump({"wte.weight": Touch(marker)}, opened)
    return target


@each_door
@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.pt", "model.pth", "checkpoint.ckpt", "weights.pkl"])
def test_row_42_a_folder_of_pickles(file, door, shell, lend, folder, tmp_path):
    model = lend("gpt2")
    marker = tmp_path / "marker"
    target = pickled(folder("gpt2"), tmp_path, file, marker)
    with harness.unharmed(model, shell):
        for source in (target, target / file):
            cell = harness.Cell("load", {"source": str(source)})
            harness.refused(harness.ask(door, shell, cell), "safetensors", "pickle")
        (target / "config.json").unlink()
        harness.refused(harness.ask(door, shell, harness.Cell("load", {"source": str(target)})), "safetensors")
        assert not marker.exists()
    with open(target / file, "rb") as opened:
        pickle.load(opened)
    assert marker.exists(), "the marker would never have been written: this tests nothing"


def test_row_42_a_pickle_beside_safetensors_is_not_opened(shell, lend, folder, tmp_path):
    model = lend("gpt2")
    marker = tmp_path / "marker"
    target = tmp_path / "both"
    shutil.copytree(folder("gpt2"), target)
    for file in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "tokenizer.pkl"):
        (target / file).write_bytes(pickle.dumps(Touch(marker)))
    logits = harness.forward(model)
    loaded = harness.worked(harness.ask("magic", shell, f'%interp load "{target}" --name both'))
    assert torch.equal(harness.forward(loaded), logits)
    assert not marker.exists()


@each_door
def test_row_42_an_adapter_of_pickles(door, shell, lend, folder, tmp_path):
    pytest.importorskip("peft")
    model = lend("gpt2")
    marker = tmp_path / "marker"
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    config = {"peft_type": "LORA", "base_model_name_or_path": str(folder("gpt2")), "r": 2, "target_modules": ["c_attn"]}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    (adapter / "adapter_model.bin").write_bytes(pickle.dumps(Touch(marker)))
    with harness.unharmed(model, shell):
        cell = harness.Cell("load", {"source": str(adapter)})
        harness.refused(harness.ask(door, shell, cell), "safetensors")
        shutil.copy(folder("gpt2") / "model.safetensors", adapter / "other.safetensors")
        harness.refused(harness.ask(door, shell, cell), "safetensors")
        assert not marker.exists()


def test_row_42_nothing_but_safetensors_is_fetched(monkeypatch):
    from fnmatch import fnmatch

    from interp.engine.model import load
    from interp.engine.model.load import hub

    asked = {}

    def snapshot(repository, **options):
        asked.update(options, repository=repository)
        raise OSError("cut")

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    with pytest.raises(InputError, match="cut"):
        load.load("owner/name", options=load.Options())
    for file in ("pytorch_model.bin", "model.pt", "x.pkl", "x.ckpt", "modeling_x.py", "x.pth", "x.npy", "x.so", "x.h5"):
        assert not any(fnmatch(file, pattern) for pattern in asked["allow_patterns"]), file
    assert any(fnmatch("model-00001-of-00002.safetensors", pattern) for pattern in asked["allow_patterns"])


# -- row 43 ------------------------------------------------------------------------------------------------------------


def with_code(folder, where, marker):
    """Return a copy of a model's folder whose configuration and model are Python files that write `marker`."""
    target = where / "with-code"
    shutil.copytree(folder, target)
    raw = json.loads((target / "config.json").read_text())
    raw |= {
        "model_type": "never-heard-of",
        "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"},
    }
    (target / "config.json").write_text(json.dumps(raw))
    (target / "own.py").write_text(
        "from pathlib import Path\n"
        "from transformers import GPT2Config, GPT2LMHeadModel\n"
        f"Path({str(marker)!r}).touch()\n"
        "class OwnConfig(GPT2Config):\n    model_type = 'never-heard-of'\n"
        "class OwnModel(GPT2LMHeadModel):\n    config_class = OwnConfig\n"
    )
    return target


@each_door
def test_row_43_remote_code_is_off(door, shell, lend, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    model = lend("gpt2")
    marker = tmp_path / "marker"
    target = with_code(folder("gpt2"), tmp_path, marker)
    with harness.unharmed(model, shell):
        cell = harness.Cell("load", {"source": str(target)})
        harness.refused(harness.ask(door, shell, cell), "--remote-code", "read it")
        assert not marker.exists()


def test_row_43_the_flag_lets_it_run(shell, lend, folder, tmp_path):
    model = lend("gpt2")
    marker = tmp_path / "marker"
    target = with_code(folder("gpt2"), tmp_path, marker)
    with harness.unharmed(model, shell):
        harness.ask("magic", shell, f'%interp load "{target}" --remote-code --name gpt2-own')
        assert marker.exists(), "the marker would never have been written: the test above tests nothing"
        harness.ask("magic", shell, "%interp unload gpt2-own")
        harness.ask("magic", shell, "%interp use gpt2")


def test_row_43_code_for_a_known_architecture_is_left_alone(shell, lend, folder, tmp_path):
    model = lend("gpt2")
    marker = tmp_path / "marker"
    target = with_code(folder("gpt2"), tmp_path, marker)
    raw = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(raw | {"model_type": "gpt2"}))
    logits = harness.forward(model)
    loaded = harness.worked(harness.ask("magic", shell, f'%interp load "{target}"'))
    assert torch.equal(harness.forward(loaded), logits)
    assert not marker.exists()


def test_row_43_a_tokenizer_that_needs_code_is_named(shell, lend, folder, tmp_path):
    lend("gpt2")
    marker = tmp_path / "marker"
    target = with_code(folder("gpt2"), tmp_path, marker)
    raw = json.loads((target / "config.json").read_text())
    del raw["auto_map"]
    (target / "config.json").write_text(json.dumps(raw | {"model_type": "gpt2"}))
    tokens = json.loads((target / "tokenizer_config.json").read_text())
    tokens |= {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": ["own.OwnTokenizer", None]}}
    (target / "tokenizer_config.json").write_text(json.dumps(tokens))
    (target / "tokenizer.json").unlink()
    outcome = harness.ask("magic", shell, f'%interp load "{target}"')
    assert not marker.exists()
    said = str(outcome.error) if outcome.error else " ".join(outcome.value.notes)
    assert "--remote-code" in said


@each_door
@pytest.mark.parametrize("revision", [None, "main", "v1.0", "abc1234", "g" * 40, "A" * 40, "0" * 39, "0" * 41])
def test_row_43_a_hub_name_needs_a_pinned_revision(revision, door, shell, lend, monkeypatch):
    from interp.engine.model.load import hub

    model = lend("gpt2")
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: pytest.fail("it was fetched"))
    with harness.unharmed(model, shell):
        given = {"source": "owner/name", "remote_code": True} | ({"revision": revision} if revision else {})
        harness.refused(harness.ask(door, shell, harness.Cell("load", given)), "--revision", "commit hash")


def test_row_43_a_pinned_revision_is_what_is_fetched(monkeypatch):
    from interp.engine.model import load
    from interp.engine.model.load import hub

    asked = []

    def snapshot(repository, *, revision, allow_patterns):
        asked.append((repository, revision, "*.py" in allow_patterns))
        raise OSError("cut")

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    for remote in (True, False):
        with pytest.raises(InputError):
            load.load("owner/name", options=load.Options(revision="0" * 40, remote_code=remote))
    assert asked == [("owner/name", "0" * 40, True), ("owner/name", "0" * 40, False)]


def test_the_tutorials_name_of_gpt2_is_gpt2(monkeypatch):
    from interp.engine.model import load
    from interp.engine.model.load import hub

    def snapshot(repository, **_options):
        raise OSError(f"asked for {repository}")

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    with pytest.raises(InputError, match="asked for gpt2\\)"):
        load.load("gpt2-small", options=load.Options())
