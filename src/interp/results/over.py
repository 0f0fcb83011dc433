"""One command's results over models, checkpoints or revisions: how its numbers go, and the rows of its table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from interp.results.base import Result
from interp.results.comparison import main_column
from interp.results.tables import frame_of
from interp.results.tracking import numbers

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from interp.results.tables import Float

_COST = ("seconds", "forwards")  # of a run, which says nothing of the model


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class OverResult(Result):
    """What a command gives of one model after the other.

    Attributes
    ----------
    varies
        What it ran over: ``model``, ``folder`` or ``revision``; several with a stroke between.
    steps
        Their names, in the order in which they ran.
    results
        What each gave, whole, with its own provenance; ``None`` where it failed.
    failures
        Why, an empty string where it did not.
    numbers
        Single number of the results → ``float64 [step]``; NaN where there is none.
    measure
        The main column of the results' tables; an empty string where they have no table of numbers.
    keys
        The columns that name a row.
    rows
        What these hold, row by row, of all tables together.
    values
        ``float64 [row, step]``: the main column; NaN where a step lacks the row.
    """

    varies: str
    steps: tuple[str, ...]
    results: tuple[Result | None, ...]
    failures: tuple[str, ...]
    numbers: Mapping[str, Float]
    measure: str
    keys: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    values: Float

    _html: ClassVar[str] = "interp.views.over:html"
    _svg: ClassVar[str | None] = "interp.views.over:svg"
    _plotly: ClassVar[str | None] = "interp.views.over:plotly"

    @property
    def places(self) -> Float:
        """The steps' places on an axis, ``float64 [step]``: the numbers at the ends of their names, or 0, 1, 2 …

        Numbers are taken where all names are alike before them, such as ``step500`` and ``step1000``.
        """
        found = [re.fullmatch(r"(.*?)(\d+(?:\.\d+)?)/?", name) for name in self.steps]
        at = [float(one[2]) for one in found if one is not None]
        alike = len({one[1] for one in found if one is not None}) == 1
        if len(at) == len(self.steps) > 1 and alike and len(set(at)) == len(at):
            return np.array(at)
        return np.arange(len(self.steps), dtype=np.float64)

    @property
    def numbered(self) -> bool:
        """Whether the steps' names end in numbers that are their places."""
        return not np.array_equal(self.places, np.arange(len(self.steps))) or all(
            name.endswith(str(n)) for n, name in enumerate(self.steps)
        )

    @property
    def counted(self) -> str:
        """How many it ran over, of what: ``"3 folders"``."""
        if len(self.steps) == 1:
            return f"1 {self.varies}"
        return f"{len(self.steps)} {' and '.join(f'{one}s' for one in self.varies.split('/'))}"

    @property
    def models(self) -> list[str]:
        """The models that the results are of, as their provenance names them."""
        return [one.provenance.model for one in self.results if one is not None]

    def strongest(self, n: int = 8) -> list[int]:
        """Return the `n` rows that reach the largest value, either way, at any step; the largest first."""
        sizes = np.where(np.isfinite(self.values), np.abs(self.values), -1.0).max(1, initial=-1.0)
        return [int(row) for row in np.argsort(-sizes, kind="stable")[:n] if sizes[row] > 0]

    def moved(self) -> list[str]:
        """Return the numbers that say something of the models: those that are not the same at every step."""
        return [name for name, values in self.numbers.items() if name not in _COST and _differ(values)]

    def at(self, step: str) -> Result:
        """Return the result of one step.

        Raises
        ------
        KeyError
            There is none of that name, or it failed.
        """
        found = dict(zip(self.steps, self.results, strict=True)).get(step)
        if found is None:
            raise KeyError(f"{step}: {dict(zip(self.steps, self.failures, strict=True)).get(step) or 'no such step'}")
        return found

    def summary(self) -> str:
        """Return what ran over what, and how the first number goes."""
        done = sum(one is not None for one in self.results)
        failed = f", {len(self.steps) - done} failed" if done < len(self.steps) else ""
        said = f"{self.provenance.technique} over {self.counted}{failed}"
        moved = self.moved()
        if moved and done > 1:
            values = self.numbers[moved[0]][np.argsort(self.places)]
            ends = values[np.isfinite(values)]
            said += f": {moved[0]} {ends[0]:.4g} → {ends[-1]:.4g}"
        return said

    def text(self) -> str:
        """Return a line for each step: the first numbers that are not the same at every one."""
        shown = self.moved()[:3]
        lines = [
            f"{name}: {why}" if why else f"{name}: " + ", ".join(f"{key} {self.numbers[key][n]:.4g}" for key in shown)
            for n, (name, why) in enumerate(zip(self.steps, self.failures, strict=True))
        ]
        return "\n".join([super().text(), *lines])

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each value: its step, the step's place, what it is, of which row of the table, the value.

        Single numbers have an empty `row`.
        """
        found: list[tuple[str, float, str, str, float]] = []
        labels = [" ".join(map(str, row)) for row in self.rows]
        for n, (name, place) in enumerate(zip(self.steps, self.places.tolist(), strict=True)):
            found += [(name, place, key, "", float(values[n])) for key, values in self.numbers.items()]
            column = self.values[:, n].tolist() if self.measure else []
            found += [(name, place, self.measure, row, value) for row, value in zip(labels, column, strict=True)]
        return frame_of(found, columns=["step", "place", "quantity", "row", "value"])


def collected(
    steps: Sequence[str],
    results: Sequence[Result | None],
    failures: Sequence[str],
    *,
    varies: str,
    notes: Iterable[str] = (),
) -> OverResult:
    """Return the results of one command over `steps` as one.

    Parameters
    ----------
    results, failures
        For each step what it gave, or ``None`` and why.
    """
    done = [one for one in results if one is not None]
    single = [None if one is None else numbers(one) for one in results]
    names = dict.fromkeys(name for one in single if one is not None for name in one)
    measure, keys, rows, values = _table(results)
    shared = dict.fromkeys(note for one in done for note in one.notes)
    said = [note for note in shared if all(note in one.notes for one in done)]  # what is said of one alone it says
    failed = [f"{step}: {why}" for step, why in zip(steps, failures, strict=True) if why]
    return OverResult(
        varies=varies,
        steps=tuple(steps),
        results=tuple(results),
        failures=tuple(failures),
        numbers={
            name: np.array([np.nan if one is None else one.get(name, np.nan) for one in single]) for name in names
        },
        measure=measure,
        keys=keys,
        rows=rows,
        values=values,
        notes=(*notes, *failed, *said),
    )


def _table(results: Sequence[Result | None]) -> tuple[str, tuple[str, ...], tuple[tuple[Any, ...], ...], Float]:
    """Return the main column of the results' tables, the columns that name its rows, these, and the values."""
    import pandas as pd

    none: tuple[str, tuple[str, ...], tuple[tuple[Any, ...], ...], Float] = ("", (), (), np.zeros((0, len(results))))
    try:
        tables: dict[int, Any] = {n: one.to_frame() for n, one in enumerate(results) if one is not None}
    except NotImplementedError:
        return none
    measure, keys = main_column(list(tables.values()))
    if not measure:
        return none
    columns = {n: (table.set_index(list(keys)) if keys else table)[measure] for n, table in tables.items()}
    joined: Any = pd.concat(columns, axis=1, sort=False)
    values = np.full((len(joined), len(results)), np.nan)
    values[:, list(columns)] = joined.to_numpy(np.float64)
    rows = tuple(one if isinstance(one, tuple) else (one,) for one in joined.index.tolist())
    return measure, keys or tuple(str(name or "row") for name in joined.index.names), rows, values


def _differ(values: NDArray[np.float64]) -> bool:
    known = values[np.isfinite(values)]
    return bool(len(known)) and bool((known != known[0]).any())
