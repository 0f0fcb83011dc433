"""The pictures of activation patching: right, readable, harmless, small."""

from __future__ import annotations

import html as entities
import re
from dataclasses import replace
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest

from interp.errors import InputError
from interp.methods.patching.patch import PatchingResult
from interp.results import Provenance
from interp.results.effects import PairChecks
from interp.sites import axes
from interp.views import export, patching_spans
from interp.views import patching as pictures
from interp.views.kit import heatmap, theme
from interp.views.kit.text import signed
from interp.views.patching_view import PatchingView
from views.pictures import HOSTILE, decode
from views.test_attention import Page

SVG = "{http://www.w3.org/2000/svg}"
TOKENS = tuple(f" t{n}" for n in range(15))


def sweep(
    by: str = "head",
    shape: tuple[int, ...] = (12, 12),
    *,
    planted: dict[tuple[int, ...], float] | None = None,
    pairs: int = 1,
    base: tuple[float, float] = (3.0, -2.0),
    direction: str = "denoise",
    noise: float = 0.01,
    tokens: tuple[str, ...] | None = None,
    site: str = "z",
    seed: int = 0,
    **fields: object,
) -> PatchingResult:
    """Return a sweep of small random recoveries in which `planted` cells have theirs."""
    rng = np.random.default_rng(seed)
    clean, corrupted = base
    start = clean if direction == "noise" else corrupted
    share = rng.normal(0, noise, (pairs, *shape))
    for cell, value in (planted or {}).items():
        share[(slice(None), *cell)] = value + rng.normal(0, 0.05, pairs) * (pairs > 1)
    per_pair = start + share * (clean - corrupted)
    patched = per_pair.mean(0)
    names = axes(site, by)
    if tokens is None:
        tokens = tuple(f" t{n}" for n in range(shape[-1] if "position" in by else 15))
    differ = min(2, len(tokens) - 1)
    other = tuple(f"{token}'" if n == differ else token for n, token in enumerate(tokens))
    with np.errstate(divide="ignore", invalid="ignore"):
        recovery = (patched - corrupted) / (clean - corrupted)
    given: dict[str, object] = {
        "layers": tuple(range(shape[0])),
        "positions": tokens if "position" in by else (),
        "interval": np.quantile(per_pair - start, [0.025, 0.975], axis=0)
        if pairs > 1
        else np.full((2, *shape), np.nan),
        "recovery_interval": np.full((2, *shape), np.nan)
        if pairs < 2
        else np.sort(np.quantile(per_pair - start, [0.025, 0.975], axis=0) * 1.25 / (clean - corrupted), axis=0)
        + (start - corrupted) / (clean - corrupted),
        "done": np.ones(shape, bool),
        "checks": PairChecks(
            clean=(tokens,) * pairs,
            corrupted=(other,) * pairs,
            differing=((differ,),) * pairs,
            answer=(((" John", 1),),) * pairs,
            wrong=(((" Mary", 2),),) * pairs,
            clean_metric=(clean,) * pairs,
            corrupted_metric=(corrupted,) * pairs,
        ),
        "provenance": Provenance(model="test-model", technique="patch"),
        "metric": "logit-diff",
    }
    return PatchingResult(
        site=site,
        by=by,
        direction=direction,
        axes=names,
        patched=patched,
        effect=patched - start,
        recovery=recovery,
        per_pair=per_pair,
        clean_metric=clean,
        corrupted_metric=corrupted,
        **(given | fields),  # type: ignore[arg-type]
    )


def partial(result: PatchingResult, count: int) -> PatchingResult:
    """Return `result` as it is after `count` cells."""
    done = (np.arange(result.done.size) < count).reshape(result.done.shape)
    held = {name: np.where(done, getattr(result, name), np.nan) for name in ("patched", "effect", "recovery")}
    return replace(result, done=done, **held)


