"""A page under VS Code's conditions, as they were measured there, in which one live view stands.

Its theme's classes and variables, a white box with padding round each widget, a content security policy, buffers that
travel as arrays of numbers, data links that are opened only in base64, keys that reach the page, an `interrupt()` that
never answers, and a kernel that a page cannot send to once it has ended.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Locator, Page, Route

from interp.widgets._base import Widget
from widgets.conftest import Wire, deliver

ADDRESS = "http://notebook.test/"
COLOURS = {
    "vscode-dark": ("#1f1f1f", "#cccccc", "transparent"),
    "vscode-light": ("#ffffff", "#3b3b3b", "transparent"),
    "vscode-high-contrast": ("#000000", "#ffffff", "#6fc3df"),
}
_POLICY = "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; img-src data:; connect-src 'none'"
_PAGE = """<!doctype html><html><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<style>body{{margin:0;background:{background};color:{ink};--vscode-editor-background:{background};
--vscode-editor-foreground:{ink};--vscode-contrastBorder:{border}}}
.cell-output-ipywidget-background{{background:white!important;padding:4px}}</style></head>
<body class="{theme}"><div class="output"><div class="cell-output-ipywidget-background"><div
class="cell-output-ipywidget-background" id="place"></div></div></div><script type="module" src="host.js"></script>
</body></html>"""
_HOST = """
import mount from "./view.js";
const bytes = numbers => new DataView(Uint8Array.from(numbers).buffer);
const listeners = {};
window.heard = []; window.saved = []; window.refused = []; window.ended = false;
addEventListener("keydown", ({ key }) => heard.push(key));
addEventListener("click", event => {
  const link = event.target.closest?.("a[href^='data:']");
  if (!link) return;
  event.preventDefault();
  (/^data:[^,]*;base64,/.test(link.href) ? saved : refused).push([link.download, link.href]);
}, true);
const { traits, buffers, css } = await state();
const sheet = document.createElement("style");
sheet.textContent = css;
document.head.append(sheet);
for (const [path, numbers] of buffers) {
  const last = path.at(-1);
  path.slice(0, -1).reduce((part, key) => part[key], traits)[last] = bytes(numbers);
}
const model = {
  get: name => traits[name],
  on: (name, heard) => (listeners[name] ??= new Set()).add(heard),
  off: (name, heard) => listeners[name]?.delete(heard),
  widget_manager: { kernel: { status: "busy", interrupt: () => new Promise(() => {}) } },
  send(content) {
    if (window.ended) throw new Error("Cannot send");
    kernel(JSON.stringify(content)).then(answers => {
      for (const [message, parts] of answers)
        for (const heard of listeners["msg:custom"] ?? []) heard(message, parts.map(bytes));
    });
  },
};
const signal = new AbortController().signal;
mount().render({ model, el: document.getElementById("place"), signal });
window.mounted = true;
"""


def _serve(body: str, kind: str) -> Callable[[Route], None]:
    return lambda route: route.fulfill(body=body, content_type=kind)


class CodePage:
    """A live view of `widget` in such a page."""

    def __init__(self, chrome: Browser, widget: Widget, wire: Wire, theme: str, width: int = 1000) -> None:
        self._wire, self._widget = wire, widget
        self.errors: list[str] = []
        self.context: BrowserContext = chrome.new_context(viewport={"width": width, "height": 900})
        self.page: Page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        self.page.expose_function("kernel", self._hear)
        self.page.expose_function("state", self._state)
        background, ink, border = COLOURS[theme]
        page = _PAGE.format(policy=_POLICY, theme=theme, background=background, ink=ink, border=border)
        files = {"": (page, "text/html"), "host.js": (_HOST, "text/javascript")}
        files["view.js"] = (widget._esm, "text/javascript")
        for name, (body, kind) in files.items():
            self.page.route(ADDRESS + name, _serve(body, f"{kind}; charset=utf-8"))
        self.page.goto(ADDRESS)
        self.page.wait_for_function("() => window.mounted")
        self.frame: Locator = self.page.locator("section.interp-frame")
        self.frame.wait_for()

    def value(self, expression: str) -> Any:
        return self.page.evaluate(expression)

    def close(self) -> None:
        self.context.close()

    def _hear(self, content: str) -> list[Any]:
        self._wire.clear()
        deliver(self._widget, json.loads(content))
        return [[message, [list(part) for part in buffers]] for message, buffers in self._wire.customs()]

    def _state(self) -> Any:
        """Return the widget's traits, and its bytes beside them as numbers: where they belong, and what they are."""
        from ipywidgets.widgets.widget import _remove_buffers

        state, paths, parts = _remove_buffers(self._widget.get_state())
        kept = {name: value for name, value in state.items() if name not in {"_esm", "_css", "layout"}}
        buffers = [[list(path), list(bytes(part))] for path, part in zip(paths, parts, strict=True)]
        return {"traits": kept, "buffers": buffers, "css": self._widget._css}
