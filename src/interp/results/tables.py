"""Tables of results, and the arrays that they are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

Float = NDArray[np.float64]


def frame_of(data: Mapping[str, Any] | Iterable[Any], columns: list[str] | None = None) -> pd.DataFrame:
    """Return columns by name, or rows and the names of their columns, as a pandas table; pandas loads at the first."""
    import pandas as pd

    return pd.DataFrame(data, columns=columns)


def lines_of(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Return a small table as lines of text, in aligned columns; numbers with three digits behind the point.

    Examples
    --------
    >>> lines_of(["head", "effect"], [("2.0", 12.6324), ("10.11", -0.5)])
    ['head   effect', '2.0    +12.632', '10.11  -0.500']
    """
    cells = [[f"{one:+.3f}" if isinstance(one, float) else str(one) for one in row] for row in (columns, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells] if len(cells) > 1 else []


def padded(rows: Sequence[Sequence[float]], fill: float, kind: type[np.generic]) -> NDArray[Any]:
    """Return rows of several lengths as one array, filled up behind their ends.

    Examples
    --------
    >>> padded([[1, 2], []], -1, np.int64).tolist()
    [[1, 2], [-1, -1]]
    """
    found = np.full((len(rows), max(map(len, rows), default=0)), fill, kind)
    for own, row in zip(found, rows, strict=True):
        own[: len(row)] = row
    return found
