"""What new users were seen to type: each guess works, or is answered with what to type."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import interp
from faults import harness
from interp.interface import catalogue
from interp.results import Result


@pytest.fixture(autouse=True)
def bundled(clean_session: Any) -> Any:
    return clean_session.load(device="cpu")


def cell(shell: Any, text: str) -> Any:
    return harness.worked(harness.ask("magic", shell, text))


def refusal(shell: Any, text: str) -> str:
    return harness.refused(harness.ask("magic", shell, text))


def first_logit(logits: Any) -> Any:
    return logits[:, 0]


WORKS = {
    "%interp": "help",
    "%interp ?": "help",
    "%interp --help": "help",
    "%interp -h": "help",
    "%interp patch ?": "help",
    "%interp patch --help": "help",
    "%interp help list": "help",
    "%interp list": "models",
    "%interp reset": "clear",
    "%interp features": "features",
    '%interp logit-lens "The cat sat"': "lens",
    '%interp attention "The cat sat"': "attention",
    '%interp attention --text "The cat sat"': "attention",
    '%interp predict "The cat" --top 5': "predict",
    "%interp task ioi": "task",
    "%interp task --task IOI -n 4": "task",
    "%interp patch ioi -n 4": "patch",
    "%interp activation-patching ioi -n 4": "patch",
    "%interp patch --task ioi -n 4 --metric logit_diff": "patch",
    "%interp circuit ioi -n 2": "circuit",
    "%interp ablate --task ioi -n 4 --heads 1.0,2.0": "ablate",
    "%interp ablate --task ioi -n 4 --heads L1H0": "ablate",
    "%interp ov 1,0": "ov",
    "%interp ov (1,0)": "ov",
    "%interp ov L1H0": "ov",
}
ANSWERED = {
    "%%interp attention": 'quotes: %interp attention "The cat sat"',
    "%%interp patch": "clean:, corrupted:, answer: and wrong: lines below",
    "%interp task": "facts, gender-bias, greater-than, induction, ioi",
    "%interp sae": "%interp features-load",
    "%interp examples": "demo/",
    "%interp demo": "demo/quickstart.ipynb",
    "%interp tutorial": "demo/quickstart.ipynb",
    "%interp version": "interp.__version__",
    "%interp quit": "%interp unload",
    "%interp exit": "%interp unload",
    "%interp save": 'r.save("r.html")',
    "%interp embed": "resid_pre",
    "%interp info": "%interp status",
    "%interp logits": "%%interp predict",
    "%interp knockout": "%%interp ablate --knockout",
    "%interp activations": "interp.model.run(prompt).activations",
    "%interp hooks": "interp.model.hook_names",
    "%interp viz": "r.to_plotly()",
    "%interp run_with_cache": "interp.model.run(prompt)",
    "%interp ablate --task ioi --heads 1.0 2.0": "--heads 1.0,2.0",
    "%interp ablate 1.0 --task ioi": "--heads 1.0",
    '%interp attention --head 1.0 "The cat"': "--layer 1 --head 0",
    "%interp patch --task ioi --site attn": "did you mean attn_out?",
    '%interp predict "The cat" --topk 5': "did you mean --top?",
    "%interp ov 1": "type its layer and number, such as 1.0",
    "%interp load model.gguf": "there is no file 'model.gguf'",
    "%interp load p.json": "interp.load_result('p.json')",
}
NAMES = {
    "HookedTransformer": "interp.load",
    "from_pretrained": "interp.load",
    "run_with_cache": "interp.model.run(prompt)",
    "plot": "to_plotly()",
    "show": "to_plotly()",
    "save": "r.save",
    "version": "interp.__version__",
    "load_results": "did you mean load_result?",
}
OF_RESULTS = {
    "plot": "to_plotly()",
    "show": "widget",
    "fig": "to_plotly()",
    "df": "to_frame()",
    "to_pandas": "to_frame()",
    "to_html": "html()",
    "patterns": "did you mean pattern?",
}
NONSENSE = ("sae", "blorbification", "quit", "version", "examples", "embed", "save")


@pytest.mark.parametrize(("typed", "done"), WORKS.items())
def test_a_guess_that_works(shell: Any, typed: str, done: str) -> None:
    assert cell(shell, typed).provenance.technique == done


@pytest.mark.parametrize(("typed", "said"), ANSWERED.items())
def test_a_guess_that_is_answered(shell: Any, typed: str, said: str) -> None:
    assert said in refusal(shell, typed)


@pytest.mark.parametrize("typed", NONSENSE)
def test_no_far_name_is_suggested(shell: Any, typed: str) -> None:
    assert "did you mean" not in refusal(shell, f"%interp {typed}")


def test_the_hyphens_of_flags_are_no_likeness(shell: Any) -> None:
    assert "did you mean" not in refusal(shell, '%interp predict "The cat" --k 5')


@pytest.mark.parametrize(("name", "said"), NAMES.items())
def test_a_name_that_interp_has_not(name: str, said: str) -> None:
    with pytest.raises(AttributeError) as raised:
        getattr(interp, name)
    assert said in str(raised.value)


def test_other_names_of_commands_are_functions_too() -> None:
    assert getattr(interp, "logit_lens")("The cat").provenance.technique == "lens"  # noqa: B009
    assert getattr(interp, "activation_patching").__name__ == "patch"  # noqa: B009


@pytest.mark.parametrize(("name", "said"), OF_RESULTS.items())
def test_an_attribute_that_a_result_has_not(name: str, said: str) -> None:
    with pytest.raises(AttributeError) as raised:
        getattr(interp.attention("The cat"), name)
    assert said in str(raised.value)


def test_a_heads_number_in_python() -> None:
    expected = interp.ov("1.0").to_frame()
    for given in ((1, 0), [1, 0], (np.int64(1), np.int64(0)), "1,0", "L1H0"):
        assert interp.ov(given).to_frame().equals(expected)
    with pytest.raises(interp.InputError, match="is no head"):
        interp.ov((1, "a"))


def test_no_site_of_that_name() -> None:
    with pytest.raises(interp.InputError, match="did you mean z"):
        interp.Intervention(interp.Site("zz", 2), mode="zero")


def test_a_model_says_what_it_has_and_where_the_rest_is(bundled: Any) -> None:
    offered = dir(interp.model)
    assert {"run", "bridge", "tokens", "hook_names", "device"} <= set(offered)
    assert not [name for name in offered if name.startswith("_") or not hasattr(bundled, name)]
    assert "encode" not in offered
    with pytest.raises(AttributeError, match=r"interp\.model\.bridge\.W_Q"):
        getattr(interp.model, "W_Q")  # noqa: B009


def test_a_loaded_model_says_what_to_try(shell: Any) -> None:
    shown = shell.display_formatter.format(cell(shell, "%interp load"))[0]["text/plain"]
    first, tried = shown.split("\n")
    assert first.startswith("LoadedModel(bundled:")
    typed = tried.removeprefix("try: ").partition(";")[0]
    assert cell(shell, typed).provenance.technique == "attention"


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("%interp ov 1.", ["1.0", "1.1", "1.2", "1.3"]),
        ("%interp ablate --heads 1.0,3.", ["1.0,3.0", "1.0,3.1", "1.0,3.2", "1.0,3.3"]),
        ("%interp validate my", ["my_result", "my_vector"]),
        ("%interp verify my", ["my_result"]),
        ("%interp ablate --direction my", ["my_result", "my_vector"]),
        ("%interp patch --metric my", ["my_metric"]),
        ("%interp patch --task gr", ["greater-than"]),
        ("%interp patch --site attn", ["attn_out"]),
    ],
)
def test_tab_completes_what_the_notebook_and_the_model_have(shell: Any, typed: str, offered: list[str]) -> None:
    from IPython.core.completer import provisionalcompleter

    bound = {"my_result": interp.tokens("a"), "my_vector": np.ones(3), "my_metric": first_logit}
    shell.push(bound)
    try:
        with provisionalcompleter():
            found = [one.text for one in shell.Completer.completions(typed, len(typed))]
    finally:
        shell.drop_by_id(bound)
    assert found == offered


# Results whose text in a terminal is more than a summary, each with what has to be in it.
READ = {
    "%interp patch ioi -n 4": ("strongest", "2.0"),
    "%interp path --task ioi -n 4": ("strongest", "→ logits"),
    "%interp circuit ioi -n 2 --edges 20": ("score", "2.mlp"),
    "%interp ablate --task ioi -n 4 --heads 1.0,2.0": ("without", "unablated"),
    "%interp mediate --task ioi -n 4": ("indirect", "2.0"),
    "%interp ov 3.0": ("most raised", "+"),
    "%interp qk 3.0": ("best key", "+"),
    "%interp compose": ("read by", "0.0"),
    "%interp task ioi -n 2": ("clean prompt", "corrupted"),
    '%interp attention "The cat sat"': ("entropy", "focus"),
}


@pytest.mark.parametrize(("typed", "said"), READ.items())
def test_a_result_can_be_read_without_its_picture(shell: Any, typed: str, said: tuple[str, str]) -> None:
    found = cell(shell, typed)
    lines = found.text().split("\n")
    assert lines[0] == repr(found)
    assert all(one in "\n".join(lines[1:]) for one in said)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for group, names in catalogue.GROUPS.items() if group in {"look", "patch", "find"} for name in names]
)
def test_what_help_shows_prints_as_more_than_a_line(name: str, shell: Any, tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    found = [cell(shell, text) for text in catalogue.cells(name)][-1]
    assert isinstance(found, Result)
    assert len(found.text().split("\n")) > 1
