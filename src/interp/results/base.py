"""What techniques return: frozen dataclasses of numpy arrays and token strings that know how they were made.

A Result is data first. How it is drawn is named by a ``"module:attribute"`` string that is resolved when a picture is
asked for, so that this file imports nothing of ours but `spec`.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from interp.errors import InputError, printable

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """How a Result was made: enough to make it again and to judge whether it can be trusted.

    Parameters
    ----------
    model, fingerprint, dtype, device
        The model's name here, the hash of its weights and state at the time, and where and how it ran.
    tokens
        Token ids of every prompt that was run, BOS included.
    technique, arguments, seed
        The call. `arguments` holds only what was given.
    path
        ``"store"`` when no forward ran, ``"forward"`` for plain forwards, ``"replay"``, ``"gradients"``, or
        ``"hooked: why"``.
    user_hooks
        Hooks of the user's own that were on the model.
    forwards, seconds
        Forward passes run, and wall-clock time.
    versions
        Of interp, torch, transformers and transformer-lens.
    """

    model: str = ""
    fingerprint: str = ""
    dtype: str = ""
    device: str = ""
    tokens: list[list[int]] = field(default_factory=list[list[int]])
    technique: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])
    seed: int | None = None
    path: str = ""
    user_hooks: tuple[str, ...] = ()
    forwards: int = 0
    seconds: float = 0.0
    versions: Mapping[str, str] = field(default_factory=dict[str, str])


def resolve(reference: str) -> Any:
    """Import what a ``"module:attribute"`` string names."""
    module, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module), attribute)


def has_page() -> bool:
    """Return whether a Jupyter kernel runs this code, so that a page may show live views."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Result:
    """The base of everything a command returns.

    Subclasses are frozen dataclasses. They name their picture in `_html` (``(result) -> str``, a self-contained
    fragment) and, where they have one, their figure in `_svg` (``(result, theme="light" | "dark") -> str``), their
    Plotly figure in `_plotly` and their widget in `_widget`.
    """

    provenance: Provenance = field(default_factory=Provenance)
    notes: tuple[str, ...] = ()
    _live: Any = field(default=None, repr=False, compare=False)

    _html: ClassVar[str] = "interp.views.table:html"
    _svg: ClassVar[str | None] = None
    _plotly: ClassVar[str | None] = None
    _widget: ClassVar[str | None] = None

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle holds: the data, without the view that this object has made."""
        return {name: value for name, value in self.__dict__.items() if name not in {"_made", "_settled"}}

    def summary(self) -> str:
        """Return one line that says what this is, without the class name."""
        return self.provenance.technique

    def __repr__(self) -> str:
        summary = printable(self.summary())
        return f"{type(self).__name__}({summary if len(summary) <= 300 else summary[:299] + '…'})"

    def text(self) -> str:
        """Return what a terminal shows."""
        return "\n".join([repr(self), *(f"note: {printable(note)}" for note in self.notes)])

    def to_frame(self) -> pd.DataFrame:
        """Return the result as a pandas table."""
        raise NotImplementedError(f"{type(self).__name__} has no table")

    def to_plotly(self, **options: Any) -> go.Figure:
        """Return the result as a Plotly figure; `options` are the figure's own."""
        if self._plotly is None:
            raise InputError(f"{type(self).__name__} has no Plotly figure; to_frame() gives its numbers")
        return cast("go.Figure", resolve(self._plotly)(self, **options))

    def code(self) -> str:
        """Return the Python call that gives this result again.

        What cannot be written down (an array, a table, a function or a model of yours) is named in the call, and a
        comment behind it says what to give that name first.

        Examples
        --------
        >>> result.code()
        "interp.attention('Alice met Bob', layer=1)"
        """
        call, own = self._call()
        return call + (f"  # first: {'; '.join(own)}" if own else "")

    def _call(self) -> tuple[str, list[str]]:
        """Return the call, and what its names must be given first."""
        words: dict[str, str] = {}
        own: list[str] = []
        for name, value in self.provenance.arguments.items():
            written = spelled(value)
            if written is None:
                called = str(getattr(value, "__name__", ""))
                written = called if called.isidentifier() else name
                own.append(f"{written} = {_kind(value)}")
            words[name] = written
        first = [words.pop("prompt")] if "prompt" in words else []
        inside = ", ".join([*first, *(f"{name}={written}" for name, written in words.items())])
        return f"interp.{self.provenance.technique.replace('-', '_')}({inside})", own

    def html(self) -> str:
        """Return the picture as a self-contained HTML fragment: no script, no network."""
        return cast(str, resolve(self._html)(self))

    def svg(self, theme: str = "light") -> str:
        """Return the picture as a standalone SVG document in the ``"light"`` or ``"dark"`` theme."""
        if self._svg is None:
            raise InputError(f"{type(self).__name__} has no picture; save it as .json, .npz or .html")
        return cast(str, resolve(self._svg)(self, theme=theme))

    def png(self, theme: str = "light", scale: float = 2.0) -> bytes:
        """Return the picture as PNG bytes; `scale` is in pixels per CSS pixel."""
        return cast(bytes, resolve("interp.views.export:png")(self.svg(theme), scale))

    @property
    def widget(self) -> Any:
        """The interactive view, made on first use and again after it was closed.

        Raises
        ------
        InputError
            This kind of result has none.
        """
        if self._widget is None:
            raise InputError(f"{type(self).__name__} has no interactive view; html() is its picture")
        made = self.__dict__.get("_made")
        if made is None or made.comm is None:
            made = resolve(self._widget)(self)
            object.__setattr__(self, "_made", made)
        return made

    def _ipython_display_(self) -> None:
        if self._widget is None or not has_page():
            raise NotImplementedError  # IPython then shows what follows.
        if not self.__dict__.pop("_settled", False):
            resolve("interp.widgets._base:publish")(self.widget, self)

    def _repr_mimebundle_(self, **_options: Any) -> dict[str, str]:
        return {"text/plain": self.text(), "text/html": self.html()}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the result to `path`; the suffix says how: .json, .npz, .html, .svg or .png.

        Returns
        -------
        Path
            The file that was written; an existing regular file is replaced in one step.

        Raises
        ------
        InputError
            An unknown suffix, a relative path that climbs out of the working directory, a symbolic link, a NUL.

        Examples
        --------
        >>> result.save("attention.html").name
        'attention.html'
        """
        writers: dict[str, Callable[[], bytes]] = {
            ".json": lambda: _json(self._saved()),
            ".npz": self._npz,
            ".html": lambda: cast(str, resolve("interp.views.export:page")(self)).encode(),
            ".svg": lambda: self.svg().encode(),
            ".png": self.png,
        }
        target = checked_path(path)
        writer = writers.get(target.suffix.lower())
        if writer is None:
            raise InputError(f"cannot save as {target.suffix or 'a file without a suffix'}; use {', '.join(writers)}")
        write_atomically(target, writer())
        return target

    def log(self, run: Any, step: int | None = None) -> None:
        """Write single numbers, picture, table and provenance to an experiment tracker, under the technique's name.

        Parameters
        ----------
        run
            A Weights & Biases run (online or offline), or a TensorBoard ``SummaryWriter``.
        step
            The training step that this belongs to.

        Raises
        ------
        InputError
            Another kind of object.

        Examples
        --------
        >>> r.log(wandb.init(mode="offline"), step=100)  # doctest: +SKIP
        """
        resolve("interp.results.tracking:log")(self, run, step)

    def _saved(self) -> Any:
        """Return what a JSON file of this holds."""
        return as_data(self)

    def _npz(self) -> bytes:
        arrays: dict[str, Any] = {}
        for name, value in _own_fields(self):
            if isinstance(value, np.ndarray):
                arrays[name] = value
            elif isinstance(value, Mapping) and any(isinstance(v, np.ndarray) for v in value.values()):
                arrays |= {f"{name}_{key}": v for key, v in value.items()}
        rest = {name: value for name, value in as_data(self, arrays=False).items() if name not in arrays}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays, meta=np.array(json.dumps(rest)))
        return buffer.getvalue()


def strongest(values: Any, n: int) -> list[tuple[int, ...]]:
    """Return where the `n` numbers furthest from 0 are, the furthest first; what is not finite is nowhere.

    Examples
    --------
    >>> strongest(np.array([[1.0, -3.0], [float("nan"), 2.0]]), 2)
    [(0, 1), (1, 1)]
    """
    size = np.where(np.isfinite(values), np.abs(values), -1.0)
    order = np.argsort(-size, axis=None, kind="stable")[:n]
    cells = [tuple(int(i) for i in np.unravel_index(at, size.shape)) for at in order]
    return [cell for cell in cells if size[cell] >= 0]


@dataclass(frozen=True)
class Own:
    """What a call was given and its result does not keep, such as a model: its kind alone."""

    kind: str


def spelled(value: Any) -> str | None:
    """Return the Python expression that gives `value` again where `interp` is imported; ``None`` where there is none.

    Examples
    --------
    >>> spelled((1, "a")), spelled(float("inf")), spelled(print)
    ("(1, 'a')", "float('inf')", None)
    """
    if value is None or isinstance(value, bool | int | str | range):
        return repr(value)
    if isinstance(value, float):
        return repr(value) if np.isfinite(value) else f"float({str(value)!r})"
    if isinstance(value, np.generic):
        return spelled(value.item())
    if isinstance(value, os.PathLike):
        return repr(os.fspath(cast("os.PathLike[str]", value)))
    if isinstance(value, list | tuple):
        items = [spelled(item) for item in cast("list[Any]", value)]
        inside = ", ".join(item for item in items if item is not None)
        if len(items) > sum(item is not None for item in items):
            return None
        return f"[{inside}]" if isinstance(value, list) else f"({inside}{',' * (len(items) == 1)})"
    if isinstance(value, Mapping):
        both = [(spelled(key), spelled(item)) for key, item in cast("Mapping[Any, Any]", value).items()]
        whole = all(key is not None and item is not None for key, item in both)
        return "{" + ", ".join(f"{key}: {item}" for key, item in both) + "}" if whole else None
    if type(value).__module__ in {"interp.spec", "interp.sites"} and is_dataclass(value):
        parts = {f.name: spelled(getattr(value, f.name)) for f in fields(value) if not _is_default(f, value)}
        inside = ", ".join(f"{name}={part}" for name, part in parts.items())
        return f"interp.{type(value).__name__}({inside})" if None not in parts.values() else None
    return None


def _is_default(one: Field[Any], value: Any) -> bool:
    default = one.default_factory() if one.default_factory is not MISSING else one.default
    held = getattr(value, one.name)
    return type(held) is type(default) and held == default


def _kind(value: Any) -> str:
    """Return what a value is, in a word or two."""
    if isinstance(value, Own):
        return f"your {printable(value.kind)}"
    shape = getattr(value, "shape", None)
    said = f"your {type(value).__name__}" + (f" {tuple(shape)}" if isinstance(shape, tuple) else "")
    return printable(said)


def _json(value: Any) -> bytes:
    # Half a surrogate pair has no bytes in UTF-8; its escape is what JSON writes for it.
    return json.dumps(value, ensure_ascii=False, indent=1).encode("utf-8", "backslashreplace")


def _own_fields(value: Any) -> list[tuple[str, Any]]:
    return [(f.name, getattr(value, f.name)) for f in fields(value) if not f.name.startswith("_")]


def as_data(value: Any, arrays: bool = True) -> Any:
    """Return `value` as what JSON can hold; arrays become nested lists, or are left out.

    NaN and infinities become the strings ``"nan"``, ``"inf"`` and ``"-inf"``, which JSON has no numbers for.
    """
    if isinstance(value, np.ndarray):
        return as_data(value.tolist()) if arrays else None
    if isinstance(value, np.generic):
        return as_data(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        held = [(k, v) for k, v in _own_fields(value) if arrays or not isinstance(v, np.ndarray)]
        return {k: as_data(v, arrays) for k, v in held}
    if isinstance(value, Mapping):
        return {str(k): as_data(v, arrays) for k, v in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [as_data(v, arrays) for v in cast("list[Any]", value)]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return repr(value)


def checked_path(path: str | os.PathLike[str]) -> Path:
    """Return `path` as a Path that is safe to write to.

    Raises
    ------
    InputError
        A NUL in the name, a relative path with ``..``, a symbolic link, a folder, or a folder that does not exist.
    """
    text = os.fspath(path)
    if "\0" in text:
        raise InputError("a file name cannot hold a NUL character")
    target = Path(text).expanduser()
    if ".." in target.parts:
        raise InputError(f"{text!r} climbs out of its folder; type the full path instead")
    if target.is_symlink():
        raise InputError(f"{text!r} is a symbolic link; type the path of the file itself")
    if target.is_dir():
        raise InputError(f"{text!r} is a folder; add a file name")
    if not target.parent.is_dir():
        raise InputError(f"there is no folder {str(target.parent)!r}; make it first")
    return target


def write_atomically(target: Path, content: bytes) -> None:
    """Replace `target` with `content` in one step, so that a full disk leaves the old file as it was."""
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
