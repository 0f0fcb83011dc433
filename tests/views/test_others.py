"""Tables, tokens, predictions and files."""

from __future__ import annotations

import re
import struct
import warnings
from dataclasses import dataclass
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from interp.methods.text.predict import PredictResult
from interp.methods.text.tokens import TokensResult
from interp.results import Provenance, Result
from interp.views import export, predict, tokens
from interp.views.kit import table
from views.pictures import HOSTILE, attention, decode, hostile_attention

MADE = Provenance(model="test-model", technique="tokens")


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Rows(Result):
    count: int = 3

    def to_frame(self) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "name": [f"<b>{n}</b>" for n in range(self.count)],
                "n": [1000 * n for n in range(self.count)],
                "share": [n / 7 for n in range(self.count)],
            }
        )


def predicted(**fields: object) -> PredictResult:
    top = [(" Paris", 7042, 0.75), ("</script><script>x", 5, 0.125), ("\n", 198, 0.0625)]
    given = {"top": top, "tokens": ("<s>", " is"), "position": 1, "entropy": 1.5, "provenance": MADE}
    return PredictResult(**(given | fields))  # type: ignore[arg-type]


def test_a_table_shows_its_numbers_and_how_many_rows_are_left_out() -> None:
    page = Rows(count=100, provenance=MADE, notes=("a <note>",)).html()
    assert page.count("<tr") == 61
    assert "… 40 more rows" in page
    assert "&lt;b&gt;0&lt;/b&gt;" in page
    assert 'interp-number">59,000<' in page
    assert 'interp-number">8.4286<' in page
    assert "a &lt;note&gt;" in page
    assert "<b>" not in page


def test_numbers_and_words_are_told_apart_by_column() -> None:
    page = table.table(["a", "b"], [[1, "x"], [float("nan"), 2], [True, None]])
    assert "interp-number" not in page
    assert page.count("<td") == 6
    assert "interp-number" in table.table(["a"], [[1], [np.float32(2.5)], [float("nan")]])


def test_a_long_cell_is_cut_and_there_on_demand() -> None:
    page = table.table(["a"], [["x" * 5000]])
    assert "…" in page
    assert f'title="{"x" * 5000}"' in page


def test_a_result_without_a_table_shows_its_text() -> None:
    page = Result(provenance=MADE, notes=("careful",)).html()
    assert "<table" not in page
    assert page.count("careful") == 1
    assert "Tokens" in page


def test_tokens_have_positions_and_ids() -> None:
    result = TokensResult(tokens=HOSTILE, ids=tuple(range(500, 500 + len(HOSTILE))), glyphs={18: "😀"}, provenance=MADE)
    page = result.html()
    assert page.count('class="interp-chip"') == len(HOSTILE)
    assert "<small>18 → <bdi>😀</bdi></small><small>id 518</small>" in page
    assert "<script" not in page
    assert "test-model · 23 tokens" in page


def test_many_tokens_are_counted() -> None:
    count = 3000
    result = TokensResult(tokens=(" a",) * count, ids=(1,) * count, provenance=MADE)
    page = tokens.html(result)
    assert page.count('class="interp-chip"') == 2000
    assert "… 1,000 more tokens" in page
    assert "3,000 tokens" in page


def test_bars_are_as_long_as_the_probabilities() -> None:
    page = predict.html(predicted())
    assert re.findall('interp-bar" style="width:([0-9.]+)%', page) == ["75.00", "12.50", "6.25"]
    assert "0.7500" in page
    assert "id 7042" in page
    assert "these 3 hold <b>0.938</b> of the probability" in page
    assert "entropy 1.50 nats" in page
    assert "<script" not in page


def test_a_prediction_that_is_not_a_number_has_no_bar() -> None:
    page = predict.html(predicted(top=[("a", 1, float("nan"))], entropy=float("nan")))
    assert "width:0%" in page
    assert "nan" in page


def test_a_long_prompt_shows_its_end() -> None:
    page = predict.html(predicted(tokens=tuple(f" t{n}" for n in range(1000)), position=999))
    assert "… <span" in page
    assert "␣t999" in page
    assert "␣t100<" not in page
    assert "1,000 tokens" in page


class _Balanced(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        if tag not in {"meta", "wbr", "br", "img"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("made", [hostile_attention, predicted, Rows, lambda: attention(2, 2, 100)])
def test_a_page_is_complete_and_runs_nothing(made: object) -> None:
    assert callable(made)
    page = export.page(made())
    parser = _Balanced()
    parser.feed(page)
    assert parser.open == []
    assert page.startswith("<!doctype html>")
    assert '<meta charset="utf-8">' in page
    policy = re.search('Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    assert policy[1].split("; ")[0] == "default-src 'none'"
    assert "script-src" not in policy[1]
    assert page.count("<title>") == 1
    assert "<script" not in page
    page.encode()


def test_a_page_title_is_escaped() -> None:
    page = export.page(hostile_attention())
    title = page[page.index("<title>") : page.index("</title>")]
    assert "<img" not in title
    assert "&lt;img" in title
    assert "\u202e" not in page


def test_png_has_the_size_that_was_asked_for() -> None:
    source = attention(1, 2, 5).svg()
    root = ElementTree.fromstring(source)
    for scale in (1.0, 2.0):
        width, height = struct.unpack(">II", export.png(source, scale)[16:24])
        assert (width, height) == pytest.approx(
            (float(root.attrib["width"]) * scale, float(root.attrib["height"]) * scale), abs=1
        )


def test_png_has_text_and_says_when_it_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    source = attention(1, 2, 5).svg()
    blank = export._render(source, 1.0, fonts=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if export._has_fonts():
            assert (decode(export.png(source, 1.0)) != decode(blank)).any()
    monkeypatch.setattr(export, "_has_fonts", lambda: False)
    with pytest.warns(RuntimeWarning, match="no fonts"):
        export.png(source, 1.0)


def test_save_writes_every_picture(tmp_path: object) -> None:
    result = attention(2, 2, 5)
    for suffix, start in ((".html", b"<!doctype"), (".svg", b"<svg"), (".png", b"\x89PNG")):
        assert result.save(f"{tmp_path}/picture{suffix}").read_bytes().startswith(start)


def test_spans_stand_above_their_tokens_and_a_template_is_pale() -> None:
    strings = ("<|im_start|>", "user", "\n", "Who", " is", " <Mary>", "?", "<|im_end|>", "\n")
    spans = {"IO": (5,), "template": (0, 1, 2, 7, 8), "user": (3, 4, 6)}
    result = TokensResult(tokens=strings, ids=tuple(range(9)), spans=spans, provenance=MADE)
    page = result.html()
    above = re.findall(r'<i(?: class="interp-within")?>([^<]*)</i>', page)
    assert above == ["", "", "", "user", "", "IO", "user", "", ""]
    pale = re.findall(r'class="interp-chip( interp-around)?"', page)
    assert [bool(one) for one in pale] == [owner == "template" for owner in result.owners]
    assert page.count('class="interp-within"') == 4
    assert "pale: the chat template" in page
    assert result.to_frame()["span"].tolist() == result.owners
    plain = TokensResult(tokens=strings, ids=tuple(range(9)), provenance=MADE)
    assert "<i>" not in plain.html()
    assert "span" not in plain.to_frame()
