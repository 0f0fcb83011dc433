"""A page under VS Code's conditions, in which cells' outputs and live views stand.

The widget runtime is VS Code's own: npm's ``@vscode/jupyter-ipywidgets8``, with anywidget's module beside it. Round it
`vscode.js` does what the Jupyter extension and the notebook's page do, as it was measured there or stands in their
source: buffers that travel as arrays of numbers, data links that are opened only in base64, keys that reach the page,
an `interrupt()` that never answers, a kernel that a page cannot send to once it has ended, an output that keeps its
row, and updates that are lost where an output came just after its cell was cleared. Theme classes, the white box with
padding, and styles of bare elements are the page's.

The content security policy is that of VS Code's setting ``notebook.experimental.enableCsp`` (without it there is none),
stricter in all but two things: no inline script and no `eval`, nothing fetched, no image from elsewhere. The two are
``blob:``, by which anywidget imports every widget's script, and the runtime's own fonts, which it holds as data.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jupyter_core.paths import jupyter_path
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Route

from browser.lab import ROOT
from widgets.conftest import Wire

ADDRESS = "http://notebook.test/"
VIEW = "application/vnd.jupyter.widget-view+json"
RUNTIME = ROOT / "js/node_modules/@vscode/jupyter-ipywidgets8/dist/ipywidgets.js"
# Background, ink, lines; and the mark of what has the focus.
COLOURS = {
    "vscode-dark": ("#1f1f1f", "#cccccc", "transparent"),
    "vscode-light": ("#ffffff", "#3b3b3b", "transparent"),
    "vscode-high-contrast": ("#000000", "#ffffff", "#6fc3df"),
}
_FOCUS = {"vscode-dark": "#0078d4", "vscode-light": "#005fb8", "vscode-high-contrast": "#f38518"}
_POLICY = (
    "default-src 'none'; script-src 'self' blob:; style-src 'unsafe-inline'; img-src data:; font-src data:; "
    "connect-src 'none'"
)
_STYLE = """
body { margin: 0; font: 13px system-ui, sans-serif; background: $background; color: $ink;
  --vscode-editor-background: $background; --vscode-editor-foreground: $ink; --vscode-contrastBorder: $border;
  --vscode-focusBorder: $focus }
.output { box-sizing: border-box; min-height: 30px; padding: 8px; overflow-x: auto }
.output-plaintext { font-family: monospace; white-space: pre-wrap }
.cell-output-ipywidget-background { background: white !important; padding: 4px }
.cell-output-ipywidget-background :is(button, a, input, select, [tabindex="0"]) { outline: none }
.cell-output-ipywidget-background :is(button, a, input, select, [tabindex="0"]):focus {
  outline: 2px solid var(--vscode-focusBorder) !important; outline-offset: 2px !important }
table, tr, th, td { border: none; border-spacing: 0; border-collapse: collapse; text-align: right }
thead { font-weight: bold; background-color: rgba(130, 130, 130, .16) }
th, td { padding: 4px 8px }
tr:nth-child(even) { background-color: rgba(130, 130, 130, .08) }
"""
_PAGE = """<!doctype html><html><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="$policy"><style>$style</style></head>
<body class="$theme" data-vscode-theme-kind="$theme"><div id="container"><div class="cell_container"><div
class="output_container"></div></div></div><script type="module" src="host.js"></script></body></html>"""


def anywidget_module() -> Path:
    """Return anywidget's script where VS Code looks for it: among the environment's classic extensions."""
    places = [Path(folder, "anywidget", "index.js") for folder in jupyter_path("nbextensions")]
    return next(place for place in places if place.is_file())


def _serve(body: str, kind: str) -> Callable[[Route], None]:
    return lambda route: route.fulfill(body=body, content_type=kind)


class CodePage:
    """A page with one cell's outputs; `wire` is the kernel's side of it, and the page hears all that is sent there."""

    def __init__(self, chrome: Browser, wire: Wire, theme: str, width: int = 1000) -> None:
        self._wire, self._heard = wire, 0
        self.errors: list[str] = []
        self.context: BrowserContext = chrome.new_context(viewport={"width": width, "height": 900})
        self.page: Page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        self.page.expose_function("kernel", self._hear)
        background, ink, border = COLOURS[theme]
        named = {"background": background, "ink": ink, "border": border, "focus": _FOCUS[theme]}
        page = _PAGE.replace("$policy", _POLICY).replace("$style", _STYLE).replace("$theme", theme)
        for name, value in named.items():
            page = page.replace(f"${name}", value)
        files = {"": (page, "text/html")}
        sources = {"host.js": Path(__file__).with_suffix(".js"), "ipywidgets.js": RUNTIME}
        for name, path in {**sources, "anywidget.js": anywidget_module()}.items():
            files[name] = (path.read_text(encoding="utf-8"), "text/javascript")
        for name, (body, kind) in files.items():
            self.page.route(ADDRESS + name, _serve(body, f"{kind}; charset=utf-8"))
        self.page.goto(ADDRESS)
        self.page.wait_for_function("() => window.ready")
        self.rows: Locator = self.page.locator(".output_container > .output")
        self.frame: Locator = self.page.locator("section.interp-frame")

    def show(self, bundle: dict[str, Any]) -> None:
        """Show a display message's data, after all that was sent before it."""
        self._wire.told.append({"type": "display_data", "data": bundle, "at": 0.0})
        self.hear()

    def hear(self) -> None:
        """Let the page hear what has been sent since it last did."""
        self.page.evaluate("messages => hear(messages)", self._news())

    def value(self, expression: str) -> Any:
        return self.page.evaluate(expression)

    def close(self) -> None:
        self.context.close()

    def _news(self) -> list[dict[str, Any]]:
        told = self._wire.told[self._heard :]
        self._heard += len(told)
        return [{**message, "buffers": [list(part) for part in message.get("buffers", ())]} for message in told]

    def _hear(self, comm: str, data: str, buffers: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
        """Hand a message of the page's to its comm, and return what is said then."""
        if comm in self._wire.comms:
            message = {"content": {"data": json.loads(data)}, "buffers": [memoryview(bytes(part)) for part in buffers]}
            self._wire.comms[comm].handle_msg(message)
        return self._news()
