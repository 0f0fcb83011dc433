"""The language of a cell's body over pairs, and the cells that hold it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faults import harness
from interp.errors import InputError
from interp.interface.body import pairs
from interp.spec import Pair, Pairs, Prompt

GIFT = "When Mary and John went to the store, John gave a drink to"
SWAP = "When Mary and John went to the store, Mary gave a drink to"
BODY = f"clean: {GIFT}\ncorrupted: {SWAP}\nanswer: Mary\nwrong: John\n"


def one(body: str) -> Pair:
    found = pairs(body)
    assert isinstance(found, Pairs)
    assert len(found.pairs) == 1
    return found.pairs[0]


def test_a_pair() -> None:
    assert one(BODY) == Pair(Prompt(GIFT), Prompt(SWAP), ("Mary",), ("John",))


def test_the_order_of_lines_their_case_and_the_space_around_are_free() -> None:
    body = f"\n \n  wrong :  John \nANSWER:Mary\n\tCorrupted : {SWAP}\t\nclean:{GIFT}  \n\n\n"
    assert one(body) == one(BODY)


def test_answers_are_not_needed() -> None:
    assert one(f"clean: {GIFT}\ncorrupted: {SWAP}") == Pair(Prompt(GIFT), Prompt(SWAP))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_several_pairs_and_every_end_of_line(end: str) -> None:
    body = (BODY + "\n \t\n\n" + BODY.replace("Mary", "Ann") + "\n\n").replace("\n", end)
    found = pairs(body).pairs
    assert found == (one(BODY), one(BODY.replace("Mary", "Ann")))


def test_answers_are_what_was_typed() -> None:
    """What they mean after the prompt is for the tokenizer to say."""
    pair = one("clean: a drink to\ncorrupted: a drink to\nanswer:  John \nwrong: , and")
    assert (pair.answer, pair.wrong) == (("John",), (", and",))


@pytest.mark.parametrize(
    "text",
    [
        "Note: the answer: 42 # not a comment",
        "clean: clean: a",
        "wrong: none",
        "{1 + 1} $HOME %time --task ioi -o r",
        "'quoted' and \"quoted\"",
        r"C:\temp\new",
        "a\tb",
        "a\x0cb",
        "a\x1cb",
        "a\u2028b\x85c",
        "a\u202eb",
        "😀 naïve 中文",
    ],
)
def test_values_are_taken_as_they_are(text: str) -> None:
    pair = one(f"clean: {text}\ncorrupted: {text}\nanswer: {text}")
    assert (pair.clean.text, pair.corrupted.text) == (text, text)
    assert pair.answer[0] in (text, f" {text}")


values = (
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), min_size=1)
    .map(str.strip)
    .filter(lambda text: text != "")
)


@given(
    spelled=st.lists(st.tuples(values, values, values | st.none(), values | st.none()), min_size=1, max_size=4),
    end=st.sampled_from(["\n", "\r\n"]),
    blank=st.sampled_from(["", " ", "\t \t"]),
    data=st.data(),
)
def test_what_is_written_is_read(spelled: list[Any], end: str, blank: str, data: st.DataObject) -> None:
    blocks = []
    for clean, corrupted, answer, wrong in spelled:
        named = {"clean": clean, "corrupted": corrupted, "answer": answer, "wrong": wrong}
        lines = [f"{key}: {value}" for key, value in named.items() if value is not None]
        blocks.append(end.join(data.draw(st.permutations(lines))))
    found = pairs((end + blank + end).join(blocks) + end).pairs
    assert len(found) == len(spelled)
    for pair, (clean, corrupted, answer, wrong) in zip(found, spelled, strict=True):
        assert (pair.clean.text, pair.corrupted.text) == (clean, corrupted)
        for given_, taken in ((answer, pair.answer), (wrong, pair.wrong)):
            if given_ is None:
                assert taken == ()
            else:
                assert taken in ((given_,), (f" {given_}",))
                assert taken == (given_,) or given_[0].isalnum()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("", "the cell holds no pair; type a clean: and a corrupted: line"),
        ("\n \n", "the cell holds no pair"),
        ("clean: a\nwhat is this\n", "line 2 is not one of clean:, corrupted:, answer:, wrong:: what is this"),
        ("clean: a\ncorupted: b", "line 2 is not one of clean:, corrupted:, answer:, wrong: (did you mean corrupted?)"),
        ("\n\nclean: a\n\n\n: b", "line 6 is not one of"),
        ("clean a", "line 1 is not one of"),
        ("clean: a\nclean: b", "line 2 gives clean: a second time; put a blank line between two pairs"),
        ("clean: a\r\ncorrupted: b\r\nANSWER: c\r\nanswer: d", "line 4 gives answer: a second time"),
        ("clean: a", "there is no corrupted: line"),
        ("corrupted: a\nanswer: b", "there is no clean: line"),
        ("clean: a\ncorrupted: b\n\nanswer: c", "pair 1: there is no clean: line"),
        ("clean: a\ncorrupted: b\n\nclean: c", "pair 1: there is no corrupted: line"),
    ],
)
def test_mistakes_name_the_line(body: str, words: str) -> None:
    with pytest.raises(InputError) as refused:
        pairs(body)
    assert words in str(refused.value).replace("wrong: (did", "wrong: (did")
    assert len(str(refused.value).splitlines()) == 1


# -- in a cell -------------------------------------------------------------------------------------------------------


def test_a_cell_gives_what_python_gives(shell: Any, lend: Any) -> None:
    import interp

    lend("gpt2")
    outcome = harness.ask("magic", shell, f"%%interp patch --site resid_pre --by position -o found # a comment\n{BODY}")
    typed = harness.worked(outcome)
    assert shell.user_ns["found"] is typed
    direct = interp.patch(GIFT, SWAP, answer=" Mary", wrong=" John", site="resid_pre", by="position")
    assert np.array_equal(typed.per_pair, direct.per_pair)
    assert harness.answer(typed) == harness.answer(direct)
    assert typed.axes == ("layer", "position")
    windows = harness.worked(harness.ask("magic", shell, "%%interp patch\r\n" + BODY.replace("\n", "\r\n")))
    assert np.array_equal(windows.per_pair, interp.patch(GIFT, SWAP, answer=" Mary", wrong=" John").per_pair)


def test_several_pairs_in_a_cell(shell: Any, lend: Any) -> None:
    lend("gpt2")
    swapped = f"clean: {SWAP}\ncorrupted: {GIFT}\nanswer: John\nwrong: Mary\n"
    both = harness.worked(harness.ask("magic", shell, f"%%interp patch --layer 0-1\n{BODY}\n{swapped}"))
    alone = [harness.worked(harness.ask("magic", shell, f"%%interp patch\n{body}")) for body in (BODY, swapped)]
    assert np.abs(both.per_pair - np.concatenate([each.per_pair for each in alone])).max() < 1e-5
    assert [answer[0][0] for answer in both.checks.answer] == [" Mary", " John"]


def test_a_metric_of_the_notebooks_own(shell: Any, lend: Any) -> None:
    lend("gpt2")
    shell.run_cell("def spread(logits):\n    return logits.max(-1).values - logits.min(-1).values")
    found = harness.worked(harness.ask("magic", shell, f"%%interp patch --metric spread -o own\n{BODY}"))
    assert found.metric == "spread"
    assert (found.per_pair > 0).all()
    refused = harness.refused(harness.ask("magic", shell, f"%%interp patch --metric spraed\n{BODY}"), "'spraed'")
    assert "the name of a function that this notebook defines" in refused
    shell.user_ns["five"] = 5
    harness.refused(harness.ask("magic", shell, f"%%interp patch --metric five\n{BODY}"), "'five'")


def test_a_task_needs_no_body(shell: Any, lend: Any) -> None:
    model = lend("gpt2")
    outcome = harness.ask("magic", shell, "%interp patch --task induction --n 3 --seed 1 --site v --by head -o found")
    found = harness.worked(outcome)
    assert (found.task, len(found.per_pair)) == ("induction", 3)
    assert found.patched.shape == (model.geometry.n_layers, model.geometry.n_kv_heads)
    assert shell.user_ns["found"] is found
    harness.refused(harness.ask("magic", shell, "%interp patch"), "--task", "%%interp patch")
    harness.refused(harness.ask("magic", shell, f"%%interp patch --task induction\n{BODY}"), "not both")
    harness.refused(harness.ask("magic", shell, "%interp patch --task inductoin"), "did you mean induction")


@pytest.mark.parametrize("body", ["clean a\n", "clean: a b\ncorupted: b\n", "clean: a\nclean: b\n", " \n"])
def test_mistakes_in_a_cell_are_one_line(body: str, shell: Any, lend: Any) -> None:
    model = lend("gpt2")
    with harness.unharmed(model, shell):
        outcome = harness.ask("magic", shell, f"%%interp patch\n{body}")
        harness.refused(outcome)
        assert outcome.shown.startswith("UsageError: ")


@pytest.mark.parametrize("flag", ["--n 3", "--seed 1", "--corruption random-names"])
def test_flags_of_a_task_are_not_ignored_beside_own_pairs(flag: str, shell: Any, lend: Any) -> None:
    lend("gpt2")
    outcome = harness.ask("magic", shell, f"%%interp patch {flag}\n{BODY}")
    harness.refused(outcome, flag.split()[0], "is about a task's pairs", "leave it out")


def test_prompts_that_stand_alone_need_no_key() -> None:
    """A claim's prompts: a text and its answer."""
    plain = pairs("The capital of [France]{C} is\nanswer: Paris\n\nNote: Rome is in\nanswer: Italy", alone=True)
    keyed = pairs(
        "clean: The capital of [France]{C} is\nanswer: Paris\n\nclean: Note: Rome is in\nanswer: Italy", alone=True
    )
    assert plain == keyed
    assert plain.pairs[0].clean.marks[0].name == "C"
    with pytest.raises(InputError, match=r"line 2 is not one of clean:"):
        pairs("one\ntwo\nanswer: c", alone=True)
    with pytest.raises(InputError, match=r"line 1 is not one of clean:"):
        pairs("one\nanswer: c")
