"""Who may import whom, and what loading the extension may cost."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import interp
from interp.results import resolve

SOURCE = Path(__file__).parents[1] / "src" / "interp"

# Room → the rooms that it may import at run time; DESIGN: a contract, not a description. A room is a file or a folder;
# a file belongs to the longest name here that its own begins with, and a name allows all that begins with it.
PLAIN = {"chats", "claim_language", "errors", "files", "ids", "metric", "prompts", "sites", "spans", "spec"}
METHODS = {*PLAIN, "results", "interface.registry", "methods._shared", "engine"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "hints": set(),
    "files": {"errors"},
    "sites": {"errors"},
    "spans": set(),
    "chats": {"errors", "spans"},
    "ids": {"errors"},
    "prompts": {"chats", "errors", "ids", "spans"},
    "metric": {"errors"},
    "spec": {"errors", "metric", "prompts", "sites"},
    "results": {*PLAIN, "hints"},
    "selection": PLAIN,
    "claim_language": {"errors", "prompts", "sites", "spans", "spec"},
    "tasks": PLAIN,
    "truth": PLAIN,
    "bundled": set(),
    "interface.positions": {*PLAIN, "tasks"},
    "interface.kinds": {*PLAIN, "tasks", "interface.positions"},
    "interface.parameters": {*PLAIN, "interface.kinds"},
    "interface.registry": {*PLAIN, "hints", "results", "interface.kinds", "interface.parameters"},
    "interface.body": PLAIN,
    "interface.inputs": {*PLAIN, "interface.body", "interface.registry", "methods._shared", "engine.model"},
    "interface.live": {*PLAIN, "engine.model"},
    "interface.over": {*PLAIN, "results", "interface.registry", "engine.model"},
    "interface.session": {
        *PLAIN,
        "results",
        "interface.live",
        "interface.over",
        "interface.registry",
        "interface.inputs",
        "methods._shared",
        "engine.model",
        "bundled",
    },
    "interface.claims": {
        *PLAIN,
        "results",
        "interface.registry",
        "interface.saved",
        "interface.session",
        "methods._shared",
    },
    "interface.commands": {
        *PLAIN,
        "results",
        "interface.registry",
        "interface.session",
        "methods._shared",
        "engine.memory",
    },
    "interface.saved": {*PLAIN, "results", "interface.registry"},
    "interface.verifying": {
        *PLAIN,
        "results",
        "interface.registry",
        "interface.inputs",
        "interface.saved",
        "interface.session",
        "interface.commands",
        "engine.model",
    },
    "interface.workers": {
        *PLAIN,
        "interface.registry",
        "interface.session",
        "interface.commands",
        "engine.memory",
        "engine.pool",
    },
    "engine.cgroup": PLAIN,
    "engine.memory": {*PLAIN, "results", "engine.cgroup"},
    "engine.linalg": PLAIN,
    "engine.model": {*PLAIN, "results", "engine.memory"},
    "engine.exactness": PLAIN,
    "engine.transformer": {*PLAIN, "engine.model", "engine.memory", "engine.exactness"},
    "engine.metrics": {*PLAIN, "engine.transformer", "engine.memory"},
    "engine.forecast": {
        *PLAIN,
        "results",
        "engine.transformer",
        "engine.model",
        "engine.memory",
        "engine.exactness",
    },
    "engine.features": {
        *PLAIN,
        "engine.forecast",
        "engine.transformer",
        "engine.model",
        "engine.memory",
        "engine.exactness",
        "engine.metrics",
    },
    "engine.pool": {*PLAIN, "engine.model", "engine.memory", "engine.exactness"},
    "engine.patching": {
        *PLAIN,
        "engine.pool",
        "engine.features",
        "engine.forecast",
        "engine.transformer",
        "engine.model",
        "engine.memory",
        "engine.exactness",
        "engine.metrics",
    },
    "engine.interchange": {
        *PLAIN,
        "engine.patching",
        "engine.features",
        "engine.transformer",
        "engine.model",
        "engine.exactness",
        "engine.memory",
        "engine.linalg",
        "engine.metrics",
    },
    "engine.circuits": {
        *PLAIN,
        "engine.patching",
        "engine.pool",
        "engine.forecast",
        "engine.transformer",
        "engine.model",
        "engine.exactness",
        "engine.memory",
        "engine.metrics",
    },
    "engine.readouts": {
        *PLAIN,
        "results",
        "engine.features",
        "engine.linalg",
        "engine.patching",
        "engine.forecast",
        "engine.transformer",
        "engine.model",
        "engine.exactness",
        "engine.memory",
        "engine.metrics",
    },
    "methods._shared": {*PLAIN, "results", "engine", "tasks"},
    "methods.patching": METHODS,
    "methods.circuits": METHODS,
    "methods.heads": METHODS,
    "methods.readouts": METHODS,
    "methods.text": METHODS,
    "methods.features": {*METHODS, "bundled"},  # dictionaries come with the bundled model
    "methods.checks": {*METHODS, "truth"},  # methods are scored against truth
    "views": {*PLAIN, "results"},
    "widgets": {*PLAIN, "results", "views", "selection"},
    "magics": {*PLAIN, "results", "interface", "engine.model", "views", "widgets"},
    "": {*PLAIN, "hints", "results", "interface", "magics", "selection"},  # interp/__init__.py
}
NEVER = {
    "spec": {"torch", "numpy", "IPython"},
    "prompts": {"torch", "numpy", "IPython"},
    "widgets": {"torch"},
    "views": {"torch"},
    "engine": {"IPython"},
}
HEAVY = ["torch", "transformers", "transformer_lens", "pandas", "plotly", "circuitsvis"]


def module_of(path: Path) -> str:
    """Return a file's dotted name below interp; a folder's own for its ``__init__.py``."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def within(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


