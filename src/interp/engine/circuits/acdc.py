"""Automated circuit discovery: edges removed one by one, from the logits down.

Conmy et al. (2023), "Towards Automated Circuit Discovery for Mechanistic Interpretability", algorithm 1, run ahead:

1. edges are in order of their readers, the highest first, and of each reader's writers, the highest first;
2. an edge of a reader whose node nothing reads any more goes without a run;
3. of the next edges each is guessed to stay or to go as at the next larger threshold, and the masks that follow from
   the guesses are run together;
4. edges are decided in order, by whether the metric's mean changes by less than the threshold; at the first that does
   not come out as guessed, what was run beyond it is thrown away.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp.engine.patching.driver import OnStep, silent

if TYPE_CHECKING:
    from interp.engine.circuits.subgraph import Subset

_SMALLEST, _MASKS = 4, 2**27  # runs of a chain of removals, and bytes that its masks may take


def acdc(
    subset: Subset,
    thresholds: Sequence[float],
    on_step: OnStep = silent,
    into: MutableMapping[int, tuple[Tensor, Tensor]] | None = None,
    among: Tensor | None = None,
) -> Tensor:
    """Remove edges one by one, from the logits down, each for good if the metric hardly notices.

    An edge goes if without it the metric's mean over the pairs changes, either way, by less than the threshold, in the
    model that is left by then: Conmy et al. (2023), "Towards Automated Circuit Discovery for Mechanistic
    Interpretability", algorithm 1, with any metric in place of their KL divergence. Inputs of what nothing reads any
    more go without a run. The answer is that of the one-by-one algorithm; runs that would follow if the next edges are
    decided as they were at the next larger threshold are made together, and thrown away from where that is not so.

    Parameters
    ----------
    thresholds
        In units of the metric.
    on_step
        Called with edges decided and edges to decide, over all thresholds.
    into
        Number of a threshold → which edges stay and which are decided, each ``bool [writer, reader]``, the largest
        threshold first: what an interrupt leaves. A decision is final, also where the threshold is not finished.
    among
        ``bool [writer, reader]``: the edges to begin with, all others ablated; all when not given.

    Returns
    -------
    Tensor
        ``bool [threshold, writer, reader]``: the edges that are left.
    """
    left: MutableMapping[int, tuple[Tensor, Tensor]] = {} if into is None else into
    begin = subset.whole if among is None else among & subset.exists
    order = _downward(begin)
    guess, total = subset.nothing, len(thresholds) * len(order)
    sizes = sorted(range(len(thresholds)), key=lambda n: -thresholds[n])
    start = float(subset.run(begin[None]).mean())
    for turn, number in enumerate(sizes):
        removal = _Removal(subset, order, thresholds[number], guess, begin, start)
        for done in removal.steps():
            left[number] = removal.kept & removal.decided, removal.decided
            on_step(turn * len(order) + done, total)
        guess = removal.kept
    return torch.stack([left[number][0] for number in range(len(thresholds))])


def survived(kept: Tensor, thresholds: Sequence[float], exists: Tensor) -> Tensor:
    """Return the largest threshold that each edge survives, ``float64 [writer, reader]``: 0 for none, NaN for no edge.

    Examples
    --------
    >>> survived(torch.tensor([[[True]], [[False]]]), [0.1, 1.0], torch.tensor([[True]]))
    tensor([[0.1000]], dtype=torch.float64)
    """
    sizes = torch.tensor(list(thresholds), dtype=torch.float64)[:, None, None]
    best = (kept.double() * sizes).amax(0)
    return torch.where(exists, best, torch.full_like(best, float("nan")))


def _downward(edges: Tensor) -> list[tuple[int, int]]:
    """Return edges ``[writer, reader]`` as (writer, reader), from the logits down, readers' highest writers first."""
    return sorted(
        ((writer, reader) for writer, reader in edges.nonzero().tolist()), key=lambda edge: (-edge[1], -edge[0])
    )


class _Removal:
    """ACDC at one threshold under way."""

    def __init__(
        self,
        subset: Subset,
        order: Sequence[tuple[int, int]],
        threshold: float,
        guess: Tensor,
        begin: Tensor,
        start: float,
    ) -> None:
        self.subset = subset
        self.order = order
        self.threshold = threshold
        self.guess = guess
        self.kept = begin.clone()
        self.value = start
        place = {node.name: n for n, node in enumerate(subset.writers)}
        group = subset.net.n_heads // subset.net.n_kv_heads
        self.of = [[place[one.name] for one in node.writers(group)] for node in subset.readers]
        self.size = _SMALLEST
        self.decided = torch.zeros_like(begin)

    def steps(self) -> Iterator[int]:
        """Decide all edges, and yield how many are decided, again and again; `kept` is what is left in the end."""
        at = 0
        while at < len(self.order):
            before, at = at, self._chain(at)
            writers, readers = zip(*self.order[before:at], strict=True)
            self.decided[list(writers), list(readers)] = True
            yield at

    def _chain(self, at: int) -> int:
        """Decide the next edges as far as they come out as guessed, and the first that does not; return the next."""
        asked = list(self._ahead(at))
        masks = [mask for _, mask, _ in asked if mask is not None]
        values = iter(self.subset.run(torch.stack(masks)).mean(1).tolist() if masks else [])
        for number, (edge, mask, guessed) in enumerate(asked):
            if mask is None:
                self.kept[edge] = False
                continue
            value = next(values)
            stays = not abs(value - self.value) < self.threshold
            if not stays:
                self.kept[edge], self.value = False, value
            if stays != guessed:
                self.size = max(_SMALLEST, number // 2)
                return at + number + 1
        self.size = min(2 * self.size, max(_SMALLEST, _MASKS // self.kept.numel()))
        return at + len(asked)

    def _ahead(self, at: int) -> Iterator[tuple[tuple[int, int], Tensor | None, bool]]:
        """Yield the next edges, the mask to run (``None`` where nothing reads what it feeds), and the guess."""
        kept, runs = self.kept.clone(), 0
        for edge in self.order[at:]:
            nodes = self.of[edge[1]]
            if nodes and not kept[nodes].any():
                kept[edge] = False
                yield edge, None, False
                continue
            if runs == self.size:
                return
            runs += 1
            without = kept.clone()
            without[edge] = False
            guess = bool(self.guess[edge])
            yield edge, without, guess
            if not guess:
                kept = without
