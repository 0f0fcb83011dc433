"""One protocol for what is computed without hooks: compared with the plain hooked forward before it is trusted.

`network.read` gives a model's forward as plain functions, which is many times faster than running the model with hooks
on it, and right only if it is the model's own forward. So everything that is computed with it goes through `run`:

1. run the lean way;
2. on each new state of the model, compute a sample of what comes out by the plain hooked forward too;
3. where they differ by more than `TOLERANCE`, or the lean way does not know the model, take the hooked way and say why,
   or refuse in one line where there is none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Generic, Literal, Protocol, TypeVar
from weakref import WeakKeyDictionary

from torch import Tensor

from interp.errors import InputError
from interp.sites import FEATURES, find

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel
    from interp.spec import Metric

# Of the metric's or the activation's scale, in float32 and float64. In half precision two hooked forwards of one prompt
# differ by more, as soon as they run in other batches: what measures by how much has that instead, the rest refuses it.
TOLERANCE = 1e-4
SAMPLE = 4  # cells, pairs, prompts or texts that the plain hooked forward computes too

STOPPED = 2  # values of it after an interrupt, which waits for them: the two runs of a pair

Answer = TypeVar("Answer")
Key = tuple[Hashable, ...]
Way = Literal["lean", "hooked"]

# Of a shard of a command's work: the way that was decided for all of them.
_decided: ContextVar[Way | None] = ContextVar("decided", default=None)

# Model → (state, key) → the longest prompt that was compared.
_trusted: WeakKeyDictionary[LoadedModel, dict[tuple[Hashable, Key], int]] = WeakKeyDictionary()


class Unreadable(Exception):
    """The lean way does not know this model; the message is the reason, for a result's provenance."""


class Differs(Unreadable):
    """The lean way came out otherwise than the hooked forward."""


@dataclass(frozen=True)
class Fallback:
    """Why the hooked way is taken: what to write into the provenance, and into the result's notes."""

    path: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Refusal:
    """What to say where there is no hooked way.

    Examples
    --------
    >>> Refusal("edges are estimated", "use --method exact").why("hooks of the user's own")
    "edges are estimated without hooks, and here that cannot be: hooks of the user's own; use --method exact"
    """

    what: str
    instead: str

    def why(self, reason: object) -> str:
        """Return the line."""
        return f"{self.what} without hooks, and here that cannot be: {reason}; {self.instead}"


@dataclass(frozen=True)
class Done(Generic[Answer]):
    """An answer, and how it was computed: what the lean way is called, or ``"hooked: why"``."""

    answer: Answer
    path: str
    notes: tuple[str, ...] = ()


class Check(Protocol):
    """Compares the sample, unless that was done already."""

    def __call__(self, *, stopped: bool = False) -> None:
        """Compare it, or the first values of it where the lean way was `stopped` by an interrupt.

        Raises
        ------
        Differs
            The lean way is not the model's own.
        """
        ...


def unchecked(*, stopped: bool = False) -> None:
    """Compare nothing: for ways that need no comparison."""


def require_known(*names: str) -> None:
    """Refuse sites that functions without hooks do not know: those of which the table gives no stage.

    Raises
    ------
    Unreadable
        There is one.
    """
    unknown = next((name for name in names if not find(name).stage), None)
    if unknown is not None:
        several = "features that write in several layers, behind norms," if unknown == FEATURES.name else unknown
        raise Unreadable(f"the forward without hooks does not know {several}")


