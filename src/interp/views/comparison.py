"""The picture of two results side by side: both, and where they differ most."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from interp.views import frame
from interp.views.table import table

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from interp.comparison import Comparison

_ROWS = 12
_GAP = 12
_CSS = """
.interp-frame .interp-sides{display:flex;flex-wrap:wrap;gap:12px;margin-bottom:10px}
.interp-frame .interp-sides>div{flex:1 1 340px;min-width:0}
"""


def html(result: Comparison) -> str:
    """Return both pictures and the table of the largest differences.

    Examples
    --------
    >>> html(interp.compare(a, b))[:4]  # doctest: +SKIP
    '<div'
    """
    top: Any = result.top(_ROWS)
    rows = [list(row) for row in top.itertuples(index=False, name=None)]
    sides = "".join(f"<div>{side.html()}</div>" for side in (result.a, result.b))
    body = (
        f'<div class="interp-sides">{sides}</div><div class="interp-caption">largest differences, b − a</div>'
        f"{table([str(name) for name in top.columns], rows, len(result.to_frame()))}"
    )
    return frame.html("Comparison", result.summary(), body, notes=result.notes, css=_CSS)


def svg(result: Comparison, theme: str = "light") -> str:
    """Return both pictures as one standalone SVG document; the largest difference is its footer.

    Examples
    --------
    >>> svg(interp.compare(a, b))[:4]  # doctest: +SKIP
    '<svg'
    """
    sides = [side.svg(theme) for side in (result.a, result.b)]
    sizes = [_size(side) for side in sides]
    width = sum(w for w, _ in sizes) + _GAP
    places = (0.0, sizes[0][0] + _GAP)
    body = "".join(side.replace("<svg ", f'<svg x="{x}" y="0" ', 1) for side, x in zip(sides, places, strict=True))
    top: Any = result.top(1)
    first = next(top.itertuples(index=False, name=None))
    where = ", ".join(f"{name} {value}" for name, value in zip(top.columns[:-3], first[:-3], strict=True))
    said = f"largest difference of {result.measure}, b − a: {first[-1]:+.4f} at {where}"
    facts = " · ".join([" against ".join(result.names), *result.notes])
    return frame.svg("Comparison", facts, body, (width, max(h for _, h in sizes)), theme, foot=(said,))


def plotly(result: Comparison, **options: Any) -> go.Figure:
    """Return a scatter of a against b, a point for each row.

    Examples
    --------
    >>> interp.compare(a, b).to_plotly()  # doctest: +SKIP
    """
    import plotly.graph_objects as go

    data: Any = result.to_frame()
    keys = [name for name in data.columns if not str(name).endswith((" a", " b", " difference"))]
    x, y = data[f"{result.measure} a"], data[f"{result.measure} b"]
    low, high = float(min(x.min(), y.min())), float(max(x.max(), y.max()))
    names = data[keys].astype(str).agg(", ".join, axis=1)
    figure = go.Figure(
        [
            go.Scatter(
                x=[low, high], y=[low, high], mode="lines", line={"width": 1, "color": "#888"}, hoverinfo="skip"
            ),
            go.Scatter(
                x=x,
                y=y,
                mode="markers",
                text=names,
                hovertemplate="%{text}<br>a %{x:.4f}<br>b %{y:.4f}<extra></extra>",
            ),
        ]
    )
    figure.update_layout(
        title=f"{result.measure}: {' against '.join(result.names)}",
        xaxis_title=f"a: {result.names[0]}",
        yaxis_title=f"b: {result.names[1]}",
        showlegend=False,
        **options,
    )
    return figure


def _size(document: str) -> tuple[float, float]:
    found = re.match(r'<svg [^>]*?width="([\d.]+)" height="([\d.]+)"', document)
    assert found is not None
    return float(found[1]), float(found[2])
