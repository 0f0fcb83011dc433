"""Distributed alignment search: a subspace that is learned so that its interchange makes the expected answers.

Geiger, Wu, Potts, Icard and Goodman (2024), "Finding Alignments Between Interpretable Causal Variables and Distributed
Neural Representations". The basis is Q of the QR decomposition of a free matrix, so that it is orthonormal at every
step; what is minimised is the cross-entropy of the expected answers among the classes. That alone is no evidence: a
subspace can be learned for arbitrary answers, and in a model that was never trained; so it is tested on other prompts,
beside controls that were learned the same way (Arora, Jurafsky and Potts 2024, "CausalGym").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from interp.engine import exactness, linalg, memory
from interp.engine.interchange import hooked, lean
from interp.engine.interchange.changes import Subspace, random_basis
from interp.engine.interchange.places import Place, Swap, first_layer, require, runs_of
from interp.engine.interchange.run import key
from interp.engine.model import hooks
from interp.engine.patching.cases import by_length
from interp.engine.patching.driver import OnStep, silent
from interp.errors import InputError
from interp.sites import FEATURES

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.model.operation import Operation

STEPS = 200
BATCH = 32  # swaps of a step
_LEARNED = "the slopes that a subspace is learned by"
RATE = 0.05  # of Adam at the first step; it falls to nothing in a straight line

# (some swaps' numbers, of one length; the subspace) → their logits, with gradients.
Run = Callable[[Sequence[int], Subspace], Tensor]


def fit(
    model: LoadedModel,
    places: Sequence[Place],
    swaps: Sequence[Swap],
    targets: Sequence[int],
    classes: Sequence[int],
    *,
    rank: int,
    seed: int,
    steps: int = STEPS,
    on_step: OnStep = silent,
) -> Subspace:
    """Return a subspace of `rank` dimensions at each place, learned so that the interchange makes the targets.

    The model's weights, flags and hooks stay as they are, and so does the global random state: the same seed gives the
    same bits on the same machine.

    Parameters
    ----------
    targets
        For each swap the token id that is to become the likeliest of `classes`.
    rank
        How many dimensions, at each place.
    seed
        Of the subspace that it begins with, and of the order of the swaps.
    steps
        How many steps of Adam, of up to `BATCH` swaps each.
    on_step
        Called with steps done and steps in all.

    Raises
    ------
    InputError
        A place that is features or has fewer dimensions, a target that is no class, no swaps, or autograd is off for
        good.
    """
    require(model, places, swaps, classes)
    if any(place.site.kind is FEATURES for place in places):
        raise InputError("a subspace is learned of a site of the model; features are interchanged as they are")
    if not swaps or len(targets) != len(swaps):
        raise InputError(f"a subspace is learned from swaps with a target each: {len(swaps)} and {len(targets)} given")
    numbers = {token: number for number, token in enumerate(classes)}
    other = next((target for target in targets if target not in numbers), None)
    if other is not None:
        raise InputError(f"the target {other} is none of the classes")
    if torch.is_inference_mode_enabled():
        raise InputError("there are no gradients inside torch.inference_mode; use torch.no_grad there")

    def learn(operation: Operation) -> Subspace:  # noqa: ARG001
        own = _Learning(model, places, swaps, [numbers[target] for target in targets], classes, rank, seed)
        return own.learned(steps, on_step)

    return model.operate("interchange", {}, learn)


class _Learning:
    def __init__(
        self,
        model: LoadedModel,
        places: Sequence[Place],
        swaps: Sequence[Swap],
        labels: Sequence[int],
        classes: Sequence[int],
        rank: int,
        seed: int,
    ) -> None:
        self.model, self.places, self.swaps, self.classes = model, places, swaps, classes
        self.labels = torch.tensor(labels, device=model.device)
        self.first = first_layer(model, places)
        self.sources, self.streams = runs_of(model, places, swaps, self.first)
        self.rank, self.seed = rank, seed
        self.widths = [own.shape[1] for own in self.sources[0]]

    def learned(self, steps: int, on_step: OnStep) -> Subspace:
        """Return the subspace, without hooks where that can be trusted."""
        swaps = self.swaps
        begun = Subspace(tuple(random_basis(width, self.rank, self.seed + n) for n, width in enumerate(self.widths)))
        seen = max(range(len(swaps)), key=lambda number: len(swaps[number].base))

        def sample() -> Iterator[float]:
            net = lean.read(self.model, self.places)
            same = [number for number, swap in enumerate(swaps) if len(swap.base) == len(swaps[seen].base)]
            for number in same[: exactness.sample_of(self.model)]:
                yield exactness.difference(self._lean(net)([number], begun), self._hooked([number], begun))

        def lean_way(check: exactness.Check) -> Subspace:
            net = lean.read(self.model, self.places)
            hooks.guarded(check)
            return self._trained(self._lean(net), steps, on_step)

        done = exactness.run(
            self.model,
            key(self.model, self.places),
            lean=lean_way,
            hooked=lambda fallback: self._trained(self._hooked, steps, on_step),  # noqa: ARG005
            sample=sample,
            length=len(swaps[seen].base),
        )
        self.model.note(done.path, done.notes)
        return done.answer

    def _lean(self, net: lean.Network) -> Run:
        def run(numbers: Sequence[int], change: Subspace) -> Tensor:
            own, sources = [self.swaps[n] for n in numbers], [self.sources[n] for n in numbers]
            start = self.first, torch.stack([self.streams[n] for n in numbers])
            self.model.count(len(numbers))
            return lean.ends(self.model, net, self.places, own, sources, start, self.classes, change)

        return run

    def _hooked(self, numbers: Sequence[int], change: Subspace) -> Tensor:
        own, sources = [self.swaps[n] for n in numbers], [self.sources[n] for n in numbers]
        gradients = any(basis.requires_grad for basis in change.bases)
        return hooked.ends(self.model, self.places, own, sources, self.classes, change, gradients=gradients)

    def _trained(self, run: Run, steps: int, on_step: OnStep) -> Subspace:
        return hooks.guarded(lambda: self._descended(run, steps, on_step), gradients=True)

    def _descended(self, run: Run, steps: int, on_step: OnStep) -> Subspace:
        # On the CPU and in double precision: the basis is small, and not every device decomposes matrices.
        free = [random_basis(width, self.rank, self.seed + n).requires_grad_() for n, width in enumerate(self.widths)]
        adam = torch.optim.Adam(free, lr=RATE)
        losses: list[float] = []
        for step, batch in enumerate(self._batches(steps)):
            bases = [linalg.qr(one, _LEARNED)[0] for one in free]
            held = [basis.detach().requires_grad_() for basis in bases]
            total, slopes = 0.0, [torch.zeros_like(basis) for basis in held]

            def some(
                numbers: Sequence[int],
                held: Sequence[Tensor] = held,
                slopes: Sequence[Tensor] = slopes,
                size: int = len(batch),
            ) -> None:
                nonlocal total
                logits = run(numbers, Subspace(tuple(held)))
                loss = cross_entropy(logits, self.labels[list(numbers)].to(logits.device), reduction="sum") / size
                found = torch.autograd.grad(loss, list(held))  # of the basis alone: no weight gets a gradient
                for slope, own in zip(slopes, found, strict=True):
                    slope += own
                total += float(loss.detach())

            for length, places in by_length([self.swaps[number].base for number in batch]).items():
                numbers = [batch[place] for place in places]
                memory.halving(numbers, max(1, memory.ROWS // length), some, self.model.device)
            for group in adam.param_groups:
                group["lr"] = RATE * (1 - step / steps)
            for one, slope in zip(free, torch.autograd.grad(bases, free, slopes), strict=True):
                one.grad = slope
            adam.step()
            losses.append(total)
            on_step(step + 1, steps)
        return Subspace(tuple(linalg.qr(one.detach(), _LEARNED)[0] for one in free), tuple(losses))

    def _batches(self, steps: int) -> Iterator[list[int]]:
        """Yield the numbers of each step's swaps: all of them in a drawn order, before any comes again."""
        generator = torch.Generator().manual_seed(self.seed)
        waiting: list[int] = []
        for _ in range(steps):
            while len(waiting) < min(BATCH, len(self.swaps)):
                waiting += torch.randperm(len(self.swaps), generator=generator).tolist()
            yield waiting[:BATCH]
            waiting = waiting[BATCH:]
