"""Whether a result still holds: its numbers then, beside those that the same call gives now."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from interp.errors import InputError
from interp.results.base import Result
from interp.results.comparison import compare
from interp.results.found import Found, found_in
from interp.results.provenance import Provenance
from interp.results.tables import Float, frame_of
from interp.spec import Node

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

_EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
# Of a field's largest number: what other batches, threads and kernels make of one sum, in units of the last place; and
# what another machine or library may make of it in single precision, as between runs with hooks and without.
_PLACES, _OTHERS = 64, 1e-4
_HALF_PLACES = 4


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Verified(Result):
    """A result's numbers, beside those that its call gives on the model as it is now.

    Attributes
    ----------
    state
        ``"holds"``, ``"changed"``, or ``"unverified"``: something is lacking.
    verdict
        The same in words: by how much at most, what changed most, or what is lacking.
    of
        The command that was called again.
    names
        What was compared: fields of the result, those inside of others behind a dot.
    counts, changed
        ``int64 [name]``: how many values it has, and how many of them are further apart than `tolerance`.
    largest, tolerance
        ``float [name]``: the largest absolute difference, and what is still the same; NaN of words.
    places
        Where that difference is: the indices in the field, or nothing.
    then, now
        ``float [name]``: the two values there.
    correlation
        ``float [name]``: Pearson's, of what is a number on both sides; NaN where nothing varies.
    measure
        What the picture shows: the field that changed most, or the result's main one.
    values_then, values_now
        ``float [value]``: its numbers, of which one side at least is finite.
    models, fingerprints, dtypes, devices
        (then, now): the model's name, the hash of its weights and state, how and where it ran.
    versions
        Library → (then, now).

    Examples
    --------
    >>> result.verify().state
    'holds'
    """

    state: Literal["holds", "changed", "unverified"]
    verdict: str
    of: str
    names: tuple[str, ...] = ()
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    changed: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    largest: Float = field(default_factory=lambda: np.zeros(0))
    tolerance: Float = field(default_factory=lambda: np.zeros(0))
    places: tuple[str, ...] = ()
    then: Float = field(default_factory=lambda: np.zeros(0))
    now: Float = field(default_factory=lambda: np.zeros(0))
    correlation: Float = field(default_factory=lambda: np.zeros(0))
    measure: str = ""
    values_then: Float = field(default_factory=lambda: np.zeros(0))
    values_now: Float = field(default_factory=lambda: np.zeros(0))
    models: tuple[str, str] = ("", "")
    fingerprints: tuple[str, str] = ("", "")
    dtypes: tuple[str, str] = ("", "")
    devices: tuple[str, str] = ("", "")
    versions: Mapping[str, tuple[str, str]] = field(default_factory=dict[str, "tuple[str, str]"])

    _html: ClassVar[str] = "interp.views.verified:html"
    _svg: ClassVar[str | None] = "interp.views.verified:svg"

    @property
    def holds(self) -> bool:
        """Whether every number is what it was."""
        return self.state == "holds"

    def summary(self) -> str:
        """Return the verdict."""
        return f"{self.of}: {self.verdict}" if self.of else self.verdict

    def text(self) -> str:
        """Return the verdict, what is different about the model and the libraries, and the fields that changed."""
        lines = [repr(self), *(f"note: {note}" for note in self.notes), *self.facts()]
        lines += [
            f"{self.names[n]}: {self.changed[n]:,} of {self.counts[n]:,} changed"
            for n in np.flatnonzero(self.changed).tolist()
        ]
        return "\n".join(lines)

    def facts(self) -> list[str]:
        """Return what is the same about the model and the libraries, and what is not, a line each."""
        found: list[str] = []
        if all(self.fingerprints):
            same = len(set(self.fingerprints)) == 1
            held = " → ".join(dict.fromkeys(one[:12] for one in self.fingerprints))
            found.append(f"model {'unchanged' if same else 'changed'}: {held}")
        pairs = {"name": self.models, "dtype": self.dtypes, "device": self.devices, **self.versions}
        found += [f"{what}: {a} → {b}" for what, (a, b) in pairs.items() if a != b and a and b]
        made = [f"{name} {a}" for name, (a, b) in self.versions.items() if a and not b]
        return found + [f"made with {', '.join(made)}"] * bool(made)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per field: values, how many changed, the largest difference and where, the correlation."""
        return frame_of(
            {
                "field": list(self.names),
                "values": self.counts,
                "changed": self.changed,
                "share": self.changed / np.maximum(self.counts, 1),
                "largest difference": self.largest,
                "tolerance": self.tolerance,
                "at": list(self.places),
                "then": self.then,
                "now": self.now,
                "correlation": self.correlation,
            }
        )


@dataclass(frozen=True)
class _Row:
    """One field, then and now."""

    name: str
    count: int
    changed: int
    largest: float = math.nan
    tolerance: float = math.nan
    place: str = ""
    then: float = math.nan
    now: float = math.nan
    correlation: float = math.nan


