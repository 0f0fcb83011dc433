"""The picture of two results side by side: both, and where they differ most."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from interp.views.kit import figures, frame, page
from interp.views.kit import theme as themes
from interp.views.kit.page import Piece
from interp.views.kit.table import CSS, table
from interp.views.kit.text import escape, signed

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from interp.results.comparison import Comparison

_ROWS = 12
_GAP = 12
_CSS = f"""{CSS}
.interp-frame .interp-sides{{display:flex;flex-wrap:wrap;gap:12px;margin-bottom:10px}}
.interp-frame .interp-sides>div{{flex:1 1 340px;min-width:0}}
"""


def html(result: Comparison) -> str:
    """Return both pictures and the table of the largest differences."""
    top: Any = result.top(_ROWS)
    rows = [list(row) for row in top.itertuples(index=False, name=None)]
    sides = "".join(f"<div>{side.html()}</div>" for side in (result.a, result.b))
    body = (
        f'<div class="interp-sides">{sides}</div><div class="interp-caption">Largest differences, b − a</div>'
        f"{table([str(name) for name in top.columns], rows, len(result.to_frame()))}"
    )
    return frame.html("Comparison", result.summary(), body, notes=result.notes, css=_CSS)


def svg(result: Comparison, theme: str = "light") -> str:
    """Return both pictures as one standalone SVG document; the largest difference is its footer."""
    sides = [side.svg(theme) for side in (result.a, result.b)]
    sizes = [_size(side) for side in sides]
    width = sum(w for w, _ in sizes) + _GAP
    places = (0.0, sizes[0][0] + _GAP)
    body = "".join(side.replace("<svg ", f'<svg x="{x}" y="0" ', 1) for side, x in zip(sides, places, strict=True))
    top: Any = result.top(1)
    first = next(top.itertuples(index=False, name=None))
    where = ", ".join(f"{name} {value}" for name, value in zip(top.columns[:-3], first[:-3], strict=True))
    said: Piece = (f"largest difference of {result.measure}, b − a ", signed(float(first[-1])), False)
    foot = page.footer([said, (f"at {where}", "", True)], result.notes, width)
    return frame.svg("Comparison", result.summary(), body, (width, max(h for _, h in sizes)), theme, foot)


def plotly(result: Comparison, *, theme: str = "light", width: int = 620, height: int = 620) -> go.Figure:
    """Return a scatter of a against b, a point for each row; on the dashed line the two are the same."""
    import plotly.graph_objects as go

    data: Any = result.to_frame()
    keys = [name for name in data.columns if not str(name).endswith((" a", " b", " difference"))]
    x, y = data[f"{result.measure} a"], data[f"{result.measure} b"]
    low, high = float(min(x.min(), y.min())), float(max(x.max(), y.max()))
    a, b = (frame.visible_facts(name, 60) for name in result.names)
    figure = go.Figure()
    line = {"color": themes.solid("muted", theme), "dash": "dash", "width": 1}
    figure.add_scatter(x=[low, high], y=[low, high], mode="lines", line=line, hoverinfo="skip")
    figure.add_scatter(
        x=x,
        y=y,
        mode="markers",
        marker={"color": themes.colour("accent", theme), "size": 6, "opacity": 0.6},
        text=[escape(frame.visible_facts(name, 80)) for name in data[keys].astype(str).agg(", ".join, axis=1)],
        hovertemplate="%{text}<br>a %{x:.4f}<br><b>b %{y:.4f}</b><extra></extra>",
    )
    figure.update_xaxes(title=f"a: {escape(a)}")
    figure.update_yaxes(title=f"b: {escape(b)}", scaleanchor="x")
    facts = f"{result.measure}: {a} against {b}"
    return figures.styled(figure, "Comparison", facts, theme, width, height, showlegend=False)


def _size(document: str) -> tuple[float, float]:
    found = re.match(r'<svg [^>]*?width="([\d.]+)" height="([\d.]+)"', document)
    assert found is not None
    return float(found[1]), float(found[2])
