"""Colours: one table per theme, as CSS variables for pages and as plain values for standalone pictures."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interp.errors import InputError, closest

THEMES = ("light", "dark")
AUTO = "auto"  # a standalone picture of both, between which the page that shows it chooses
# What the live views, in TypeScript, read as well; a test renders both and compares.
PALETTE: dict[str, Any] = json.loads(files("interp.views").joinpath("kit", "palette.json").read_text("utf-8"))
# Weights are drawn in LEVELS steps of lifted value; 0 is nothing at all, so that it is the host's own background.
LEVELS: int = PALETTE["weights"]["levels"]
POWER: float = PALETTE["weights"]["power"]
LIFT = f"colour = weight^{POWER}"
# From this step on, text in the opposite lightness has the better contrast, in both themes (a test measures it).
_INK_TURNS: int = PALETTE["weights"]["ink"]


def _frame(name: str) -> dict[str, str]:
    """Return a theme's plain colours: its own, and its text's at some opacity."""
    colours: dict[str, str] = PALETTE["frame"][name]
    faint = {kind: f"{colours['fg']}{round(255 * part):02x}" for kind, part in PALETTE["parts"].items()}
    shown = {f"show-{other}": "inline" if other == name else "none" for other in THEMES}
    return {**colours, **faint, "nan": PALETTE["nan"][name], **shown}


_FRAME = {name: _frame(name) for name in THEMES}
# Classes of heads: told apart by hue and lightness, readable as text on their theme's background.
_CLASSES: dict[str, list[str]] = PALETTE["classes"]
CLASSES = len(_CLASSES["light"])
# Stops at equal distances; both kinds have the theme's background at 0.
_SEQUENTIAL = {
    name: list(zip((0.0, 0.25, 0.5, 0.75, 1.0), (_FRAME[name]["bg"], *PALETTE["sequential"][name]), strict=True))
    for name in THEMES
}
_DIVERGING = {
    name: list(zip((-1.0, -0.5, 0.0, 0.5, 1.0), (*stops[:2], _FRAME[name]["bg"], *stops[2:]), strict=True))
    for name, stops in PALETTE["diverging"].items()
}

_Colour = tuple[int, int, int, int]


def check_theme(theme: str, *also: str) -> str:
    """Return `theme` if it is one, or one of `also`.

    Raises
    ------
    InputError
        Anything but ``"light"`` and ``"dark"``.

    Examples
    --------
    >>> check_theme("dark")
    'dark'
    """
    if theme not in (*THEMES, *also):
        raise InputError(f"no theme {theme!r}; themes are light and dark{closest(theme, THEMES)}")
    return theme


def level(weights: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Return the step, 0 … `LEVELS`, that each weight in 0 … 1 is drawn in; what is not finite gives 0.

    Examples
    --------
    >>> level(np.array([0.0, 0.1, 1.0])).tolist()
    [0, 8, 32]
    """
    clean = np.clip(np.where(np.isfinite(weights), weights, 0.0), 0.0, 1.0)
    return np.rint(clean**POWER * LEVELS).astype(np.uint8)


@cache
def sequential(theme: str) -> tuple[_Colour, ...]:
    """Return the colour, ``(red, green, blue, alpha)``, of each step 0 … `LEVELS`.

    The first segment is its end's colour with growing opacity: on the theme's background the same colours, and on
    another background still a scale that starts there.

    Examples
    --------
    >>> sequential("light")[0][3], sequential("light")[-1]
    (0, (20, 26, 102, 255))
    """
    stops = _SEQUENTIAL[check_theme(theme)]
    edge, first = stops[1]
    table: list[_Colour] = []
    for step in range(LEVELS + 1):
        at = step / LEVELS
        if at <= edge:
            table.append((*_rgb(first), round(255 * at / edge)))
        else:
            table.append((*_between(stops, at), 255))
    return tuple(table)


def diverging(value: float, theme: str) -> str:
    """Return the ``#rrggbb`` of `value` in −1 … 1: red towards the answer, blue against, the background at zero.

    Examples
    --------
    >>> diverging(0.0, "light")
    '#ffffff'
    """
    return "#{:02x}{:02x}{:02x}".format(*_between(_DIVERGING[check_theme(theme)], min(1.0, max(-1.0, value))))


def scale(theme: str, turned: bool = False) -> list[list[Any]]:
    """Return the diverging colours as a Plotly colour scale, from −1 to 1; the other way round when `turned`.

    Examples
    --------
    >>> scale("light")[8][0]
    0.5
    """
    steps = [n / 8 - 1 for n in range(17)]
    return [[(step + 1) / 2, diverging(-step if turned else step, theme)] for step in steps]


def paint(value: float) -> tuple[tuple[str, float], ...]:
    """Return the colours, ``(CSS colour, opacity)``, that lie over each other where `value` in −1 … 1 is drawn.

    On a theme's background they look as `diverging`; on another background they still start there.

    Examples
    --------
    >>> paint(0.25)
    (('var(--interp-towards)', 0.5),)
    """
    side, size = "towards" if value > 0 else "against", min(1.0, abs(value))
    if size <= 0.5:
        return ((f"var(--interp-{side})", 2 * size),) if size else ()
    return (f"var(--interp-{side})", 1.0), (f"var(--interp-{side}-high)", 2 * size - 1)


