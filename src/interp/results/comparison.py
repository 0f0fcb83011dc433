"""Two results of a kind, side by side, with their difference."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any, ClassVar, cast

from interp.errors import InputError, unknown
from interp.results import Result, spelled

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Comparison(Result):
    """Two results of one kind, row by row of their tables.

    Attributes
    ----------
    a, b
        The results.
    measure
        The column that differences are ranked by.
    keys, numbers
        The columns that name a row, and those that are compared.
    """

    a: Result
    b: Result
    measure: str
    keys: tuple[str, ...]
    numbers: tuple[str, ...]

    _html: ClassVar[str] = "interp.views.comparison:html"
    _svg: ClassVar[str | None] = "interp.views.comparison:svg"
    _plotly: ClassVar[str | None] = "interp.views.comparison:plotly"

    def summary(self) -> str:
        """Return what is compared, and how alike the two are."""
        both: Any = self.to_frame()[[f"{self.measure} a", f"{self.measure} b"]].dropna()
        alike = ""
        if len(both) > 1 and (both.std(ddof=0) > 0).all():
            alike = f", correlation {both.corr().iloc[0, 1]:.2f}, rank correlation {both.rank().corr().iloc[0, 1]:.2f}"
        return f"{' against '.join(self.names)}: {self.measure} of {len(both)} rows{alike}"

    @property
    def names(self) -> tuple[str, str]:
        """What the two sides are called: model and technique."""
        first, second = (f"{side.provenance.model} {side.provenance.technique}".strip() for side in (self.a, self.b))
        return first or "a", second or "b"

    def _call(self) -> tuple[str, list[str]]:
        (first, own), (second, also) = self.a._call(), self.b._call()
        return f"interp.compare({first}, {second}, measure={self.measure!r})", [*own, *also]

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each that either has: keys, and for each number ``x a``, ``x b`` and ``x difference``.

        The difference is b − a; NaN where one of them lacks the row.
        """
        import pandas as pd

        first: Any = self.a.to_frame()
        second: Any = self.b.to_frame()
        keys = list(self.keys)
        if not keys:
            first, second = first.reset_index(names="row"), second.reset_index(names="row")
            keys = ["row"]
        joined: Any = pd.merge(first, second, on=keys, how="outer", suffixes=(" a", " b"), sort=False)
        table = {name: joined[name] for name in keys}
        for name in self.numbers:
            table |= {f"{name} {which}": joined[f"{name} {which}"] for which in "ab"}
            table[f"{name} difference"] = joined[f"{name} b"] - joined[f"{name} a"]
        return pd.DataFrame(table)

    def top(self, n: int = 10) -> pd.DataFrame:
        """Return the `n` rows whose `measure` differs most, the largest difference first."""
        table: Any = self.to_frame()
        keys = [name for name in table.columns if not name.endswith((" a", " b", " difference"))]
        shown = table[[*keys, *(f"{self.measure} {which}" for which in ("a", "b", "difference"))]]
        size = shown[f"{self.measure} difference"].abs()
        return cast("pd.DataFrame", shown.loc[size.dropna().sort_values(ascending=False, kind="stable").index[:n]])


