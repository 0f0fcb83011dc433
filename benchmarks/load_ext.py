"""What ``%load_ext interp`` costs in a fresh process, beside an extension that does nothing and the limit of 50 ms."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

LIMIT = 0.050  # seconds
CODE = """\
import sys, time
sys.path.insert(0, {folder!r})
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
started = time.perf_counter()
shell.run_line_magic("load_ext", {extension!r})
print(time.perf_counter() - started, "torch" in sys.modules)
"""


def seconds(extension: str, folder: str) -> tuple[float, bool]:
    code = CODE.format(folder=folder, extension=extension)
    took, torch = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    return float(took), torch == "True"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "does_nothing.py").write_text("def load_ipython_extension(shell): pass\n")
        ours, nothing = [], []
        for _ in range(7):  # interleaved, so that both meet the same noise
            ours.append(seconds("interp", folder))
            nothing.append(seconds("does_nothing", folder))
    median = statistics.median(took for took, _ in ours)
    empty = statistics.median(took for took, _ in nothing)
    print(f"%load_ext interp    {1000 * median:6.1f} ms   torch imported: {any(torch for _, torch in ours)}")
    print(f"an empty extension  {1000 * empty:6.1f} ms   ratio {median / empty:.1f}")
    print(f"limit               {1000 * LIMIT:6.1f} ms   ratio {median / LIMIT:.2f}")


if __name__ == "__main__":
    main()