def estimated(result: PatchingResult, verified: int = 0) -> PatchingResult:
    """Return `result` as an estimate of it, some of whose cells were verified."""
    off = np.random.default_rng(1).normal(1, 0.4, result.effect.shape)
    estimate = result.effect * off
    order = np.argsort(-np.abs(estimate), axis=None)
    done = np.isin(np.arange(estimate.size), order[:verified]).reshape(estimate.shape)
    held = {name: np.where(done, getattr(result, name), np.nan) for name in ("patched", "effect", "recovery")}
    interval = np.where(done, result.interval, np.nan)
    return replace(result, method="attribution", estimate=estimate, done=done, interval=interval, **held)


def real_like(by: str = "head", shape: tuple[int, ...] = (12, 12), **fields: object) -> PatchingResult:
    """Return a sweep with the strong cells of a well-known circuit."""
    strong = {(9, 9): 0.517, (10, 7): -0.42, (8, 6): 0.36, (9, 6): 0.31, (11, 10): -0.3, (10, 0): 0.28, (7, 9): 0.22}
    if len(shape) == 3:
        planted = {(*cell, shape[2] - 1): value for cell, value in strong.items()}
        planted |= {(5, 5, 10): 0.2, (6, 9, 10): 0.15}
    else:
        planted = {
            cell: value for cell, value in strong.items() if all(a < b for a, b in zip(cell, shape, strict=False))
        }
    return sweep(by, shape, planted=planted, noise=0.02, **fields)  # type: ignore[arg-type]


