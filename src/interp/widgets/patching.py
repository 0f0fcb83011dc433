"""The patching heatmap: a sweep while it runs and after it, and what the patched model says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import traitlets

from interp.errors import InputError
from interp.sites import find
from interp.views import effects
from interp.views import patching as pictures
from interp.views.kit import heatmap
from interp.views.kit.text import visible
from interp.views.patching_view import HEADS, NATURAL, TOP, caption, head_word, marks, ranked
from interp.widgets._base import Widget
from interp.widgets._encode import MESSAGE
from interp.widgets._rpc import Handler, Reply, Request, parameters

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from interp.methods._shared.patching.result import PatchingResult

    Float = NDArray[np.float64]

_COLUMNS = 280  # columns that can be told apart
_EARLY = 0.1  # the smallest end of the scale while more may come: what is found first is mostly noise
_SOURCES = ("exact", "estimate")
_QUANTITIES = ("recovery", "effect")
_SAID = ("facts", "metric", "span", "turned", "quantity", "meaning", "pair", "tokens", "lines")
_HOLDS = ("strongest", "layer", "head", "position")


class PatchingWidget(Widget):
    """An interactive view of a `PatchingResult`, whole or unfinished.

    Parameters
    ----------
    result
        The sweep; all that is read of it are its arrays and words and, on demand, `likeliest()` and `svg()`.
    """

    script = "patching"
    sweep = traitlets.Dict().tag(sync=True)
    said = traitlets.Unicode().tag(sync=True)

    def __init__(self, result: PatchingResult, *, running: bool = False, **traits: Any) -> None:
        self._counts = dict(zip(result.axes, result.patched.shape, strict=True))
        self._layers = result.layers
        # A key's or a value's head is not one of those that the selection numbers.
        self._queries = not find(result.site).kv_heads
        super().__init__(result, **{"sweep": _state(result, running), **traits})

    def show(self, result: PatchingResult, *, running: bool = False) -> None:
        """Show another state of the sweep: `running` says that more will come.

        Raises
        ------
        InputError
            `result` is a sweep over something else.
        """
        if (dict(zip(result.axes, result.patched.shape, strict=True)), result.layers) != (self._counts, self._layers):
            raise InputError("this view shows a sweep over other cells; result.widget makes one of its own")
        self.hold(result)
        self.sweep = _state(result, running)

    def say(self, line: str) -> None:
        """Show how far the command is that makes the sweep, while no cell of it is there; any thread may call this."""
        self.said = line

    def handlers(self) -> Mapping[str, Handler]:
        """Return the heatmap's requests."""
        return {"slice": self._on_slice, "says": self._on_says, "picture": self._on_picture}

    def questions(self) -> Iterable[tuple[str, Mapping[str, Any]]]:
        """Return the planes of a sweep with three axes."""
        if len(self._counts) < 3:
            return
        for hold, count in self._counts.items():
            if hold in _HOLDS:
                yield from (("slice", {"hold": hold, "index": index}) for index in range(count))

    def check_selection(self, chosen: Mapping[str, int | None]) -> None:
        """Raise InputError where `chosen` names a layer, a head or a position that this sweep does not have."""
        layer = chosen.get("layer")
        if layer is not None and layer not in self._layers:
            raise InputError(f"no layer {layer} in this sweep; it has {', '.join(map(str, self._layers))}")
        for name in ("head", "position"):
            index, count = chosen.get(name), self._counts.get(name)
            if index is not None and count is not None and index >= count and (name != "head" or self._queries):
                raise InputError(f"no {name} {index} in this sweep; {name}s are 0–{count - 1}")

    def _on_slice(self, params: Mapping[str, Any], request: Request) -> Reply:  # noqa: ARG002
        """Answer with the numbers of the plane that holds one axis, of a sweep with three."""
        if len(self._counts) < 3:
            raise InputError("this sweep has one slice")
        hold, index = parameters(params, hold=_HOLDS, index=int)
        if hold != "strongest" and index not in range(self._counts[hold]):
            raise InputError(f"no {hold} {index} in this sweep")
        form, data = _Slice(self.result, hold, index, self.sweep["running"]).packed()
        return Reply(form, (data,))

    def _on_says(self, params: Mapping[str, Any], request: Request) -> Reply:  # noqa: ARG002
        """Answer with the likeliest next tokens of the first pair's run, without and with a cell patched."""
        result: PatchingResult = self.result
        cell = parameters(params, **{axis: range(count) for axis, count in self._counts.items()})
        tokens = [[visible(token, 24), before, after] for token, before, after in result.likeliest(cell)]
        return Reply({"tokens": tokens, "sides": ["unpatched", "patched"]})

    def _on_picture(self, params: Mapping[str, Any], request: Request) -> Reply:  # noqa: ARG002
        """Answer with the static picture."""
        (theme,) = parameters(params, theme=("light", "dark"))
        drawn = self.result.svg(theme)
        if len(drawn.encode()) > MESSAGE:
            raise InputError('this picture is too large for a message; result.save("sweep.svg") writes it')
        return Reply({"svg": drawn})


