"""How fast this machine is with a model, measured once in a session: its layers, its products, its hooks, memory.

Rates depend on the model's layers, their dtype and device, and how many threads torch has, and are kept by these. Each
is measured when it is first asked for; none takes more than a fraction of a second, whatever the size of the model:

1. a layer of 1, 16 and 128 rows, as far as that is quick: all that is no product is in it, and what thin products lose.
   Layers take turns, since a forward finds none of them in the processor's cache;
2. of more rows, the rate of a product of about a thousand;
3. the gradient of a layer, where something is differentiated;
4. the model's own forward, where something runs with hooks: not with functions of the user's on it, and not of a model
   that a forward takes long to read; it is then taken from the layers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from interp.engine.forecast.work import Sizes
from interp.engine.model import forward as passes
from interp.engine.transformer.forward import forward
from interp.engine.transformer.linear import linear
from interp.engine.transformer.network import Network

if TYPE_CHECKING:
    from collections.abc import Hashable

    from interp.engine.model.loaded import LoadedModel

_ROWS = (1, 16, 128)  # that a layer is measured with
_SPAN = 16  # positions of a prompt there
_MOST = 3e9  # operations of one measurement
_LONG = 0.02  # seconds after which no more layers take turns
_HOOKED = 5.0  # how much longer what is no product takes with hooks, where it is not measured


@dataclass(frozen=True)
class Curve:
    """Seconds by how many rows there are: linear between what was measured, and beyond it by `slope`."""

    at: tuple[int, ...]
    seconds: tuple[float, ...]
    slope: float

    def __call__(self, rows: float) -> float:
        """Return the seconds of `rows`.

        Examples
        --------
        >>> curve = Curve((1, 10), (1.0, 10.0), 2.0)
        >>> curve(0), curve(4), curve(12)
        (0.0, 4.0, 14.0)
        """
        if rows <= 0:
            return 0.0
        if rows <= self.at[0]:
            return self.seconds[0]
        if rows >= self.at[-1]:
            return self.seconds[-1] + (rows - self.at[-1]) * self.slope
        after = next(n for n, most in enumerate(self.at) if rows < most)
        low, high = self.at[after - 1], self.at[after]
        share = (rows - low) / (high - low)
        return self.seconds[after - 1] * (1 - share) + self.seconds[after] * share


class Rates:
    """The rates of one model on this machine.

    Parameters
    ----------
    net
        Its layers; ``None`` where they are not known here.
    """

    def __init__(self, model: LoadedModel, net: Network | None, sizes: Sizes) -> None:
        self._model = model
        self._net = net
        self._sizes = sizes
        self.device = model.device
        self.dtype = getattr(torch, model.dtype)

    @cached_property
    def product(self) -> float:
        """Operations a second of a product of about a thousand rows."""
        width = self._sizes.width
        out = max(16, min(4 * width, int(_MOST / (2 * 1024 * width))))
        rows, weight = (torch.ones(n, width, device=self.device, dtype=self.dtype) for n in (1024, out))
        return 2 * 1024 * width * out / self._usual(lambda: linear(rows, weight, None))

    @cached_property
    def moved(self) -> float:
        """Bytes a second that a sum of two tensors reads and writes."""
        one = torch.ones(1 << 22, device=self.device)
        return 3 * 4 * one.numel() / self._usual(lambda: one + one)

    @cached_property
    def call(self) -> float:
        """Seconds of a small operation."""
        one = torch.ones(8, device=self.device)

        def many() -> None:
            for _ in range(100):
                _ = (one + one)[:4]

        return self._usual(many) / 200

    @cached_property
    def layer(self) -> Curve:
        """Seconds of a layer."""
        slope = self._sizes.layer / self.product
        if self._net is None:
            return Curve((1,), (max(slope, 30 * self.call),), slope)
        at = [rows for rows in _ROWS if rows == 1 or rows * self._sizes.layer <= _MOST]

        def plain(n: int, rows: int) -> None:
            with torch.no_grad():
                self._run(n, self._stream(rows))

        seconds = [self._over_layers(lambda n, rows=rows: plain(n, rows)) for rows in at]
        if len(at) == len(_ROWS):  # norms, activations and sums are in it too
            slope = max(slope, (seconds[-1] - seconds[-2]) / (at[-1] - at[-2]))
        return Curve(tuple(at), tuple(seconds), slope)

    @cached_property
    def back(self) -> Curve:
        """Seconds of a layer's gradient, its forward not among them."""
        at, seconds = self.layer.at[-2:], list[float]()
        if self._net is None:
            return Curve(self.layer.at, tuple(2 * one for one in self.layer.seconds), 2 * self.layer.slope)
        for rows in at:

            def both(n: int, rows: int = rows) -> None:
                with torch.enable_grad():
                    x = self._stream(rows).requires_grad_()
                    torch.autograd.grad(self._run(n, x).sum(), x)

            seconds.append(max(self._over_layers(both) - self.layer(rows), self.layer(rows) / 2))
        return Curve(at, tuple(seconds), self.layer.slope)

    @cached_property
    def attention(self) -> float:
        """Seconds of one more attention in a layer, of few rows: its calls, and putting keys and values together."""
        return 60 * self.call

    @cached_property
    def hooked(self) -> Curve:
        """Seconds of the model's own forward of one prompt, by its positions; hooks that do little among them."""
        model, sizes = self._model, self._sizes
        slope = sizes.depth * self.layer.slope
        operation = model.operation
        own = operation is not None and bool(operation.altered)
        read = sizes.depth * self.layer(1)
        if own or model.hf_model.training or read > 0.5 or not model.geometry.causal:
            return Curve((1,), (_HOOKED * read,), slope)
        at, seconds = [min(8, model.geometry.n_ctx)], list[float]()
        ids = [n % model.geometry.d_vocab for n in range(at[0])]
        with torch.no_grad():
            seconds.append(self._usual(lambda: passes.forward(model, [ids], {}, last_only=True)))
            if self._net is None and 16 * sizes.layer * sizes.depth * at[0] < _MOST:
                seconds.append(self._usual(lambda: passes.forward(model, [ids] * 16, {}, last_only=True)))
                at.append(16 * at[0])
                slope = (seconds[1] - seconds[0]) / (at[1] - at[0])
        return Curve(tuple(at), tuple(seconds), slope)

    # -- measuring -----------------------------------------------------------------------------------------------------

    def _run(self, layer: int, x: Tensor) -> Tensor:
        assert self._net is not None
        return forward(self._net, resid=x, first=layer, stop=layer + 1)

    def _stream(self, rows: int) -> Tensor:
        shape = (max(1, rows // _SPAN), min(rows, _SPAN), self._sizes.width)
        return torch.ones(shape, device=self.device, dtype=self.dtype)

    def _over_layers(self, run: Callable[[int], object]) -> float:
        """Return the seconds of a layer, of one after the other."""
        assert self._net is not None
        run(0)
        self._wait()
        taken: list[float] = []
        for n in range(len(self._net.layers)):
            taken.append(self._seconds(lambda n=n: run(n)))
            if sum(taken) > _LONG and len(taken) > 1:
                break
        return sorted(taken)[len(taken) // 2]

    def _usual(self, run: Callable[[], object]) -> float:
        """Return the median of a few times: one may be an odd one."""
        run()
        self._wait()
        return sorted(self._seconds(run) for _ in range(3))[1]

    def _seconds(self, run: Callable[[], object]) -> float:
        """Return the seconds of this process, so that others' work is not in a rate; of a device, those that pass."""
        clock = time.process_time if self.device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
        started = clock()
        run()
        self._wait()
        return max(clock() - started, 1e-9)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


# Model → (dtype, device, threads, whether its layers are known) → its rates.
_known: WeakKeyDictionary[LoadedModel, dict[Hashable, Rates]] = WeakKeyDictionary()


def rates_of(model: LoadedModel, net: Network | None, sizes: Sizes) -> Rates:
    """Return the rates of a model; those of this session, where they were asked for before."""
    key = (model.dtype, str(model.device), torch.get_num_threads(), net is not None)
    return _known.setdefault(model, {}).setdefault(key, Rates(model, net, sizes))
