"""Bytes of tokens as text: what a vocabulary writes for them, and the characters that several tokens share."""

from __future__ import annotations

import re
from collections.abc import Sequence


def _byte_alphabet() -> dict[str, int]:
    """Return the printable character that GPT-2's tokenizer writes for each byte, the other way round."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(rest)}


BYTE_OF = _byte_alphabet()


# What looks like one of our escapes, in text that spells it out: its backslash is escaped in turn.
_LIKE_A_BYTE = re.compile(rb"\\(?=x[0-9A-F]{2})")


def readable(piece: bytes) -> str:
    """Return a token's bytes as text; what is no whole character as ``\\xF0``."""
    piece = _LIKE_A_BYTE.sub(rb"\\x5C", piece)
    text = ""
    while piece:
        try:
            return text + piece.decode("utf-8")
        except UnicodeDecodeError as error:
            text += piece[: error.start].decode("utf-8")
            text += "".join(f"\\x{byte:02X}" for byte in piece[error.start : error.end])
            piece = piece[error.end :]
    return text


def _is_whole(piece: bytes) -> bool:
    try:
        piece.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def joined(pieces: Sequence[bytes]) -> dict[int, str]:
    """Return position → character for the characters that several tokens share."""
    glyphs: dict[int, str] = {}
    start = 0
    while start < len(pieces):
        stop = start + 1
        if not _is_whole(pieces[start]):
            # A character is at most four bytes, so few tokens can share one.
            while stop < min(start + 4, len(pieces)) and not _is_whole(b"".join(pieces[start:stop])):
                stop += 1
            whole = b"".join(pieces[start:stop])
            if stop > start + 1 and _is_whole(whole):
                glyphs |= dict.fromkeys(range(start, stop), whole.decode().strip())
            else:
                stop = start + 1
        start = stop
    return glyphs
