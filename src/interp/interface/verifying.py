"""Results run again: does what was found still hold on the model as it is now?"""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from interp.errors import InputError, closest
from interp.interface import registry
from interp.interface.commands import Table
from interp.interface.inputs import seed_of
from interp.interface.registry import Command, command
from interp.interface.saved import load_result
from interp.interface.session import Session, session
from interp.results import Own, Result
from interp.results.code import kind_of
from interp.results.comparison import Comparison
from interp.results.forecast import Forecast
from interp.results.verified import Verified, lacking, verified
from interp.spec import ModelName, SavedResult

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel

_GIVING = "it is not kept with the result; give it: verify({}=…)"


@command
def verify(session: Session, result: SavedResult, *, model: ModelName | None = None) -> Verified:  # noqa: ARG001
    """Run a result's call again on the model as it is now, and compare every number with what it was.

    Parameters
    ----------
    result
        A result of this notebook, or the .json or .npz file that one was saved to.
    model
        A loaded model; the one of the result's own name when not given, or the current one if its weights are the same.

    Returns
    -------
    Verified
        Holds, changed, or what is lacking; per field the largest difference, the share of changed values, the
        correlation; fingerprints and versions then and now.

    Raises
    ------
    InputError
        It is no result, or no file of one, or no model of that name is loaded.

    Examples
    --------
    >>> found = interp.patch(task="ioi", n=2)
    >>> interp.verify(found).state
    'holds'
    >>> interp.verify(str(found.save("p.json"))).state
    'holds'
    """
    given: Any = load_result(result) if isinstance(result, str | os.PathLike) else result
    if not isinstance(given, Result):
        raise InputError(f"verify takes a result, or the .json or .npz file of one; {type(given).__name__} is none")
    return again(given, model, {})


def again(result: Result, model: Any, given: Mapping[str, Any]) -> Verified:
    """Return what the call of `result` gives now, compared; see `Result.verify`."""
    asked = None if model is None else session.get(model if isinstance(model, str) else getattr(model, "name", None))
    named = {} if asked is None else {"model": asked.name}
    call = {"result": Own(type(result).__name__), **named, **given}
    found = _again(result, asked, given)
    return replace(found, provenance=replace(found.provenance, technique="verify", arguments=call))


def _again(result: Result, model: LoadedModel | None, given: Mapping[str, Any]) -> Verified:
    if why := _no_call(result):
        return lacking(result, why)
    known = result.provenance
    try:
        found = registry.find(known.technique)
    except InputError as error:
        return lacking(result, str(error))
    arguments = _arguments(found, result, given)
    lost = [name for name, value in arguments.items() if _lacks(value)]
    if lost:
        return lacking(result, "; ".join(f"{n} was {kind_of(_lost(arguments[n]))}: {_GIVING.format(n)}" for n in lost))
    if "seed" not in arguments and seed_of(found, arguments) is not None:
        if known.seed is None:
            return lacking(result, "it was drawn at random, and with which seed is not known: give it: verify(seed=…)")
        arguments["seed"] = known.seed
    held: LoadedModel | None = None
    if found.needs_model:
        try:
            held = model or _model(result, found)
        except InputError as error:
            return lacking(result, str(error))
        arguments[found.model] = held.name
    try:
        with _quiet(), nullcontext() if held is None else _afresh(held):
            now = session.called(found, **arguments)  # what `claims` compares with stays
    except InputError as error:
        return lacking(result, f"{error}{_since(result)}")
    if type(now) is not type(result):
        return lacking(result, f"the call now gives a {type(now).__name__}{_since(result)}", now.provenance)
    return _noted(result, now)


def _noted(result: Result, now: Result) -> Verified:
    """Return the comparison, with what lay beside the call then and now."""
    made, a, b = verified(result, now), result.provenance, now.provenance
    notes = [
        f"features {name!r} have changed since"
        for name, digest in a.features.items()
        if b.features.get(name, digest) != digest
    ]
    if a.user_hooks != b.user_hooks:
        notes.append(f"hooks of yours on the model: {len(a.user_hooks)} then, {len(b.user_hooks)} now")
    return replace(made, notes=tuple(notes))


def _no_call(result: Result) -> str:
    """Return why there is nothing to be called again; an empty string where there is."""
    if isinstance(result, Comparison):
        return "a comparison is as good as its two results: verify .a and .b"
    if isinstance(result, Forecast):
        return "a forecast says what a call would take, and nothing of the model"
    if isinstance(result, Verified):
        return "a verification is not verified itself: verify the result anew"
    if isinstance(result, Table):
        return "it lists what was there at the time, and computes nothing"
    name = result.provenance.technique
    if name == "claims":
        return "it tested claims again itself: type %interp claims anew"
    if not name or not (result.provenance.arguments or result.provenance.fingerprint):
        return "the call that made it is not in it"
    if name in registry.MAKING:
        return f"{name} makes what later calls read, and its call would replace that; run it again yourself"
    return ""


def _arguments(found: Command, result: Result, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the call's arguments, with what the user gives of them.

    Raises
    ------
    InputError
        The call has no such argument.
    """
    held = dict(result.provenance.arguments)
    if found.per_pair:
        held.pop("out", None)  # what was written stays as it was
    known = {*held, *(parameter.name for parameter in found.parameters)}
    for name in given:
        if name not in known:
            raise InputError(f"{found.name} has no argument {name!r}{closest(name, known)}")
    return held | dict(given)


def _lacks(value: Any) -> bool:
    """Whether a value, or something in it, is named and not kept."""
    if isinstance(value, Mapping):
        return any(_lacks(item) for item in cast("Mapping[Any, Any]", value).values())
    return isinstance(value, Own) or (
        isinstance(value, list | tuple) and any(_lacks(item) for item in cast("list[Any]", value))
    )


def _lost(value: Any) -> Any:
    """Return the first thing in a value that is not kept."""
    if isinstance(value, Mapping):
        value = list(cast("Mapping[Any, Any]", value).values())
    if isinstance(value, list | tuple):
        return next(_lost(item) for item in cast("list[Any]", value) if _lacks(item))
    return value


def _model(result: Result, found: Command) -> LoadedModel:
    """Return the model to run on where none is named.

    Raises
    ------
    InputError
        There is none of the result's own name, nor one that is the same.
    """
    known = result.provenance
    if known.model in session.models:
        return session.get(known.model)
    other = session.models.get(session.current or "")
    if other is not None and found.model == "model" and other.fingerprint() == known.fingerprint:
        return other
    here = f", and {other.name} is another; verify(model={other.name!r}) runs it there" if other is not None else ""
    raise InputError(f"its model {known.model!r} is not loaded{here}; load it first: interp.load(…)")


def _since(result: Result) -> str:
    """Return which version of interp made a result, where that is not the one that runs."""
    from interp.results.saving import version

    made = result.provenance.versions.get("interp", "")
    return f" (it was made by interp {made}, and this is {version()})" if made and made != version() else ""


@contextmanager
def _afresh(model: LoadedModel) -> Generator[None]:
    """Let the model compute everything anew: what it has stored stays for others."""
    from interp.engine.model.store import ActivationStore

    with model.lock:
        held = model.store
        model.store = ActivationStore(held.budget)
        try:
            yield
        finally:
            model.store = held


@contextmanager
def _quiet() -> Generator[None]:
    """Let nothing of the call be shown as it grows: it is not what the cell gives."""
    offers, session.on_partial = session.on_partial, None
    try:
        yield
    finally:
        session.on_partial = offers
