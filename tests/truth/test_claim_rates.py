"""Claims that are false by construction are not supported, and those that are true are: a few of each program."""

from __future__ import annotations

from typing import Any

import claim_rates
import pytest

from interp import truth
from interp.claim_language import Carrier, Claim, Outcome, Value
from interp.truth.programs import PROGRAMS


def test_a_claim_is_true_or_false_by_construction() -> None:
    """Of ioi: the name in a slot is said unless it is repeated, and the slot of the repeated one is at the end."""
    named = {name: values for name, values, _ in claim_rates.variables("ioi")}
    places = {
        Carrier("z", 1, (9,), head=2): 1.0,  # writes which slot to leave out
        Carrier("z", 1, (8,), head=2): 0.0,  # the same, where nothing is read
        Carrier("resid_pre", 1, (9,)): 0.0,  # before it is written
        Carrier("z", 2, (9,), head=1): 0.0,  # that is the name itself by then: the other prompt's, not the repeated one
    }
    pairs = claim_rates.tried("ioi")
    repeated = tuple(ids[7] for ids in claim_rates.prompts("ioi"))
    for carrier, expected in places.items():
        claim = Claim("slot", Value("given"), (carrier,), Outcome("answer"))
        one = claim_rates.Asked("ioi", claim, named["inhibited9"])
        fitting = [(base, source) for base, source in pairs if named["inhibited9"][base] != named["inhibited9"][source]]
        said = [
            claim_rates.said("ioi", *(claim_rates.prompts("ioi")[n] for n in pair), carrier) == repeated[pair[0]]
            for pair in fitting
        ]
        assert sum(said) / len(said) == expected
        # Now and then the name that was repeated is the other prompt's answer.
        assert one.by_construction(fitting) == 1.0 if carrier.layer == 2 else one.by_construction(fitting) < 0.2
    # All of the stream after the last layer is the answer, whatever the variable; a subspace of it can be, too.
    for rank in (None, 2):
        claim = Claim("answer", Value("given"), (Carrier("resid_post", 3, (9,)),), Outcome("answer"), rank)
        assert claim_rates.Asked("ioi", claim, named["answer"]).by_construction(pairs) == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("name", list(PROGRAMS))
def test_false_claims_are_not_supported_and_true_ones_are(name: str, clean_session: Any) -> None:
    found = claim_rates.rates(10, 4, names=[name])
    wrong, of = found.share("false")
    right, true = found.share("true", stays=False)
    print(f"{name}: supported are {wrong} of {of} false claims and {right} of {true} true ones")
    assert of >= 10
    assert wrong == 0, found.wrong
    assert right == true == 4, found.wrong
    assert not clean_session.models


@pytest.mark.slow
def test_false_claims_of_subspaces_are_not_supported(clean_session: Any) -> None:
    found = claim_rates.rates(2, 1, rank=2, names=["ioi"])
    assert found.share("false")[0] == 0, found.wrong
    assert found.share("true") == (1, 1), found.wrong
    assert not clean_session.models


def test_programs_have_no_claim_without_a_prompt() -> None:
    assert all(len(claim_rates.prompts(name)) > 20 for name in PROGRAMS)
    assert truth.build("ioi").program.answer(claim_rates.prompts("ioi")[0]) in claim_rates.prompts("ioi")[0]
