"""What techniques return: frozen dataclasses of numpy arrays and token strings that know how they were made.

A Result is data first. How it is drawn is named by a ``"module:attribute"`` string that is resolved when a picture is
asked for, so that this file imports nothing of ours but `spec`.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from interp import files
from interp.errors import InputError, closest, printable
from interp.hints import OF_RESULTS
from interp.results.code import kind_of, name_of, spelled
from interp.results.provenance import Provenance
from interp.results.saving import as_data, as_json, as_npz, header

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from interp.results.verified import Verified


def resolve(reference: str) -> Any:
    """Import what a ``"module:attribute"`` string names."""
    module, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module), attribute)


def views_of(result: Result) -> Views:
    """Return what has been shown of `result`."""
    return result._views  # pyright: ignore[reportPrivateUsage]


def held_in(result: Result) -> Iterable[Result]:
    """Return the results that `result` is made of."""
    return result._held()  # pyright: ignore[reportPrivateUsage]


def has_view(result: Result) -> bool:
    """Return whether `result` is of a kind that has an interactive view."""
    return result._widget is not None  # pyright: ignore[reportPrivateUsage]


@dataclass(frozen=True)
class Filed:
    """What files of a kind of result need beside its declared types."""

    reader: str | None
    check: str | None
    beside: frozenset[str]


def filed(kind: type[Result]) -> Filed:
    """Return what its files need."""
    return Filed(kind._reader, kind._check, kind._beside)  # pyright: ignore[reportPrivateUsage]


def has_page() -> bool:
    """Return whether a Jupyter kernel runs this code, so that a page may show live views."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


