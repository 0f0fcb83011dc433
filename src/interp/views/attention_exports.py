"""Attention in the figures of Plotly and CircuitsVis."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.errors import InputError
from interp.spec import Node
from interp.views import attention_reading
from interp.views.kit import figures
from interp.views.kit import theme as themes
from interp.views.kit.frame import UNTOUCHED
from interp.views.kit.text import escape, head_label, labels

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from interp.methods.heads.attention import AttentionResult

# Plotly keeps every weight of every head it can pick; 4 MB of float32 is what a notebook bears.
_MOST_WEIGHTS = 1_000_000


def plotly(
    result: AttentionResult, *, head: str | None = None, pick: bool = True, theme: str = "light", size: int = 640
) -> go.Figure:
    """Return the patterns as a Plotly heatmap with a menu of heads; it is drawn without a network.

    Parameters
    ----------
    head
        The head shown first, for instance ``"5.1"``; the one that the picture shows large if not given.
    pick
        Whether the menu offers other heads: all of them, or that head's layer where all are more than a million
        weights, or none where one layer is.
    theme
        ``"light"`` or ``"dark"``.
    size
        Width and height in pixels.
    """
    import plotly.graph_objects as go

    first = _place(result, head) if head else attention_reading.interesting(result)
    layers, heads, length, _ = result.pattern.shape
    every = [(layer, n) for layer in range(layers) for n in range(heads)]
    offered = every if len(every) * length**2 <= _MOST_WEIGHTS else [place for place in every if place[0] == first[0]]
    if not pick or len(offered) * length**2 > _MOST_WEIGHTS:
        offered = [first]
    # A position in front keeps equal tokens apart: Plotly would draw them as one.
    names = [f"{n} {escape(label)}" for n, label in enumerate(labels(result.tokens, 24))]
    figure = go.Figure()
    for place in offered:
        figure.add_trace(
            go.Heatmap(
                z=np.asarray(result.pattern[place], np.float32),
                x=names,
                y=names,
                name=_name(result, place),
                visible=place == first,
                colorscale=sequential_scale(theme),
                zmin=0,
                zmax=1,
                hovertemplate="%{y} → %{x}<br><b>%{z:.3f}</b><extra></extra>",
            )
        )
    menu = [
        {
            "label": _name(result, place),
            "method": "update",
            "args": [
                {"visible": [other == place for other in offered]},
                {"title.text": figures.heading(*_title(result, place), size - figures.MENU)},
            ],
        }
        for place in offered
    ]
    axis: dict[str, Any] = {"type": "category", "tickfont": {"family": "monospace", "size": 10}, "showgrid": False}
    figure.update_xaxes(**axis, title="key")
    figure.update_yaxes(**axis, title="query", autorange="reversed", scaleanchor="x")
    picker = [figures.menu(menu, offered.index(first), theme)] if len(menu) > 1 else []
    return figures.styled(figure, *_title(result, first), theme, size, size, updatemenus=picker)


def circuitsvis(result: AttentionResult, layer: int | None = None) -> Any:
    """Return CircuitsVis' attention view of one layer; shown in a notebook, it brings its script along.

    CircuitsVis' own object asks a public host whether there is a network each time it is shown, and then loads the
    script from a CDN. This one does neither: its page is 1.3 MB instead. ``show_code()`` still gives the CDN's page.

    Parameters
    ----------
    layer
        The layer; the first that the result holds if not given.
    """
    from circuitsvis.attention import attention_patterns

    if layer is None:
        layer = result.layers[0]
    if layer not in result.layers:
        raise InputError(f"no layer {layer} in this result; it holds {', '.join(map(str, result.layers))}")
    weights = np.nan_to_num(np.asarray(result.pattern[result.layers.index(layer)], np.float32), posinf=0, neginf=0)
    names = labels(result.tokens, 200)
    rendered = attention_patterns(tokens=names, attention=weights)
    # CircuitsVis writes the tokens into its script as they are, where "</script>" would end it.
    written = json.dumps(names)
    pages = [page.replace(written, written.replace("<", "\\u003c")) for page in (rendered.local_src, rendered.cdn_src)]
    return _offline()(*pages)


@cache
def _offline() -> Any:
    from circuitsvis.utils.render import RenderedHTML

    class Offline(RenderedHTML):
        def _repr_html_(self) -> str:
            return f'<div class="{UNTOUCHED}">{self.local_src}</div>'

    return Offline


def sequential_scale(name: str) -> list[list[Any]]:
    """Return a theme's sequential colours as a Plotly colour scale, with the lift of small values.

    Examples
    --------
    >>> sequential_scale("light")[0]
    [0.0, 'rgb(255,255,255)']
    """
    base = themes.colour("bg", name)
    red, green, blue = (int(base[n : n + 2], 16) for n in (1, 3, 5))
    table: list[list[Any]] = []
    for step, (r, g, b, alpha) in enumerate(themes.sequential(name)):
        mixed = [round(back + (front - back) * alpha / 255) for back, front in ((red, r), (green, g), (blue, b))]
        table.append([(step / themes.LEVELS) ** (1 / themes.POWER), f"rgb({','.join(map(str, mixed))})"])
    return table


def _place(result: AttentionResult, head: str) -> tuple[int, int]:
    result.head(head)
    node = Node.parse(head)
    return result.layers.index(node.layer), result.heads.index(node.head)


def _name(result: AttentionResult, place: tuple[int, int]) -> str:
    return head_label(result.layers[place[0]], result.heads[place[1]])


def _title(result: AttentionResult, place: tuple[int, int]) -> tuple[str, str]:
    return f"{_name(result, place)}: rows attend to columns", " · ".join(attention_reading.statistics(result, place))
