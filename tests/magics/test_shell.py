"""The magics through the real door: an IPython shell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from interp.interface import registry
from interp.results import Result
from interp.spec import Indices, Prompt, resolve_indices


def run(shell: Any, cell: str) -> Any:
    done = shell.run_cell(cell, store_history=True)
    done.raise_error()
    return done.result


def completions(shell: Any, text: str, below: str = "") -> list[str]:
    from IPython.core.completer import provisionalcompleter

    with provisionalcompleter():
        return [c.text for c in shell.Completer.completions(text + below, len(text))]


def test_a_cell_returns_its_result_and_binds_it(shell: Any, lend: Any) -> None:
    lend("llama")
    result = run(shell, "%%interp attention --layer 1 -o att\nAlice gave a drink to Bob\n")
    assert result.pattern.shape[:2] == (1, lend("llama").geometry.n_heads)
    assert shell.user_ns["att"] is result
    assert shell.user_ns["_"] is result


def test_a_mistake_in_a_python_call_shows_the_users_line_alone(
    shell: Any, lend: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    lend("gpt2")
    capsys.readouterr()
    shell.run_cell('import interp\ndef ask():\n    return interp.attention("Alice", layer=99)\nask()')
    shown = capsys.readouterr()
    lines = (shown.out + shown.err).strip().splitlines()
    assert lines == [
        "line 4: ask()",
        'line 3: return interp.attention("Alice", layer=99)',
        "InputError: no layer 99; layers are 0–1",
    ]


def test_python_and_magic_give_the_same(shell: Any, lend: Any) -> None:
    import interp

    lend("gpt2")
    typed = run(shell, "%%interp attention --layer 0-1\nAlice met Bob")
    called = interp.attention("Alice met Bob", layer=(0, 1))
    np.testing.assert_array_equal(typed.pattern, called.pattern)
    assert typed.code() == called.code()
    assert typed.provenance.tokens == called.provenance.tokens


def test_code_gives_the_result_again(shell: Any, lend: Any) -> None:
    lend("gpt2")
    shell.run_cell("import interp")
    first = run(shell, '%%interp attention --layer 1 --head 0,2 --no-bos\nIt\'s "quoted"\nand\ttabbed')
    again = run(shell, first.code())
    np.testing.assert_array_equal(first.pattern, again.pattern)
    assert again.provenance.forwards == 0


def test_only_the_final_newline_of_a_body_is_dropped(shell: Any, lend: Any) -> None:
    lend("gpt2")
    body = "  two spaces \n\n# no comment {1+1} $HOME  \n"
    typed = run(shell, f"%%interp tokens\n{body}\n")
    assert typed.provenance.arguments["prompt"] == body


@pytest.mark.parametrize("cell", ["%interp models;", "%%interp predict;\nAlice"])
def test_a_semicolon_silences(shell: Any, lend: Any, cell: str) -> None:
    lend("gpt2")
    assert run(shell, cell) is None


def test_display_holds_text_and_html_without_scripts(shell: Any, lend: Any) -> None:
    lend("gpt2")
    for cell in ("%interp status", "%interp models", "%interp help", "%%interp tokens\na b", "%%interp attention\na b"):
        data, _ = shell.display_formatter.format(run(shell, cell))
        assert data["text/plain"].strip()
        assert "<script" not in data["text/html"]


def test_models_are_listed_chosen_and_forgotten(shell: Any, folder: Any) -> None:
    run(shell, f"%interp load {folder('gpt2')} --name first")
    run(shell, f"%interp load {folder('llama')} --name second")
    rows = run(shell, "%interp models").rows
    assert [(row[0], row[1]) for row in rows] == [("", "first"), ("●", "second")]
    run(shell, "%interp use first")
    assert run(shell, "%%interp predict\nAlice").provenance.model == "first"
    assert run(shell, "%%interp predict --model second\nAlice").provenance.model == "second"
    assert "first is unloaded; second is current" in run(shell, "%interp unload first").title
    assert run(shell, "%%interp predict\nAlice").provenance.model == "second"
    run(shell, "%interp unload")
    assert "no model is loaded" in run(shell, "%interp status").title


def test_clear_empties_the_store(shell: Any, lend: Any) -> None:
    model = lend("gpt2")
    run(shell, "%%interp attention\nAlice met Bob")
    held = model.store.ledger()
    assert held.entries > 0
    assert f"in {held.entries} entries" in run(shell, "%interp clear").title
    assert model.store.ledger().entries == 0


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("%interp att", {"attention"}),
        ("%%interp attention --la", {"--layer"}),
        ("%%interp attention --no", {"--no-bos", "--no-template"}),
        ("%interp load --d", {"--device", "--device-map", "--dtype"}),
        ("%interp load x --dtype bfl", {"bfloat16"}),
        ("%interp load x --device cu", {"cuda"}),
        ("%interp help pred", {"predict"}),
        ("%interp use mine", {"mine"}),
        ("%interp unload mi", {"mine"}),
        ("%interp unload loaded-f", {"loaded-features"}),
        ("%interp features-load x --site mlp_n", {"mlp_normed"}),
        ("%interp features-train --site resid_p", {"resid_post", "resid_pre"}),
        ("%interp features-train --kind ba", {"batchtopk"}),
        ("%%interp feature 0.1 --features load", {"loaded-features"}),
        ("%%interp features-label 0.1 --ab", {"--above"}),
        ("%%interp predict --model mi", {"mine"}),
        ("%%interp claim --controls la", {"labels"}),
        ("%%interp claim --ra", {"--rank"}),
        ("%interp claims --model mi", {"mine"}),
    ],
)
def test_tab_offers(shell: Any, lend: Any, typed: str, offered: set[str]) -> None:
    model = lend("gpt2")
    from interp.engine.features import held
    from interp.interface.session import session

    session.models["mine"] = model
    held.hold(model, held.FeatureSet("loaded-features", "trained here", "", ()))
    assert offered <= set(completions(shell, typed, below="\nsome text" if typed.startswith("%%") else ""))
    if offered:
        assert {o for o in completions(shell, typed) if not o.startswith("%")} == offered


@pytest.mark.parametrize(
    ("typed", "below", "offered"),
    [
        ("%%interp lens --position ", "\nWhen [Mary]{IO} met [John]{S1}", {"IO", "S1", "END"}),
        ("%%interp lens --position I", "\nWhen [Mary]{IO} met [John]{S1}", {"IO"}),
        ("%%interp steer --at ", "\nWhen [Mary]{IO} met", {"IO", "END", "all", "prompt", "new"}),
        ("%%interp path --at ", "\nclean: Mary met\ncorrupted: John met", {"before", "middle", "after", "END"}),
        ("%%interp ablate --at ", "\nclean: [Mary]{IO} met\ncorrupted: [John]{IO} met", {"IO", "END"}),
        ("%interp heads --task letters --from ", "", {"letter", "end"}),
        ("%interp probe --task letters --at le", "", {"letter"}),
        ("%interp heads --task nothing --from ", "", {"END"}),
    ],
)
def test_tab_offers_the_spans_of_a_cell(
    shell: Any, lend: Any, typed: str, below: str, offered: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from interp import tasks
    from interp.tasks import _registry

    lend("gpt2")
    assert tasks.names()  # all of them are there
    monkeypatch.setattr(_registry, "_tasks", dict(_registry._tasks))

    @tasks.task("letters")
    def letters(vocabulary: Any, rng: Any, n: int) -> Any:  # noqa: ARG001
        """Letters."""
        yield tasks.make_pair(vocabulary, "Mary {letter} the", {"letter": "to"}, {"letter": "and"}, (" to",), (" and",))

    assert {word for word in completions(shell, typed, below=below) if not word.startswith("%")} == offered


def test_tab_offers_every_command_and_folders(shell: Any, folder: Any) -> None:
    assert set(registry.commands()) <= set(completions(shell, "%interp "))
    path = folder("gpt2")
    assert f"{path}/" in completions(shell, f"%interp load {str(path)[:-1]}")


def test_tab_offers_hook_names_in_a_run(shell: Any, lend: Any) -> None:
    model = lend("gpt2")
    shell.user_ns["run"] = model.run("Alice met Bob")
    assert "blocks.1.hook_resid_post" in shell.user_ns["run"].activations._ipython_key_completions_()


@pytest.mark.slow
def test_tab_leaves_other_cells_alone(shell: Any) -> None:
    shell.user_ns["attentive"] = 1
    assert "attentive" in completions(shell, "attent")
    assert "attention" not in completions(shell, "%%interp tokens\nattent")


def test_the_question_mark_shows_every_command(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    shell.run_line_magic("pinfo", "%%interp")
    shown = capsys.readouterr().out
    for name in registry.commands():
        assert f"interp {name}" in shown


def test_help_names_every_argument(shell: Any) -> None:
    for name, command in registry.commands().items():
        shown = run(shell, f"%interp help {name}").text()
        for parameter in command.parameters:
            assert parameter.help, f"{name} does not say what {parameter.name} is"
            assert parameter.help in shown


def test_config_sets_the_budget(shell: Any, lend: Any) -> None:
    model = lend("gpt2")
    shell.run_cell("%config Interp.store_budget = 12345")
    run(shell, "%interp status")
    assert model.store.budget == 12345


def test_a_command_of_ones_own_joins_by_being_registered(shell: Any, lend: Any) -> None:
    """The example of CONTRIBUTING: one declared function is a magic, a completion, a help page and a Python call."""
    import interp

    @dataclass(frozen=True, kw_only=True, repr=False, eq=False)
    class NormsResult(Result):
        norms: Any

        def to_frame(self) -> Any:
            import pandas as pd

            return pd.DataFrame(self.norms)

    @registry.technique(body=Prompt)
    def norms(model: Any, prompt: Prompt, *, layer: Indices = None) -> NormsResult:
        """Length of the residual stream before each layer.

        Parameters
        ----------
        prompt
            The text.
        layer
            Layers; all when not given.
        """
        layers = resolve_indices(layer, model.geometry.n_layers, "layer")
        sites = [f"blocks.{index}.hook_resid_pre" for index in layers]
        held = model.activations(model.encode(prompt), sites)
        return NormsResult(norms=np.stack([held[site][0].norm(dim=-1).numpy() for site in sites]))

    try:
        lend("neox")
        result = run(shell, "%%interp norms --layer 1\nAlice met Bob")
        assert result.norms.shape == (1, len(result.provenance.tokens[0]))
        assert "norms" in completions(shell, "%interp nor")
        assert "Layers; all when not given" not in run(shell, "%interp help norms").title
        np.testing.assert_array_equal(interp.norms("Alice met Bob", layer=1).norms, result.norms)
        assert "<table" in result.html()
    finally:
        registry._commands.pop("norms")
