"""What a claim's accuracy and its controls' say together: intervals, and a verdict by fixed rules."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from interp.errors import InputError
from interp.methods._shared.intervals import share_interval

LEAST = 8  # interchanges: of fewer no interval says anything
Verdict = Literal["supported", "supported in part", "rejected", "not established"]
# Those that decide, by what a line calls them; the neighbouring layers qualify.
DECIDING = ("labels", "model", "random")


@dataclass(frozen=True)
class Share:
    """How many of so many, with the exact 95 % interval of the share.

    Examples
    --------
    >>> Share(9, 10).value, [round(end, 2) for end in Share(9, 10).interval]
    (0.9, [0.55, 1.0])
    """

    hits: int
    of: int

    @property
    def value(self) -> float:
        """The share; NaN of none."""
        return self.hits / self.of if self.of else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of Clopper and Pearson (1934): it covers at least what it says, however few there are."""
        low, high = map(float, share_interval(self.hits, self.of))
        return low, high

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.2f} ({low:.2f}–{high:.2f})"


def verdict(
    claim: Share, controls: Mapping[str, Share], *, solved: int, prompts: int, stays: bool = False
) -> tuple[Verdict, str]:
    """Return what is to be said of a claim, and why, in words.

    Parameters
    ----------
    claim
        How many interchanges gave the predicted answer.
    controls
        The same of the controls that there are: ``labels``, ``model``, ``random``, ``below`` and ``above``; of a claim
        that the answer stays ``stream``, how often exchanging the whole residual stream there leaves it.
    solved, prompts
        How many prompts the model solves, of how many.
    stays
        Whether the claim is that the answer stays.

    Notes
    -----
    Not established: fewer than half of the prompts are solved, or there are fewer than 8 interchanges. Then, of a claim
    that the answer becomes another: rejected, if the interval's upper end is below 1/2, or the share is no larger than
    a control's; not established, if the claim's lower end is not above the upper end of each control; supported, if
    that lower end is above 1/2, and supported in part if not.

    Every change that does nothing leaves the answer, so that a claim that it stays has no use for controls that leave
    it too. It is rejected if the interval's upper end is below 1/2. It is supported if its lower end is above 1/2, and
    above the upper end of how often the answer stays where the whole residual stream there is exchanged: what is there
    does move the answer, and this part of it does not; supported in part if its share alone is above 1/2.

    Raises
    ------
    InputError
        More are solved than there are.

    Examples
    --------
    >>> verdict(Share(30, 30), {"labels": Share(3, 30)}, solved=30, prompts=32)[0]
    'supported'
    >>> verdict(Share(2, 30), {"labels": Share(3, 30)}, solved=30, prompts=32)[0]
    'rejected'
    """
    if solved > prompts:
        raise InputError(f"{solved} prompts are solved, of {prompts}; give at most as many")
    if 2 * solved < prompts:
        return "not established", f"the model solves {solved} of {prompts} prompts, less than half"
    if claim.of < LEAST:
        return (
            "not established",
            f"{claim.of} interchange{'s' * (claim.of != 1)} can be made, and {LEAST} are the least",
        )
    low, high = claim.interval
    if stays:
        return _stays(claim, controls.get("stream"))
    deciding = {name: share for name, share in controls.items() if name in DECIDING and share.of}
    if high < 0.5:
        return "rejected", "in most interchanges the answer becomes another than predicted"
    if not deciding:
        return "not established", "there is no control to compare it with"
    strongest = max(deciding, key=lambda name: (deciding[name].value, deciding[name].interval[1]))
    if claim.value <= deciding[strongest].value:
        return "rejected", "a control does as well"
    if any(low <= share.interval[1] for share in deciding.values()):
        return "not established", "its interval and a control's overlap; more prompts may tell"
    if low > 0.5:
        return "supported", ""
    return "supported in part", "it moves the answer more often than the controls do, but perhaps not most of the time"


def _stays(claim: Share, stream: Share | None) -> tuple[Verdict, str]:
    low, high = claim.interval
    if high < 0.5:
        return "rejected", "in most interchanges the answer does not stay"
    if stream is None or not stream.of:
        return "not established", "it is not known whether anything there moves the answer"
    if low <= stream.interval[1]:
        return "not established", "exchanging the whole residual stream there leaves the answer, too"
    if low > 0.5:
        return "supported", ""
    if claim.value <= 0.5:
        return "not established", "the answer stays in half of the interchanges at most"
    return "supported in part", "it moves the answer less often than all that is there does"