def room_of(module: str) -> str:
    return max((room for room in ALLOWED if within(module, room)), key=len, default="")


@cache
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
MODULES = {module_of(path): path for path in FILES}


@cache
def ours(path: Path) -> set[str]:
    """Return the modules of ours that a file imports; the one behind ``from interp.a import b`` is a.b, or a."""
    found: set[str] = set()
    for name in imports(path):
        module = name.removeprefix("interp.") if name.startswith("interp.") else ""
        while module and module not in MODULES:
            module = module.rpartition(".")[0]
        found.add(module)
    # `from interp.a import b` names a as well as a.b.
    packages = {other.rpartition(".")[0] for other in found if MODULES[other].name != "__init__.py"}
    return {module for module in found - {""} if module not in packages or takes_from(path, module)}


@cache
def takes_from(path: Path, package: str) -> bool:
    """Whether a file imports something from a package that is no file of its own."""
    tree = ast.parse(path.read_text("utf-8"))
    return any(
        isinstance(node, ast.ImportFrom)
        and node.module == f"interp.{package}"
        and any(f"{package}.{alias.name}" not in MODULES for alias in node.names)
        for node in ast.walk(tree)
    )


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_each_file_imports_only_what_its_room_may(path: Path) -> None:
    module = module_of(path)
    room = room_of(module)
    allowed = ALLOWED[room] | ({room} if room else set())
    wrong = {other for other in ours(path) if not any(within(other, one) for one in allowed)}
    assert wrong == set(), f"{module} of {room} may not import them"
    tops = {name.split(".")[0] for name in imports(path)}
    assert tops & NEVER.get(module.partition(".")[0], set()) == set()


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the sets of files of which each imports the others, however far round: Tarjan (1972)."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        number[node] = low[node] = len(number)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in number:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == number[node]:
            at = stack.index(node)
            found.append(stack[at:])
            del stack[at:]

    for node in graph:
        if node not in number:
            visit(node)
    return [sorted(group) for group in found if len(group) > 1]


def test_no_file_imports_itself_round_a_circle() -> None:
    assert circles({module: ours(path) - {module} for module, path in MODULES.items()}) == []


def test_circles_are_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}
    assert circles(graph) == [["b", "c"]]


def test_every_file_of_the_techniques_folders_declares_what_can_be_typed() -> None:
    from interp.interface import registry

    declared = {command.function.__module__ for command in registry.commands().values()}
    named = {reference.partition(":")[0] for reference in interp._NAMED.values()}
    for module, path in MODULES.items():
        if within(module, "methods") and path.name != "__init__.py":
            typed = f"interp.{module}" in declared | named
            assert typed or within(module, "methods._shared"), f"{module} is no command: it belongs to _shared"


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


REFERENCES = sorted(
    {found for path in FILES for found in re.findall(r'"(interp\.[\w.]*:\w+)"', path.read_text("utf-8"))}
)


@pytest.mark.parametrize("reference", REFERENCES)
def test_what_a_string_names_is_there(reference: str) -> None:
    assert callable(resolve(reference))


def test_what_an_editor_is_told_of_interp_is_what_the_commands_take() -> None:
    import write_stub

    said, should = (ast.dump(ast.parse(text)) for text in (write_stub.STUB.read_text("utf-8"), write_stub.text()))
    assert said == should, "run tools/write_stub.py"
    assert (SOURCE / "py.typed").exists()