def run(
    model: LoadedModel,
    key: Key,
    *,
    lean: Callable[[Check], Answer],
    hooked: Callable[[Fallback], Answer] | Refusal,
    sample: Callable[[], Iterable[float]],
    path: str = "replay",
    length: int = 0,
    noise: Callable[[], float] | None = None,
) -> Done[Answer]:
    """Compute something without hooks if that can be trusted on this state of a model, and else with them.

    Parameters
    ----------
    key
        What is computed; one comparison for each key and state of the model is enough.
    lean
        Computes it without hooks. It is given a function that compares the sample, once; call it as soon as there is
        something to compare. It is called at the end in any case. One that keeps what it has at an interrupt calls it
        with ``stopped=True`` then: of few values, which the next command does not rely on.
    hooked
        Computes it with hooks.
    sample
        Yields the `difference` of a few values that `lean` has computed from what the hooked forward gives.
    path
        What the lean way is called in a provenance.
    length
        Tokens of the longest prompt in the sample: one token shows little of a network. A sample of at most half of
        that says nothing of this one.
    noise
        In half precision: how far two hooked forwards of one prompt are apart, as `difference` has it. Twice that is
        the tolerance then.

    Raises
    ------
    InputError
        The lean way cannot be trusted, and there is no hooked one.
    """
    if (way := _decided.get()) is not None:
        if way == "lean":
            return Done(lean(unchecked), path)
        assert not isinstance(hooked, Refusal)
        return Done(hooked(Fallback("hooked", ())), "hooked")
    compared = False

    def check(*, stopped: bool = False) -> None:
        nonlocal compared
        if not compared:
            _compare(model, key, sample, length, noise, stopped)
            compared = True

    try:
        answer = lean(check)
        check()
        return Done(answer, path)
    except Unreadable as error:
        reason = str(error)
        notes = (f"{reason} on this model and was not used",) if isinstance(error, Differs) else ()
    # Outside of the except block: an error that is raised here does not carry the lean way's frames, and their tensors.
    if isinstance(hooked, Refusal):
        raise InputError(hooked.why(reason))
    fallback = Fallback(f"hooked: {reason}", notes)
    return Done(hooked(fallback), fallback.path, notes)


def by(way: Way | None, body: Callable[[], Answer]) -> Answer:
    """Call `body`, in which all is computed one way and nothing compared: whoever asked for this does that.

    Without a `way` it decides and compares by itself.
    """
    token = _decided.set(way)
    try:
        return body()
    finally:
        _decided.reset(token)


def _compare(
    model: LoadedModel,
    key: Key,
    sample: Callable[[], Iterable[float]],
    length: int,
    noise: Callable[[], float] | None,
    stopped: bool,
) -> None:
    """Compare the sample, unless that was done on this state of the model.

    Raises
    ------
    Differs
        The lean way is not the model's own.
    """
    if trusted(model, key, length):
        return
    state, known = model.state, _trusted.setdefault(model, {})
    differences = list(islice(sample(), STOPPED if stopped else None))
    worst = max(differences, default=0.0)
    if worst > max(TOLERANCE, 0.0 if noise is None else 2 * noise()):
        raise Differs(f"the forward without hooks differed by {worst:.1g} from the hooked one")
    if state is not None and differences and not stopped:
        known[state, key] = length.bit_length()


def trusted(model: LoadedModel, key: Key, length: int) -> bool:
    """Return whether nothing is compared any more: see `run` for the arguments."""
    state = model.state
    return state is not None and _trusted.get(model, {}).get((state, key), -1) >= length.bit_length()


def sample_of(model: LoadedModel) -> int:
    """Return how many cells, pairs or prompts are compared: one, where each hooked forward reads all weights anew."""
    return SAMPLE if model.streamed is None or model.streamed.by_rows else 1


def forget(model: LoadedModel) -> None:
    """Trust nothing on `model` any more."""
    _trusted.pop(model, None)


def of_metric(metric: Metric | None) -> Hashable:
    """Return what tells metrics apart in a key: what one of them does not see, such as a rank, another one does."""
    return None if metric is None else metric.name if metric.function is None else (metric.name, id(metric.function))


def difference(found: float | Tensor, expected: float | Tensor) -> float:
    """Return how far a metric's value or an activation is from what it should be, by that one's size.

    A value's size is at least 1, a tensor's its largest value. Infinite where only one of them is a number.

    Examples
    --------
    >>> difference(3.0, 2.0), difference(float("nan"), float("nan")), difference(1.0, float("nan"))
    (0.5, 0.0, inf)
    """
    if isinstance(found, Tensor) and isinstance(expected, Tensor) and expected.dim():
        scale = float(expected.abs().max())
        off = float((found - expected).abs().max()) / (scale or 1.0)
    else:
        value, size = float(found), float(expected)
        if value == size or (math.isnan(value) and math.isnan(size)):
            return 0.0
        off = abs(value - size) / max(1.0, abs(size))
    return off if math.isfinite(off) else math.inf
