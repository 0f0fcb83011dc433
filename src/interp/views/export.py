"""A picture as a file of its own: one HTML page, one PNG."""

from __future__ import annotations

import warnings
from functools import cache
from typing import TYPE_CHECKING

from interp.views.kit.draw import SANS
from interp.views.kit.frame import visible_facts
from interp.views.kit.text import escape

if TYPE_CHECKING:
    from interp.results import Result

# Nothing but inline styles and inline images: no script runs and nothing is fetched, whatever a token holds.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def page(result: Result) -> str:
    """Return a result's picture as a complete HTML document that runs no script and fetches nothing.

    Examples
    --------
    >>> from interp.results import Result
    >>> page(Result())[:15]
    '<!doctype html>'
    """
    return document(result, result.html())


def document(result: Result, body: str, script: str = "") -> str:
    """Return a page around `body` that fetches nothing, and runs no script but `script`'s, as its policy names it."""
    title = visible_facts(f"{type(result).__name__.removesuffix('Result')} · {result.summary()}", 120)
    policy = f"{_POLICY}; script-src {script}" if script else _POLICY
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>:root{{color-scheme:light dark}}body{{margin:16px}}"
        f".interp-frame{{margin:0 auto!important}}</style></head><body>{body}</body></html>\n"
    )


def png(svg: str, scale: float = 2.0) -> bytes:
    """Return a standalone SVG document as PNG bytes, `scale` pixels to a CSS pixel, drawn with the system's fonts.

    Where the system has none, the picture has no text, and a warning says so.

    Examples
    --------
    >>> png('<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>')[1:4]
    b'PNG'
    """
    if "<text" in svg and not _has_fonts():
        warnings.warn(
            "this system has no fonts, so the PNG has no text; install one (fonts-dejavu-core), or save as .svg",
            RuntimeWarning,
            stacklevel=2,
        )
    return _render(svg, scale)


def _render(svg: str, scale: float, fonts: bool = True) -> bytes:
    import resvg_py

    return bytes(resvg_py.svg_to_bytes(svg_string=svg, zoom=scale, skip_system_fonts=not fonts))


@cache
def _has_fonts() -> bool:
    # In the pictures' own fonts: without a family the renderer asks for one that few systems have.
    shell = f'<svg xmlns="http://www.w3.org/2000/svg" width="20" height="20" style="font-family:{escape(SANS)}">'
    return _render(f'{shell}<text y="15">M</text></svg>', 1) != _render(f"{shell}</svg>", 1)
