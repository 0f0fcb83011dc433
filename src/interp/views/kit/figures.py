"""What Plotly figures have in common: the frame's words, colours and fonts, and signed bars from a common zero.

Each takes a `theme`, ``"light"`` or ``"dark"``, and its `width` and `height` in pixels; what else it takes, it says.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interp.views.kit import theme as themes
from interp.views.kit.draw import SANS
from interp.views.kit.text import escape

if TYPE_CHECKING:
    import plotly.graph_objects as go

# What a character of the line below the title takes, in pixels.
_FACT = 6.0
_MARGIN = 60
MENU = 150  # that a menu takes beside the line


def styled(figure: go.Figure, title: str, facts: str, theme: str, width: int, height: int, **layout: Any) -> go.Figure:
    """Return `figure` in a theme's colours, with the frame's title and, wrapped below it, its line of facts.

    Parameters
    ----------
    title, facts
        Plain text.
    theme
        ``"light"`` or ``"dark"``.
    width, height
        In pixels.
    layout
        What is particular to the figure's layout.

    Raises
    ------
    InputError
        There is no such theme.

    Examples
    --------
    >>> import plotly.graph_objects as go
    >>> styled(go.Figure(), "Lens", "gpt2", "dark", 400, 300).layout.title.text
    'Lens<br><sup>gpt2</sup>'
    """
    paper, ink, muted, line = (themes.solid(name, theme) for name in ("bg", "fg", "muted", "line"))
    beside = MENU if layout.get("updatemenus") else 0
    figure.update_layout(
        title={"text": heading(title, facts, width - beside), "font": {"size": 14}, "x": 0, "xref": "paper"},
        width=width,
        height=height,
        paper_bgcolor=paper,
        plot_bgcolor=paper,
        font={"color": ink, "size": 12, "family": SANS},
        hoverlabel={"bgcolor": paper, "bordercolor": line, "font": {"color": ink}},
        legend={"font": {"color": ink}},
        colorway=[themes.class_colour(n, theme) for n in range(themes.CLASSES)],
        **layout,
    )
    for axes in (figure.update_xaxes, figure.update_yaxes):
        axes(gridcolor=line, zerolinecolor=muted, linecolor=line, tickcolor=line, title_font_color=muted)
    return figure


def menu(buttons: Sequence[dict[str, Any]], active: int, theme: str) -> dict[str, Any]:
    """Return the menu at the upper right of a figure that shows one of several traces.

    Examples
    --------
    >>> menu([], 0, "dark")["bgcolor"]
    '#1e1f22'
    """
    paper, line = themes.solid("bg", theme), themes.solid("line", theme)
    place = {"x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom"}
    return {"buttons": [*buttons], "active": active, "bgcolor": paper, "bordercolor": line, **place}


def heading(title: str, facts: str, width: int) -> str:
    """Return a figure's title, `width` pixels wide at most, as the markup that Plotly knows.

    Examples
    --------
    >>> heading("a < b", "", 400)
    'a &lt; b'
    """
    lines = textwrap.wrap(facts, max(20, int((width - 2 * _MARGIN) / _FACT)))
    return "<br>".join([escape(title), *(f"<sup>{escape(line)}</sup>" for line in lines)])


def sides(values: ArrayLike, theme: str) -> list[str]:
    """Return the colour of each bar: red for what is above zero, blue for what is below it.

    Examples
    --------
    >>> sides([1.0, -2.0], "light")
    ['#a50f2a', '#1d4f91']
    """
    return [themes.diverging(math.copysign(1.0, value), theme) for value in np.nan_to_num(np.asarray(values)).tolist()]


def whiskers(values: NDArray[np.float64], low: ArrayLike, high: ArrayLike, theme: str) -> dict[str, Any]:
    """Return the intervals of bars or points; one that is not known has no mark at all.

    Examples
    --------
    >>> whiskers(np.array([1.0]), [np.nan], [np.nan], "dark")
    {}
    """
    above, below = np.asarray(high) - values, values - np.asarray(low)
    if not np.isfinite(above).any():
        return {}
    ends = {"type": "data", "symmetric": False, "array": above, "arrayminus": below}
    return {**ends, "thickness": 1, "width": 3, "color": themes.solid("muted", theme)}
