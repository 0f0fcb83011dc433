"""The one frame of every picture: a title, a line of facts, the picture, a footer in words and numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING
from urllib.parse import quote

from interp.views.kit import theme
from interp.views.kit.draw import CSS, MONO, SANS, number
from interp.views.kit.text import columns, escape, visible

if TYPE_CHECKING:
    from interp.results import Result

PADDING = 14
# By these a page's typesetting passes over an element: MathJax 3 (JupyterLab, Notebook 7) and 2 (nbconvert, nbviewer).
UNTOUCHED = " ".join(theme.PALETTE["untouched"])


@cache
def layout(name: str) -> str:
    """Return the rules that decide how high a frame is, or a kind of view in it: the live views have the same.

    Examples
    --------
    >>> layout("circuit")[:29]
    '.interp-frame .interp-legend{'
    """
    rules = files("interp.views").joinpath("kit", "layout", f"{name}.css").read_text("utf-8")
    bare = re.sub(r"/\*.*?\*/", "", rules, flags=re.DOTALL)
    # What stands before a colon stays: in a selector a space there is a descendant.
    return re.sub(r":\s+", ":", re.sub(r"\s*([{};,>])\s*", r"\1", bare)).strip()


_PAGE = f"""
.interp-frame{{overflow:hidden}}
.interp-frame .interp-plain{{display:none}}
.interp-frame .interp-rich[hidden]{{display:block!important}}
.interp-frame .interp-q{{color:var(--interp-muted);overflow-wrap:anywhere}}
.interp-frame .interp-controls>span{{height:22px;max-width:100%}}
.interp-frame .interp-far{{margin-left:auto}}
.interp-frame .interp-svg{{display:block;max-width:100%;height:auto;overflow:visible}}
.interp-frame .interp-code{{font-family:{MONO};unicode-bidi:isolate;white-space:pre-wrap;overflow-wrap:anywhere}}
.interp-frame .interp-note{{color:var(--interp-muted)}}
"""


def html(
    title: str,
    facts: str,
    body: str,
    *,
    foot: str = "",
    notes: Sequence[str] = (),
    css: str = "",
    plain: str = "",
    view: str = "",
) -> str:
    """Return a self-contained HTML fragment: no script, no network, its own colours in both themes.

    Parameters
    ----------
    title, facts, notes
        Plain text.
    body, foot
        Markup.
    css
        Rules that this picture needs beyond the frame's.
    plain
        The same picture as a standalone SVG document, for a notebook that is not trusted: JupyterLab then takes
        ``<style>`` and ``<svg>`` out of saved outputs, and leaves ``<img>``, and ``hidden`` if that has a value. Our
        own style sheet is what hides the one and shows the other. With the theme `theme.AUTO` it has the page's.
    view
        The live view that takes the picture's place where there is a kernel: what it has beyond the picture has its
        room here, so that nothing below moves.

    Examples
    --------
    >>> "<h1>" in html("<h1>", "", "")
    False
    """
    # A page has one sheet of styles: these are for pictures, whose frame is a <div>, not for live views beside them.
    rules = "".join(map(layout, ("frame", *_LAYOUTS.get(view, ()))))
    scoped = f"{theme.page_css()}{rules}{_PAGE}{css}".replace(".interp-frame", "div.interp-frame")
    style = f"{scoped}div.interp-frame{{{CSS}}}{_IN_JUPYTER}".replace("\n", "")
    buttons = "".join(f'<span style="width:{wide}px"></span>' for wide in theme.PALETTE["controls"].get(view, ()))
    room = f'<span class="interp-controls">{buttons}</span>' if buttons else ""
    rich = [
        f'<div class="interp-head"><span class="interp-title">{escape(title)}</span>'
        f'<span class="interp-q">{escape(facts)}</span>{room}</div>',
        body,
        f'<div class="interp-foot">{foot}</div>' if foot else "",
        *(f'<div class="interp-note">{escape(note)}</div>' for note in notes),
        '<div class="interp-data"></div>' if view in _TABLED else "",
    ]
    content = "".join(rich)
    if plain:
        # Quoted, not base64: the PNG inside is base64 already.
        address = "data:image/svg+xml," + quote(plain, safe=" !$'()*+,-./;=?@[]_`{|}~")
        content = (
            f'<img class="interp-plain" alt="{escape(f"{title}: {facts}")}" src="{escape(address)}">'
            f'<div class="interp-rich" hidden="hidden">{content}</div>'
        )
    return f'<div class="interp-frame {UNTOUCHED}"><style>{style}</style>{content}</div>'


def svg(title: str, facts: str, body: str, size: tuple[float, float], name: str, foot: Sequence[str] = ()) -> str:
    """Return a standalone SVG document in the frame; `body` starts below the title and is `size` wide and high.

    `foot` holds the footer's lines as the markup of ``<text>`` contents, the first of them above the others.

    Examples
    --------
    >>> svg("Attention", "gpt2", "", (100, 50), "light")[:4]
    '<svg'
    """
    width = max(size[0], 320) + 2 * PADDING
    top = 40
    rule = top + size[1] + 12
    height = rule + (12 + 18 * len(foot) if foot else 0) + 2
    room = int((width - 2 * PADDING - 9 * columns(title)) / 6.2)
    style = theme.standalone(theme.check_theme(name, theme.AUTO)) + theme.plain(CSS + _STANDALONE, name)
    lines = "".join(
        f'<text class="interp-f" x="{PADDING}" y="{number(rule + 20 + 18 * n)}">{line}</text>'
        for n, line in enumerate(foot)
    )
    divider = f'<path class="interp-rule" d="M{PADDING} {number(rule)}H{number(width - PADDING)}"/>' if foot else ""
    w, h = number(width), number(height)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {w} {h}">'
        f"<title>{escape(f'{title}: {visible_facts(facts, 200)}')}</title><style>{style}</style>"
        f'<rect class="interp-card" x="0.5" y="0.5" width="{number(width - 1)}" height="{number(height - 1)}" rx="8"/>'
        f'<text class="interp-f" x="{PADDING}" y="25"><tspan class="interp-b">{escape(title)}</tspan>'
        f'<tspan class="interp-q" dx="8">{escape(visible_facts(facts, max(24, room)))}</tspan></text>'
        f'<g transform="translate({PADDING} {top})">{theme.plain(body, name)}</g>{divider}{lines}</svg>'
    )


def falls(metric: str) -> bool:
    """Return whether a metric falls when the model does better.

    Examples
    --------
    >>> falls("loss:again"), falls("logit-diff")
    (True, False)
    """
    return metric.partition(":")[0] in _FALLING


def facts(result: Result, *parts: str) -> str:
    """Return the line beside the title: the model, then `parts`.

    Examples
    --------
    >>> from interp.results import Result
    >>> facts(Result(), "15 tokens")
    '15 tokens'
    """
    return " · ".join(part for part in (visible_facts(result.provenance.model, 80), *parts) if part)


def visible_facts(text: str, limit: int) -> str:
    """Return foreign text of a single line, with its spaces as they are, shortened to `limit` columns.

    Examples
    --------
    >>> visible_facts("a model", 80)
    'a model'
    """
    return visible(text, limit).replace("␣", " ")


def metric(name: str) -> str:
    """Return a metric as it is written in words.

    Examples
    --------
    >>> metric("logit-diff"), metric("my own")
    ('logit difference', 'my own')
    """
    loss, _, span = name.partition(":")
    if span and loss == "loss":
        return f"loss of {visible_facts(span, 30)}"
    return _METRICS.get(name, visible_facts(name, 40))


def method(name: str) -> str:
    """Return how edges are scored as it is written in words.

    Examples
    --------
    >>> method("eap-ig")
    'EAP-IG'
    """
    return _METHODS.get(name, visible_facts(name, 40))


def ablation(name: str) -> str:
    """Return what stands in for what is taken away as it is written in words.

    Examples
    --------
    >>> ablation("corrupted"), ablation("mean")
    ('corrupted-prompt ablation', 'mean ablation')
    """
    return f"{'corrupted-prompt' if name == 'corrupted' else visible_facts(name, 40)} ablation"


# Live views that end with a table, which is closed at first.
_TABLED = frozenset({"attention", "circuit", "feature", "trace"})
# What the views' parts follow.
_LAYOUTS = {
    "circuit": ("circuit", "stacked"),
    "feature": ("feature", "stacked"),
    "patching": ("patching",),
    "estimate": ("patching",),
    "trace": ("circuit", "stacked", "trace"),
}
_FALLING = frozenset({"loss", "rank", "kl"})
_METHODS = {"eap": "EAP", "eap-ig": "EAP-IG", "acdc": "ACDC", "exact": "exact edge patching"}
_METRICS = {
    "logit-diff": "logit difference",
    "logprob": "log probability",
    "prob": "probability",
    "kl": "KL divergence",
}
# JupyterLab and Notebook 7 have room beside and below markup, which a live view has not.
_IN_JUPYTER = """
.jp-RenderedHTMLCommon:has(>div.interp-frame,>*>div.interp-frame){padding-right:0}
.jp-RenderedHTMLCommon>div.interp-frame{margin:2px 0}
.jp-RenderedHTMLCommon>:has(>div.interp-frame){margin:0}
"""
_STANDALONE = f"""
.interp-card{{fill:var(--interp-bg);stroke:var(--interp-line)}}
.interp-rule{{stroke:var(--interp-line)}}
.interp-f{{font-family:{SANS};font-size:12px;fill:var(--interp-fg)}}
.interp-b{{font-weight:600}}
.interp-c{{font-family:{MONO};font-size:12px}}
"""