def verified(then: Result, now: Result) -> Verified:
    """Return whether two results of one call are the same, number by number.

    What counts as the same: equal numbers, or ones that are nearer than a few last places of the model's dtype at the
    field's largest number (`_PLACES` in single precision, `_HALF_PLACES` in half, or twice the noise that the result
    has measured); where a library's version, the device or the dtype is another, 1e-4 of it. Words and whole numbers
    are the same or not.
    """
    a, b = then.provenance, now.provenance
    first, second = ({one.name: one for one in found_in(result)} for result in (then, now))
    partial = any(note.startswith("partial") for note in then.notes)
    allowed = _allowed(then, now)
    rows = [
        _row(first.get(name), second.get(name), name, allowed, partial) for name in dict.fromkeys([*first, *second])
    ]
    total = sum(row.count for row in rows)
    rows = [row for row in rows if row.count and (row.changed or row.largest == row.largest)]
    main = _main(then, now, rows)
    broken = [row for row in rows if row.changed]
    chosen = next((row for row in broken if row.name == main), None) or _foremost(broken)
    largest = max((row for row in rows if row.tolerance > 0), key=lambda row: row.count, default=None)
    shown = chosen.name if chosen is not None else main or ("" if largest is None else largest.name)
    values = [one[shown].numbers.ravel() if shown in one else np.zeros(0) for one in (first, second)]
    if len(values[0]) != len(values[1]):
        values = [np.zeros(0), np.zeros(0)]
    finite = np.isfinite(values[0]) | np.isfinite(values[1])
    told = ", partial then: what was not done is not compared" if partial else ""
    verdict = _broken(then, now, broken, chosen, values) if broken else _held(rows, total, told)
    return Verified(
        state="changed" if broken else "holds",
        verdict=verdict,
        of=a.technique,
        names=tuple(row.name for row in rows),
        counts=np.array([row.count for row in rows], np.int64),
        changed=np.array([row.changed for row in rows], np.int64),
        largest=np.array([row.largest for row in rows], np.float64),
        tolerance=np.array([row.tolerance for row in rows], np.float64),
        places=tuple(row.place for row in rows),
        then=np.array([row.then for row in rows], np.float64),
        now=np.array([row.now for row in rows], np.float64),
        correlation=np.array([row.correlation for row in rows], np.float64),
        measure=shown,
        values_then=values[0][finite],
        values_now=values[1][finite],
        **provenances(a, b),
    )


def lacking(then: Result, why: str, now: Provenance | None = None) -> Verified:
    """Return that a result cannot be verified, and why."""
    found = provenances(then.provenance, now)
    return Verified(state="unverified", verdict=f"cannot be verified: {why}", of=then.provenance.technique, **found)


def provenances(a: Provenance, b: Provenance | None) -> dict[str, Any]:
    """Return what two provenances say of the model and the libraries, side by side."""
    names = {"models": "model", "fingerprints": "fingerprint", "dtypes": "dtype", "devices": "device"}
    held = {name: (getattr(a, one), "" if b is None else getattr(b, one)) for name, one in names.items()}
    versions = {} if b is None else b.versions
    return {
        **held,
        "versions": {name: (a.versions.get(name, ""), versions.get(name, "")) for name in {**a.versions, **versions}},
    }


def _held(rows: list[_Row], count: int, told: str) -> str:
    numbers = [row for row in rows if row.largest == row.largest]
    most = max((row.largest for row in numbers), default=0.0)
    if most == 0:
        return f"holds: all {count:,} values are equal{told}"
    digit = 10.0 ** math.floor(math.log10(most))
    return f"holds: every number within {math.ceil(most / digit) * digit:.0e}{told}"


def _foremost(broken: list[_Row]) -> _Row | None:
    """Return the field that tells best what changed: measured numbers before whole ones, and before intervals."""
    numbers = [row for row in broken if row.largest == row.largest]
    return min(
        numbers,
        key=lambda row: (row.tolerance == 0, "interval" in row.name, -row.changed / row.count),
        default=None,
    )


def _broken(then: Result, now: Result, broken: list[_Row], chosen: _Row | None, values: list[Float]) -> str:
    """Return what changed: of the chosen field how much, which value most, and whether the ranks are still alike."""
    if chosen is None:
        row = broken[0]
        more = f", and in {len(broken) - 1} more fields" if len(broken) > 1 else ""
        return f"changed: {row.changed:,} of {row.count:,} of {row.name} are others{more}"
    alike = ""
    both = np.isfinite(values[0]) & np.isfinite(values[1]) if len(values[0]) else np.zeros(0, np.bool_)
    if both.sum() > 2 and (ranks := _correlation(*(_ranks(one[both]) for one in values))) == ranks:
        alike = f", ranks correlate {ranks:.2f}"
    where = _labelled(then, now, chosen.name) or (f"at [{chosen.place}]" if chosen.place else "")
    least = f" by more than {chosen.tolerance:.1g}" if chosen.tolerance else ""
    largest = f", the largest {where + ' ' if where else ''}{moved(chosen.then, chosen.now)}"
    of = f"{chosen.changed:,} of {chosen.count:,} values of {chosen.name}" if chosen.count > 1 else chosen.name
    return f"changed: {of}{least}{largest}{alike}"


