"""A Jupyter server, a browser, and a notebook open in it, as a test drives them."""

from __future__ import annotations

import ast
import importlib.resources
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from urllib.request import Request, urlopen

import nbformat
from jupyter_client.blocking.client import BlockingKernelClient
from nbformat.sign import NotebookNotary
from playwright.sync_api import Browser, BrowserContext, Locator, Page, WebSocket, sync_playwright

ROOT = Path(__file__).parents[2]
SHOTS = ROOT / "build" / "screenshots"
FRONT_ENDS = {"JupyterLab": "lab/tree", "Notebook 7": "notebooks"}
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}
TIMEOUT = 180.0  # seconds; the machine may be busy
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
]
# A name that is not the loopback's is not even looked up.
_RESOLVE = "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost"


def chromium() -> str:
    """Return the system's Chromium or Chrome; the variable CHROME may name it."""
    named = os.environ.get("CHROME")
    found = next((path for name in ([named] if named else _NAMES) if (path := shutil.which(name))), None)
    if found is None:
        raise RuntimeError(
            "no Chromium or Chrome: install one (Debian: apt-get install chromium), or let CHROME name it"
        )
    return found


@contextmanager
def browser() -> Iterator[Browser]:
    """Yield the system's browser, headless, with a new profile."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=chromium(), args=[*_FLAGS, _RESOLVE], timeout=TIMEOUT * 1e3
        )
        try:
            yield started
        finally:
            started.close()


class Server:
    """One Jupyter server on a free loopback port, with settings and files of its own, that serves both front ends."""

    def __init__(self, folder: Path) -> None:
        self.files = folder / "files"
        self.files.mkdir()
        self._places = {
            "JUPYTER_CONFIG_DIR": folder / "config",
            "JUPYTER_DATA_DIR": folder / "data",
            "JUPYTER_RUNTIME_DIR": folder / "runtime",
            "JUPYTERLAB_SETTINGS_DIR": folder / "settings",
            "JUPYTERLAB_WORKSPACES_DIR": folder / "workspaces",
            "IPYTHONDIR": folder / "ipython",
        }
        # Nothing may lie over the notebook, and nothing may ask the network for news.
        quiet = {"doNotDisturbMode": True, "checkForUpdates": False, "fetchNews": "false"}
        self._setting("@jupyterlab/apputils-extension/notification", quiet)
        # A page that is closed with changes would ask, and a save in the middle of a test would be another's.
        self._setting("@jupyterlab/docmanager-extension/plugin", {"autosave": False})
        # Else Notebook 7 is never wider than a page of paper.
        self._setting("@jupyter-notebook/notebook-extension/full-width-notebook", {"fullWidthNotebook": True})
        self.token = secrets.token_hex(16)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        options = {
            "ServerApp.ip": "127.0.0.1",
            "ServerApp.port": self.port,
            "ServerApp.port_retries": 0,
            "ServerApp.root_dir": self.files,
            "ServerApp.allow_root": True,
            "IdentityProvider.token": self.token,
            "LabApp.expose_app_in_browser": True,
            "LabApp.extension_manager": "readonly",
            "JupyterNotebookApp.expose_app_in_browser": True,
        }
        self._log = (folder / "server.log").open("w")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "jupyter_server", *(f"--{name}={value}" for name, value in options.items())],
            env=os.environ | self.environment | {"OMP_NUM_THREADS": "1"},
            stdout=self._log,
            stderr=subprocess.STDOUT,
            cwd=folder,
        )
        end = time.monotonic() + TIMEOUT
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError((folder / "server.log").read_text()[-2000:])
            time.sleep(0.1)

    @property
    def environment(self) -> dict[str, str]:
        return {name: str(place) for name, place in self._places.items()}

    def ask(self, path: str, method: str = "GET") -> Any:
        headers = {"Authorization": f"token {self.token}"}
        with urlopen(Request(self.url + path, method=method, headers=headers), timeout=TIMEOUT) as answer:
            return json.loads(answer.read() or "null")

    def kernel(self, notebook: str) -> str | None:
        """Return the id of the kernel that `notebook` runs on."""
        found = [session["kernel"]["id"] for session in self.ask("api/sessions") if session["path"] == notebook]
        return found[0] if found else None

    def ready(self, notebook: str) -> bool:
        """Return whether the notebook's kernel is idle and a page is connected to it."""
        found = [session["kernel"] for session in self.ask("api/sessions") if session["path"] == notebook]
        return bool(found) and found[0]["execution_state"] == "idle" and found[0]["connections"] > 0

    def sign(self, notebook: nbformat.NotebookNode) -> None:
        """Mark a notebook as trusted: as one whose outputs came about here."""
        NotebookNotary(data_dir=str(self._places["JUPYTER_DATA_DIR"])).sign(notebook)

    def shut_down(self, notebook: str) -> None:
        for session in self.ask("api/sessions"):
            if session["path"] == notebook:
                self.ask(f"api/sessions/{session['id']}", "DELETE")

    def connection(self, kernel: str) -> Path:
        return self._places["JUPYTER_RUNTIME_DIR"] / f"kernel-{kernel}.json"

    def stop(self) -> None:
        for session in self.ask("api/sessions"):
            self.ask(f"api/sessions/{session['id']}", "DELETE")
        self._process.terminate()
        self._process.wait(30)
        self._log.close()

    def _answers(self) -> bool:
        try:
            return bool(self.ask("api/status"))
        except OSError:
            return False

    def _setting(self, plugin: str, values: dict[str, Any]) -> None:
        path = self._places["JUPYTERLAB_SETTINGS_DIR"] / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))


