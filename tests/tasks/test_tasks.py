"""Every task under several tokenizers: what lines up, what is drawn, and what is refused."""

from __future__ import annotations

import itertools
import random
import re
import subprocess
import sys
from typing import Literal

import pytest

from interp import tasks
from interp.errors import InputError
from interp.spec import Pair, Prompt
from interp.tasks import Vocabulary, _registry, build, combinations, make_pair, task

KINDS = [
    ("ioi", {}),
    ("ioi", {"corruption": "random-names"}),
    ("ioi", {"order": "ABBA"}),
    ("ioi", {"order": "BABA"}),
    ("induction", {}),
    ("induction", {"length": 20, "repeated": 1}),
    ("facts", {}),
    ("facts", {"relation": "landmarks"}),
    ("greater-than", {}),
    ("gender-bias", {}),
    ("gender-bias", {"corruption": "gendered"}),
    ("gender-bias", {"corruption": "neutral"}),
]
TOKENIZERS = ["words", "pairs_of_digits", "single_digits", "some_years_whole", "smollm2_words"]


@pytest.fixture
def vocabulary(request: pytest.FixtureRequest) -> Vocabulary:
    return request.getfixturevalue(request.param)


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what a test registers."""
    tasks.names()
    monkeypatch.setattr(_registry, "_tasks", dict(_registry._tasks))


def spelled(vocabulary: Vocabulary, text: str, places: tuple[int, ...]) -> str:
    """Return the part of `text` whose tokens are at `places`, found by encoding every beginning of it."""
    ends: dict[int, int] = {}
    whole = tuple(vocabulary.encode(text))
    for cut in range(len(text) + 1):
        ids = tuple(vocabulary.encode(text[:cut]))
        if ids == whole[: len(ids)]:
            ends[len(ids)] = cut
    return text[ends[places[0]] : ends[places[-1] + 1]]


every = pytest.mark.parametrize(("name", "options"), KINDS, ids=lambda value: str(value))
under = pytest.mark.parametrize("vocabulary", TOKENIZERS, indirect=True)


@every
@under
def test_pairs_line_up(vocabulary, name, options):
    made = build(name, vocabulary, n=16, seed=0, **options)
    assert len(made) == 16
    assert made.notes == () or name == "greater-than"
    keys = {(pair.clean, pair.corrupted) for pair in made.pairs}
    assert len(keys) == 16
    places = {frozenset(pair.slots.values()) for pair in made.pairs}
    assert len(places) == 1
    assert len({tuple(sorted(pair.slots)) for pair in made.pairs}) == 1
    if not (name == "ioi" and not options.get("order")):
        assert len({tuple(pair.slots.items()) for pair in made.pairs}) == 1
    for pair in made.pairs:
        ids = [vocabulary.encode(prompt.text) for prompt in (pair.clean, pair.corrupted)]
        assert [len(i) for i in ids] == [made.length] * 2
        assert pair.slots["end"] == (made.length - 1,)
        # clean and corrupted differ in the slots and nowhere else
        changed = {i for i, (a, b) in enumerate(zip(*ids, strict=True)) if a != b}
        assert changed
        assert changed <= set(itertools.chain(*pair.slots.values()))
        assert pair.answer
        assert pair.wrong
        assert not set(pair.answer) & set(pair.wrong)
        for answer in (*pair.answer, *pair.wrong):
            if isinstance(answer, str):
                assert len(vocabulary.encode(pair.clean.text + answer)) == made.length + 1
            else:
                assert name == "greater-than"


@every
@under
def test_the_seed_decides(vocabulary, name, options):
    first, again, other = (build(name, vocabulary, n=12, seed=seed, **options) for seed in (3, 3, 4))
    assert first == again
    assert first.pairs != other.pairs


@pytest.mark.parametrize("corruption", ["swap-subject", "random-names"])
@under
def test_ioi(vocabulary, corruption):
    made = build("ioi", vocabulary, n=16, seed=1, corruption=corruption)
    orders = []
    for pair in made.pairs:
        io, s1, s2 = (spelled(vocabulary, pair.clean.text, pair.slots[name]) for name in ("io", "s1", "s2"))
        assert s1 == s2 != io
        assert (pair.answer, pair.wrong) == ((io,), (s1,))
        swapped = [spelled(vocabulary, pair.corrupted.text, pair.slots[name]) for name in ("io", "s1", "s2")]
        if corruption == "swap-subject":
            assert swapped == [io, s1, io]
        else:
            assert len({io, s1, *swapped}) == 5
        orders.append(pair.slots["io"] < pair.slots["s1"])
    assert sum(orders) == 8
    assert len({pair.clean for pair in made.pairs}) == 16


def test_ioi_in_one_order(single_digits):
    for order, first in (("ABBA", "io"), ("BABA", "s1")):
        made = build("ioi", single_digits, n=8, order=order)
        assert all(pair.slots[first] == (1,) for pair in made.pairs)
        assert re.fullmatch(
            r"(When|After|While) (\w+) and (\w+) went to the \w+, (\w+) \w+ a \w+ to", made.pairs[0].clean.text
        )


def test_ioi_with_two_names_only(tiny):
    made = build("ioi", tiny, n=8)
    assert {pair.answer[0] for pair in made.pairs} == {" Mary", " John"}
    with pytest.raises(InputError, match="random-names needs 5 names of one token, and this tokenizer has 2"):
        build("ioi", tiny, n=8, corruption="random-names")


@under
def test_induction(vocabulary):
    made = build("induction", vocabulary, n=8, length=8, repeated=3)
    assert made.length == 11
    for pair in made.pairs:
        words = pair.clean.text.split()
        assert words[8:11] == words[2:5]
        assert len({*words}) == 8
        a1, b, a2 = (spelled(vocabulary, pair.clean.text, pair.slots[name]) for name in ("a1", "b", "a2"))
        assert a1 == a2
        assert pair.answer == (b,)
        assert pair.wrong == (spelled(vocabulary, pair.corrupted.text, pair.slots["b"]),)
        assert pair.wrong[0].strip() not in words


@under
def test_induction_with_nothing_to_find(vocabulary):
    for pair in build("induction", vocabulary, n=8, length=6, repeated=3, corruption="other-first").pairs:
        clean, corrupted = pair.clean.text.split(), pair.corrupted.text.split()
        assert [n for n in range(9) if clean[n] != corrupted[n]] == [3]
        assert clean[3] == clean[8]
        assert corrupted[8] not in corrupted[:8]
        assert pair.answer[0].strip() == clean[4]
        assert pair.wrong[0].strip() not in {*clean, *corrupted}


def test_induction_on_letters(tiny):
    made = build("induction", tiny, n=8)
    assert all(re.fullmatch(r"[a-zA-Z]{15}", pair.clean.text) for pair in made.pairs)
    assert made.length == 15


@pytest.mark.parametrize("options", [{"repeated": 0}, {"repeated": 10}, {"length": 1}, {"length": 1000}])
def test_induction_of_an_impossible_shape(single_digits, options):
    with pytest.raises(InputError, match=r"repeated must be from 1 to length - 1|use a smaller length"):
        build("induction", single_digits, **options)


@pytest.mark.parametrize(
    ("relation", "template"), [("capitals", r"The capital of ([\w ]+) is"), ("landmarks", r"The ([\w ]+) is in")]
)
@under
def test_facts(vocabulary, relation, template):
    from interp.tasks import _words

    known = getattr(_words, relation.upper())
    made = build("facts", vocabulary, n=12, relation=relation)
    for pair in made.pairs:
        subjects = [re.fullmatch(template, prompt.text)[1] for prompt in (pair.clean, pair.corrupted)]
        assert [f" {known[subject]}" for subject in subjects] == [pair.answer[0], pair.wrong[0]]
        assert spelled(vocabulary, pair.clean.text, pair.slots["subject"]) == f" {subjects[0]}"
    assert len({pair.clean for pair in made.pairs}) >= 10  # a subject comes again only when all have been


def test_no_fact_gives_its_answer_away():
    from interp.tasks import _words

    for subject, answer in [*_words.CAPITALS.items(), *_words.LANDMARKS.items()]:
        assert answer not in subject


def test_years_of_two_digits(pairs_of_digits):
    made = build("greater-than", pairs_of_digits, n=16)
    for pair in made.pairs:
        century, start, last = re.search(r"year (\d\d)(\d\d) to the year (\d\d)$", pair.clean.text).groups()
        assert century == last
        assert spelled(pairs_of_digits, pair.clean.text, pair.slots["start"]) == start
        assert spelled(pairs_of_digits, pair.clean.text, pair.slots["century"]) == f" {century}"
        assert pair.corrupted.text == pair.clean.text.replace(f"{century}{start}", f"{century}01")
        assert pair.answer == tuple(f"{year:02d}" for year in range(int(start) + 1, 100))
        assert pair.wrong == tuple(f"{year:02d}" for year in range(int(start) + 1))


@pytest.mark.parametrize("vocabulary", ["single_digits", "smollm2_words"], indirect=True)
def test_years_of_single_digits(vocabulary):
    made = build("greater-than", vocabulary, n=16)
    for pair in made.pairs:
        start = re.search(r"year \d\d(\d\d) to", pair.clean.text)[1]
        assert spelled(vocabulary, pair.clean.text, pair.slots["start"]) == start
        assert pair.answer == tuple(str(digit) for digit in range(int(start[0]) + 1, 10))
        assert pair.wrong == tuple(str(digit) for digit in range(int(start[0])))


def test_years_of_which_some_are_merged(some_years_whole):
    made = build("greater-than", some_years_whole, n=16)
    for pair in made.pairs:
        start = int(re.search(r"year \d\d(\d\d) to", pair.clean.text)[1])
        # " 1790" reads as one token, so the answers are the ids of "00", "01" … on their own
        assert [some_years_whole.encode(f"{year:02d}")[0] for year in range(start + 1, 100)] == [*pair.answer]
        assert len(pair.wrong) == start + 1


@pytest.mark.parametrize(("unknown", "taken"), [(99, False), (None, True)])
def test_what_the_tokenizer_cannot_spell_is_no_answer(pairs_of_digits, unknown, taken):
    def lossy(text: str) -> list[int]:
        pieces = re.findall(r" ?[^\W\d]+| ?\d\d|.", text)
        return [99 if re.search(r"\d", piece) else 100 + pairs_of_digits.encode(piece)[0] for piece in pieces]

    if taken:  # nothing says that 99 is no token, so it is one
        with pytest.raises(InputError, match="same tokens"):
            build("greater-than", Vocabulary(lossy, unknown))
    else:
        with pytest.raises(InputError, match="splits a year after its century"):
            build("greater-than", Vocabulary(lossy, unknown))


def test_years_that_split_elsewhere(triples_of_digits):
    with pytest.raises(InputError, match="splits a year after its century"):
        build("greater-than", triples_of_digits)


@under
def test_gender_bias(vocabulary):
    from interp.tasks._words import HE_JOBS, SHE_JOBS

    for corruption, instead in (("opposite", None), ("gendered", {"man", "woman"}), ("neutral", {"person", "student"})):
        made = build("gender-bias", vocabulary, n=16, corruption=corruption)
        assert sum(pair.answer == (" he",) for pair in made.pairs) == 8
        for pair in made.pairs:
            his = pair.answer == (" he",)
            job, other = (
                spelled(vocabulary, prompt.text, pair.slots["profession"]).strip()
                for prompt in (pair.clean, pair.corrupted)
            )
            assert job in (HE_JOBS if his else SHE_JOBS)
            assert other in (instead or (SHE_JOBS if his else HE_JOBS))
            assert corruption != "gendered" or other == ("woman" if his else "man")
            assert pair.wrong == ((" she",) if his else (" he",))


def test_gender_bias_needs_the_pronouns(tiny):
    with pytest.raises(InputError, match="splits he and she"):
        build("gender-bias", tiny)


def test_gender_bias_without_the_words_against_it(single_digits):
    def split(text: str) -> list[int]:  # " man" is two tokens, " woman" one
        return [*single_digits.encode(text.replace(" man", " m an"))]

    assert len(build("gender-bias", Vocabulary(split), n=4)) == 4
    with pytest.raises(InputError, match=r"gender-bias with gendered needs professions .* try another corruption"):
        build("gender-bias", Vocabulary(split), n=4, corruption="gendered")


def test_more_than_there_are(single_digits):
    with pytest.raises(InputError, match=r"has (\d+) different pairs for this tokenizer, not 100000") as caught:
        build("facts", single_digits, n=100_000)
    possible = int(re.search(r"has (\d+)", str(caught.value))[1])
    assert len(build("facts", single_digits, n=possible)) == possible
    with pytest.raises(InputError, match=f"has {possible} "):
        build("facts", single_digits, n=possible + 1)


def test_a_name_that_is_not_there():
    with pytest.raises(InputError, match=r"there is no task 'io' \(did you mean ioi\?\); tasks are facts, gender-bias"):
        tasks.find("io")
    assert tasks.find("greater_than").name == "greater-than"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"n": 0}, "n must be at least 1, not 0"),
        ({"n": 2.5}, "n 2.5 is not a whole number"),
        ({"n": True}, "n True is not a whole number"),
        ({"seed": "x"}, "seed 'x' is not a whole number"),
        ({"corupption": "x"}, r"task ioi has no option 'corupption' \(did you mean corruption\?\)"),
        ({"corruption": "swap"}, r"corruption 'swap' is not one of swap-subject, random-names \(did you mean swap-su"),
    ],
)
def test_what_cannot_be_asked(single_digits, call, message):
    with pytest.raises(InputError, match=message):
        build("ioi", single_digits, **call)


def test_a_choice_behind_the_name(single_digits):
    made = build("facts:landmarks", single_digits, n=8)
    assert made.name == "facts:landmarks"
    assert made.pairs == build("facts", single_digits, n=8, relation="landmarks").pairs
    with pytest.raises(InputError, match=r"task facts has no 'landmark' \(did you mean landmarks\?\); write facts:cap"):
        build("facts:landmark", single_digits)
    with pytest.raises(InputError, match=r"it takes relation \(facts:capitals or facts:landmarks\)"):
        build("facts", single_digits, corruption="landmarks")
    with pytest.raises(InputError, match="task greater-than has no 'x'; write greater-than"):
        build("greater-than:x", single_digits)
    with pytest.raises(InputError, match="gender-bias:neutral says its corruption, and corruption='opposite' says it"):
        build("gender-bias:neutral", single_digits, corruption="opposite")


def test_an_option_of_the_wrong_type(single_digits):
    with pytest.raises(InputError, match="length 'ten' is not of type int"):
        build("induction", single_digits, length="ten")


def test_every_task_says_what_it_is():
    assert tasks.names() == ("facts", "gender-bias", "greater-than", "induction", "ioi")
    for name in tasks.names():
        found = tasks.find(name)
        assert found.summary.endswith((".", '".'))
        assert found.metric == "logit-diff"
        assert "Slots: " in found.doc
        for option in found.options:
            assert f"\n{option.name}\n" in found.doc
            assert option.choices or option.kind is int


@pytest.mark.usefixtures("own")
def test_a_task_of_ones_own(single_digits):
    @task("colours", metric="prob")
    def colours(vocabulary, rng, n, *, kind: Literal["plain"] = "plain"):  # noqa: ARG001
        """The usual colour of a thing."""
        for thing, other in combinations(rng, ["grass", "leaf"], ["snow", "milk"]):
            yield make_pair(vocabulary, "The {thing} is", {"thing": thing}, {"thing": other}, (" green",), (" white",))

    made = build("colours", single_digits, n=4)
    assert made.metric == "prob"
    assert {pair.clean.text for pair in made.pairs} == {"The grass is", "The leaf is"}
    assert made.pairs[0].slots == {"thing": (1,), "end": (2,)}
    assert tasks.find("colours").options[0].choices == ("plain",)
    with pytest.raises(InputError, match="has 4 different pairs"):
        build("colours", single_digits, n=5)


@pytest.mark.usefixtures("own")
def test_a_list_of_which_not_all_line_up(single_digits):
    @task("mixed")
    def mixed(vocabulary, rng, n):  # noqa: ARG001
        answers = ((" c",), (" d",))
        return [
            *(Pair(Prompt(f"a a{i}"), Prompt(f"b a{i}"), *answers, {"first": (0,)}) for i in "vwxyz"),
            Pair(Prompt("a long one"), Prompt("b long two"), *answers, {"first": (0,)}),
            Pair(Prompt("a"), Prompt("a b"), *answers, {"first": (0,)}),
            Pair(Prompt("a a"), Prompt("b a"), (" c d",), (" d",), {"first": (0,)}),
        ]

    made = build("mixed", single_digits, n=8)
    assert len(made) == 5
    assert made.notes == (
        "3 of 8 pairs were left out: clean and corrupted have 1 and 2 tokens ('a'); "
        "slots or lengths differ from the rest",
    )


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([], "task bad has no pair for this tokenizer: the task gave none"),
        ([None], "the tokenizer splits clean and corrupted differently"),
        (["x"], "task bad gave a str, not an interp.spec.Pair"),
        ([Pair(Prompt("a b"), Prompt("a"), (" c",), (" d",))], "clean and corrupted have 2 and 1 tokens"),
        ([Pair(Prompt("a"), Prompt("a"), (" c",), (" d",))], "clean and corrupted have the same tokens"),
        ([Pair(Prompt("a"), Prompt("b"), (" c e",), (" d",))], "' c e' is not one token after 'a'"),
        ([Pair(Prompt("a"), Prompt("b"), (), (), {"end": (1,)})], "slot end is outside the prompt's 1 tokens"),
        (itertools.repeat(Pair(Prompt("a"), Prompt("b"), (" c",), (" d",))), "has 1 different pairs .*, not 3"),
    ],
)
def test_a_task_that_gives_nothing_of_use(single_digits, pairs, message):
    @task("bad")
    def bad(vocabulary, rng, n):  # noqa: ARG001
        return pairs

    with pytest.raises(InputError, match=message):
        build("bad", single_digits, n=3)


@pytest.mark.usefixtures("own")
def test_ids_are_pairs_too(single_digits):
    @task("ids")
    def ids(vocabulary, rng, n):  # noqa: ARG001
        return [Pair(Prompt(ids=(1, 2, i)), Prompt(ids=(1, 3, i)), (4,), (5,)) for i in range(n)]

    made = build("ids", single_digits, n=3)
    assert made.length == 3
    assert list(made.to_frame().clean) == [(1, 2, 0), (1, 2, 1), (1, 2, 2)]


@pytest.mark.usefixtures("own")
def test_names_that_cannot_be_taken():
    with pytest.raises(ValueError, match=r"interp\.tasks\.ioi already declares a task named 'ioi'"):

        @task("ioi")
        def other(vocabulary, rng, n): ...

    for name in ("", "two words"):
        with pytest.raises(ValueError, match="typed as one word"):
            task(name)
    with pytest.raises(InputError, match=r"no metric 'logitdiff' \(did you mean logit-diff\?\)"):
        task("x", metric="logitdiff")


def test_a_set_shows_itself(single_digits):
    made = build("ioi", single_digits, n=4)
    assert repr(made) == "TaskSet('ioi', 4 pairs of 14 tokens, seed 0)"
    frame = made.to_frame()
    assert list(frame.columns)[:4] == ["clean", "corrupted", "answer", "wrong"]
    assert {"slot_io", "slot_s1", "slot_s2", "slot_end"} == set(frame.columns[4:])
    assert list(frame.slot_end) == [13] * 4
    assert list(frame.answer) == [pair.answer[0] for pair in made.pairs]


def test_combinations_come_once_each():
    drawn = list(combinations(random.Random(0), "abc", range(4), "xy"))
    assert len(drawn) == len(set(drawn)) == 24
    assert drawn != sorted(drawn)
    assert list(combinations(random.Random(0), "abc", [])) == []
    huge = combinations(random.Random(0), *[range(1000)] * 9)
    assert next(huge) != next(huge)


def test_combinations_are_even():
    first = [next(combinations(random.Random(seed), range(4)))[0] for seed in range(400)]
    last = [list(combinations(random.Random(seed), range(4)))[-1][0] for seed in range(400)]
    for drawn in (first, last):
        assert all(60 < drawn.count(value) < 140 for value in range(4))


def test_a_token_across_a_slots_edge_is_no_pair():
    pairs_of_letters = Vocabulary(lambda text: [hash(text[i : i + 2]) for i in range(0, len(text), 2)])
    assert make_pair(pairs_of_letters, "ab{x}", {"x": "cd"}, {"x": "ef"}, (1,), (2,)).slots == {"x": (1,), "end": (1,)}
    assert make_pair(pairs_of_letters, "a{x}", {"x": "bc"}, {"x": "de"}, (1,), (2,)) is None
    assert make_pair(pairs_of_letters, "ab{x}", {"x": "cd"}, {"x": "efgh"}, (1,), (2,)) is None


def test_nothing_heavy_is_imported():
    heavy = ("torch", "numpy", "pandas")
    code = f"import sys, interp.tasks; interp.tasks.names(); print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def score(model, vocabulary: Vocabulary, made: tasks.TaskSet, kind: str) -> float:
    """Return the mean logit difference of a set's clean or corrupted prompts."""
    logits = model.forward([model.encode(getattr(pair, kind)).ids for pair in made.pairs], {})[:, 0]
    total = 0.0
    for pair, row in zip(made.pairs, logits, strict=True):
        for answers, sign in ((pair.answer, 1), (pair.wrong, -1)):
            ids = [a if isinstance(a, int) else vocabulary.continuation(pair.clean.text, a)[0] for a in answers]
            total += sign * row[ids].logsumexp(0).item()
    return total / len(made)


@pytest.mark.parametrize(
    ("name", "options", "clean_above", "corrupted_below"),
    [
        ("ioi", {}, 1.5, -1.5),
        ("ioi", {"corruption": "random-names"}, 1.5, 1.5),
        ("induction", {}, 1.5, 0.0),
        ("facts", {}, 5.0, -5.0),
        ("facts", {"relation": "landmarks"}, 0.5, 0.0),
        ("greater-than", {}, 1.5, 0.0),
        ("gender-bias", {}, 0.1, -0.1),
    ],
    ids=str,
)
def test_a_real_model_does_the_tasks(smollm2, smollm2_words, name, options, clean_above, corrupted_below):
    made = build(name, smollm2_words, n=16, seed=0, **options)
    assert score(smollm2, smollm2_words, made, "clean") > clean_above
    assert score(smollm2, smollm2_words, made, "corrupted") < corrupted_below
