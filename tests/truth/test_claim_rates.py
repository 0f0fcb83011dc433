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
    pairs, ids = claim_rates.tried("ioi"), claim_rates.prompts("ioi")
    own = named["inhibited9"]
    fitting = [(base, source) for base, source in pairs if own[base] != own[source]]
    # Place → whether exchanging it makes the repeated name the answer, and the other prompt's answer.
    places = {
        Carrier("z", 1, (9,), head=2): (True, False),  # writes which slot is left out
        Carrier("z", 1, (8,), head=2): (False, False),  # the same, where nothing is read
        Carrier("resid_pre", 1, (9,)): (False, False),  # before it is written
        Carrier("z", 2, (9,), head=1): (False, True),  # by then it is a name
    }
    for carrier, expected in places.items():
        asked = claim_rates.Asked("ioi", Claim("slot", Value("given"), (carrier,), Outcome("answer")), own)
        repeated = [claim_rates.said("ioi", ids[b], ids[s], carrier) == ids[b][7] for b, s in fitting]
        shares = sum(repeated) / len(repeated), asked.by_construction(fitting)
        # Now and then the repeated name is the other prompt's answer.
        assert all(share == 1.0 if is_so else share < 0.1 for share, is_so in zip(shares, expected, strict=True)), (
            carrier
        )
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
    assert right == true >= 2, found.wrong
    assert not clean_session.models


@pytest.mark.slow
def test_false_claims_of_subspaces_are_not_supported(clean_session: Any) -> None:
    found = claim_rates.rates(2, 2, rank=2, names=["ioi"])
    assert found.share("false") == (0, 2), found.wrong
    assert found.share("true") == (2, 2), found.wrong
    assert not clean_session.models


def test_programs_have_no_claim_without_a_prompt() -> None:
    assert all(len(claim_rates.prompts(name)) > 20 for name in PROGRAMS)
    assert truth.build("ioi").program.answer(claim_rates.prompts("ioi")[0]) in claim_rates.prompts("ioi")[0]