class Kernel:
    """The kernel of a notebook, asked beside its page."""

    def __init__(self, connection: Path) -> None:
        # Playwright's loop runs in the test's thread, and the client wants one of its own.
        self._thread = ThreadPoolExecutor(1)
        self._client = self._thread.submit(self._connect, connection).result(TIMEOUT)

    def value(self, expression: str) -> Any:
        """Return what a Python expression gives in the kernel, by way of JSON."""
        reply = self._thread.submit(self._execute, "", f"__import__('json').dumps({expression})").result(TIMEOUT)
        found = reply["user_expressions"]["value"]
        assert found["status"] == "ok", "\n".join(found.get("traceback", [str(found)]))
        return json.loads(ast.literal_eval(found["data"]["text/plain"]))

    def run(self, code: str) -> None:
        """Run Python in the kernel, unseen by the page."""
        reply = self._thread.submit(self._execute, code, "None").result(TIMEOUT)
        assert reply["status"] == "ok", "\n".join(reply.get("traceback", [str(reply)]))

    def stop(self) -> None:
        self._thread.submit(self._client.stop_channels).result(TIMEOUT)
        self._thread.shutdown()

    @staticmethod
    def _connect(connection: Path) -> BlockingKernelClient:
        client = BlockingKernelClient(connection_file=str(connection))
        client.load_connection_file()
        client.start_channels(iopub=False, stdin=False, hb=False, control=False)
        return client

    def _execute(self, code: str, expression: str) -> dict[str, Any]:
        asked = self._client.execute(code, silent=True, user_expressions={"value": expression})
        while True:
            message = self._client.get_shell_msg(timeout=TIMEOUT)
            if message["parent_header"].get("msg_id") == asked:
                return message["content"]


@dataclass
class Traffic:
    """What a page said to whom."""

    requests: list[str] = field(default_factory=list)
    received: list[int] = field(default_factory=list)  # bytes of each frame from a kernel
    sockets: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def foreign(self) -> list[str]:
        """Return the addresses that are not this machine's."""
        addresses = [urlsplit(url) for url in (*self.requests, *self.sockets)]
        return [
            at.geturl()[:200] for at in addresses if at.scheme not in {"data", "blob"} and at.hostname not in _LOOPBACK
        ]

    def kernels(self) -> list[str]:
        return [url for url in self.sockets if "/api/kernels/" in url]


