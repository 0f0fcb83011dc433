"""The attention viewer beside CircuitsVis, for 12 layers × 12 heads × 512 tokens in JupyterLab: bytes and first paint.

Also how long a frame takes while the pointer passes over the grid of heads, and while keys choose them, beside the
16.7 ms that a screen gives. CircuitsVis shows one layer at a time: its bytes are those of all layers, its first paint
is that of one.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from browser.lab import Notebook, Server, browser, write

FRAME = 1000 / 60  # ms
CELLS = [
    f"""\
import sys
sys.path.append({sys.path[0]!r})
import interp
from interp.views.attention_exports import circuitsvis
from widgets.conftest import made
large = made(12, 12, 512)""",
    "large",
    "large.to_circuitsvis()",
]
# Resolves when a frame has shown the first canvas of a cell's output that has anything on it.
PAINTED = """index => new Promise(done => {
  const started = performance.now();
  const look = () => {
    const output = document.querySelectorAll(".jp-Notebook .jp-Cell")[index].querySelector(".jp-OutputArea");
    const painted = [...output?.querySelectorAll("canvas") ?? []].some(canvas => canvas.width > 20 && canvas.height > 20
      && canvas.getContext("2d")?.getImageData(0, 0, canvas.width, canvas.height).data.some(Boolean));
    if (painted) requestAnimationFrame(() => done(performance.now() - started));
    else setTimeout(look, 5);
  };
  look();
})"""
# Moves over every head, one a frame; answers with the frames' times and the time that each move itself took.
MOVES = """async (canvas, keys) => {
  const [frames, work] = [[], []];
  const next = () => new Promise(requestAnimationFrame);
  const { left, top, width, height } = canvas.getBoundingClientRect();
  let before = await next();
  for (let at = 0; at < 144; at++) {
    const [row, column] = [Math.floor(at / 12), at % 12];
    const place = { clientX: left + (column + 0.5) * width / 12, clientY: top + (row + 0.5) * height / 12 };
    const key = column < 11 ? (row % 2 ? "ArrowLeft" : "ArrowRight") : "ArrowDown";
    const started = performance.now();
    canvas.dispatchEvent(keys ? new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true })
      : new PointerEvent("pointermove", { ...place, bubbles: true }));
    work.push(performance.now() - started);
    const now = await next();
    frames.push(now - before);
    before = now;
  }
  return { frames, work };
}"""


def first_paint(notebook: Notebook, index: int) -> tuple[float, int]:
    """Return the seconds from the run of a cell to its first painted frame, and the bytes that came with it."""
    notebook.cell(index).locator(".jp-InputArea-editor").click()
    before = len(notebook.traffic.received)
    notebook.page.evaluate("index => { window.painted = (" + PAINTED + ")(index); }", index)
    notebook.page.keyboard.press("Control+Enter")
    took = notebook.page.evaluate("() => window.painted") / 1000
    return took, sum(notebook.traffic.received[before:])


def high(times: list[float]) -> float:
    return sorted(times)[int(0.95 * len(times))]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, browser() as chrome:
        server = Server(Path(folder))
        try:
            context = chrome.new_context(viewport={"width": 1500, "height": 1100}, service_workers="block")
            notebook = Notebook(server, context, "JupyterLab", write(server, "viewer.ipynb", CELLS))
            notebook.page.set_default_timeout(600_000)
            notebook.run(0)
            ours, sent = first_paint(notebook, 1)
            live = notebook.kernel.value("len(large.widget.atlas) + len(large.widget.first) + len(large.widget._esm)")
            grid = notebook.cell(1).locator(".interp-grid canvas")
            grid.scroll_into_view_if_needed()
            moves = {keys: grid.evaluate(MOVES, keys) for keys in (False, True)}
            theirs, one = first_paint(notebook, 2)
            every = notebook.kernel.value("sum(len(circuitsvis(large, layer).local_src) for layer in large.layers)")
        finally:
            server.stop()
    print(f"{'12 × 12 heads × 512 tokens':<34}{'interp':>14}{'CircuitsVis':>14}   ratio")
    print(f"{'bytes for the page, all heads':<34}{sent:>14,}{every:>14,}   {every / sent:,.0f} ×")
    print(f"{'  of them the live view':<34}{live:>14,}")
    print(f"{'bytes for the page, one layer':<34}{'':>14}{one:>14,}   {one / sent:,.0f} ×")
    print(f"{'first paint (theirs: one layer), s':<34}{ours:>14.2f}{theirs:>14.2f}   {theirs / ours:.1f} ×")
    for keys, what in ((False, "pointer over the grid"), (True, "keys choose heads")):
        frames, work = moves[keys]["frames"], moves[keys]["work"]
        print(
            f"{what}: a frame {statistics.median(frames):.1f} ms, 95 % below {high(frames):.1f} ms; "
            f"of it our script {statistics.median(work):.2f} ms, 95 % below {high(work):.2f} ms "
            f"({high(work) / FRAME:.0%} of {FRAME:.1f} ms)"
        )


if __name__ == "__main__":
    main()
