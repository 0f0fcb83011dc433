"""What every view shares: its script, its requests, its life and its place in a notebook that has no kernel."""

from __future__ import annotations

import asyncio
import os
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Self, cast
from uuid import uuid4

import anywidget
import traitlets
from IPython.display import DisplayHandle, display

from interp.errors import InputError, closest
from interp.results import Result, has_page, has_view
from interp.selection import FIELDS, Selection, checked_fields, selection
from interp.widgets._rpc import Handler, Reply, Request, Requests, parameters

STATIC = Path(__file__).parent / "static"
_VIEW = "application/vnd.jupyter.widget-view+json"
_PATIENCE = 8.0  # seconds in which a page that has our script asks for a view; as long again in a kernel that was busy
_BURST = 0.05  # seconds: of selections that arrive within it, the first and the last are made

# A view that is not on screen holds its result through here, so that only the latest few are kept alive by us.
_off_screen: deque[Result] = deque(maxlen=8)


def asset(name: str) -> str:
    """Return a built file's text: read once, or anew for each view where ``INTERP_DEV`` is set."""
    return _read(name) if "INTERP_DEV" in os.environ else _read_once(name)


def _read(name: str) -> str:
    path = STATIC / name
    if not path.is_file():
        raise InputError(f"the view's script {name} was not built; run `npm ci && npm run build` in js/, or reinstall")
    return path.read_text(encoding="utf-8")


_read_once = cache(_read)


class Shown:
    """A result in a cell's output: a picture, and below it the live view; a page shows one of them.

    Two outputs, since a front end that prefers the live view of one shows "model not found" where no kernel has it. A
    live view hides its pictures, wherever they are; a picture hides the empty place of a view that is not live.

    In VS Code they are one output: it keeps an empty row for each one that is hidden, and takes the picture by itself
    where a notebook is opened again. Where no page asks for the view, its script is missing: the picture takes its
    place.
    """

    def __init__(self, widget: Widget, result: Result, place: DisplayHandle | None) -> None:
        self._name = widget.picture
        self._view: dict[str, Any] = {
            _VIEW: {"version_major": 2, "version_minor": 0, "model_id": widget.model_id},
            "text/plain": "",
        }
        self._one = in_vscode()
        self._picture = place or DisplayHandle()
        (self._picture.display if place is None else self._picture.update)(self._bundle(result), raw=True)
        if not self._one:
            display(self._view, raw=True)
            return
        self._latest = weakref.ref(result)
        self._widget = weakref.ref(widget)
        with suppress(RuntimeError):  # Without a loop, as in a test, nobody waits.
            asyncio.get_running_loop().call_later(_PATIENCE, _idle, self.without_script)

    def update(self, result: Result) -> None:
        """Let the picture be that of `result`."""
        self._picture.update(self._bundle(result), raw=True)
        if self._one:
            self._latest = weakref.ref(result)

    def _bundle(self, result: Result) -> dict[str, Any]:
        html = f'<div class="{self._name}"><style>{_without_view(self._name)}</style>{result.html()}</div>'
        return {**(self._view if self._one else {}), "text/html": html, "text/plain": result.text()}

    def without_script(self) -> None:
        """Show the picture alone, where no page has asked for anything of the view."""
        widget, result = self._widget(), self._latest()
        if widget is not None and result is not None and not widget.asked:
            self._view = {}
            self.update(result)


def _idle(then: Callable[[], Any]) -> None:
    """Call `then` later once more: a busy kernel comes to this before it has heard what the page says."""
    asyncio.get_running_loop().call_later(_PATIENCE, then)


def publish(widget: Widget, result: Result, place: DisplayHandle | None = None) -> Shown:
    """Show `result` in the output of the running cell, live where that can be; `place` is what it then replaces."""
    return Shown(widget, result, place)


def show(result: Result, place: DisplayHandle) -> None:
    """Show `result` at `place`: live where it has a view, else its picture."""
    if has_view(result):
        publish(result.widget, result, place)
    else:
        place.update({"text/plain": result.text(), "text/html": result.html()}, raw=True)


def in_vscode() -> bool:
    """Return whether the notebook is VS Code's."""
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    return shell is not None and "__vsc_ipynb_file__" in shell.user_ns