class Notebook:
    """A notebook open in a front end."""

    def __init__(self, server: Server, context: BrowserContext, front_end: str, name: str) -> None:
        self.server = server
        self.front_end = front_end
        self.name = name
        self.traffic = Traffic()
        self.page: Page = context.new_page()
        self.page.set_default_timeout(TIMEOUT * 1e3)
        self.page.on("request", lambda request: self.traffic.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.traffic.errors.append(str(error)))
        self.page.on("websocket", self._socket)
        self._kernel: Kernel | None = None
        self.load()

    def load(self) -> None:
        """Load the page, and wait for the notebook to be there."""
        query = f"token={self.server.token}" + ("&reset" if self.front_end == "JupyterLab" else "")
        self.page.goto(f"{self.server.url}{FRONT_ENDS[self.front_end]}/{quote(self.name)}?{query}")
        self.page.locator(".jp-Notebook .jp-Cell").first.wait_for()

    @property
    def kernel(self) -> Kernel:
        if self._kernel is None:
            self.until(lambda: self.server.ready(self.name), "the kernel is idle and connected")
            identity = self.server.kernel(self.name)
            assert identity is not None
            self._kernel = Kernel(self.server.connection(identity))
        return self._kernel

    def without_kernel(self) -> None:
        """Answer the question for a kernel with "No Kernel"."""
        dialog = self.page.locator(".jp-Dialog")
        dialog.locator("select").select_option(label="No Kernel")
        dialog.locator(".jp-mod-accept").click()
        dialog.wait_for(state="detached")

    def cell(self, index: int) -> Locator:
        return self.page.locator(".jp-Notebook .jp-Cell").nth(index)

    def output(self, index: int) -> Locator:
        return self.cell(index).locator(".jp-OutputArea-output")

    def run(self, index: int) -> None:
        """Run a cell as a user does, and wait for its end."""
        assert self.kernel
        cell = self.cell(index)
        prompt = cell.locator(".jp-InputPrompt")
        before = prompt.inner_text()
        cell.locator(".jp-InputArea-editor").click(position={"x": 40, "y": 8})
        # A run before the session is bound to the page is dropped without a word: ask again until it is heard.
        for _ in range(int(TIMEOUT / 10)):
            self.page.keyboard.press("Control+Enter")
            try:
                self.until(lambda: prompt.inner_text() != before, "the cell runs", 10)
                break
            except AssertionError:
                cell.locator(".jp-InputArea-editor").click(position={"x": 40, "y": 8})
        self.until(lambda: re.search(r"\d", prompt.inner_text()), f"cell {index} has run", 2 * TIMEOUT)

    def command(self, name: str, **arguments: Any) -> None:
        self.page.evaluate(
            "([name, given]) => window.jupyterapp.commands.execute(name, given).then(() => null)", [name, arguments]
        )

    def theme(self, name: str) -> None:
        """Change the theme of the open page."""
        self.command("apputils:change-theme", theme=THEMES[name])
        light = str(name == "light").lower()
        self.page.locator(f"body[data-jp-theme-light={light}]").wait_for(state="attached")

    def save(self) -> nbformat.NotebookNode:
        """Save with the keyboard, and return what is on the disk then."""
        path = self.server.files / self.name
        before = path.stat().st_mtime_ns
        self.page.keyboard.press("Control+s")

        def read() -> nbformat.NotebookNode | None:
            try:
                return nbformat.read(path, as_version=4) if path.stat().st_mtime_ns != before else None
            except nbformat.reader.NotJSONError:  # half of it
                return None

        return self.until(read, "the notebook is saved")

    def until(self, condition: Callable[[], Any], what: str, seconds: float = TIMEOUT) -> Any:
        """Wait for `condition`, and return what it gave."""
        end = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}"
            self.page.wait_for_timeout(40)
        return found

    def shot(self, place: Locator, name: str) -> bytes:
        """Keep a picture of `place`, to be looked at, and return it (PNG)."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        return place.screenshot(path=SHOTS / f"{name}.png")

    def close(self) -> None:
        if self._kernel:
            self._kernel.stop()
        self.page.close()

    def _socket(self, socket: WebSocket) -> None:
        self.traffic.sockets.append(socket.url)
        socket.on("framereceived", lambda frame: self.traffic.received.append(len(frame)))


def write(server: Server, name: str, sources: Sequence[str], **metadata: Any) -> str:
    """Write a notebook of code cells, and return its name."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    notebook.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}, **metadata}
    nbformat.write(notebook, server.files / name)
    return name


def serious(notebook: Notebook, frame: Locator) -> list[str]:
    """Return what axe finds wrong with a view that matters, one line each."""
    notebook.page.evaluate(importlib.resources.files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8"))
    found = frame.evaluate("e => axe.run(e, { resultTypes: ['violations'] })")
    assert len(found["passes"]) > 5, "axe looked at nothing"
    return [
        f"{rule['impact']} {rule['id']}: {node['html'][:120]} {node['failureSummary'][:200]}"
        for rule in found["violations"]
        if rule["impact"] in {"serious", "critical"}
        for node in rule["nodes"]
    ]