def colour(name: str, theme: str) -> str:
    """Return one of a theme's plain colours, ``#rrggbb`` or ``#rrggbbaa``.

    Examples
    --------
    >>> colour("bg", "light")
    '#ffffff'
    """
    return _FRAME[check_theme(theme)][name]


def class_colour(number: int, theme: str) -> str:
    """Return the colour of a class by its number, ``#rrggbb``; after `CLASSES` they begin anew.

    Examples
    --------
    >>> class_colour(0, "light")
    '#0d9668'
    """
    return _CLASSES[check_theme(theme)][number % CLASSES]


def solid(name: str, theme: str) -> str:
    """Return one of a theme's plain colours as it looks on the background, ``#rrggbb``.

    Examples
    --------
    >>> len(colour("muted", "light")), len(solid("muted", "light"))
    (9, 7)
    """
    red, green, blue = _rgb(colour(name, theme))
    alpha = int(colour(name, theme)[7:] or "ff", 16) / 255
    mixed = (
        round(back + (front - back) * alpha)
        for back, front in zip(_rgb(colour("bg", theme)), (red, green, blue), strict=True)
    )
    return "#{:02x}{:02x}{:02x}".format(*mixed)


def ink(step: int) -> str:
    """Return the CSS colour of text on a step of the sequential scale, for both themes at once.

    Examples
    --------
    >>> ink(0), ink(LEVELS)
    ('var(--interp-fg)', 'var(--interp-on-high)')
    """
    return f"var(--interp-{'on-high' if step >= _INK_TURNS else 'fg'})"


@cache
def variables(theme: str) -> dict[str, str]:
    """Return every CSS variable of a theme, without the ``--interp-`` in front of its name.

    Examples
    --------
    >>> variables("light")["s32"]
    '#141a66'
    """
    table = dict(_FRAME[check_theme(theme)])
    table |= {f"k{n}": value for n, value in enumerate(_CLASSES[theme])}
    (_, table["against-high"]), (_, table["against"]), _, (_, table["towards"]), (_, table["towards-high"]) = (
        _DIVERGING[theme]
    )
    for step, rgba in enumerate(sequential(theme)):
        table[f"s{step}"] = "#" + "".join(f"{part:02x}" for part in (rgba if rgba[3] < 255 else rgba[:3]))
    return table


def plain(css: str, theme: str) -> str:
    """Return `css` with every variable replaced by its value, for renderers that know no variables.

    With `AUTO` they stay as they are: see `standalone`.

    Examples
    --------
    >>> plain("fill:var(--interp-fg)", "dark")
    'fill:#e6e8ee'
    """
    if theme == AUTO:
        return css
    table = variables(theme)
    return re.sub(r"var\(--interp-([\w-]+)\)", lambda match: table[match[1]], css)


@cache
def standalone(theme: str) -> str:
    """Return the rules that a standalone picture begins with: with `AUTO`, the variables of both themes."""
    if theme != AUTO:
        return ""
    light, dark = (f"svg{{{_declarations(name)}}}" for name in THEMES)
    return f"{light}@media(prefers-color-scheme:dark){{{dark}}}"


@cache
def page_css() -> str:
    """Return the rules that choose the theme: VS Code's first, then JupyterLab's, then the system's.

    VS Code paints an output's container white in every theme, so that the frame brings its own background. Its
    ``--jp-*`` variables keep their light values: its body classes come last, and win.
    """
    jp_light, jp_dark = (f'body[data-jp-theme-light="{value}"] .interp-frame' for value in ("true", "false"))
    code = "html body.vscode-{} .interp-frame"
    light = [jp_light, code.format("light"), code.format("high-contrast-light")]
    dark = [jp_dark, code.format("dark"), code.format("high-contrast:not(.vscode-high-contrast-light)")]
    jp = ("--jp-layout-color1", "--jp-content-font-color1")
    editor = ("--vscode-editor-background", "--vscode-editor-foreground")
    return "\n".join(
        [
            f"{','.join(['.interp-frame', *light])}{{{_declarations('light')}}}",
            f"@media (prefers-color-scheme:dark){{.interp-frame{{{_declarations('dark')}}}}}",
            f"{','.join(dark)}{{{_declarations('dark')}}}",
            _host([jp_light], "light", *jp),
            _host([jp_dark], "dark", *jp),
            _host(light[1:], "light", *editor),
            _host(dark[1:], "dark", *editor),
            # High contrast: the editor's own lines, and no pale ink; named twice, to weigh no less than the dark theme.
            f"{code.format('high-contrast.vscode-high-contrast')}{{--interp-line:var(--vscode-contrastBorder,var(--interp-fg));"
            "--interp-muted:var(--interp-fg)}",
        ]
    )


def _declarations(theme: str) -> str:
    return f"color-scheme:{theme};" + ";".join(f"--interp-{name}:{value}" for name, value in variables(theme).items())


def _host(selectors: Sequence[str], theme: str, background: str, foreground: str) -> str:
    bg, fg = colour("bg", theme), colour("fg", theme)
    return f"{','.join(selectors)}{{--interp-bg:var({background},{bg});--interp-fg:var({foreground},{fg})}}"


def _rgb(text: str) -> tuple[int, int, int]:
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


def _between(stops: Sequence[tuple[float, str]], at: float) -> tuple[int, int, int]:
    places = [place for place, _ in stops]
    parts = zip(*(_rgb(text) for _, text in stops), strict=True)
    red, green, blue = (round(float(np.interp(at, places, part))) for part in parts)
    return red, green, blue
