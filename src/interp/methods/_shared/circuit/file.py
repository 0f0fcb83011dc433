"""Circuits in files: what ``save("c.json")`` writes, and the circuit that it gives back, as it was.

A file is the result's fields as JSON, of which those arrays that grow with the model are packed: their bytes,
compressed, as text.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from interp.errors import InputError
from interp.methods._shared.circuit import component, report, result
from interp.methods._shared.circuit.fitting import require_room
from interp.methods._shared.circuit.packed import FORMAT
from interp.methods._shared.circuit.result import CircuitResult
from interp.results import loading

# What the annotations of a result name, some of them imported for the type checker alone.
_KNOWN = {"ComponentFunction": component.ComponentFunction, "Edge": result.Edge}
_KINDS = {"CircuitReport": report.CircuitReport, "CircuitResult": CircuitResult}


def load_circuit(path: str | os.PathLike[str]) -> CircuitResult:
    """Return a circuit that ``save("c.json")`` wrote: scores, edges, groups, functions, report, pairs and provenance.

    It is bound to no model; ``interp.validate(c).circuit`` is, to the current one.

    Parameters
    ----------
    path
        The JSON file.

    Raises
    ------
    InputError
        There is no such file, or it is no circuit's, or damaged.

    Examples
    --------
    >>> interp.load_circuit("c.json").heads  # doctest: +SKIP
    ['16.0', '17.3', '18.6']
    """
    instead = "give the .json file that a circuit's save(…) wrote"
    saved = loading.opened(path, instead)
    if not {"writers", "readers", "scores", "kept"} <= saved.fields.keys():
        raise InputError(f"{saved.name!r} is not a circuit's file; {instead}")
    return cast("CircuitResult", loading.built(CircuitResult, saved, _KINDS, _KNOWN))


def fields_of(data: Mapping[str, Any], size: int) -> dict[str, Any]:
    """Return a file's fields of a circuit.

    Raises
    ------
    ValueError
        Some are missing or unknown, a later version of interp wrote them, or they take far more room than the file.
    """
    held = dict(data)
    require_room(held, size)
    number = held.pop("format", None)
    held.pop("edges", None)
    if number != FORMAT and not isinstance(held.get("scores"), np.ndarray):  # an npz file has none
        raise ValueError(f"its format is {number!r:.20}, and this version reads {FORMAT}")
    known = {field.name for field in dataclasses.fields(CircuitResult) if not field.name.startswith("_")}
    missing = known - held.keys()
    if missing:
        raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    return held
