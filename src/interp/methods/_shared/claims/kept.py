"""What a session keeps of the claims that were tested in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from interp.methods._shared.claims.result import ClaimResult


@dataclass(frozen=True)
class Kept:
    """A claim as it was tested, and what its result is called; nothing where it has no name."""

    result: ClaimResult
    name: str = ""


def added(kept: Sequence[Kept], result: object) -> list[Kept]:
    """Return what is kept with one more claim, in the place of the same call; as it was where that is no claim."""
    if not isinstance(result, ClaimResult):
        return list(kept)
    code = result.code()
    if any(one.result.code() == code for one in kept):
        return [replace(one, result=result) if one.result.code() == code else one for one in kept]
    return [*kept, Kept(result)]


def named(kept: Sequence[Kept], result: object, name: str) -> list[Kept]:
    """Return what is kept, a claim of it called `name`, and no other so."""
    if not isinstance(result, ClaimResult):
        return list(kept)
    code = result.code()
    others = [one for one in kept if one.name != name or one.result.code() == code]
    return [replace(one, name=name) if one.result.code() == code else one for one in others]
