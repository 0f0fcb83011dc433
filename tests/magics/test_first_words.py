"""What a newcomer types, and what it answers: help, tasks, prompts on the line, other names of things."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import interp
from faults import harness
from interp.errors import InputError
from interp.interface.session import session

GIFT = "When Mary and John went to the store, John gave a drink to"
SWAP = GIFT.replace("John gave", "Mary gave")


@pytest.fixture(autouse=True)
def bundled(clean_session: Any) -> Any:
    return clean_session.load(device="cpu")


def cell(shell: Any, text: str) -> Any:
    return harness.worked(harness.ask("magic", shell, text))


def refusal(shell: Any, text: str) -> str:
    return harness.refused(harness.ask("magic", shell, text))


@pytest.mark.parametrize("line", ["", " ?", " --help", " help"])
def test_a_bare_magic_is_help(shell: Any, line: str) -> None:
    assert cell(shell, f"%interp{line}").rows == interp.help().rows


def test_a_question_mark_behind_a_command_is_its_help(shell: Any) -> None:
    assert cell(shell, "%interp attention ?").title == interp.help("attention").title


@pytest.mark.parametrize(("typed", "meant"), [("list", "models"), ("reset", "clear"), ("LIST", "models")])
def test_other_names_of_commands(shell: Any, typed: str, meant: str) -> None:
    assert cell(shell, f"%interp {typed}").provenance.technique == meant


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("tutorial", "demo/quickstart.ipynb"),
        ("info", "%interp status"),
        ("version", "interp.__version__"),
        ("logits", "%%interp predict"),
        ("knockout", "ablate --knockout"),
        ("activations", "interp.model.run"),
        ("save", "r.save("),
    ],
)
def test_what_is_no_command_is_pointed_elsewhere(shell: Any, typed: str, said: str) -> None:
    assert said in refusal(shell, f"%interp {typed}")


@pytest.mark.parametrize("typed", ["sae", "blorbification"])
def test_no_nonsense_is_suggested(shell: Any, typed: str) -> None:
    assert "did you mean" not in refusal(shell, f"%interp {typed}")


@pytest.mark.parametrize(
    "text",
    [
        '%interp attention "The cat sat"',
        "%interp attention 'The cat sat'",
        '%interp attention --text "The cat sat"',
        '%interp attention --layer 0-3 "The cat sat"',
        "%%interp attention\nThe cat sat",
    ],
)
def test_a_prompt_in_quotes_may_stand_on_the_line(shell: Any, text: str) -> None:
    np.testing.assert_array_equal(cell(shell, text).pattern, interp.attention("The cat sat").pattern)


def test_a_prompt_stands_in_one_place(shell: Any) -> None:
    assert "leave one of them out" in refusal(shell, '%%interp attention "The cat sat"\nThe dog')


@pytest.mark.parametrize("end", ["", "\n"])
def test_an_empty_cell_names_what_is_missing(shell: Any, end: str) -> None:
    said = refusal(shell, f"%%interp attention{end}")
    assert "on the line below %%interp attention" in said
    assert "single %" not in said


def test_an_empty_cell_of_a_command_that_needs_no_text_runs(shell: Any) -> None:
    assert cell(shell, "%%interp models").provenance.technique == "models"
    assert cell(shell, "%%interp task --task ioi --n 2").task == "ioi"


@pytest.mark.parametrize("line", ["task ioi", "task --task IOI", "task ioi -n 3", "task --task ioi --n 3"])
def test_a_task_may_be_named_alone_and_in_any_case(shell: Any, line: str) -> None:
    found = cell(shell, f"%interp {line}")
    assert found.task == "ioi"
    assert len(found.pairs) == (3 if "3" in line else 32)


def test_a_missing_task_lists_them(shell: Any) -> None:
    said = refusal(shell, "%interp task")
    for name in ("ioi", "induction", "facts", "greater-than", "gender-bias"):
        assert name in said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ablate --task ioi --heads 1.0 2.0", "--heads 1.0,2.0"),
        ("ablate 1.0 --task ioi", "--heads 1.0"),
        ("attention --head 1.0", "--layer 1 --head 0"),
        ("attention --head L1H0", "--layer 1 --head 0"),
        ("patch --site attn --task ioi", "did you mean attn_out?"),
    ],
)
def test_what_to_type_instead_is_right(shell: Any, line: str, said: str) -> None:
    assert said in refusal(shell, f"%interp {line}")


def test_a_suggested_flag_is_one_that_help_lists(shell: Any) -> None:
    assert "--out" not in refusal(shell, "%interp heads --top 5")


@pytest.mark.parametrize("body", ['prompt = "The cat sat"', '"The cat sat"', "'The cat sat'"])
def test_quotes_that_become_tokens_are_said(shell: Any, body: str) -> None:
    assert any("quotes are part of the prompt" in note for note in cell(shell, f"%%interp attention\n{body}").notes)
    assert not any("quotes" in note for note in cell(shell, '%%interp attention\n"Yes," she said').notes)


def test_names_as_python_spells_them() -> None:
    both = [interp.patch(GIFT, SWAP, answer="Mary", wrong="John", metric=m) for m in ("logit_diff", "logit-diff")]
    np.testing.assert_array_equal(both[0].effect, both[1].effect)
    ablated = [interp.ablate(task="ioi", n=2, heads=heads) for heads in ([(1, 0)], "1.0", [np.array([1, 0])])]
    assert len({str(one.to_frame()) for one in ablated}) == 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("plot", "to_plotly()"),
        ("df", "to_frame()"),
        ("to_pandas", "to_frame()"),
        ("to_html", "html()"),
        ("patterns", "pattern"),
    ],
)
def test_a_result_says_what_it_has_instead(name: str, said: str) -> None:
    with pytest.raises(AttributeError) as raised:
        getattr(interp.attention("The cat"), name)
    assert said in str(raised.value)


def test_a_result_is_no_list_and_its_widget_may_be_called() -> None:
    found = interp.attention("The cat")
    with pytest.raises(TypeError, match="its arrays are pattern"):
        found[0]
    with pytest.raises(TypeError):
        list(found)
    assert found.widget() is found.widget


@pytest.mark.parametrize(
    ("name", "said"), [("plot", "to_plotly"), ("HookedTransformer", "interp.load"), ("save", "r.save")]
)
def test_interp_says_what_it_has_instead(name: str, said: str) -> None:
    with pytest.raises(AttributeError) as raised:
        getattr(interp, name)
    assert said in str(raised.value)


def test_the_version_is_there() -> None:
    from importlib.metadata import version

    assert interp.__version__ == version("interp")


PAIR = (GIFT, SWAP, " Mary", " John")
ROW = dict(zip(("clean", "corrupted", "answer", "wrong"), PAIR, strict=True))


def frame() -> Any:
    import pandas as pd

    return pd.DataFrame([ROW])


@pytest.mark.parametrize(
    "given",
    [
        lambda: [PAIR],
        lambda: PAIR,
        lambda: [list(PAIR)],
        lambda: interp.Pair(*PAIR),
        lambda: [interp.Pair(interp.Prompt(GIFT), interp.Prompt(SWAP), (" Mary",), (" John",))],
        lambda: [ROW],
        frame,
        lambda: interp.task(GIFT, SWAP, answer="Mary", wrong="John"),
        lambda: interp.task(GIFT, SWAP, answer="Mary", wrong="John").pairs,
    ],
)
def test_pairs_come_in_every_shape_that_python_has(given: Any) -> None:
    expected = interp.patch(GIFT, SWAP, answer="Mary", wrong="John").effect
    np.testing.assert_array_equal(interp.patch(pairs=given()).effect, expected)
    if not isinstance(given(), tuple) or not isinstance(given()[0], str):
        np.testing.assert_array_equal(interp.patch(given()).effect, expected)


@pytest.mark.parametrize("given", [5, "ioi", [5], [("a",)], [{"clean": "a"}], [None], object()])
def test_what_is_no_pair_is_refused(given: Any) -> None:
    with pytest.raises(InputError, match="pair"):
        interp.patch(pairs=given)


def test_a_tasks_pairs_stay_its_own() -> None:
    task = interp.task("greater-than", n=2)
    assert interp.patch(pairs=task).metric == interp.patch(task="greater-than", n=2).metric
    np.testing.assert_array_equal(interp.patch(pairs=task).effect, interp.patch(task="greater-than", n=2).effect)
    assert interp.circuit(pairs=interp.task("ioi", n=2)).task == "ioi"


def test_ids_stand_wherever_a_text_can() -> None:
    ids = list(session.get().tokens.encode(interp.Prompt("The cat sat")).ids)
    for given in (ids, tuple(ids), np.array(ids), np.array([ids])):
        np.testing.assert_array_equal(interp.attention(given).pattern, interp.attention("The cat sat").pattern)
        np.testing.assert_array_equal(interp.attention(prompt=given).pattern, interp.attention("The cat sat").pattern)
    texts = ["The cat sat", "Once upon a time"]
    spelled = [list(session.get().tokens.encode(interp.Prompt(text)).ids) for text in texts]
    assert str(interp.neurons("1.0", spelled).to_frame()) == str(interp.neurons("1.0", texts).to_frame())
    labels = ["a", "b"] * 6
    many = [f"{text} {n}" for n in range(6) for text in texts]
    by_ids = [np.array(session.get().tokens.encode(interp.Prompt(text)).ids) for text in many]
    np.testing.assert_array_equal(
        interp.probe(by_ids, labels, shuffles=1).scores, interp.probe(many, labels, shuffles=1).scores
    )
    other = "The capital of Japan is"
    both = [
        interp.saliency("The capital of France is", counterfactual=counter)
        for counter in (other, session.get().tokens.encode(interp.Prompt(other)).ids)
    ]
    np.testing.assert_array_equal(both[0].attribution, both[1].attribution)


def test_positions_count_from_the_end_too() -> None:
    last = interp.lens("The cat sat", position=-1)
    assert last.positions == (3,)
    run = interp.model.run
    site = interp.Site("resid_post", 1)
    logits = [
        run("The cat sat", interventions=[interp.Intervention(site, position=at, mode="noise", value=1.0)]).logits
        for at in (-1, 3)
    ]
    np.testing.assert_array_equal(logits[0].numpy(), logits[1].numpy())
    with pytest.raises(InputError, match="no layer -1"):
        interp.lens("The cat sat", layer=-1)
