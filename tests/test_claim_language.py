"""Claims as they are typed: what each line means, that it is written back, and what is refused in one line."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.claim_language import Carrier, Claim, Outcome, Value, carriers_of, divided
from interp.errors import InputError

NAME = "variable: name = {IO}"
PLACE = "carried by: resid_post layer 2 at {S2}"
SWAP = "swap name -> the answer becomes the other name"


def claim(*lines: str) -> Claim:
    return Claim.parse("\n".join(lines))


def test_the_three_lines_are_a_claim() -> None:
    assert claim(NAME, PLACE, SWAP) == Claim(
        "name", Value("span", ("IO",)), (Carrier("resid_post", 2, ("S2",)),), Outcome("value")
    )


@pytest.mark.parametrize(
    "lines",
    [
        (SWAP, PLACE, "", NAME),
        ("VARIABLE name is {IO}", "Carried by resid_post layer 2 at S2", "swap name → becomes the other name."),
        (
            "variable: name = the token at {IO}",
            "carried: the resid_post of layer 2 at {S2}",
            "swapping name => the other name",
        ),
    ],
)
def test_case_order_and_small_words_do_not_matter(lines: tuple[str, ...]) -> None:
    assert claim(*lines) == claim(NAME, PLACE, SWAP)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("head 5.1 at END", [Carrier("z", 5, ("END",), head=1)]),
        ("L5H1 at end", [Carrier("z", 5, ("END",), head=1)]),
        (
            "L5H1, 5.2 and mlp 3 at END",
            [Carrier("z", 5, ("END",), 1), Carrier("z", 5, ("END",), 2), Carrier("mlp_out", 3, ("END",))],
        ),
        ("mlp 3 at position 9", [Carrier("mlp_out", 3, (9,))]),
        ("resid_pre layer 0 at {IO} and {S1}, -1", [Carrier("resid_pre", 0, ("IO", "S1", -1))]),
        ("head 5.1 at {IO} and head 6.0 at END", [Carrier("z", 5, ("IO",), 1), Carrier("z", 6, ("END",), 0)]),
        ("q layer 3 head 2 at END", [Carrier("q", 3, ("END",), 2)]),
        ("feature F2.417 at END", [Carrier("features", 2, ("END",), features=(417,))]),
        (
            "features F2.4, F2.1 and F3.0 at END",
            [Carrier("features", 2, ("END",), features=(4, 1)), Carrier("features", 3, ("END",), features=(0,))],
        ),
        ("the features of rule names at {user}", [Carrier("features", -1, ("user",), rule="names")]),
        ('the features of rule "a, b and c at d" at END', [Carrier("features", -1, ("END",), rule="a, b and c at d")]),
    ],
)
def test_places(typed: str, meant: list[Carrier]) -> None:
    assert carriers_of(typed) == (None, tuple(meant))


@pytest.mark.parametrize(
    "said", ["a 4-dimensional subspace of", "a four-dimensional subspace of the", "4 dim subspace of"]
)
def test_a_subspace(said: str) -> None:
    assert carriers_of(f"{said} resid_post layer 2 at {{S2}}") == (4, (Carrier("resid_post", 2, ("S2",)),))


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("the answer becomes the other answer", Outcome("answer")),
        ("becomes the source's answer", Outcome("answer")),
        ("the answer becomes the wrong one", Outcome("wrong")),
        ('the answer becomes " Paris"', Outcome("token", " Paris")),
        ("the answer becomes ' Paris'", Outcome("token", " Paris")),
        ("the answer becomes token 17", Outcome("token", 17)),
        ("The answer stays", Outcome("stays")),
        ("given", Outcome("given")),
    ],
)
def test_outcomes(typed: str, meant: Outcome) -> None:
    assert claim(NAME, PLACE, f"swap name -> {typed}").outcome == meant


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("variable: name = the answer", Value("answer")),
        ("variable: name = {IO} before {S1}", Value("order", ("IO", "S1"))),
        ("variable: name", Value("given")),
    ],
)
def test_variables(typed: str, meant: Value) -> None:
    assert claim(typed, PLACE, "swap name -> the answer stays").value == meant


REFUSED: list[tuple[tuple[str, ...], str]] = [
    ((PLACE, SWAP), "no line variable: type one, such as variable: name = {IO}"),
    ((NAME, SWAP), "no line carried by"),
    ((NAME, PLACE), "no line swap"),
    (("varable: name = {IO}", PLACE, SWAP), "did you mean variable?"),
    ((NAME, PLACE, SWAP, SWAP), "line 4 gives swap a second time"),
    (("variable: name = IO", PLACE, SWAP), "a span stands in braces: {IO}"),
    ((NAME, PLACE, "swap nam -> the answer stays"), "the variable is name"),
    ((NAME, PLACE, "swap name the answer stays"), "type it such as swap name ->"),
    ((NAME, PLACE, "swap name -> the other subject"), "there is no variable 'subject'"),
    ((NAME, PLACE, "swap name -> Paris"), "a token in quotes"),
    ((NAME, "carried by: resid_pots layer 2 at {S2}", SWAP), "did you mean resid_post?"),
    ((NAME, "carried by: resid_post layer 2", SWAP), "say where resid_post layer 2 is meant"),
    ((NAME, "carried by: pattern layer 2 at {S2}", SWAP), "no vector at a position"),
    ((NAME, "carried by: features layer 2 at {S2}", SWAP), "say which features of layer 2"),
    ((NAME, "carried by: resid_post layer 2 head 1 at {S2}", SWAP), "has no heads"),
    ((NAME, "carried by: a 0-dimensional subspace of resid_post layer 2 at {S2}", SWAP), "1 or more dimensions"),
    (
        (NAME, "carried by: a 2-dim subspace of mlp 1 at {S2} and a 3-dim subspace of mlp 2 at {S2}", SWAP),
        "one subspace",
    ),
    ((NAME, "carried by: the attic at {S2}", SWAP), "is no place in a model"),
    ((NAME, "carried by: mlp 2 at {S 2}", SWAP), "is no position"),
    (("variable: name = {IO} before {S1}", PLACE, SWAP), "which of two stands first, no token"),
]


@pytest.mark.parametrize(("lines", "said"), REFUSED)
def test_what_cannot_be_read_gets_one_line(lines: tuple[str, ...], said: str) -> None:
    with pytest.raises(InputError) as error:
        claim(*lines)
    assert said in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_prompts_stand_below_a_line_of_their_own() -> None:
    assert divided(f"{NAME}\nPrompts:\n\nclean: A\nanswer: B") == (NAME, "clean: A\nanswer: B")
    assert divided(f"{NAME}\nprompts: A") == (f"{NAME}\nprompts: A", "")


NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_-]{0,6}", fullmatch=True).filter(lambda name: name.upper() != "END")
AT = st.lists(st.one_of(NAMES, st.just("END"), st.integers(-99, 99)), min_size=1, max_size=3).map(tuple)
TEXTS = st.text(max_size=12)


def _carriers() -> st.SearchStrategy[Any]:
    layers, numbers = st.integers(0, 99), st.integers(0, 999)
    sites = st.sampled_from(["resid_pre", "resid_post", "attn_out", "mlp_out", "neuron"])
    return st.one_of(
        st.builds(Carrier, sites, layers, AT),
        st.builds(Carrier, st.sampled_from(["z", "q", "v"]), layers, AT, head=st.one_of(st.none(), numbers)),
        st.builds(
            Carrier,
            st.just("features"),
            layers,
            AT,
            features=st.lists(numbers, min_size=1, max_size=3, unique=True).map(tuple),
        ),
        st.builds(
            Carrier,
            st.just("features"),
            st.just(-1),
            AT,
            rule=TEXTS.filter(lambda text: text.strip() == text and text != ""),
        ),
    )


def _once(carriers: list[Carrier]) -> tuple[Carrier, ...]:
    """Return those that a line tells apart: features of one layer at one place are one."""
    return tuple({(one.site, one.layer, one.at, one.head, one.rule): one for one in carriers}.values())


@settings(max_examples=300, deadline=None)
@given(
    st.from_regex(r"[a-z][a-z0-9_]{0,6}", fullmatch=True).filter(lambda name: name not in {"answer", "is"}),
    st.one_of(
        st.builds(Value, st.just("span"), st.tuples(NAMES)),
        st.builds(Value, st.just("order"), st.tuples(NAMES, NAMES)),
        st.sampled_from([Value("answer"), Value("given")]),
    ),
    st.lists(_carriers(), min_size=1, max_size=3).map(_once),
    st.one_of(
        st.sampled_from([Outcome(kind) for kind in ("answer", "wrong", "stays", "given")]),
        st.builds(Outcome, st.just("token"), st.one_of(TEXTS, st.integers(0, 10**6))),
    ),
    st.one_of(st.none(), st.integers(1, 999)),
)
def test_a_claim_is_written_back_as_it_is_read(
    variable: str, value: Value, carriers: tuple[Carrier, ...], outcome: Outcome, rank: int | None
) -> None:
    made = Claim(variable, value, carriers, outcome, rank)
    assert Claim.parse(str(made)) == made
    assert len(str(made).split("\n")) == 3
