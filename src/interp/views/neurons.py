"""The picture of neurons: the texts that drive each most, what it reads and writes, and a map of clusters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from interp.views.kit import bars, coloured_text, draw, figures, frame, page
from interp.views.kit import theme as themes
from interp.views.kit.draw import Drawing, number
from interp.views.kit.text import escape, signed, visible

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from interp.methods._shared.clusters import Clusters
    from interp.methods.readouts.neurons import NeuronsResult

_SHOWN, _GROUPS, _CONTEXTS, _WIDE, _VALUE, _TOKEN = 4, 12, 10, 440, 70, 16
_MAP = 440
_TITLE = "Neurons"


def plotly(result: NeuronsResult, *, theme: str = "light", width: int = 760, height: int = 620) -> go.Figure:
    """Return the map of clusters as a Plotly scatter; without one, the strongest activations of each neuron."""
    import plotly.graph_objects as go

    found = result.clusters
    figure = go.Figure()
    groups = _strongest(result) if found is None else _clustered(found, theme)
    for name, x, y, texts, marker in groups:
        figure.add_scatter(
            x=x,
            y=y,
            mode="markers",
            name=name,
            text=texts,
            hovertemplate="%{text}<extra>%{fullData.name}</extra>",
            marker={"size": 6, **marker},
        )
    title = _TITLE if found is None else f"Clusters of {found.of}"
    if found is None:
        figure.update_xaxes(title="rank", showgrid=False)
        figure.update_yaxes(title="activation")
    else:
        figure.update_xaxes(visible=False)
        figure.update_yaxes(visible=False, scaleanchor="x")
    return figures.styled(figure, title, _View(result).facts, theme, width, height)


# A name, places, what the pointer says, and what is particular to the markers.
Group = tuple[str, Sequence[float], Sequence[float], Sequence[str], dict[str, Any]]


def _clustered(found: Clusters, theme: str) -> Iterator[Group]:
    for label in sorted(set(found.labels.tolist())):
        chosen = found.labels == label
        marker = (
            {"color": themes.solid("muted", theme), "opacity": 0.35}
            if label < 0
            else {"color": themes.class_colour(label, theme)}
        )
        texts = [escape(visible(name, 40)) for name, held in zip(found.names, chosen, strict=True) if held]
        name = "none" if label < 0 else f"cluster {label}"
        yield name, found.places[chosen, 0].tolist(), found.places[chosen, 1].tolist(), texts, marker


def _strongest(result: NeuronsResult) -> Iterator[Group]:
    for name in result.neurons[:_GROUPS]:
        held = result.contexts(name)
        texts = [
            "".join(
                escape(visible(token, 20)) if n != len(before) else f"<b>{escape(visible(token, 20))}</b>"
                for n, token in enumerate((*before, *own, *after))
            )
            for _, before, own, after in held
        ]
        yield (
            f"L{name.replace('.', ' neuron ')}",
            [float(n) for n in range(len(held))],
            [v for v, *_ in held],
            texts,
            {},
        )


class _View:
    """A result, and what of it is shown."""

    def __init__(self, result: NeuronsResult, on_page: bool = False) -> None:
        self.result = result
        self.on_page = on_page

    @cached_property
    def facts(self) -> str:
        result = self.result
        count = f"{result.texts:,} text{'s' * (result.texts != 1)}, {result.tokens_read:,} tokens"
        source = frame.visible_facts(result.source, 40)
        which = f"{len(result.neurons)} neuron{'s' * (len(result.neurons) != 1)}"
        return frame.facts(result, which, *([source] if source else []), count)

    @cached_property
    def stacks(self) -> list[page.Stack]:
        """For each neuron its contexts, below them its tokens; first the map where there is one."""
        result = self.result
        drawn: list[page.Stack] = []
        if result.clusters is not None:
            of = result.clusters.of
            kind = {"umap": "UMAP", "tsne": "t-SNE"}[result.clusters.kind]
            drawn.append([(f"{kind} of {of}, coloured by HDBSCAN's clusters", self._map())])
        shown = range(min(_SHOWN, len(result.neurons)))
        each = [[(self._caption(row), self._contexts(row)), *self._favourite(row), *self._static(row)] for row in shown]
        # Contexts alone are short: they stand below each other, beside the map.
        return [*drawn, *(each if result.inputs else [[block for stack in each for block in stack]])]

    def _caption(self, row: int) -> str:
        stats = {name: float(values[row]) for name, values in self.result.stats.items()}
        layer, neuron = self.result.neurons[row].split(".")
        return (
            f"L{layer} neuron {neuron} · mean {signed(stats['mean'])} · sparsity {stats['sparsity']:.2f} · "
            f"above 0 on {stats['positive']:.0%} · {signed(stats['min'])} … {signed(stats['max'])}"
        )

    def _contexts(self, row: int) -> Drawing:
        result = self.result
        parts: list[tuple[float, Drawing]] = []
        middle = result.ids.shape[-1] // 2
        sign = -1.0 if result.lowest else 1.0
        values = result.activations[row]
        most = float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 1.0
        y, body = 0.0, ""
        for rank in range(min(_CONTEXTS, len(values))):
            if not np.isfinite(values[rank]):
                break
            ids = result.ids[row, rank]
            there = ids >= 0
            tokens = [result.strings[int(n)] for n in ids[there]]
            around = (sign * result.around[row, rank][there] / (most or 1.0)).tolist()
            titles = [signed(float(value)) for value in result.around[row, rank][there]]
            one = coloured_text.text(
                tokens, around, _WIDE, ring=int(there[:middle].sum()), titles=titles if self.on_page else None
            )
            style = ' style="font-size:11.5px;fill:var(--interp-fg)"'
            body += draw.text(_VALUE - 10, y + 14, signed(float(values[rank])), "t", "end", more=style)
            body += draw.group(one, _VALUE, y)
            y += one.height + 4
        parts.append((0, Drawing(_VALUE + _WIDE, max(y, 1.0), body)))
        return draw.stack(parts)

    def _favourite(self, row: int) -> list[page.Block]:
        """The input that was found to drive it most, beside the strongest activation in the texts."""
        if row >= len(self.result.favourites):
            return []
        found, most = self.result.favourites[row], float(self.result.stats["max"][row])
        around = [min(1.0, abs(value) / (abs(most) or 1.0)) for value in found.around]
        titles = [signed(value) for value in found.around] if self.on_page else None
        text = coloured_text.text(found.tokens, around, _WIDE, ring=len(found.tokens) - 1, titles=titles)
        style = ' style="font-size:11.5px;fill:var(--interp-fg)"'
        body = draw.text(_VALUE - 10, 14, signed(found.activation), "t", "end", more=style)
        body += draw.group(text, _VALUE, 0)
        caption = "An input found by gradients, from random tokens"
        return [(caption, Drawing(_VALUE + _WIDE, text.height, body))]

    def _static(self, row: int) -> list[page.Block]:
        result = self.result
        if not result.inputs:
            return []
        names = {"in": "Reads", "gate": "Gate reads", "up": "Input reads"}
        reads = [
            self._listed(names[name], result.read[row, n], result.read_values[row, n])
            for n, name in enumerate(result.inputs)
        ]
        ids = np.concatenate([result.promoted[row], result.suppressed[row]])
        values = np.concatenate([result.promoted_values[row], result.suppressed_values[row]])
        both = [self._listed("Writes, for +1", ids, values)]
        beside = draw.row([*reads, *both])
        return [("What its weights read and write, as tokens", beside)]

    def _listed(self, caption: str, ids: NDArray[np.int64], values: NDArray[np.float32]) -> Drawing:
        strings = [visible(self.result.strings[int(n)], _TOKEN) for n in ids]
        listed = bars.bars([bars.Bar(s, float(v)) for s, v in zip(strings, values.tolist(), strict=True)], 1e-6)
        return draw.stack([(0, draw.words([caption])), (0, listed)])

    def _map(self) -> Drawing:
        found = self.result.clusters
        assert found is not None
        low, high = found.places.min(0), found.places.max(0)
        span = float((high - low).max()) or 1.0
        places = (found.places - low) / span * (_MAP - 12) + 6
        body = [f'<rect class="interp-tile" width="{_MAP}" height="{_MAP}" rx="4"/>']
        radius = 3 if len(places) < 600 else 2
        for label in sorted(set(found.labels.tolist())):
            kind = f"fill:var(--interp-k{label % themes.CLASSES})"
            css = "fill:var(--interp-muted);fill-opacity:0.35" if label < 0 else kind
            dots = "".join(
                f'<circle cx="{number(float(x))}" cy="{number(_MAP - float(y))}" r="{radius}"/>'
                for x, y in places[found.labels == label]
            )
            body.append(f'<g style="{css}">{dots}</g>')
        return Drawing(_MAP, _MAP, "".join(body))

    @cached_property
    def foot(self) -> list[page.Piece]:
        """The footer."""
        result = self.result
        pieces: list[page.Piece] = []
        values = np.where(np.isfinite(result.activations), np.abs(result.activations), -1.0)
        row, rank = (int(n) for n in np.unravel_index(int(values.argmax()), values.shape))
        if values[row, rank] >= 0:
            token = result.strings[int(result.ids[row, rank, result.ids.shape[-1] // 2])]
            end = "lowest" if result.lowest else "strongest"
            pieces.append(
                (
                    f"{end}: {result.neurons[row]} on {visible(token, 20)} ",
                    signed(float(result.activations[row, rank])),
                    False,
                )
            )
            text, position = result.place[row, rank].tolist()
            pieces.append((f"text {text}, position {position}", "", True))
        if result.clusters is not None:
            none = int((result.clusters.labels < 0).sum())
            pieces.append((f"{result.clusters.of}: clusters ", str(result.clusters.count), False))
            pieces.append((f"{none} of {len(result.clusters.labels)} in none", "", True))
        pieces.append(("outlined: the token; colour: activation, over the neuron's strongest", "", True))
        return pieces

    @cached_property
    def notes(self) -> list[str]:
        count = len(self.result.neurons)
        more = [f"the first {_SHOWN} of {count} neurons are drawn; to_frame() has all"] if count > _SHOWN else []
        return [*self.result.notes, *more]


def _picture(result: NeuronsResult) -> page.Picture:
    view, paged = _View(result), _View(result, on_page=True)
    return page.Picture(_TITLE, view.facts, view.stacks, view.foot, view.notes, paged.stacks)


html, svg = page.pictures(_picture)
