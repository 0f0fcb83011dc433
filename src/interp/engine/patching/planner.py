"""What a sweep asks of its interventions."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from interp.engine import exactness
    from interp.engine.forecast.work import Stored, Work
    from interp.engine.patching.cases import Case
    from interp.engine.patching.plan import Plan
    from interp.engine.transformer.base_runs import Base
    from interp.engine.transformer.network import Network
    from interp.sites import Site


class Planner(Protocol):
    """The interventions of a sweep.

    Attributes
    ----------
    key
        What tells this kind of sweep from others, for `exactness`.
    rides
        Whether what enters at a layer is made of what the runs hold up to there, so that they can ride in the wave.
    refusal
        What to say where the incremental forward cannot be used, if there is no hooked way.
    encoders
        The sites that it changes, where an encoder will do; see `network`.
    kept
        What tells its cells from those of other sweeps over the same pairs, so that where they end can be kept;
        ``None`` where it is not.
    travels
        What makes a planner like it in another process, as plain data, and the ``job`` of `protocol.JOBS` that does so
        where it is not ``"sweep"``; ``None`` where it runs in this one alone.
    """

    key: exactness.Key
    rides: bool
    refusal: exactness.Refusal | None
    encoders: tuple[str, ...] | None
    kept: tuple[Hashable, ...] | None
    travels: Mapping[str, Any] | None

    def plan(self, net: Network, base: Base, source: Base, case: Case, number: int, start: int) -> Plan:
        """Return the interventions on one pair, whose runs can differ from `start` on."""
        ...

    def written(self) -> list[Site]:
        """Return the activations that the hooked forward writes to."""
        ...

    def hooked(self, case: Case, cells: Sequence[int]) -> Tensor:
        """Return the metric of cells of one pair, ``[cell]``, by the model's own forward."""
        ...

    def foreseen(self, case: Case, cells: Sequence[int], stored: Stored, there: Stored) -> Work:
        """Return the work of `hooked`; its plain runs are asked of the two models' stores, the source's `there`."""
        ...