def _state(result: PatchingResult, running: bool) -> dict[str, Any]:
    """Return all that a page needs of a sweep: its words, the strongest cells, the numbers of the first picture."""
    said = pictures.words(result)
    form, cells = _Slice(result, "strongest", 0, running).packed()
    noising = result.direction == "noise"
    # Before the unpatched prompts are run nothing is known of them.
    preparing = running and not result.done.any() and not np.isfinite(result.clean_metric)
    if preparing:
        said["pair"] |= {"answers": []}
        said["meaning"] = dict.fromkeys(_QUANTITIES, "empty: not computed yet")
    return {
        **{name: said[name] for name in _SAID},
        "extras": pictures.extras(result),
        "notes": [visible(note, 600).replace("␣", " ") for note in said["notes"]],
        "axes": list(result.axes),
        "shape": list(result.patched.shape),
        "layers": list(result.layers),
        "named": bool(result.positions),
        "queries": not find(result.site).kv_heads,
        "head": head_word(result.site),
        "start": 1 if noising and said["span"] else 0,
        "base": _number(result.clean_metric if noising else result.corrupted_metric),
        "pairs": len(result.per_pair),
        "done": int(result.done.sum()),
        "total": result.done.size,
        "share": round(100 * float(1 - np.isnan(result.per_pair).mean()), 2) if result.per_pair.size else 0.0,
        "seconds": round(result.provenance.seconds, 1),
        "running": running,
        "preparing": preparing,
        "estimated": result.estimate is not None,
        "top": {source: _strongest(result, source) for source in _SOURCES},
        "form": form,
        "cells": cells,
    }


def _values(result: PatchingResult, source: str) -> Float:
    """Return effects, exact or estimated, ``[*axes]``; NaN where there is none yet, an infinity where it is lost."""
    if source == "exact":
        effect = np.where(np.isfinite(result.effect), result.effect, np.inf)
        return np.where(result.done, result.above_noise(effect), np.nan)
    if result.estimate is None:
        return np.full(result.patched.shape, np.nan)
    return np.where(np.isfinite(result.estimate), result.estimate, np.inf)


def _sizes(values: Float) -> Float:
    """Return how large values are, for finding the largest; what is not a number is none."""
    return np.where(np.isfinite(values), np.abs(values), -1.0)


def _strongest(result: PatchingResult, source: str) -> list[dict[str, Any]]:
    size = _sizes(_values(result, source)).reshape(-1)
    few = np.argpartition(-size, TOP)[:TOP] if size.size > TOP else np.arange(size.size)
    order = few[np.lexsort((few, -size[few]))]
    planes = {name: plane.reshape(-1).tolist() for name, plane in _planes(result).items()}
    return [
        {
            "at": [int(n) for n in np.unravel_index(at, result.patched.shape)],
            **{name: _number(plane[at]) for name, plane in planes.items()},
        }
        for at in order.tolist()
        if size[at] > 0
    ]


def _planes(result: PatchingResult) -> dict[str, Float]:
    """Return effects, estimates and intervals by name; a recovery's too is in the unit of the effects."""
    low, high = result.interval
    least, most = effects.intervals(result) * (effects.span(result) or 1.0)
    ends = {"low": low, "high": high, "least": least, "most": most}
    return {"effect": _values(result, "exact"), **ends, "estimate": _values(result, "estimate")}


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