def compare(a: Any, b: Any, *, measure: str | None = None) -> Comparison:
    """Put two results of a kind side by side, with the difference b − a of every row of their tables.

    Parameters
    ----------
    a, b
        Results of one class, of two models, prompts, seeds or moments.
    measure
        The column that differences are ranked by; the result's main number when not given.

    Returns
    -------
    Comparison
        A Result: it shows and saves itself like the two.

    Raises
    ------
    InputError
        Results of two kinds, ones without a table of numbers, or whose rows do not match at all.

    Examples
    --------
    >>> before, after = interp.attention("The cat sat"), interp.attention("The dog sat")
    >>> len(interp.compare(before, after).top(3))
    3
    """
    for given in (a, b):
        if not isinstance(given, Result):
            raise InputError(f"compare takes two results; {type(given).__name__} is none")
    if type(a) is not type(b):
        raise InputError(f"compare takes two results of one kind; these are {type(a).__name__} and {type(b).__name__}")
    try:
        tables: list[Any] = [a.to_frame(), b.to_frame()]
    except NotImplementedError as error:
        raise InputError(f"{error}, and compare needs one") from None
    keys, numbers = _columns(tables)
    if not numbers:
        raise InputError(f"a {type(a).__name__} has no numbers in its table, and compare needs some")
    chosen = measure or _main(numbers)
    if chosen not in numbers:
        raise unknown("number", chosen, numbers, f"compare has {', '.join(numbers)}")
    made = Comparison(a=a, b=b, measure=chosen, keys=keys, numbers=tuple(numbers), notes=_unlike(a, b))
    joined: Any = made.to_frame()
    if joined[f"{chosen} difference"].isna().all():
        raise InputError("the two results have no row in common; compare ones of the same axes")
    return made


def main_column(tables: Sequence[Any]) -> tuple[str, tuple[str, ...]]:
    """Return the main number of tables of one kind, and the columns that name their rows; an empty name for none.

    Examples
    --------
    >>> from interp.results.tables import frame_of
    >>> main_column([frame_of({"head": ["0.1"], "share": [0.5], "effect": [1.5]})])
    ('effect', ('head',))
    """
    keys, numbers = _columns(tables)
    return (_main(numbers), keys) if numbers else ("", ())


def _columns(tables: Sequence[Any]) -> tuple[tuple[str, ...], list[str]]:
    """Return the columns that name a row in all tables, and those that are compared."""
    shared = [str(name) for name in tables[0].columns if all(name in table.columns for table in tables)]
    keys = _keys(tables, shared)
    return keys, [name for name in shared if name not in keys and all(_measured(table[name]) for table in tables)]


def _main(numbers: Sequence[str]) -> str:
    return next((name for name in _MAIN if name in numbers), numbers[0])


def _keys(tables: Sequence[Any], shared: list[str]) -> tuple[str, ...]:
    """Return the columns that name a row in all tables, as few as do; none where rows are told apart by place alone.

    A table begins with what its rows are (layer, head …) and goes on to what was found, such as the likeliest token,
    which names nothing: where that differs is what a comparison is to say.
    """
    leading = list(takewhile(lambda name: not any(_measured(table[name]) for table in tables), shared))
    leading = leading or shared[:1]  # a steering's strengths
    for count in range(1, len(leading) + 1):
        parts = [table[leading[:count]] for table in tables]
        if not all(isinstance(value, Hashable) for part in parts for value in part[leading[count - 1]]):
            break
        if not any(part.duplicated().any() for part in parts):
            return tuple(leading[:count])
    return ()


def _measured(column: Any) -> bool:
    return column.dtype.kind == "f"


# Columns that differences are ranked by where a table has them, before its first number.
_MAIN = ("effect", "score", "contribution", "target probability", "probability", "value")


def _unlike(a: Result, b: Result) -> tuple[str, ...]:
    """Return how the two calls differ, which is what the difference is due to."""
    first, second = a.provenance, b.provenance
    found = [
        f"{what}: {x} in a, {y} in b"
        for what, x, y in (("model", first.model, second.model), ("dtype", first.dtype, second.dtype))
        if x != y
    ]
    for name in sorted({*first.arguments, *second.arguments} - {"model"}):
        x, y = first.arguments.get(name), second.arguments.get(name)
        if None in {spelled(x), spelled(y)}:  # arrays and tables are not compared number by number
            found += [f"{name} is not the same"] if x is not y else []
        elif x != y:
            found.append(f"{name}: {x} in a, {y} in b")
    if first.model == second.model and first.fingerprint != second.fingerprint:
        found.append("the model's weights or state changed between the two")
    return tuple(found)
