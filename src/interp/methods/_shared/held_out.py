"""Which of many texts are trained on and which are held out, and what of these is measured on and goes into files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from interp.methods._shared.features import TOKENS
from interp.spec import Prompt

if TYPE_CHECKING:
    from interp.engine.model.tokens import Encoded

_HELD = 10  # one in so many texts is held out


def split(encoded: Sequence[Encoded]) -> tuple[list[Encoded], list[Encoded], bool]:
    """Return the texts that are trained on, those held out, and whether they are the same, for want of others."""
    different = list({one.ids: one for one in encoded}.values())
    count = -(-len(different) // _HELD)
    if count == len(different):
        return different, different, True
    held = {one.ids for one in different[-count:]}
    return [one for one in encoded if one.ids not in held], different[-count:], False


def first_of(prompts: Sequence[Encoded], most: int) -> list[Encoded]:
    """Return the first prompts, of at most so many tokens together, or the first one."""
    counts = np.cumsum([len(one.ids) for one in prompts])
    return list(prompts[: max(1, int((counts <= most).sum()))])


def plain_of(texts: Sequence[Prompt], encoded: Sequence[Encoded], held: set[tuple[int, ...]]) -> tuple[str, ...]:
    """Return texts held out, of at most so many tokens together, where they were given as plain texts."""
    chosen = {one.ids: text for text, one in zip(texts, encoded, strict=True) if one.ids in held}
    plain = [(ids, str(text.text)) for ids, text in chosen.items() if text.text is not None and text.second is None]
    counts = np.cumsum([len(ids) for ids, _ in plain])
    return tuple(text for _, text in plain[: max(1, int((counts <= TOKENS).sum()))])


def digest(prompts: Sequence[tuple[int, ...]]) -> str:
    """Return what tells these token ids from all others."""
    said = hashlib.blake2b(digest_size=16)
    for ids in prompts:
        said.update(np.array([len(ids), *ids], np.int64).tobytes())
    return said.hexdigest()