def _place(name: str) -> str:
    # JupyterLab's, Notebook's and nbconvert's box of one output; elsewhere there is none, and nothing to hide but this.
    return f".jp-OutputArea-child:has(>*>.{name})"


def _without_view(name: str) -> str:
    """Return the style of a picture: it hides the place of the live view while there is none in it."""
    # Of all outputs only a widget's place does not say what it holds.
    return f"{_place(name)}+.jp-OutputArea-child:not(:has(>[data-mime-type],.interp-frame)){{display:none}}"


def _with_view(name: str) -> str:
    """Return the style of a live view: it hides the pictures that stand in for it."""
    return f".{name},{_place(name)}{{display:none}}"


class Widget(anywidget.AnyWidget):
    """The base of every view.

    A subclass names its script in `script`, gives its first-paint data as traits and answers `handlers()`. A view
    sends requests and nothing else: a change of state that comes from the page is refused, whatever it says.

    Parameters
    ----------
    result
        What is shown. It is held while a view of it is on screen.
    traits
        First-paint data, by the subclass' trait names.

    Raises
    ------
    TypeError
        A keyword that is not a trait.
    """

    script = ""
    _esm = traitlets.Unicode().tag(sync=True)
    _css = traitlets.Unicode().tag(sync=True)
    _style = traitlets.Unicode().tag(sync=True)
    selection = traitlets.Dict().tag(sync=True)

    # Closing comes even where making failed half-way.
    _unfollow: Callable[[], object] = staticmethod(lambda: None)
    _burst: asyncio.TimerHandle | None = None
    _shown: Result | None = None
    _weak_result: Callable[[], Result | None] = staticmethod(lambda: None)

    def __init__(self, result: Result, **traits: Any) -> None:
        known = [name for name in self.trait_names() if not name.startswith("_")]
        for name in traits:
            if name not in known:
                raise TypeError(f"{type(self).__name__} has no keyword {name!r}{closest(name, known)}")
        self._weak_result = weakref.ref(result, _closer(self))
        self._views = 0
        self._following = False
        self._latest: Mapping[str, Any] | None = None
        _off_screen.append(result)
        handlers = {"views": self._on_views, "select": self._on_select, **self.handlers()}
        self._requests = Requests(handlers, self._reply)
        self.picture = f"interp-{uuid4().hex}"
        self.asked = False
        script, css = (asset(f"{self.script}.{kind}") for kind in ("js", "css"))
        super().__init__(_esm=script, _css=css, _style=_with_view(self.picture), **traits)
        self._unfollow = selection.observe(weakly(self._follow))
        cast(Any, self.comm).on_close(weakly(self._on_page_closed))
        self._follow(selection)

    # What a subclass says.

    def __call__(self) -> Self:
        """Return the view itself: `widget` is typed with brackets as often as without."""
        return self

    def handlers(self) -> Mapping[str, Handler]:
        """Return the requests that this view makes: method → handler."""
        return {}

    def questions(self) -> Iterable[tuple[str, Mapping[str, Any]]]:
        """Return the requests, method and parameters, whose answers a page without a kernel is to have."""
        return ()

    def check_selection(self, chosen: Mapping[str, int | None]) -> None:
        """Raise InputError where `chosen` names something that this view does not hold."""

    @property
    def result(self) -> Any:
        """The result shown.

        Raises
        ------
        InputError
            It is gone: nothing held it and this view was off screen for long.
        """
        held = self._shown or self._weak_result()
        if held is None:
            raise InputError("this view's result is gone; run the cell again")
        return held

    def hold(self, result: Result) -> None:
        """Be a view of `result` from here on; a subclass tells the page what it shows of it."""
        before = self._weak_result()  # alive until it is no longer the one whose end closes this view
        self._leave_off_screen()
        self._weak_result = weakref.ref(result, _closer(self))
        del before
        if self._shown is not None:
            self._shown = result
        else:
            _off_screen.append(result)

    # Life.

    def close(self) -> None:
        """Close the view and let go of everything it held; closing twice does no harm."""
        self._unfollow()
        if self._burst is not None:
            self._burst.cancel()
            self._burst = None
        self._leave_off_screen()
        self._shown = None
        layout = self._trait_values.get("layout")
        super().close()
        if layout is not None:
            layout.close()

    def _ipython_display_(self) -> None:
        if not has_page():
            raise NotImplementedError
        publish(self, self.result)

    def _repr_mimebundle_(self, **_: Any) -> Any:
        return self.result._repr_mimebundle_(), {}

    # The page's messages.

    def _handle_msg(self, msg: Any) -> None:
        data: Any = msg.get("content", {}).get("data") if isinstance(msg, dict) else None
        method = data.get("method") if isinstance(data, dict) else None
        if method == "request_state":
            self.send_state()
        elif method == "custom":
            self._requests.receive(data.get("content"), msg.get("buffers"))
        elif method is not None:
            # Also what the page's own machinery would set (`_esm`, `layout`): the kernel alone decides a view's state.
            self._requests.receive({"id": "state", "method": "set state"})

    def _on_page_closed(self, _message: Any) -> None:
        self.close()

    def _reply(self, message: dict[str, Any], buffers: list[bytes]) -> None:
        if self.comm is not None:
            self.send(message, buffers)

    def _on_views(self, params: Mapping[str, Any], request: Request) -> Reply:  # noqa: ARG002
        """Hold the result while the page shows it; the page says how many views of it there are."""
        (self._views,) = parameters(params, count=range(1000))
        self.asked = True
        if self._views and self._shown is None:
            self._shown = self.result
            self._leave_off_screen()
        elif not self._views and self._shown is not None:
            _off_screen.append(self._shown)
            self._shown = None
        return Reply()

    def _leave_off_screen(self) -> None:
        held = self._weak_result()
        if held is not None and held in _off_screen:
            _off_screen.remove(held)

    # The selection.

    @traitlets.validate("selection")
    def _merged(self, proposal: Any) -> dict[str, int | None]:
        chosen = checked_fields(proposal["value"])
        self.check_selection(chosen)
        before = cast("dict[str, int | None]", self._trait_values.get("selection") or {})
        return {**dict.fromkeys(FIELDS), **before, **chosen}

    @traitlets.observe("selection")
    def _feed(self, change: Any) -> None:
        if not self._following and self._trait_values.get("comm") is not None:
            selection.set(**change["new"])

    def _follow(self, shared: Selection) -> None:
        """Show what is selected elsewhere, as far as this view holds it."""
        chosen: dict[str, int | None] = {}
        # A layer and a head belong together; that there is none is for each view to take or leave.
        place = {k: v for k, v in (("layer", shared.layer), ("head", shared.head)) if v is not None}
        for part in (place, *({k: getattr(shared, k)} for k in FIELDS if k not in place)):
            try:
                self.check_selection(part)
                chosen |= part
            except InputError:
                continue
        self._following = True
        try:
            self.selection = chosen
        finally:
            self._following = False

    def _on_select(self, params: Mapping[str, Any], request: Request) -> Reply:  # noqa: ARG002
        """Make a selection of the page's; of a burst, the first and the last."""
        chosen = checked_fields(params)
        self.check_selection(chosen)
        if self._burst is not None:
            self._latest = {**(self._latest or {}), **chosen}
        else:
            self.selection = chosen
            with suppress(RuntimeError):  # Without a loop, as in a test, nothing comes in bursts.
                self._burst = asyncio.get_running_loop().call_later(_BURST, weakly(self._end_of_burst))
        return Reply({**self.selection, **(self._latest or {})})

    def _end_of_burst(self) -> None:
        self._burst, latest, self._latest = None, self._latest, None
        if latest is not None:
            self.selection = latest


def weakly(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return `method` so that whoever keeps it does not keep its object."""
    weak = weakref.WeakMethod(method)
    return lambda *arguments: (bound := weak()) and bound(*arguments)


def _closer(widget: Widget) -> Callable[[Any], None]:
    """Return what closes `widget` when its result is gone and nothing shows it any more."""
    weak = weakref.ref(widget)
    system = sys  # at the interpreter's end this module's own names are gone before the view is

    def close(_: Any) -> None:
        target = weak()
        if target is not None and not system.is_finalizing():
            target.close()

    return close
