"""Take the README's pictures of the views, in JupyterLab, light and dark, into demo/images.

The attention and the patching are SmolLM2's, the circuit the bundled model's.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import fetch_smollm2
from playwright.sync_api import Locator

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from browser.attention import Viewer  # noqa: E402
from browser.lab import THEMES, Notebook, Server, browser, write  # noqa: E402

WIDTH = 1080  # px of the frame
CELLS = [
    f"%load_ext interp\nimport interp\ninterp.load({str(fetch_smollm2.fetch())!r})",
    "%%interp attention\nWhen Mary and John went to the store, John gave a drink to",
    "%interp patch --task ioi --n 16 -o patched",
    "interp.load()\ninterp.circuit(task='ioi', n=16, edges=60).validate()",
]


def shoot(notebook: Notebook, frame: Locator, name: str) -> None:
    """Write the frame's picture in each theme."""
    for theme in THEMES:
        notebook.theme(theme)
        notebook.page.wait_for_timeout(500)
        frame.screenshot(path=ROOT / "demo" / "images" / f"{name}-{theme}.png")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, browser() as chrome:
        server = Server(Path(folder))
        try:
            size = {"width": 1300, "height": 1100}
            context = chrome.new_context(viewport=size, service_workers="block")
            notebook = Notebook(server, context, "JupyterLab", write(server, "viewer.ipynb", CELLS))
            # Each view is shot as soon as it is there: what has left the screen is not on the page any more.
            notebook.run(0)
            notebook.run(1)
            viewer = Viewer(notebook, 1)
            for _ in range(3):  # the notebook's margins depend on its width
                size["width"] += WIDTH - viewer.frame.evaluate("e => e.offsetWidth")
                notebook.page.set_viewport_size(size)
                notebook.page.wait_for_timeout(500)
            # A duplicate-token head: " John" looks at the " John" before it.
            notebook.kernel.run("interp.selection.set(layer=8, head=0, query=10, key=4, position=10)")
            notebook.until(lambda: viewer.shown() == [8, 0] and "≈" not in viewer.said(), "the head is shown")
            notebook.page.mouse.move(2, 2)
            shoot(notebook, viewer.frame, "attention")
            notebook.run(2)
            notebook.kernel.run("interp.selection.set(layer=23, head=3, query=None, key=None, position=None)")
            heatmap = notebook.cell(2).locator("section.interp-frame")
            notebook.until(lambda: "L23H3" in heatmap.locator(".interp-foot").inner_text(), "the head is shown")
            shoot(notebook, heatmap, "patching")
            notebook.run(3)
            graph = notebook.cell(3).locator("section.interp-frame")
            notebook.kernel.run("interp.selection.set(layer=1, head=0, query=None, key=None, position=None)")
            notebook.until(lambda: "attention, first" in graph.inner_text().lower(), "the node's card is shown")
            shoot(notebook, graph, "circuit")
        finally:
            server.stop()


if __name__ == "__main__":
    main()
