"""A source tree by its folder or its git revision, for what compares two of them."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]


@contextmanager
def tree(wanted: str) -> Iterator[Path]:
    """Give the folder of a source tree; a revision is checked out into a temporary worktree, and removed after.

    Parameters
    ----------
    wanted
        A folder that holds ``src/interp``, or anything that git takes for a commit.
    """
    if (Path(wanted) / "src" / "interp").is_dir():
        yield Path(wanted).resolve()
        return
    with tempfile.TemporaryDirectory(prefix="interp-tree-") as place:
        folder = Path(place) / "tree"
        _git("worktree", "add", "--quiet", "--detach", str(folder), wanted)
        try:
            yield folder
        finally:
            _git("worktree", "remove", "--force", str(folder))


def named(folder: Path) -> str:
    """Return a tree's commit in short, with a mark where its files are not those of the commit."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty=, with changes", "--abbrev=10", "--exclude=*"]
    found = subprocess.run(command, capture_output=True, text=True)
    return f"{folder} ({found.stdout.strip() or 'no commit'})"


def environment(folder: Path) -> Mapping[str, str]:
    """Return the environment of a process that imports interp from `folder`, on one thread and without a network."""
    fixed = {"PYTHONPATH": str(folder / "src"), "PYTHONHASHSEED": "0", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    return {**os.environ, **fixed, **threads, "TOKENIZERS_PARALLELISM": "false", "PYTHONDONTWRITEBYTECODE": "1"}


def _git(*words: str) -> None:
    subprocess.run(["git", "-C", str(ROOT), *words], check=True)
