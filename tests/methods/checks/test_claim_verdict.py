"""The verdict's rules, case by case, and what its intervals cover."""

from __future__ import annotations

import math

import pytest
from scipy.stats import binom

from interp.errors import InputError
from interp.methods._shared.claims.controls import NAMES, chosen
from interp.methods._shared.claims.drawing import matched
from interp.methods._shared.claims.repeated_result import change
from interp.methods._shared.claims.verdict import Share, verdict
from interp.methods._shared.intervals import share_interval as interval

NONE = {"labels": Share(1, 32), "model": Share(2, 32), "random": Share(0, 32)}


@pytest.mark.parametrize(
    ("claim", "controls", "solved", "said", "why"),
    [
        (Share(32, 32), NONE, 32, "supported", ""),
        (Share(24, 32), NONE, 32, "supported", ""),
        (Share(18, 32), NONE, 32, "supported in part", "more often than the controls"),
        (Share(12, 32), NONE, 32, "supported in part", "more often than the controls"),
        (Share(9, 32), NONE, 32, "rejected", "becomes another than predicted"),
        (Share(0, 32), NONE, 32, "rejected", "becomes another than predicted"),
        (Share(31, 32), {**NONE, "random": Share(32, 32)}, 32, "rejected", "a control does as well"),
        (Share(22, 32), {**NONE, "labels": Share(16, 32)}, 32, "not established", "overlap"),
        (Share(32, 32), {**NONE, "below": Share(32, 32), "above": Share(32, 32)}, 32, "supported", ""),
        (Share(32, 32), {"below": Share(0, 32)}, 32, "not established", "no control"),
        (Share(7, 7), {"labels": Share(0, 7)}, 32, "not established", "7 interchanges can be made, and 8"),
        (Share(1, 1), {}, 32, "not established", "1 interchange can be made"),
        (Share(0, 0), {}, 32, "not established", "0 interchanges"),
        (Share(15, 15), {"labels": Share(0, 15)}, 15, "not established", "solves 15 of 32 prompts"),
        (Share(16, 16), {"labels": Share(0, 16)}, 16, "supported", ""),
    ],
)
def test_of_an_answer_that_becomes_another(
    claim: Share, controls: dict[str, Share], solved: int, said: str, why: str
) -> None:
    found = verdict(claim, controls, solved=solved, prompts=32)
    assert found[0] == said
    assert why in found[1]
    assert bool(found[1]) == bool(why)


@pytest.mark.parametrize(
    ("claim", "stream", "said", "why"),
    [
        (Share(32, 32), Share(2, 32), "supported", ""),
        (Share(32, 32), Share(32, 32), "not established", "whole residual stream there leaves the answer, too"),
        (Share(32, 32), Share(28, 32), "not established", "whole residual stream there leaves the answer, too"),
        (Share(32, 32), None, "not established", "not known"),
        (Share(5, 32), Share(0, 32), "rejected", "does not stay"),
        (Share(18, 32), Share(0, 32), "supported in part", "less often"),
        (Share(11, 32), Share(0, 32), "not established", "half of the interchanges at most"),
    ],
)
def test_of_an_answer_that_stays(claim: Share, stream: Share | None, said: str, why: str) -> None:
    controls = {"random": Share(32, 32), **({} if stream is None else {"stream": stream})}
    found = verdict(claim, controls, solved=32, prompts=32, stays=True)
    assert found[0] == said
    assert why in found[1]


def test_more_solved_than_there_are_is_refused() -> None:
    with pytest.raises(InputError, match="33 prompts are solved"):
        verdict(Share(1, 8), {}, solved=33, prompts=32)


@pytest.mark.parametrize("count", [8, 16, 32, 64])
def test_intervals_cover_what_they_say(count: int) -> None:
    """Whatever the true share is: summed exactly over all that can be counted."""
    ends = [interval(hits, count) for hits in range(count + 1)]
    for step in range(1, 200):
        true = step / 200
        covered = sum(
            float(binom.pmf(hits, count, true)) for hits, (low, high) in enumerate(ends) if low <= true <= high
        )
        assert covered >= 0.95
    assert all(math.isnan(end) for end in interval(0, 0))


def test_as_many_rows_as_can_be_have_a_partner_of_their_own() -> None:
    every = [[n for n in range(12) if n != own] for own in range(12)]
    assert sorted(one for one in matched(every) if one is not None) == list(range(12))
    assert matched([[1], [0], [0, 1]]).count(None) == 1
    assert matched([[], [0]]) == [None, 0]


def test_controls_are_chosen_by_name() -> None:
    assert chosen("all") == NAMES
    assert chosen(["below", "Labels"]) == ("labels", "below")
    with pytest.raises(InputError, match="did you mean labels"):
        chosen("lables")
    with pytest.raises(InputError, match="controls are"):
        chosen(3)


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        ("supported", "supported", "unchanged"),
        ("supported", "supported in part", "weaker"),
        ("supported in part", "supported", "stronger"),
        ("supported in part", "not established", "broke"),
        ("supported", "rejected", "broke"),
        ("rejected", "supported in part", "stronger"),
        ("rejected", "not established", "changed"),
        ("supported", "", "not run"),
    ],
)
def test_what_became_of_a_claim(was: str, now: str, said: str) -> None:
    assert change(was, now) == said
