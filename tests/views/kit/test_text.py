"""The one way in which tokens are shown: visible, harmless, never two alike."""

from __future__ import annotations

import re
import unicodedata
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from interp.views.kit.text import columns, escape, labels, tooltip, visible

# Characters on which the rule turns are common here, so that clashes would be found.
TRICKY = st.sampled_from(
    list(" ␣\n↵\t⇥⟨⟩◌\\xU+0F…´e\u0301é\u0323ᄒ\u1161하\u212bÅ\u202e\u200d\ufe0f\0\x1b\ufeff\u00a0\u3000")
)
TOKENS = st.text(st.one_of(TRICKY, st.characters()), max_size=12)


def read_back(shown: str) -> str:
    """Undo `visible`."""
    shown = shown.replace("◌", "").translate({ord("␣"): " ", ord("↵"): "\n", ord("⇥"): "\t"})
    return re.sub("⟨U\\+([0-9A-F]+)⟩", lambda match: chr(int(match[1], 16)), shown)


@given(TOKENS)
@example("␣x")
@example("⟨U+0000⟩")
@example("\\x00")
@example("◌\u0301")
@example("a" + "\u0301" * 20)
def test_a_shown_token_can_be_read_back(token: str) -> None:
    assert read_back(visible(token, None)) == token


@given(TOKENS, TOKENS)
@example("é", "e\u0301")
@example("\u212b", "Å")
@example("하", "\u1112\u1161")
@example("a\u0323\u0301", "a\u0301\u0323")
def test_two_tokens_never_look_alike(one: str, other: str) -> None:
    shown = [unicodedata.normalize("NFC", visible(token, None)) for token in (one, other)]
    assert (shown[0] == shown[1]) == (one == other)


@given(TOKENS)
def test_nothing_invisible_is_left(token: str) -> None:
    hidden = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp", "Zs"}
    assert not [c for c in visible(token, None) if unicodedata.category(c) in hidden]


@given(st.lists(st.text(TRICKY, min_size=0, max_size=40), max_size=8), st.integers(6, 20))
def test_labels_of_different_tokens_differ(tokens: list[str], limit: int) -> None:
    shown = labels(tokens, limit)
    assert len(set(shown)) == len(set(tokens))


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        (" Mary", "␣Mary"),
        ("  ", "␣␣"),
        ("\n\n", "↵↵"),
        ("\t", "⇥"),
        ("\0", "⟨U+0000⟩"),
        ("\x1b[1m", "⟨U+001B⟩[1m"),
        ("\u202eabc", "⟨U+202E⟩abc"),
        ("a\u200db", "a⟨U+200D⟩b"),
        ("\ufeff", "⟨U+FEFF⟩"),
        ("\u0301", "◌\u0301"),
        (" \u0301", "␣◌\u0301"),
        ("\ud800", "⟨U+D800⟩"),
        ("\\xF0\\x9F", "\\xF0\\x9F"),
        ("…", "…"),
        ("नमस्ते", "नमस्ते"),
        ("漢字", "漢字"),
        ("", ""),
    ],
)
def test_shown(token: str, shown: str) -> None:
    assert visible(token) == shown


@given(TOKENS, st.integers(3, 30))
def test_a_limit_is_kept(token: str, limit: int) -> None:
    assert columns(visible(token * 5, limit)) <= limit


def test_a_huge_token_is_elided_and_there_on_demand() -> None:
    token = "a" * 50_000 + "b" * 50_000
    short = visible(token, 12)
    assert columns(short) == 12
    assert short.startswith("aaaa")
    assert "…" in short
    assert short.endswith("bb")
    assert token in tooltip(token, short)


def test_a_tower_of_marks_does_not_grow() -> None:
    longest = max(map(len, re.findall("[^\u0301]\u0301*", visible("a" + "\u0301" * 50, None))))
    assert longest <= 4


@pytest.mark.slow
@given(st.text())
@example("\0\x0b\ufffe\ud800]]><!--&<>\"'")
def test_escaped_text_is_well_formed_and_comes_back(text: str) -> None:
    node = ElementTree.fromstring(f'<a b="{escape(text)}">{escape(text)}</a>')
    plain = [c for c in text if unicodedata.category(c) not in {"Cc", "Cs", "Cf", "Cn", "Zl", "Zp"}]
    assert "".join(plain) == "".join(c for c in _without_codes(node.text or "") if c not in "\n\t") or "⟨U+" in text
    assert not set("<>\"'") & set(escape(text))


def _without_codes(text: str) -> str:
    return re.sub("⟨U\\+[0-9A-F]+⟩", "", text)
