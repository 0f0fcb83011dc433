"""What a circuit's JSON file holds: its fields, of which the arrays that grow with the model are packed.

A packed array is its bytes, compressed, as text.
"""

from __future__ import annotations

import base64
import dataclasses
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.results import as_data

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from interp.methods._shared.circuit.result import CircuitResult

FORMAT = 2
PACKED = ("exists", "scores", "per_pair", "per_node", "by_position", "kept")


def as_file(circuit: CircuitResult) -> dict[str, Any]:
    """Return what a circuit's JSON file holds: its fields, and the circuit's edges for whoever else reads it."""
    names = [field.name for field in dataclasses.fields(circuit) if not field.name.startswith("_")]
    held = {name: _packed(getattr(circuit, name)) for name in PACKED}
    plain = {name: as_data(getattr(circuit, name)) for name in names if name not in held}
    return {"format": FORMAT, "edges": as_data(circuit.edges), **plain, **held}


def _packed(array: NDArray[Any]) -> dict[str, Any]:
    held = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    text = base64.b64encode(zlib.compress(held.tobytes())).decode("ascii")
    return {"dtype": held.dtype.str, "shape": list(held.shape), "zlib": text}
