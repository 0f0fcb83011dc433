"""The session's claims, which it keeps in their order, and testing all of them again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.errors import InputError, OutOfMemory, unless_interrupted
from interp.interface import registry, shards
from interp.interface.registry import command
from interp.interface.saved import load_result
from interp.methods._shared.claims.kept import Kept
from interp.methods._shared.claims.repeated_result import ClaimsResult, change
from interp.methods._shared.claims.result import ClaimResult
from interp.results.code import Own
from interp.spec import FileNames, ModelName

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from interp.interface.session import Session
    from interp.results import Result


@command
def claims(session: Session, files: FileNames = None, *, model: ModelName | None = None) -> ClaimsResult:
    """Test all claims of this session again, or those in files: what holds, what broke, and by how much.

    Each is tested as it was: the same prompts, the same swaps, the same controls, on the model as it is now. What it
    is compared with stays what it was when the claim was tested by itself.

    Parameters
    ----------
    files
        JSON files of claims that were saved; those of this session when not given.
    model
        The loaded model to test them on; the one that each was tested on, if it is loaded, else the current one.

    Returns
    -------
    ClaimsResult
        One row for each claim; one that cannot be tested says why.

    Raises
    ------
    InputError
        A file holds no claim, or no such model is loaded.
    Interrupted
        Stopped by Ctrl-C: the claims so far are in its ``result``.

    Examples
    --------
    >>> text = "variable: v = the answer\\ncarried by: mlp 3 at END\\nswap v -> the answer becomes the other answer"
    >>> result = interp.claim(text, task="ioi", n=8, controls="random")
    >>> interp.claims().changes
    ('unchanged',)
    """
    kept = list(session.kept) if files is None else [_of_file(path) for path in files]
    if model is not None:
        session.get(model)
    asked = [_call(session, one.result, model) for one in kept]
    now: dict[int, ClaimResult | str] = {n: one for n, one in enumerate(asked) if isinstance(one, str)}
    calls = {n: one for n, one in enumerate(asked) if isinstance(one, dict)}
    shared = shards.shared(session.pool, registry.find("claim"), lambda: _shards(session, calls.values()))
    numbers = list(calls)
    notes: list[str] = []
    interrupt: BaseException | None = None

    def take(number: int, result: Result | None, said: str) -> None:
        now[numbers[number]] = _claim(result, said)
        _counted(session, len(now), len(kept))

    try:
        if shared is None:
            for number, arguments in calls.items():
                if session.on_phase is not None:
                    session.on_phase(f"claims: {number + 1} of {len(kept)}, {_name(kept[number])}")
                now[number] = _again(session, arguments)
        else:
            _counted(session, len(now), len(kept))
            notes = shared.run(take)
    except KeyboardInterrupt as stop:
        interrupt = stop
    tested = [now.get(number, "it was stopped before this one") for number in range(len(kept))]
    found = _result(kept, tested, interrupt)
    if shared is not None:
        made = replace(found.provenance, path=shared.said.strip())
        found = replace(found, notes=(*found.notes, *notes), provenance=made)
    return unless_interrupted(found, interrupt)


def _counted(session: Session, done: int, total: int) -> None:
    if session.on_step is not None and session.pool is not None:
        session.on_step(done, total, f"claims: on {session.pool.name}")


def _call(session: Session, was: ClaimResult, model: str | None) -> dict[str, Any] | str:
    """Return the arguments by which a claim is tested as it is now, or why it cannot be."""
    said = was.provenance
    arguments = {name: value for name, value in said.arguments.items() if name != "model"}
    lost = [name for name, value in arguments.items() if isinstance(value, Own)]
    if lost:
        return f"its {lost[0]} is of Python's, which a file does not hold: test it anew by interp.claim"
    where = model or (said.model if said.model in session.models else session.current)
    try:
        return {**arguments, "model": session.get(where).name}
    except InputError as error:
        return str(error)


def _shards(session: Session, calls: Iterable[dict[str, Any]]) -> list[shards.Call]:
    claim = registry.find("claim")
    return [shards.Call(claim, (), one, (session.models[one["model"]],)) for one in calls]


def _again(session: Session, arguments: dict[str, Any]) -> ClaimResult | str:
    """Return a claim as it is now, or why it cannot be tested."""
    try:
        found = session.called(registry.find("claim"), **arguments)
    except (InputError, OutOfMemory) as error:
        return str(error)
    return _claim(found, "")


def _claim(found: Any, said: str) -> ClaimResult | str:
    return found if isinstance(found, ClaimResult) else said or "it gives no claim"


def _of_file(path: str) -> Kept:
    found: Any = load_result(path)
    if not isinstance(found, ClaimResult):
        raise InputError(f"{path} holds a {type(found).__name__}, and no claim; save one with .save('claim.json')")
    return Kept(found, path)


def _name(one: Kept) -> str:
    return one.name or one.result.short


def _result(kept: Sequence[Kept], now: Sequence[ClaimResult | str], interrupt: BaseException | None) -> ClaimsResult:
    both = [(one.result, new if isinstance(new, ClaimResult) else None) for one, new in zip(kept, now, strict=True)]
    nothing = np.array([np.nan, np.nan])
    ends = [[was.interval, nothing if new is None else new.interval] for was, new in both]
    shares = [[np.nan if one is None or one.accuracy is None else one.accuracy for one in pair] for pair in both]
    verdicts = [(was.verdict, "" if new is None else new.verdict) for was, new in both]
    return ClaimsResult(
        names=tuple(map(_name, kept)),
        claims=tuple(was.claim for was, _ in both),
        models=tuple("" if new is None else new.provenance.model for _, new in both),
        was=tuple(was for was, _ in verdicts),
        now=tuple(new for _, new in verdicts),
        changes=tuple(change(*pair) for pair in verdicts),
        missing=tuple("" if isinstance(new, ClaimResult) else new for new in now),
        accuracy=np.array(shares, np.float64).reshape(len(both), 2).T.copy(),
        interval=np.array(ends, np.float64).reshape(len(both), 2, 2).transpose(1, 2, 0).copy(),
        notes=(*(["partial: it was stopped"] if interrupt else []), *_notes(both)),
    )


def _notes(both: Sequence[tuple[ClaimResult, ClaimResult | None]]) -> list[str]:
    """Return what is to be known of the models: another one, or one whose weights have changed."""
    moved: dict[str, int] = {}
    for was, new in both:
        if new is None:
            continue
        old, own = was.provenance, new.provenance
        if old.model != own.model:
            said = f"tested on {old.model} before, and on {own.model} now"
        elif old.fingerprint != own.fingerprint:
            said = f"{own.model} has changed since ({old.fingerprint[:8]} → {own.fingerprint[:8]})"
        else:
            continue
        moved[said] = moved.get(said, 0) + 1
    return [f"{said}: {count} claim{'s' * (count != 1)}" for said, count in moved.items()]
