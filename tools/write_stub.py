"""Writes src/interp/__init__.pyi, by which an editor completes `interp.patch(…)` and knows what it returns.

Run it when a command or its arguments have changed: ``.venv/bin/python tools/write_stub.py``; a test compares.
"""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import interp
from interp.interface import registry
from interp.spec import Pairs

STUB = Path(interp.__file__).with_suffix(".pyi")
HEAD = '''"""Written by tools/write_stub.py from the commands' signatures."""

from typing import Any, Literal

from IPython.core.interactiveshell import InteractiveShell

'''
# Of an argument of another kind Python takes more than the annotation says, such as a list for layers.
PLAIN = re.compile(r"(int|float|bool|str|Literal\[.*\])( \| None)?")


def text() -> str:
    """Return what the stub should be, before it is formatted."""
    imports, functions, made = set[str](), list[str](), dict[str, str]()
    for name, reference in sorted(interp._NAMED.items()):
        module, _, what = reference.partition(":")
        imports.add(f"from {module} import {what} as {name}")
    for name, command in sorted(registry.commands().items()):
        if name == "load":  # the session's own takes objects too
            continue
        python, returned = name.replace("-", "_"), command.function.__annotations__["return"]
        owner, aliases = importlib.import_module(command.function.__module__), list[str]()
        for one in returned.split(" | "):
            alias, known = f"_{one}", vars(owner).get(one)
            module = "interp.engine.model.loaded" if known is None else known.__module__
            if made.setdefault(alias, module) != module:
                alias = f"_{python}{alias}"
            imports.add(f"from {module} import {one} as {alias}")
            aliases.append(alias)
        functions.append(f"def {python}({_parameters(python, Pairs in command.bodies)}) -> {' | '.join(aliases)}: ...")
    functions.append(f"def load({_parameters('load', False)}) -> LoadedModel: ...")
    ends = ["def load_ipython_extension(shell: InteractiveShell) -> None: ..."]
    ends += ["def unload_ipython_extension(shell: InteractiveShell) -> None: ..."]
    imports.add("from interp.engine.model.loaded import LoadedModel as LoadedModel")
    imports.add("from interp.selection import selection as selection")
    return "\n".join([HEAD, *sorted(imports), "", "model: LoadedModel", "", *functions, *ends, ""])


def _parameters(name: str, takes_pairs: bool) -> str:
    """Return a call's parameters, those of its body without types; pairs have more of them, such as ``answer=``."""
    own = inspect.signature(getattr(interp, name)).parameters.values()
    words, keywords = list[str](), False
    for one in own:
        if one.kind is one.KEYWORD_ONLY and not keywords:
            words.append("*body: Any" if takes_pairs else "*")
            keywords = True
        if one.kind is one.VAR_KEYWORD or (takes_pairs and not keywords):
            continue
        annotation = one.annotation if isinstance(one.annotation, str) else ""
        kind = annotation if PLAIN.fullmatch(annotation) else "Any"
        words.append(f"{one.name}: {kind}" + ("" if one.default is one.empty else " = ..."))
    return ", ".join([*words, *(["**more: Any"] if takes_pairs else [])])


if __name__ == "__main__":
    STUB.write_text(text(), "utf-8")
    for command in (["format", "--quiet"], ["check", "--fix", "--quiet"]):
        subprocess.run([Path(sys.executable).with_name("ruff"), *command, str(STUB)], check=True)
