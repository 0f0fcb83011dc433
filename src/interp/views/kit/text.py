"""How token strings and other foreign text are shown.

A token string is shown by one rule, `visible`, which can be read back: ``␣``, ``↵`` and ``⇥`` are a space, a newline
and a tab; ``⟨U+202E⟩`` is the character of that code point, for characters without ink of their own, characters that
rearrange their neighbours, and the characters that this rule itself uses; ``◌`` carries a combining mark that would
otherwise sit on a neighbour; everything else stands for itself. Two different tokens therefore never read alike.
A backslash is not special, so a partial-byte token, ``\\xF0``, reads as it arrives.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

_SHORT = {" ": "␣", "\n": "↵", "\t": "⇥"}
_OWN = frozenset("␣↵⇥⟨⟩◌")
# Characters that some fonts give no ink though their category is a letter, a mark or a symbol.
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | {
    chr(code) for block in ((0x180B, 0x1810), (0xFE00, 0xFE10), (0xE0100, 0xE01F0)) for code in range(*block)
}
_MARKS = 3
_INKLESS = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp", "Zs"})


def minus(text: str) -> str:
    """Return text whose negative numbers have true minus signs.

    Examples
    --------
    >>> minus("logit-diff -3.1")
    'logit-diff −3.1'
    """
    return re.sub(r"(?<!\w)-(?=\d)", "−", text)


def signed(value: float) -> str:
    """Return a value with its sign in about six columns.

    Examples
    --------
    >>> signed(0.5174), signed(-3.1), signed(0.0), signed(-2e-4), signed(-2e-6)
    ('+0.517', '−3.100', '0', '−0.0002', '−2.0e−06')
    """
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else f"{'+' if value > 0 else '−'}∞"
    size = abs(value)
    if size < 1e-3 or size >= 1e6:
        return (
            "0"
            if not size
            else format(value, "+.4f" if 5e-5 <= size < 1 else "+.1e").replace("-", "−").replace("e+", "e")
        )
    form = "+.3f" if size < 100 else "+,.1f" if size < 1e4 else "+,.0f"
    return format(value, form).replace("-", "−")


def visible(token: str, limit: int | None = 200) -> str:
    """Return `token` as it is shown: every character visible, no two tokens alike.

    Parameters
    ----------
    token
        A token's string.
    limit
        The widest result in columns (East Asian characters and emoji take two); a longer one keeps its beginning and
        its end around a ``…``. ``None`` never shortens, and only then is the form unique: see `labels`.

    Examples
    --------
    >>> visible(" Mary"), visible("a\\n"), visible("\\u202ex")
    ('␣Mary', 'a↵', '⟨U+202E⟩x')
    """
    if limit is None:
        return _shown(token)
    # A column holds at most _MARKS + 1 characters, so that the middle of a huge token need not be read.
    if len(token) <= (_MARKS + 1) * limit:
        full = _shown(token)
        if columns(full) <= limit:
            return full
    tail = max(0, (limit - 1) // 3)
    head = _fit(_units(token[: limit + 1]), limit - 1 - tail)
    return f"{head}…{_fit(reversed(_units(token[-limit - 1 :])), tail, backwards=True)}"


def labels(tokens: Sequence[str], limit: int) -> list[str]:
    """Return one label for each of a prompt's tokens, at most about `limit` columns wide.

    Different tokens get different labels: where shortening makes two alike, they are numbered ``⟨1⟩``, ``⟨2⟩``.

    Examples
    --------
    >>> labels([" a", "antidisestablishment", "antidisestablishmint"], 9)
    ['␣a', 'antidi…nt⟨1⟩', 'antidi…nt⟨2⟩']
    """
    short = {token: visible(token, limit) for token in dict.fromkeys(tokens)}
    owners: dict[str, list[str]] = {}
    for token, label in short.items():
        owners.setdefault(label, []).append(token)
    for label, same in owners.items():
        if len(same) > 1:
            short |= {token: f"{label}⟨{n}⟩" for n, token in enumerate(same, 1)}
    return [short[token] for token in tokens]


def columns(text: str) -> int:
    """Return how many columns of a monospaced font `text` takes.

    Examples
    --------
    >>> columns("ab漢")
    4
    """
    if text.isascii():
        return len(text)
    return sum(_width(character) for character in text)


def escape(text: str) -> str:
    """Return `text` for use between HTML or XML tags and in quoted attributes.

    Characters that XML forbids and characters that reorder text become ``⟨U+…⟩``; newlines and tabs stay.

    Examples
    --------
    >>> escape('<b title="x">\\x00')
    '&lt;b title=&quot;x&quot;&gt;⟨U+0000⟩'
    """
    if not text.isascii() or not text.isprintable():
        text = "".join(_code(c) if _unprintable(c) else c for c in text)
    return text.translate(_ENTITIES)


def tooltip(token: str, label: str, limit: int = 120_000) -> str:
    """Return the ``title`` attribute, with a leading space, that gives `token` in full where `label` does not.

    Examples
    --------
    >>> tooltip("antidisestablishment", "antidi…nt")
    ' title="antidisestablishment"'
    """
    full = visible(token, limit)
    return "" if full == label else f' title="{escape(full)}"'


def head_label(layer: int, head: int) -> str:
    """Return a head as it is drawn.

    Examples
    --------
    >>> head_label(18, 6)
    'L18H6'
    """
    return f"L{layer}H{head}"


def glyph_groups(glyphs: Mapping[int, str], count: int) -> list[tuple[int, str]]:
    """Return ``(position, character)`` of each character that several partial-byte tokens make, once.

    Examples
    --------
    >>> glyph_groups({1: "😀", 2: "😀"}, 3)
    [(1, '😀')]
    """
    return [(n, glyphs[n]) for n in range(count) if n in glyphs and glyphs.get(n - 1) != glyphs[n]]


# A Plotly figure hands what stands between two "$" to MathJax where a page has it; an entity it shows as it is.
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;", "$": "&#36;"})


def _code(character: str) -> str:
    return f"⟨U+{ord(character):04X}⟩"


def _unprintable(character: str) -> bool:
    category = unicodedata.category(character)
    if category in {"Cc", "Cs"}:
        return character not in "\n\t"
    return category in {"Cf", "Cn", "Zl", "Zp"}


def _width(character: str) -> int:
    if unicodedata.category(character) in {"Mn", "Me"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1


def _shown(token: str) -> str:
    return "".join(_units(token))


def _units(token: str) -> list[str]:
    """Return the shown form of each character, marks joined to what carries them."""
    if token.isascii() and token.isprintable():
        return list(token.replace(" ", "␣"))
    # Canonically equivalent tokens (é as one character or as two) would look the same: show what composes apart.
    composed = unicodedata.is_normalized("NFC", token)
    units: list[str] = []
    carried = False
    for character in token:
        category = unicodedata.category(character)
        if character in _SHORT:
            units.append(_SHORT[character])
            carried = False
        elif character in _OWN or character in _BLANK or category in _INKLESS or not (composed or _inert(character)):
            units.append(_code(character))
            carried = False
        elif category[0] == "M":
            # A tower of marks would grow out of its line.
            if carried and len(units[-1]) <= _MARKS:
                units[-1] += character
            else:
                units.append(f"◌{character}")
                carried = True
        else:
            units.append(character)
            carried = True
    return units


def _inert(character: str) -> bool:
    """Whether no composition can change `character` or join it to its neighbours: it is ASCII or a plain letter."""
    if character.isascii():
        return True
    jamo = 0x1100 <= ord(character) <= 0x11FF
    changes = unicodedata.normalize("NFD", character) != character or not unicodedata.is_normalized("NFC", character)
    return unicodedata.category(character) in {"Lu", "Ll", "Lo", "Nd", "So", "Po"} and not jamo and not changes


def _fit(units: Iterable[str], limit: int, backwards: bool = False) -> str:
    kept: list[str] = []
    for unit in units:
        limit -= columns(unit)
        if limit < 0:
            break
        kept.append(unit)
    return "".join(reversed(kept) if backwards else kept)