def moved(then: float, now: float) -> str:
    """Return two numbers in as many digits as tell them apart; what is nothing beside the other one is 0.

    Examples
    --------
    >>> moved(0.42, 1e-9), moved(0.99981, 0.99982)
    ('0.42 → 0', '0.99981 → 0.99982')
    """
    most = max(abs(then), abs(now))
    held = [0.0 if abs(one) < 1e-4 * most else one for one in (then, now)]
    for digits in (3, 5, 8, 17):
        words = [f"{one:.{digits}g}".replace("-", "−") for one in held]
        if words[0] != words[1]:
            break
    return " → ".join(words)


def _labelled(then: Result, now: Result, name: str) -> str:
    """Return the row of the results' tables whose `name` differs most, as it is called there."""
    try:
        found = compare(then, now, measure=name)
        top: Any = found.top(1)
        keys = list(top.columns)[:-3]
        row = dict(zip(keys, next(top.itertuples(index=False, name=None)), strict=False))
    except (InputError, StopIteration, TypeError, ValueError):  # no table, or none with such a column
        return ""
    if "layer" in row and "head" in row:
        row = {"": f"L{row.pop('layer')}H{row.pop('head')}", **row}
    elif str(row.get("component", "")):
        try:
            row = {"": Node.parse(str(row["component"])).drawn}
        except InputError:
            row = {"": row["component"]}
    return ", ".join(f"{key} {value}".strip() for key, value in row.items())[:60]


def _main(then: Result, now: Result, rows: list[_Row]) -> str:
    """Return the field that the result's table is ranked by; nothing where it is none."""
    try:
        found = compare(then, now).measure
    except (InputError, TypeError, ValueError):  # no table of numbers
        return ""
    return found if any(row.name == found for row in rows) else ""


def _row(a: Found | None, b: Found | None, name: str, allowed: float, partial: bool) -> _Row:
    if a is None or b is None:
        one = a or b
        count = 0 if one is None else one.numbers.size + len(one.words)
        return _Row(name, count, count)
    if a.words or b.words:
        count = max(len(a.words), len(b.words))
        return _Row(name, count, count - sum(x == y for x, y in zip(a.words, b.words, strict=False)))
    if a.numbers.shape != b.numbers.shape:
        count = max(a.numbers.size, b.numbers.size)
        return _Row(name, count, count, place=f"{a.numbers.shape} → {b.numbers.shape}")
    x, y = a.numbers, b.numbers
    missing = np.isnan(x) & (partial | np.isnan(y))
    same = missing | (x == y)
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0.0, np.abs(y - x))
    apart = np.where(np.isnan(apart), np.inf, apart)
    size = np.abs(x[np.isfinite(x)]).max(initial=0.0)
    tolerance = 0.0 if a.whole and b.whole else allowed * max(1.0, float(size))
    count = int((~missing).sum())
    if not x.size:
        return _Row(name, 0, 0)
    at = np.unravel_index(int(apart.argmax()), x.shape)
    place = ", ".join(map(str, (int(n) for n in at))) if apart.max() > 0 and x.size > 1 else ""
    both = np.isfinite(x) & np.isfinite(y)
    return _Row(
        name,
        count,
        int((apart > tolerance).sum()),
        float(apart.max()),
        tolerance,
        place,
        float(x[at]),
        float(y[at]),
        _correlation(x[both], y[both]),
    )


def _allowed(then: Result, now: Result) -> float:
    """Return what may lie between two numbers of a field whose largest is 1."""
    a, b = then.provenance, now.provenance
    known = [_EPS[one] for one in (a.dtype, b.dtype) if one in _EPS] or [_EPS["float32"]]
    eps = max(known)
    half = eps > _EPS["float32"]
    measured = max((float(getattr(one, "noise", 0.0) or 0.0) for one in (then, now)), default=0.0)
    allowed = eps * (_HALF_PLACES if half else _PLACES)
    if half and measured > 0:
        allowed = max(2 * measured, eps)
    same = (a.dtype, a.device, dict(a.versions)) == (b.dtype, b.device, dict(b.versions))
    return allowed if same else max(allowed, _OTHERS)


def _ranks(values: Float) -> Float:
    """Return ranks from 0 on; equal values share the middle of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts + 1) / 2)[inverse]


def _correlation(a: Float, b: Float) -> float:
    if len(a) < 2 or not (a.std() > 0 and b.std() > 0):
        return math.nan
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])