@dataclass
class Views:
    """The live view that was made of a result, and where its cell has shown it; a copy of the result has its own.

    Attributes
    ----------
    made
        The live view.
    settled
        Whether the cell that runs has shown it.
    place
        Gives the output of the running cell that the result is to take, once; ``None`` where it has one of its own.
    """

    made: Any = None
    settled: bool = False
    place: Callable[[Result], Any] = lambda result: None  # noqa: ARG005


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Result:
    """The base of everything a command returns.

    Subclasses are frozen dataclasses. They name their picture in `_html` (``(result) -> str``, a self-contained
    fragment) and, where they have one, their figure in `_svg` (``(result, theme="light" | "dark") -> str``), their
    Plotly figure in `_plotly` and their widget in `_widget`. Of files, `_reader` makes fields of what one holds
    (``(fields, size) -> fields``), `_check` looks over what was made of them, `_beside` names what is no field.
    """

    provenance: Provenance = field(default_factory=Provenance)
    notes: tuple[str, ...] = ()
    _live: Any = field(default=None, repr=False, compare=False)

    _html: ClassVar[str] = "interp.views.kit.table:html"
    _svg: ClassVar[str | None] = None
    _plotly: ClassVar[str | None] = None
    _widget: ClassVar[str | None] = None
    _reader: ClassVar[str | None] = None
    _check: ClassVar[str | None] = None
    _beside: ClassVar[frozenset[str]] = frozenset()

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle holds: the data, without the view that this object has made."""
        return {name: value for name, value in self.__dict__.items() if name != "_views"}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        instead = f"; {OF_RESULTS[name]} gives it" if name in OF_RESULTS else closest(name, dir(self))
        raise AttributeError(f"{type(self).__name__} has no {name!r}{instead}")

    def __getitem__(self, index: Any) -> Any:
        arrays = [name for name, value in vars(self).items() if isinstance(value, np.ndarray)]
        held = f"its arrays are {', '.join(arrays)}" if arrays else "its data are its fields"
        raise TypeError(f"{type(self).__name__} is no list: {held}; to_frame() is a table")

    __iter__ = None  # or Python would try the numbers from 0 on

    @cached_property
    def _views(self) -> Views:
        return Views()

    @property
    def tokens_taken(self) -> tuple[tuple[str, str, int], ...]:
        """(typed, string, id) of each answer or target: which token was taken for what was typed."""
        return self.provenance.tokens_taken

    def summary(self) -> str:
        """Return one line that says what this is, without the class name."""
        return self.provenance.technique

    def __repr__(self) -> str:
        summary = printable(self.summary())
        part = ", partial" if any(note.startswith("partial") for note in self.notes) else ""
        return f"{type(self).__name__}({summary if len(summary) <= 300 else summary[:299] + '…'}{part})"

    def text(self) -> str:
        """Return what a terminal shows."""
        notes = (f"note: {printable(note)}" for note in self.notes)
        return "\n".join([repr(self), *map(printable, self._lines()), *notes])

    def _lines(self) -> Iterable[str]:
        """Return a few lines of the strongest numbers, for who reads without a picture."""
        return ()

    def to_frame(self) -> pd.DataFrame:
        """Return the result as a pandas table."""
        raise NotImplementedError(f"{type(self).__name__} has no table")

    def pairs_frame(self, **where: Any) -> pd.DataFrame:
        """Return the numbers of single pairs as a long pandas table: one row per pair and layer, head, position ….

        Parameters
        ----------
        where
            Which rows: the label of a column, or a list of labels. Of numbers that are in a file no others are read.

        Raises
        ------
        InputError
            This kind of result has none, there is no such column or label, or the file is not there.

        Examples
        --------
        >>> found = interp.patch(task="ioi", n=4)
        >>> len(found.pairs_frame(layer=0, head=[1, 2]))
        8
        """
        return cast("pd.DataFrame", resolve("interp.results.per_pair:frame")(self, where))

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
                written = name_of(value) or name
                own.append(f"{written} = {kind_of(value)}")
            words[name] = written
        first = [words.pop("prompt")] if "prompt" in words else []
        inside = ", ".join([*first, *(f"{name}={written}" for name, written in words.items())])
        return f"interp.{self.provenance.technique.replace('-', '_')}({inside})", own

    def verify(self, model: Any = None, **given: Any) -> Verified:
        """Run the call again on the model as it is now, and compare every number: do they still hold?

        Parameters
        ----------
        model
            A loaded model or its name; the result's own when not given, or the current one if it is the same.
        given
            Arguments of the call that are not kept, such as a function or a circuit.

        Returns
        -------
        Verified
            Whether they do, how much each field changed, or what is lacking to tell.

        Raises
        ------
        InputError
            An argument that the call does not have, or no model of that name is loaded.

        Examples
        --------
        >>> result.verify().verdict
        'holds: all ... values are equal'
        """
        return cast("Verified", resolve("interp.interface.verifying:again")(self, model, given))

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

    def _page(self) -> str:
        """Return what writes this as a page: its live view, where it has one, else its picture."""
        return "interp.views.export:page" if self._widget is None else "interp.widgets.alone:page"

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
        if self._views.made is None or self._views.made.comm is None:
            self._views.made = resolve(self._widget)(self)
        return self._views.made

    def _ipython_display_(self) -> None:
        shown, self._views.settled = self._views.settled, False
        if shown:
            return
        if (place := self._views.place(self)) is not None:
            resolve("interp.widgets._base:show")(self, place)
            return
        if self._widget is None or not has_page():
            raise NotImplementedError  # IPython then shows what follows.
        resolve("interp.widgets._base:publish")(self.widget, self)

    def _repr_mimebundle_(self, **_options: Any) -> dict[str, str]:
        return {"text/plain": self.text(), "text/html": self.html()}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the result to `path`; the suffix says how: .json, .npz, .html, .svg or .png.

        As .parquet its numbers of single pairs are written, the table of `pairs_frame`, by pyarrow.

        Returns
        -------
        Path
            The file that was written; an existing regular file is replaced in one step.

        Raises
        ------
        InputError
            An unknown suffix, a relative path that climbs out of the working directory, a symbolic link, a name that
            no file can have, a disk that is full. The old file is then as it was.

        Examples
        --------
        >>> result.save("attention.html").name
        'attention.html'
        """
        writers: dict[str, Callable[[], bytes]] = {
            ".json": lambda: as_json({**self._saved(), "interp": header(self)}),
            ".npz": lambda: as_npz(self),
            ".html": lambda: cast(str, resolve(self._page())(self)).encode(),
            ".svg": lambda: self.svg().encode(),
            ".png": self.png,
        }
        target = files.writable(path)
        if target.suffix.lower() == ".parquet":
            return cast(Path, resolve("interp.results.per_pair:written")(self, target))
        writer = writers.get(target.suffix.lower())
        if writer is None:
            raise InputError(f"cannot save as {target.suffix or 'a file without a suffix'}; use {', '.join(writers)}")
        return files.write(target, writer())

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

    def _run(self, task: Callable[[Any], Any], what: str, instead: str = "") -> Any:
        """Return what `task` gives of the model that made this.

        Raises
        ------
        InputError
            There is none: `what` needs it.
        """
        if self._live is None:
            raise InputError(f"{what} needs the model; run the cell again{instead}")
        return self._live.run(task)

    def _held(self) -> Iterable[Result]:
        """Return the results that this one is made of, which were computed with it and can be opened."""
        return ()

    def _pairs(self) -> Any:
        """Return the `per_pair.PairTable` of its numbers of single pairs; ``None`` where it has none."""
        return None

    def _saved(self) -> Any:
        """Return what a JSON file of this holds."""
        return as_data(self)
