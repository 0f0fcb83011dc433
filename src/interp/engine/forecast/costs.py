"""Work and rates make a forecast; the one call by which a technique gives it before it starts."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import torch

from interp.engine import exactness, memory
from interp.engine.forecast.rates import Rates, rates_of
from interp.engine.forecast.work import Sizes, Work
from interp.engine.model import hooks
from interp.engine.model.meter import Meter
from interp.engine.transformer import network
from interp.errors import Foreseen
from interp.results.costs import Costs, lasting
from interp.results.forecast import Forecast

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.transformer.network import Network

_BUSIEST = 4.0  # others' work is taken for at most three times a command's own
_COLD = 1.35  # fitted: how much longer commands took on the bundled model and GPT-2's shape than their parts alone
_OWN = 500_000  # bytes of a command's own objects
_ATTENTION = 0.25  # the rate of attention's products, by that of large ones: they are small, and softmax is between


class Foresight:
    """A model as forecasts see it; `half` and `encoders` are those of `network.read`.

    Attributes
    ----------
    model
        The model.
    net
        Its layers; ``None`` where work goes with hooks.
    path
        ``"without hooks"``, or ``"with hooks: why"``.
    sizes
        The shape of its layers.
    """

    def __init__(
        self, model: LoadedModel, *sites: str, half: bool = True, encoders: Collection[str] | None = None
    ) -> None:
        self.model = model
        self.net: Network | None = None
        self.path = "without hooks"
        try:
            exactness.require_known(*sites)
            self.net = network.read(model, half=half, encoders=encoders)
        except exactness.Unreadable as error:
            self.path = f"with hooks: {error}"
        self.sizes = Sizes.guessed(model) if self.net is None else Sizes.of(self.net)

    @property
    def rates(self) -> Rates:
        """How fast this machine is with it."""
        return rates_of(self.model, self.net, self.sizes)


def foresee(model: LoadedModel, make: Callable[[], tuple[Foresight, Work]]) -> None:
    """Forecast the current command's work, which begins where this returns; its record keeps what was expected.

    Parameters
    ----------
    make
        Gives the work; it runs nothing.

    Raises
    ------
    Foreseen
        That was all that was asked for, by ``--dry-run``.
    """
    operation = model.operation
    if operation is None or operation.forecast is not None:
        return
    with torch.no_grad():
        sight, work = make()
        begun, before = time.perf_counter(), operation.started
        costs = priced(sight, work)
    now = time.perf_counter()
    # The time so far is known: looking for changes, the input. What was measured just now is not the command's.
    already, measuring = begun - before, now - begun
    # Others' work on this machine: by how much longer than its own work this command has taken so far.
    busy = min(_BUSIEST, max(1.0, (now - before) / max(time.process_time() - operation.worked, 1e-3)))
    copies = 0 if model.streamed is None else model.streamed.takes
    free = memory.free_bytes(model.device)
    whole = Costs(
        forwards=operation.forwards + costs.forwards,
        flops=costs.flops,
        bytes_read=costs.bytes_read + model.nbytes,
        peak_bytes=costs.peak_bytes + copies,
        seconds=busy * costs.seconds + already + (0 if operation.dry else measuring),
    )
    advice = () if whole.peak_bytes <= free else (*work.advice, "a smaller model, or a shorter prompt")
    if operation.dry:
        if operation.pool is not None and not operation.pool.local:
            pool, count = operation.pool.name, sum(worker.there for worker in operation.pool.workers())
            least = lasting(whole.seconds / max(1, count))
            operation.notes.append(
                f"that is in this process alone; what of it is cut into shards takes {least} or more on {pool}: each "
                "works with one thread, and loads the model before its first shard"
            )
        raise Foreseen(
            Forecast(costs=whole, free_bytes=free, path=sight.path, advice=tuple(f"try {line}" for line in advice))
        )
    if advice:
        needs, there = memory.readable(whole.peak_bytes), memory.readable(free)
        operation.notes.append(f"this was to need {needs} and {there} was free; less is needed with {advice[0]}")
    operation.forecast = whole
    if whole.flops:  # where everything is kept already, looking would take longer than the rest
        operation.meter = Meter(model.device)
        hooks.undisturbed(operation.meter.start)


def priced(sight: Foresight, work: Work) -> Costs:
    """Return what work costs on this machine."""
    sizes, rates = sight.sizes, sight.rates
    flops, read, seconds = work.flops, 0, work.flops / rates.product
    for one in work.through:
        times = one.layers * one.passes
        flops += times * ((one.rows + one.graded) * sizes.layer + (1 + (one.graded > 0)) * one.scores * sizes.pair)
        read += times * sizes.layer_bytes * (1 + (one.graded > 0))
        each = rates.layer(one.rows) + (one.groups - 1) * rates.attention
        each += one.scores * sizes.pair / (rates.product * _ATTENTION)
        if one.graded:
            each += rates.back(one.graded)
        seconds += times * each
    for one in work.hooked:
        flops += one.count * (1 + 2 * one.graded) * (one.rows * (sizes.depth * sizes.layer) + sizes.unembed)
        read += one.count * (sizes.depth * sizes.layer_bytes + sizes.unembed_bytes)
        seconds += one.count * ((1 + 2 * one.graded) * rates.hooked(one.rows) + 4 * one.places * rates.call)
    flops += work.logits * sizes.unembed
    read += sizes.unembed_bytes * bool(work.logits)
    seconds += work.logits * sizes.unembed / rates.product
    seconds += work.moved / rates.moved + work.calls * rates.call
    return Costs(
        forwards=work.forwards,
        flops=flops,
        bytes_read=read,
        peak_bytes=max(work.peak, work.held) + _OWN,
        seconds=_COLD * seconds,
    )
