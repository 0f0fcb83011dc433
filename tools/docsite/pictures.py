"""What each command's example gives, as the notebook shows it, kept until something that it may depend on changes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import chdir, contextmanager, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from interp.interface import catalogue

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "docs" / "examples"


@dataclass(frozen=True)
class Shown:
    """The cells of an example; what the last gave, as text and as an HTML fragment without scripts."""

    cells: tuple[str, ...]
    text: str
    html: str


def groups() -> dict[str, dict[str, tuple[str, ...]]]:
    """Return group → command → cells: the help's, or what `docs/commands.toml` has instead."""
    read = tomllib.loads((ROOT / "docs" / "commands.toml").read_text("utf-8"))
    own = {name: tuple(cell.strip() for cell in cells) for name, cells in read.items()}
    return {
        group.capitalize(): {one.name: own.get(one.name) or tuple(catalogue.cells(one.name)) for one in found}
        for group, found in catalogue.grouped().items()
    }


def of_source(files: Iterable[Path]) -> str:
    """Return a hash of the files' names and bytes."""
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def shown(kept: Path) -> Mapping[str, Shown]:
    """Return what every command's example gives; those that are in the file `kept` and still hold are not run again."""
    wanted = {name: cells for of in groups().values() for name, cells in of.items()}
    source = (path for path in (ROOT / "src" / "interp").rglob("*") if path.suffix in {".py", ".css", ".json"})
    state = of_source([*source, *EXAMPLES.iterdir(), Path(__file__)])
    held = json.loads(kept.read_text("utf-8")) if kept.exists() else {}
    held = held["shown"] if held.get("state") == state else {}
    made = {name: Shown(tuple(one["cells"]), one["text"], one["html"]) for name, one in held.items()}
    missing = {name: cells for name, cells in wanted.items() if name not in made or made[name].cells != cells}
    if missing:
        with _notebook() as shell:
            for name, cells in missing.items():
                made[name] = _run(shell, name, cells)
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps({"state": state, "shown": {n: asdict(made[n]) for n in wanted}}), "utf-8")
    return {name: made[name] for name in wanted}


@contextmanager
def _notebook() -> Iterator[Any]:
    """Give a shell with the extension and the bundled model, in a folder of its own with the examples' files."""
    from IPython.core.interactiveshell import InteractiveShell

    os.environ.setdefault("IPYTHONDIR", tempfile.gettempdir())
    shell = InteractiveShell()
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        shutil.copytree(EXAMPLES, folder, dirs_exist_ok=True)
        shell.run_cell("%load_ext interp").raise_error()
        try:
            yield shell
        finally:
            shell.run_cell("%interp disconnect;").raise_error()


def _fresh(shell: Any) -> None:
    """Let go of the workers, claims and further models of the example before; the bundled model is current."""
    from interp.interface.session import session

    if session.pool is not None:
        shell.run_cell("%interp disconnect").raise_error()
    for name in set(session.models) - {"bundled"}:
        shell.run_cell(f"%interp unload {name}").raise_error()
    session.kept = []
    shell.run_cell("%interp use bundled" if session.models else "%interp load").raise_error()


def _run(shell: Any, name: str, cells: tuple[str, ...]) -> Shown:
    said = io.StringIO()
    with redirect_stdout(said):
        _fresh(shell)
        for cell in cells:
            ran = shell.run_cell(cell)
            if not ran.success:
                sys.stderr.write(said.getvalue())
            ran.raise_error()
    result = ran.result
    if result is None:
        raise RuntimeError(f"the example of {name} gives no result: end its last cell without a semicolon")
    bundle, _ = shell.display_formatter.format(result)
    return Shown(cells, bundle["text/plain"], bundle["text/html"])
