"""Make the calls of a list with the interp that is imported here, and write down what they return.

Runs in a process of its own, one for each of the trees that `compare_commits` compares:
``python tools/record_calls.py JOB OUT``, where JOB is a JSON file with the calls and the models' folders. For each call
OUT gets a JSON file, and an npz file of numbers. Everything is asked for as a user types it; no class is named or
pickled, so that either tree may call its own as it likes.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

# Batches and budgets are cut by what memory is free: a figure that must not differ between two runs.
FREE = 6 * 10**9
# What says how long something took, and with which versions.
TIMES = frozenset({"seconds", "versions"})


@dataclass
class Found:
    """What a result holds, by the names of its fields; the items of a list are one entry, in their order."""

    floats: defaultdict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    integers: defaultdict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    texts: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    shapes: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    opaque: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, value: Any) -> None:
        """Take in `value` under `name`, and what it holds under longer names."""
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu()
            value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
        if value is None or isinstance(value, str | bytes | Path):
            self.texts[name].append(str(value))
        elif isinstance(value, bool | int | float | np.generic | np.ndarray):
            self._array(name, np.asarray(value))
        elif is_dataclass(value) and not isinstance(value, type):
            for one in fields(value):
                if not one.name.startswith("_") and one.name not in TIMES:
                    self.add(f"{name}.{one.name}".removeprefix("."), getattr(value, one.name))
        elif isinstance(value, Mapping):
            self.texts[f"{name}.keys"].append(json.dumps([str(key) for key in value]))
            for key, item in value.items():
                if key not in TIMES:
                    self.add(f"{name}[{key}]", item)
        elif isinstance(value, list | tuple | range | set | frozenset):
            items = sorted(value, key=str) if isinstance(value, set | frozenset) else list(value)
            self.shapes[name].append(f"{len(items)} items")
            for item in items:
                self.add(f"{name}[]", item)
        else:
            self.opaque[name] = type(value).__name__

    def _array(self, name: str, array: Any) -> None:
        self.shapes[name].append(f"{array.dtype}{list(array.shape)}")
        if array.dtype.kind in "biu":
            self.integers[name].append(array.astype(np.int64).ravel())
        elif array.dtype.kind == "f":
            self.floats[name].append(array.astype(np.float64).ravel())
        else:
            self.texts[name] += [str(item) for item in array.ravel()]

    def arrays(self) -> dict[str, Any]:
        """Return all numbers: one array to a field."""
        kinds = (("floats", self.floats), ("integers", self.integers))
        return {f"{kind}:{name}": np.concatenate(parts) for kind, held in kinds for name, parts in held.items()}


def found_in(value: Any) -> Found:
    """Return what a result holds: its fields, its table and its line."""
    found = Found()
    if not is_dataclass(value):
        # A model: its line without its class.
        found.texts["line"].append(repr(value).partition("(")[2])
        return found
    found.add("", value)
    for name, own in (("line", "summary"), ("table", "to_frame")):
        made = getattr(value, own, None)
        if made is None:
            continue
        try:
            made = made()
        except NotImplementedError:
            continue
        if name == "line":
            found.texts[name].append(made)
            continue
        found.shapes[name].append(f"{len(made)} rows")
        for column in made.columns:
            if column not in TIMES:
                found.add(f"{name}[{column}]", made[column].to_numpy())
    return found


def a_shell() -> Any:
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    config = Config()
    config.HistoryManager.enabled = False
    config.Interp.store_budget = 1 << 28
    shell = InteractiveShell.instance(config=config)
    shell.run_line_magic("load_ext", "interp")
    return shell


def prepare(shell: Any, model: str, folder: str | None) -> None:
    """Load a model, and put into the notebook what calls on it name: a metric, a direction and an intervention."""
    import interp

    source = f"{folder} --name {model} --device cpu" if folder else "--device cpu"
    with contextlib.redirect_stdout(io.StringIO()):
        shell.run_line_magic("interp", f"load {source}")
    chance = np.random.default_rng(0)
    shell.user_ns |= {
        "own": lambda logits: logits[:, -1, 5] - logits[:, -1, 7] if logits.ndim == 3 else logits[:, 5] - logits[:, 7],
        "axis": chance.standard_normal(interp.model.bridge.cfg.d_model).astype(np.float32),
        "off": [interp.Intervention(interp.Site("z", 1), head=1, mode="zero")],
    }


def made(shell: Any, call: Mapping[str, Any]) -> Any:
    """Return what a call gives."""
    if call["line"] == "python":
        names = dict(shell.user_ns)
        exec(compile(call["body"], "README.md", "exec"), names)
        own = {name: value for name, value in names.items() if name not in shell.user_ns and is_dataclass(value)}
        return {name: value for name, value in own.items() if not isinstance(value, type)}
    if call["body"] is None:
        return shell.run_line_magic("interp", call["line"])
    return shell.run_cell_magic("interp", call["line"], call["body"] + "\n")


def record(shell: Any, call: Mapping[str, Any], place: Path) -> float:
    """Make one call and write down what it gave under `place`'s name; return the CPU seconds that it took."""
    torch.manual_seed(0)
    np.random.seed(0)
    said: dict[str, Any] = {}
    found = Found()
    started = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            value = made(shell, call)
            if isinstance(value, dict):
                for name, item in value.items():
                    found.add(name, item)
            else:
                found = found_in(value)
        except Exception as error:
            # One line of the user's mistakes or a crash: either is an answer that the other tree must give too.
            said["error"] = f"{type(error).__name__}: {error}"
    took = time.process_time() - started
    said |= {"seconds": took, "texts": found.texts, "shapes": found.shapes, "opaque": found.opaque}
    place.with_suffix(".json").write_text(json.dumps(said), "utf-8")
    np.savez(place.with_suffix(".npz"), **found.arrays())
    return took


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    out = Path(sys.argv[2])
    memory = psutil.virtual_memory()._replace(available=FREE)
    psutil.virtual_memory = lambda: memory
    torch.set_num_threads(1)
    import interp

    shell = a_shell()
    print(f"interp of {Path(interp.__file__).parent}", file=sys.stderr)
    current = None
    for number, call in enumerate(job["calls"]):
        if call["model"] != current:
            if current is not None:
                shell.run_line_magic("interp", "unload")
            current = call["model"]
            prepare(shell, current, job["models"].get(current))
        took = record(shell, call, out / f"{number:05}")
        if took > job["slow"]:
            print(f"  {took:6.1f} s  {current}: {call['line']}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
