"""Colours: they start at the background, they can be read, and the right theme wins."""

from __future__ import annotations

import re

import numpy as np
import pytest

from interp.errors import InputError
from interp.views.kit import raster, theme
from views.pictures import decode


def over(front: tuple[int, int, int, int], back: str) -> list[float]:
    base = [int(back[n : n + 2], 16) for n in (1, 3, 5)]
    return [b + (f - b) * front[3] / 255 for b, f in zip(base, front[:3], strict=True)]


def luminance(rgb: list[float]) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (part / 255 for part in rgb)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: float, other: float) -> float:
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


@pytest.mark.parametrize(("name", "sign"), [("light", -1), ("dark", 1)])
def test_the_scale_starts_at_the_background_and_only_goes_one_way(name: str, sign: int) -> None:
    seen = [luminance(over(colour, theme.colour("bg", name))) for colour in theme.sequential(name)]
    assert theme.sequential(name)[0][3] == 0
    assert (sign * np.diff(seen) > 0).all()


@pytest.mark.parametrize("name", theme.THEMES)
def test_text_can_be_read_on_every_step(name: str) -> None:
    table = theme.variables(name)
    for step, colour in enumerate(theme.sequential(name)):
        written = table[theme.ink(step)[len("var(--interp-") : -1]]
        ink = luminance([int(written[n : n + 2], 16) for n in (1, 3, 5)])
        assert contrast(ink, luminance(over(colour, table["bg"]))) > 3.7


@pytest.mark.parametrize("name", theme.THEMES)
def test_text_can_be_read_on_signed_colours(name: str) -> None:
    turns = theme.PALETTE["signed"]["ink"]
    for value in np.linspace(-1, 1, 201):
        written = theme.colour("on-high" if abs(value) > turns else "fg", name)
        ink, fill = (luminance(over((0, 0, 0, 0), css)) for css in (written, theme.diverging(value, name)))
        assert contrast(ink, fill) > 3.2


@pytest.mark.parametrize("name", theme.THEMES)
def test_muted_text_can_be_read(name: str) -> None:
    value = theme.colour("muted", name)
    rgba = tuple(int(value[n : n + 2], 16) for n in (1, 3, 5, 7))
    seen = luminance(over(rgba, theme.colour("bg", name)))  # type: ignore[arg-type]
    assert contrast(seen, luminance(over((0, 0, 0, 0), theme.colour("bg", name)))) > 4.5


def test_small_weights_are_lifted() -> None:
    assert theme.level(np.array([0.1]))[0] == round(0.1**0.6 * 32) > 0.1 * 32


def test_the_hosts_theme_wins_over_the_systems() -> None:
    rules = dict(re.findall(r"([^{}\n]+)\{(color-scheme:[^}]*)\}", theme.page_css()))
    dark = next(body for selector, body in rules.items() if "vscode-dark" in selector)
    assert dark.startswith("color-scheme:dark")
    assert any('data-jp-theme-light="false"' in selector and "dark" in body[:18] for selector, body in rules.items())
    assert any('data-jp-theme-light="true"' in selector and "light" in body[:18] for selector, body in rules.items())
    assert "@media (prefers-color-scheme:dark){.interp-frame{color-scheme:dark" in theme.page_css()
    assert (
        "--interp-bg:var(--vscode-editor-background,#1e1f22);--interp-fg:var(--vscode-editor-foreground"
        in theme.page_css()
    )
    assert "--interp-bg:var(--jp-layout-color1,#1e1f22)" in theme.page_css()


def test_diverging_is_centred_on_the_background() -> None:
    for name in theme.THEMES:
        assert theme.diverging(0, name) == theme.colour("bg", name)
        towards, against = (theme.diverging(value, name) for value in (1.0, -1.0))
        assert int(towards[1:3], 16) > int(towards[5:7], 16)
        assert int(against[1:3], 16) < int(against[5:7], 16)


def test_an_unknown_theme_is_named() -> None:
    with pytest.raises(InputError, match=r"no theme 'drak'; themes are light and dark \(did you mean dark\?\)"):
        theme.check_theme("drak")


def test_a_picture_keeps_its_largest_weights_when_it_shrinks() -> None:
    weights = np.zeros((100, 100), np.float32)
    weights[37, 5] = 1.0
    small = raster.steps(weights, 10)
    assert small.shape == (10, 10)
    assert small[3, 0] == theme.LEVELS
    assert np.count_nonzero(small) == 1


def test_png_holds_the_colours_of_the_theme() -> None:
    picture = np.array([[0, 16, theme.LEVELS, raster.HATCH]], np.uint8)
    for name in theme.THEMES:
        pixels = decode(raster.png(picture, name))
        assert pixels.shape == (1, 4, 4)
        assert pixels[0, 0, 3] == 0
        assert tuple(pixels[0, 1]) == theme.sequential(name)[16]
        assert tuple(pixels[0, 2]) == theme.sequential(name)[-1]


def test_what_is_not_finite_is_hatched() -> None:
    weights = np.full((12, 12), np.nan, np.float32)
    picture = raster.steps(weights)
    assert set(np.unique(picture)) == {0, raster.HATCH}
    weights[:6] = 0.5
    assert (raster.steps(weights)[:6] == theme.level(np.array(0.5))).all()
    assert (raster.steps(weights)[6:] == raster.HATCH).any()