SHAPES = {
    "usual": lambda: real_like(),
    "many pairs": lambda: real_like(pairs=32, task="ioi"),
    "many layers": lambda: sweep(shape=(30, 9), planted={(23, 3): 0.45}),
    "one cell": lambda: sweep(shape=(1, 1), planted={(0, 0): 0.5}),
    "one layer": lambda: sweep(shape=(1, 9), layers=(5,), planted={(0, 3): 0.5}),
    "positions": lambda: sweep("position", (30, 60), site="resid_pre", planted={(3, 2): 1.0}),
    "many positions": lambda: sweep("position", (4, 700), site="resid_pre", planted={(3, 402): 1.0}),
    "one position": lambda: sweep("position", (4, 1), site="resid_pre"),
    "layers": lambda: sweep("layer", (30,), site="mlp_out", planted={(3,): 0.7, (20,): -0.3}),
    "layers of many pairs": lambda: sweep("layer", (48,), site="mlp_out", planted={(3,): 0.7}, pairs=4),
    "neurons": lambda: sweep("neuron", (12, 3072), site="neuron", noise=0.001, planted={(3, 17): 0.1}),
    "head and position": lambda: real_like("head-position", (12, 12, 15)),
    "many heads": lambda: sweep(shape=(48, 64), planted={(40, 60): 0.3}),
    "estimate": lambda: estimated(real_like()),
    "verified estimate": lambda: estimated(real_like(pairs=32, task="ioi"), 20),
    "verified estimate of layers": lambda: estimated(sweep("layer", (30,), site="mlp_out", planted={(3,): 0.7}), 5),
    "verified estimate of positions": lambda: estimated(sweep("position", (30, 60), site="resid_pre"), 1),
    "verified estimate of neurons": lambda: estimated(sweep("neuron", (12, 300), site="neuron"), 9),
    "verified estimate by head and position": lambda: estimated(real_like("head-position", (12, 12, 15)), 20),
    "noising": lambda: real_like(direction="noise"),
    "partial": lambda: partial(real_like(), 37),
    "partial neurons": lambda: partial(sweep("neuron", (4, 100), site="neuron"), 150),
    "partial layers": lambda: partial(sweep("layer", (12,), site="mlp_out"), 5),
    "partial heads and positions": lambda: partial(real_like("head-position", (12, 12, 15)), 1000),
    "nothing yet": lambda: partial(real_like(), 0),
    "no neurons yet": lambda: partial(sweep("neuron", (4, 100), site="neuron"), 0),
    "no layer yet": lambda: partial(sweep("layer", (12,), site="mlp_out"), 0),
    "the same prompt twice": lambda: sweep(base=(3.0, 3.0)),
    "no pair to show": lambda: sweep(checks=PairChecks((), (), (), (), ())),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_has_both_pictures(shape: str) -> None:
    result = SHAPES[shape]()
    page = Page(result.html())
    assert page.open == []
    assert len([tag for tag, _ in page.tags if tag == "svg"]) >= 1
    for name in theme.THEMES:
        root = ElementTree.fromstring(result.svg(name))
        width, height = float(root.attrib["width"]), float(root.attrib["height"])
        assert width < 1200
        assert height < 1000
        drawn = " ".join(" ".join(node.attrib.values()) for node in root.iter())
        assert not re.search(r"\b(nan|inf)\b", drawn, re.IGNORECASE)
    assert result.to_plotly().data


@pytest.mark.parametrize("shape", ["usual", "positions", "many positions", "neurons", "many heads"])
def test_pictures_stay_small(shape: str) -> None:
    assert len(SHAPES[shape]().html().encode()) < 250_000


def cells(root: ElementTree.Element, number: int = 0) -> tuple[float, float]:
    """Return where the cells of the first heatmap start."""
    parents = {child: parent for parent in root.iter() for child in parent}
    node = [n for n in root.iter() if n.attrib.get("class") == "interp-cells"][number]
    x = y = 0.0
    while True:
        found = re.match(r"translate\(([\d.]+) ([\d.]+)\)", node.attrib.get("transform", ""))
        if found:
            x, y = x + float(found[1]), y + float(found[2])
        if node not in parents:
            return x, y
        node = parents[node]


def seen(result: PatchingResult, name: str, side: float = 24, number: int = 0) -> dict[tuple[int, int], np.ndarray]:
    """Return the colour in each cell of a picture, off its centre, where no dot is."""
    pixels = decode(result.png(name, 1.0))
    x, y = cells(ElementTree.fromstring(result.svg(name)), number)
    rows, columns = result.patched.shape[:2]
    return {
        (row, column): pixels[int(y + (row + 0.5) * side), int(x + (column + 0.25) * side), :3]
        for row in range(rows)
        for column in range(columns)
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", theme.THEMES)
def test_the_heatmap_is_painted_with_the_recoveries(name: str) -> None:
    result = real_like()
    painted = seen(result, name)
    end = heatmap.limit(result.recovery, 1e-3, 0.5)
    for cell, colour in painted.items():
        want = theme.diverging(float(heatmap.lifted(result.recovery[cell] / end)), name)
        expected = np.array([int(want[n : n + 2], 16) for n in (1, 3, 5)], float)
        assert np.abs(colour.astype(float) - expected).max() <= 5, cell
    assert painted[9, 9][0] > painted[9, 9][2] + 60
    assert painted[10, 7][2] > painted[10, 7][0] + 60


def test_noising_is_blue_where_the_answer_is_lost_and_white_where_nothing_happens() -> None:
    result = sweep(direction="noise", planted={(5, 5): -0.6}, noise=0.0)
    assert result.recovery[5, 5] == pytest.approx(0.4)
    painted = seen(result, "light")
    assert painted[5, 5][2] > painted[5, 5][0] + 60
    assert tuple(painted[0, 0]) == (255, 255, 255)
    assert "−1 corrupted behaviour reached" in result.html()
    assert "recovery <b>+0.400</b>" in result.html()
    assert "corrupted into clean" in result.html()


@pytest.mark.slow
def test_a_metric_that_falls_is_red_where_it_falls() -> None:
    """Recovery turns the sign by itself; without it, the colours must."""
    restored = sweep(metric="rank", base=(0.0, 20.0), planted={(5, 5): 0.5}, noise=0.0)
    assert restored.effect[5, 5] < 0
    painted = seen(restored, "light")[5, 5]
    assert painted[0] > painted[2] + 60
    same = sweep(metric="rank", base=(4.0, 4.0))
    same.effect[5, 5] = -3.0
    painted = seen(same, "light")[5, 5]
    assert painted[0] > painted[2] + 60
    assert "towards-high" in same.html().partition('interp-list"')[2].partition("</svg>")[0]


def test_cells_that_are_not_computed_are_flat_and_said() -> None:
    result = partial(real_like(), 37)
    painted = seen(result, "light")
    empty = {tuple(colour) for (row, column), colour in painted.items() if row * 12 + column >= 37}
    assert len(empty) == 1
    assert len({tuple(colour) for (row, column), colour in painted.items() if row * 12 + column < 37}) > 5
    # resvg rounds an alpha of 4 % up or down.
    tint = int(theme.colour("empty", "light")[7:], 16) / 255
    assert abs(next(iter(empty))[0] - (255 - tint * (255 - 0x1A))) <= 2
    for text in (result.html(), result.svg()):
        assert "37 of 144 cells · stopped" in text
        assert "grey: 107 cells not computed" in text
        assert "strongest of 37" in text
    assert "of 144 cells" not in real_like().html()


def test_what_is_not_finite_is_hatched_and_said() -> None:
    result = real_like()
    for values in (result.recovery, result.effect, result.patched):
        values[3, 4], values[9, 9] = np.nan, np.inf
    for text in (result.html(), result.svg()):
        assert "hatched: 2 cells without a finite value" in text
        assert "the metric is NaN or infinite in 2 cells, first in layer 3" in text
        strokes = re.search('interp-hatch" d="([^"]*)"', text)
        assert strokes
        assert strokes[1].count("M") == 6
        assert "L10H7" in text.rpartition("strongest of 144")[0][-160:]
    said = replace(result, notes=("the metric is NaN or infinite in 2 cells, first in layer 3",))
    assert said.svg().count("NaN or infinite") == 1
    assert "hatch" not in Page(real_like().html()).text


def test_nothing_but_nan_has_a_picture() -> None:
    for by, shape in (("head", (3, 4)), ("layer", (5,)), ("neuron", (3, 50)), ("head-position", (3, 4, 5))):
        result = sweep(by, shape, site="neuron" if by == "neuron" else "z")
        for values in (result.recovery, result.effect, result.patched):
            values[:] = np.nan
        assert "no cell has a finite effect" in result.html()
        assert ElementTree.fromstring(result.svg("dark")) is not None


@pytest.mark.slow
def test_one_cell_does_not_wash_out_the_rest() -> None:
    result = real_like()
    before = seen(result, "light")[10, 7].astype(int)
    result.recovery[2, 2] = result.effect[2, 2] = 180.0
    after = seen(result, "light")
    assert after[2, 2][0] > after[2, 2][2] + 60
    assert after[10, 7][2] > after[10, 7][0] + 30
    assert before[2] > before[0] + 60
    assert "dotted: 1 cell beyond the scale, up to +180.0" in result.html()
    assert result.svg().count("<circle") == 1
    assert "beyond the scale" not in real_like().html()


def test_rounding_errors_are_not_drawn_as_effects() -> None:
    result = sweep(noise=1e-8)
    assert {tuple(colour) for colour in seen(result, "light").values()} == {(255, 255, 255)}
    assert "no cell changes the metric" in sweep(noise=0.0, base=(2.0, 2.0)).html()


@pytest.mark.parametrize(
    ("values", "end"),
    [([0.0, 0.0], 0.001), ([0.517, 0.4, 0.3, 0.2], 0.6), ([1.043], 1.2), ([np.nan, -0.3], 0.3), ([np.nan], 0.001)],
)
def test_the_scale_ends_at_a_round_number(values: list[float], end: float) -> None:
    assert heatmap.limit(np.array(values), 0.001, 0.5) == end


def test_page_and_standalone_picture_say_the_same() -> None:
    result = real_like(pairs=32, task="ioi", notes=("pair 3 is odd",))
    page = " ".join("".join(Page(result.html()).text).split())
    alone = " ".join("".join(ElementTree.fromstring(result.svg()).itertext()).split())
    low, high = result.interval[:, 9, 9]
    for text in (page, alone):
        assert "Activation patching" in text
        assert "test-model · z by head · ioi, 32 pairs · clean into corrupted · logit difference" in text
        assert "Pair 1 of 32" in text
        assert "mean of 32 pairs" in text
        assert f"recovery {signed(result.recovery[9, 9])}" in text
        assert f"effect {signed(result.effect[9, 9])}" in text
        assert f"[{signed(low)}, {signed(high)}] over 32 pairs" in text
        assert "␣John over ␣Mary" in text
        assert "+3.000" in text
        assert "−2.000" in text
        assert "pair 3 is odd" in text


def test_the_strongest_are_those_of_the_result() -> None:
    for result in (real_like(), real_like(direction="noise")):
        root = ElementTree.fromstring(result.svg())
        texts = ["".join(node.itertext()) for node in root.iter(f"{SVG}text")]
        want = [f"L{name.replace('.', 'H')}" for name, _, _ in result.top(10)]
        assert [text for text in texts if re.fullmatch(r"L\d+H\d+", text)][:10] == want
        shown = texts[texts.index(want[0]) + 1 :: 2][:10]
        offset = 1 if result.direction == "noise" else 0
        assert shown == [signed(recovery - offset) for _, _, recovery in result.top(10)]


def test_bars_point_the_way_of_their_numbers() -> None:
    result = sweep("layer", (4,), site="mlp_out", noise=0.0, planted={(0,): 0.5, (1,): -0.25})
    root = ElementTree.fromstring(result.svg())
    bars = [node.attrib for node in root.iter(f"{SVG}rect") if node.attrib.get("rx") == "1.5"]
    assert len(bars) == 2
    assert theme.variables("light")["towards-high"] in bars[0]["style"]
    assert theme.variables("light")["against-high"] in bars[1]["style"]
    assert float(bars[0]["width"]) == pytest.approx(2 * float(bars[1]["width"]), rel=0.01)
    assert float(bars[1]["x"]) + float(bars[1]["width"]) == pytest.approx(float(bars[0]["x"]), abs=0.02)


def test_the_interval_is_drawn_on_the_bars_scale() -> None:
    result = sweep("layer", (3,), site="mlp_out", noise=0.0, planted={(0,): 0.5}, pairs=9)
    root = ElementTree.fromstring(result.svg())
    bar = next(node.attrib for node in root.iter(f"{SVG}rect") if node.attrib.get("rx") == "1.5")
    line = next(node.attrib["d"] for node in root.iter(f"{SVG}path") if node.attrib.get("class") == "interp-span")
    unit = float(bar["width"]) / result.recovery[0]
    low, high = (float(x) for x in re.findall(r"[MH]([\d.]+)", line))
    assert low == pytest.approx(float(bar["x"]) + result.recovery_interval[0, 0] * unit, abs=0.02)
    assert high == pytest.approx(float(bar["x"]) + result.recovery_interval[1, 0] * unit, abs=0.02)
    assert "thin line: 95 % interval over 9 pairs" in result.html()


def test_the_tokens_that_differ_are_underlined_and_name_the_positions() -> None:
    tokens = ("<bos>", "When", " John", " and", " Mary")
    result = sweep("position", (3, 5), site="resid_pre", tokens=tokens, planted={(1, 2): 0.9})
    text = result.html()
    assert '<bdi class="interp-differs">␣John</bdi>' in text
    assert '<bdi class="interp-differs">␣John&#39;</bdi>' in text
    assert text.count('class="interp-differs"') == 2
    page = "".join(Page(text).text)
    assert "L1 ␣John (2)" in page
    assert "When␣John and Mary" in page
    assert "Positions: a row per layer" in page


def test_a_long_pair_is_shown_around_what_differs() -> None:
    result = sweep(tokens=tuple(f" w{n}" for n in range(500)))
    page = "".join(Page(result.html()).text)
    assert "w1␣w2 w3" in page
    assert "w6 … w494" in page
    assert "w250" not in page


@pytest.mark.slow
def test_heads_by_position_show_where() -> None:
    result = real_like("head-position", (12, 12, 15))
    page = "".join(Page(result.html()).text)
    assert "Heads, each at its strongest position" in page
    assert "Where: positions of the strongest heads" in page
    assert "L9H9 ␣t14 (14)" in page
    painted = seen(result, "light")
    assert painted[9, 9][0] > painted[9, 9][2] + 60
    x, y = cells(ElementTree.fromstring(result.svg()), 1)
    pixels = decode(result.png("light", 1.0))
    strong, weak = (pixels[int(y + 12), int(x + (n + 0.25) * 24), :3].astype(int) for n in (14, 3))
    assert strong[0] > strong[2] + 60
    assert abs(weak[0] - weak[2]) < 30


def test_a_head_that_is_not_finite_at_one_position_is_hatched() -> None:
    result = real_like("head-position", (12, 12, 15))
    for values in (result.recovery, result.effect, result.patched):
        values[3, 4, 7] = np.nan
    strokes = re.search('interp-hatch" d="([^"]*)"', result.html())
    assert strokes
    assert strokes[1].startswith("M96 96L120 72")


def test_joined_positions_keep_the_strongest() -> None:
    result = sweep("position", (4, 700), site="resid_pre", planted={(3, 402): 1.0}, noise=0.0)
    assert "each cell is the strongest of 3 positions" in result.html()
    assert "L3 ␣t402 (402)" in result.html()
    # 234 cells of two pixels: the strongest is in the last row, at 402 // 3.
    assert re.findall(r'towards-high\)" d="(M[\d.]+ [\d.]+)', result.html())[0] == "M268 36"


def test_neurons_name_their_strongest() -> None:
    result = sweep("neuron", (12, 3072), site="neuron", noise=0.001, planted={(3, 17): 0.1, (9, 2000): -0.05})
    page = "".join(Page(result.html()).text)
    assert "L3 neuron 17" in page
    assert "L9 neuron 2000" in page
    assert "−0.050" in page
    assert "99 % of the layer's neurons" in page


def test_without_recovery_the_effect_is_shown() -> None:
    result = sweep(base=(3.0, 3.0))
    result.effect[2, 3] = 1.5
    for text in (result.html(), result.svg()):
        assert "effect on the logit difference: clean = corrupted, so no recovery" in text
        assert "recovery undefined: clean = corrupted" in text
    painted = seen(result, "light")[2, 3]
    assert painted[0] > painted[2] + 60


def test_another_model_is_named() -> None:
    made = Provenance(model="tuned", technique="patch", arguments={"from_model": "<b>base</b>"})
    page = "".join(Page(real_like(provenance=made).html()).text)
    assert "tuned · z by head · 1 pair · activations of <b>base</b> · logit difference" in page
    assert "theirs" in page
    assert "1 the other model's behaviour" in page


def hostile(by: str) -> PatchingResult:
    shape = {"position": (2, len(HOSTILE)), "head-position": (2, 2, len(HOSTILE)), "head": (2, 2)}[by]
    name = '<img src=x onerror="alert(2)">\u202e'
    result = sweep(
        by,
        shape,
        tokens=HOSTILE,
        noise=0.2,
        task="<script>task</script>",
        metric="<b onclick=alert(3)>\u202e",
        notes=("<i>note</i>\u202e",),
        provenance=Provenance(model=name, technique="patch"),
    )
    answers = (((HOSTILE[0], 1), (HOSTILE[1], 2), (HOSTILE[7], 3), ("d", 4)),)
    return replace(result, checks=replace(result.checks, answer=answers, wrong=(((HOSTILE[2], 5),),)))


@pytest.mark.slow
@pytest.mark.parametrize("by", ["head", "position", "head-position"])
def test_hostile_text_stays_text(by: str) -> None:
    result = hostile(by)
    page = Page(result.html())
    assert page.open == []
    allowed = {"img", "div", "span", "b", "bdi", "style", "svg", "path", "text", "tspan", "g", "rect", "circle"}
    assert {tag for tag, _ in page.tags} <= allowed
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith(("on", "data-")) or name == "id"]
    assert "<script>task</script>" in "".join(page.text)
    assert "\u202e" not in entities.unescape(result.html())
    for name in theme.THEMES:
        source = result.svg(name)
        root = ElementTree.fromstring(source)
        tags = {node.tag.removeprefix(SVG) for node in root.iter()}
        assert tags <= {"svg", "title", "style", "rect", "text", "tspan", "g", "path", "circle"}
        assert not [key for node in root.iter() for key in node.attrib if key.startswith("on")]
        assert "var(" not in source
        assert len(source) < 200_000
        assert decode(export.png(source, 1.0)).shape[2] == 4


def test_nothing_outside_is_named() -> None:
    for text in (hostile("position").html(), hostile("head").svg(), export.page(real_like())):
        assert set(re.findall("https?:[^\"'\\s<>)]*", text)) <= {"http://www.w3.org/2000/svg"}
        assert not re.findall(r"url\(|@import|<script|<link|<iframe|javascript:", text)
        for address in re.findall(r'(?:href|src)="([^"]*)', text):
            assert address.startswith("data:image/svg+xml,")


def test_an_untrusted_notebook_still_has_the_picture() -> None:
    result = real_like()
    image = next(attributes for tag, attributes in Page(result.html()).tags if tag == "img")
    drawn = unquote((image["src"] or "").partition(",")[2])
    assert drawn == result.svg(theme.AUTO)
    assert "@media(prefers-color-scheme:dark){svg{" in drawn, "in the dark it is dark"


def test_plotly_shows_the_quantity_and_leaves_gaps() -> None:
    result = partial(real_like(), 140)
    result.recovery[0, 0] = np.inf
    heatmap = result.to_plotly(theme="dark").data[0]
    shown = np.asarray(heatmap.z, float)
    assert np.isnan(shown[0, 0])
    assert np.isnan(shown[11, 8:]).all()
    assert shown[9, 9] == pytest.approx(0.517)
    assert heatmap.zmin == -heatmap.zmax
    scale = dict(heatmap.colorscale)
    assert scale[0.5] == theme.colour("bg", "dark")
    assert scale[1.0] == theme.diverging(1.0, "dark")
    assert 'class="' not in "".join(hostile("position").to_plotly().data[0].x)
    assert not [name for name in hostile("position").to_plotly().data[0].x if "<" in name]
    layers = sweep("layer", (4,), site="mlp_out", pairs=3, planted={(2,): 0.5}).to_plotly().data[0]
    assert layers.type == "bar"
    assert (np.asarray(layers.error_x.array) >= 0).all()
    with pytest.raises(InputError, match="no theme 'drak'"):
        pictures.plotly(result, theme="drak")
    with pytest.raises(InputError, match="no theme 'drak'"):
        pictures.svg(result, theme="drak")


def test_a_turn_is_joined_once_and_a_template_is_not() -> None:
    tokens = ("<s>", "user", "\n", "Who", " is", " Mary", "?", "</s>", "bot", "\n")
    spans = {"template": (0, 1, 2, 7, 8), "user": (3, 4, 6), "IO": (5,), "END": (9,)}
    plain = sweep("span", (2, 4), site="resid_pre", tokens=tokens)
    both = {name: (places, places) for name, places in spans.items()}
    result = replace(plain, positions=tuple(spans), checks=replace(plain.checks, spans=(both,)))
    ((caption, drawing),) = patching_spans.drawn(PatchingView(result))
    assert caption == "Spans"
    named = [name for name in spans if f">{name}</text>" in drawing.body]
    assert named == ["user", "IO", "END"]
    paths = re.findall(r'<path [^>]*d="([^"]*)"', drawing.body)
    assert len(paths) == 2 * 4  # two pieces of the turn, and two more spans, in both prompts
    assert sum("L" in path for path in paths) == 2 * 3
    again = {name: (places, places) for name, places in {**spans, "X": (3, 6), "user": (4,)}.items()}
    twice = replace(plain, positions=tuple(again), checks=replace(plain.checks, spans=(again,)))
    ((_, drawing),) = patching_spans.drawn(PatchingView(twice))
    assert sum("L" in path for path in re.findall(r'<path [^>]*d="([^"]*)"', drawing.body)) == 2 * 5