@dataclass(frozen=True)
class _Slice:
    """What one picture of a sweep shows: an array with two axes, a cell of which may stand for the strongest of many.

    Attributes
    ----------
    hold
        Of three axes the one that is held at `index`; ``"strongest"`` where the last one is: each cell then shows its
        strongest. Of two axes nothing is held, but neurons are ranked, and many columns share a cell.
    """

    result: PatchingResult
    hold: str
    index: int
    running: bool = False

    @cached_property
    def axes(self) -> list[str]:
        return [axis for axis in self.result.axes if axis != self.hold][:2]

    @cached_property
    def own(self) -> str | None:
        """The axis whose number each cell has of its own."""
        if len(self.result.axes) > 2 and self.hold == "strongest":
            return self.result.axes[2]
        return self.axes[1] if len(self.axes) > 1 and (self.axes[1] == "neuron" or self.block > 1) else None

    @cached_property
    def block(self) -> int:
        """How many columns share a cell, since more than this would neither be seen nor fit into a message."""
        if len(self.axes) < 2 or self.axes[1] == "neuron":
            return 1
        counts = dict(zip(self.result.axes, self.result.patched.shape, strict=True))
        rows, columns = (counts[axis] for axis in self.axes)
        fits = (MESSAGE - 60_000) // (5 * 4 * rows)
        return -(-columns // max(1, min(_COLUMNS, fits)))

    @cached_property
    def planes(self) -> dict[str, Float]:
        """Effects, interval, estimates and each cell's own number, ``[row, column]``."""
        held = (slice(None),) * len(self.result.axes)
        if self.hold != "strongest":
            at = self.result.axes.index(self.hold)
            held = (*held[:at], self.index, *held[at + 1 :])
        planes = {name: plane[held] for name, plane in _planes(self.result).items()}
        exact, estimate = planes["effect"], planes["estimate"]
        absent = [] if self.result.axes == ("layer",) else ["least", "most"]  # which are for the list alone
        for name in [*absent, *(["estimate"] if self.result.estimate is None else [])]:
            del planes[name]
        if self.own is not None:
            chosen = self._chosen(estimate if self.result.estimate is not None else exact)
            planes = {name: np.take_along_axis(plane, chosen, -1) for name, plane in planes.items()}
            if exact.ndim > 2:
                planes, chosen = {name: plane[..., 0] for name, plane in planes.items()}, chosen[..., 0]
            planes["index"] = chosen.astype(np.float64)
        if self.result.axes == ("layer",):
            planes = {name: plane[:, None] for name, plane in planes.items()}
        return planes

    def _chosen(self, values: Float) -> NDArray[np.intp]:
        """Return which of the last axis each cell shows."""
        size = np.where(np.isinf(values), np.inf, _sizes(values))  # what is lost must be seen
        if values.ndim > 2:
            return size.argmax(-1)[..., None]
        if self.axes[1] == "neuron":
            return ranked(_sizes(values))
        starts = range(0, size.shape[1], self.block)
        return np.stack([start + size[:, start : start + self.block].argmax(1) for start in starts], 1)

    def packed(self) -> tuple[dict[str, Any], bytes]:
        """Return how to read the numbers, and the numbers as float32, plane by plane."""
        planes = self.planes
        rows, columns = planes["effect"].shape
        said = pictures.words(self.result)
        ends: dict[str, dict[str, float]] = {}
        marks: dict[str, dict[str, list[str]]] = {}
        for source in _SOURCES:
            shown = planes["effect"] if source == "exact" else planes.get("estimate", np.full((rows, columns), np.nan))
            ends[source], marks[source] = {}, {}
            for quantity in _QUANTITIES:
                unit = (said["span"] or 1.0) if quantity == "recovery" else 1.0
                span = abs(said["span"] / unit)
                least = max(said["least"][quantity], _EARLY * span if self.running else 0.0)
                sizes = shown / unit if np.isfinite(shown).any() else np.array([least])
                end = heatmap.limit(sizes, least, NATURAL * span)
                ends[source][quantity] = end
                marks[source][quantity] = self._marks(shown / unit, end)
        form = {
            "hold": self.hold,
            "index": self.index,
            "axes": [*self.axes, None][:2],
            "shape": [rows, columns],
            "own": self.own,
            "block": self.block,
            "planes": list(planes),
            "ends": ends,
            "marks": marks,
            "caption": self._caption(),
            "labels": self._labels(said, rows, columns),
        }
        return form, np.stack(list(planes.values())).astype("<f4").tobytes()

    def _marks(self, values: Float, end: float) -> list[str]:
        """Return what the marks on cells mean, for those that there are."""
        lost, missing = int(np.isinf(values).sum()), int(np.isnan(values).sum())
        joined = f"{self.block} {self.axes[1]}s" if self.block > 1 else ""
        absent = "computed" if self.result.estimate is None else "verified"
        return marks(values, end, lost=lost, missing=missing, joined=joined, absent=absent)

    def _caption(self) -> str:
        result = self.result
        if result.axes == ("layer",):
            return "Layers"
        if self.hold == "strongest" or len(result.axes) < 3:
            return caption(result)
        if self.hold == "position":
            return f"{HEADS.get(result.site, 'Heads')} at one position: a row per layer"
        whose = " of pair 1" if len(result.per_pair) > 1 else ""
        return f"Positions{whose}: a row per {self.axes[0]}"

    def _labels(self, said: Mapping[str, Any], rows: int, columns: int) -> dict[str, Any]:
        wordy = len(self.axes) > 1 and self.axes[1] in {"position", "span"} and bool(self.result.positions)
        below: Sequence[str] = [str(n) for n in range(columns)]
        if wordy:
            tokens: Sequence[str] = said["tokens"]
            below = tokens[:: self.block]
        elif len(self.axes) > 1 and self.axes[1] == "neuron":
            below = [str(n + 1) for n in range(columns)]
        return {
            "rows": [f"L{layer}" for layer in self.result.layers]
            if self.axes[0] == "layer"
            else [f"L{self.result.layers[self.index]}H{n}" for n in range(rows)],
            "columns": list(below),
            "tokens": wordy,
            # A shared column is labelled by its first token, which need not be the one that is marked.
            "marked": list(said["marked"]) if wordy and self.block == 1 and self.axes[1] == "position" else [],
        }
