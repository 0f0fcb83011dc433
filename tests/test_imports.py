"""Who may import whom, and what loading the extension may cost."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "interp"

# part → the parts of interp that it may import at run time; DESIGN: a contract, not a description.
ALLOWED: dict[str, set[str]] = {
    "spec": set(),
    "results": {"spec"},
    "selection": {"spec"},
    "registry": {"spec", "results", "methods", "commands"},  # the last two by name, to make them declare themselves
    "tasks": {"spec"},
    "truth": {"spec"},
    "bundled": set(),
    "engine": {"spec", "results"},
    "comparison": {"results", "spec"},
    "tracking": {"results", "spec"},
    "methods": {"registry", "engine", "tasks", "truth", "spec", "results"},  # selfcheck scores methods against truth
    "views": {"results", "spec"},
    "widgets": {"results", "views", "spec", "selection"},
    "inputs": {"engine", "methods", "registry", "spec"},
    "session": {"inputs", "engine", "methods", "tasks", "registry", "spec", "results", "bundled"},
    "commands": {"registry", "results", "spec", "engine", "session"},
    "magics": {"commands", "registry", "results", "session", "spec", "engine", "views", "widgets"},
    "__init__": {"magics", "session", "registry", "results", "spec", "selection", "comparison"},
}
NEVER = {"spec": {"torch", "numpy", "IPython"}, "widgets": {"torch"}, "views": {"torch"}, "engine": {"IPython"}}
HEAVY = ["torch", "transformers", "transformer_lens", "pandas", "plotly", "circuitsvis"]


def part_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Return the dotted names that `path` imports at run time, at the top or inside functions."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


FILES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_each_file_imports_only_what_its_part_may(path: Path) -> None:
    part = part_of(path)
    ours = {name.split(".")[1] for name in imports(path) if name.startswith("interp.")}
    parts = {p.name.removesuffix(".py") for p in SOURCE.iterdir()}
    assert (ours & parts) - ALLOWED[part] - {part} == set()
    tops = {name.split(".")[0] for name in imports(path)}
    assert tops & NEVER.get(part, set()) == set()


def test_the_walk_sees_imports_inside_functions(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\ndef f():\n    import numpy\n"
    )
    assert "numpy" in imports(file)
    assert "torch" not in imports(file)


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


SHELL = "from IPython.core.interactiveshell import InteractiveShell; ip = InteractiveShell.instance(); import sys;"


def test_import_and_load_ext_leave_the_heavy_libraries_out() -> None:
    loads = f"{SHELL} import interp; ip.run_line_magic('load_ext', 'interp');"
    code = f"{loads} print([m for m in {HEAVY} if m in sys.modules])"
    assert run(code) == "[]"


def test_help_and_completion_leave_them_out_too() -> None:
    code = (
        f"{SHELL} ip.run_line_magic('load_ext', 'interp'); ip.run_line_magic('interp', 'help attention');"
        f"ip.Completer.complete('%interp att'); import interp; dir(interp);"
        f"print([m for m in {HEAVY} if m in sys.modules])"
    )
    assert run(code).splitlines()[-1] == "[]"
