"""Rows 39 and 40: the extension comes and goes without a trace, and nothing in a cell is evaluated."""

from __future__ import annotations

import pytest

from faults import harness

each_bodied = pytest.mark.parametrize("name", harness.bodied())

# Text that IPython, Python, the shell or a template would each like to read.
HAIRY = [
    "{1+1} $HOME {x} $x ${x} {{x}} $$",
    "%interp status",
    "!touch marker",
    "?interp",
    "a = f(",
    "it's \"half\" quoted '",
    '"""never closed',
    "ends in a semicolon;",
    "# a comment",
    "backslash \\n \\",
    "  indented\n\tunevenly\n      ;",
    "three\n\nlines \x0b\x0c\x85\u2028 of blank",
    "clean: no such thing",
    "-o x --top 3",
    "naïve 漢字 😀 \u202e",
]


def decoded(model, result):
    ids = result.provenance.tokens[0]
    start = 1 if ids[0] == model.tokens.bos_id else 0
    return model.tokens.tokenizer.decode(ids[start:], skip_special_tokens=False)


@pytest.mark.parametrize("text", HAIRY)
@each_bodied
def test_row_40_a_body_is_byte_identical(name, text, shell, lend, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = lend("gpt2")
    shell.user_ns["x"] = "EXPANDED"
    with harness.unharmed(model, shell):
        cell = harness.valid(name, text=text)
        typed = harness.worked(harness.ask("magic", shell, cell))
        assert typed is not None, "the prompt's last character silenced the cell"
        assert decoded(model, typed) == text
        called = harness.worked(harness.ask("python", shell, cell))
        assert harness.answer(called) == harness.answer(typed)
        assert called.provenance.tokens == typed.provenance.tokens
    assert not list(tmp_path.iterdir())


@each_bodied
def test_row_40_only_the_last_newline_of_a_body_is_dropped(name, shell, lend):
    model = lend("gpt2")
    for text in ("a\n", "a \n\n"):
        assert decoded(model, harness.worked(harness.ask("magic", shell, harness.valid(name, text=text)))) == text


@pytest.mark.parametrize("word", ["{1+1}", "$HOME", "{x}", "$x", "`ls`", "~nobody", "*", "x;y", "(", '"""', "f(x"])
@pytest.mark.parametrize("name", list(harness.commands()))
def test_row_40_a_line_is_taken_as_it_is(name, word, shell, lend):
    model = lend("gpt2")
    shell.user_ns["x"] = "EXPANDED"
    body = "\nMary" if name in harness.bodied() else ""
    with harness.unharmed(model, shell):
        for words in (f"--no-such-flag={word}", f"--out={word}", f"{word} more and more", f"one two {word}"):
            outcome = harness.ask("magic", shell, f"{'%%' if body else '%'}interp {name} {words}{body}")
            message = harness.refused(outcome)
            assert "EXPANDED" not in message
            assert outcome.shown.startswith("UsageError: ")


def test_row_40_the_word_reaches_the_message(shell, lend):
    model = lend("gpt2")
    shell.user_ns["x"] = "EXPANDED"
    with harness.unharmed(model, shell):
        for word in ("{1+1}", "$HOME", "{x}", "$x"):
            for line in (f"use {word}", f"help {word}", f"load {word}", f"attention --layer {word}\na", f"{word} a"):
                start = "%%" if "\n" in line else "%"
                harness.refused(harness.ask("magic", shell, f"{start}interp {line}"), word)


@pytest.mark.parametrize("name", sorted({"help", "status", "models", "clear"} & set(harness.commands())))
def test_a_line_that_no_python_could_read_still_runs(name, shell, lend):
    lend("gpt2")
    assert harness.worked(harness.ask("magic", shell, f"%interp {name} # it's ( \"a comment")) is not None
    assert harness.worked(harness.ask("magic", shell, f"%interp {name};")) is None, "a semicolon silences"
    assert harness.worked(harness.ask("magic", shell, f"%interp {name} ;")) is None
    assert harness.worked(harness.ask("magic", shell, f"%interp {name} # not this one;")) is not None


def registered(shell):
    """Return how many of ours IPython holds: magics, matchers, configurables, callbacks, hooks."""
    ours = [
        *(f"{kind}:{key}" for kind in ("line", "cell") for key in shell.magics_manager.magics[kind] if key == "interp"),
        *(f"registry:{key}" for key in shell.magics_manager.registry if key == "Interp"),
        *("matcher" for m in shell.Completer.custom_matchers if "interp" in str(getattr(m, "matcher_identifier", m))),
        *(f"configurable:{type(c).__name__}" for c in shell.configurables if type(c).__module__.startswith("interp")),
        *(
            f"callback:{event}"
            for event, callbacks in shell.events.callbacks.items()
            for callback in callbacks
            if (getattr(callback, "__module__", "") or "").startswith("interp")
        ),
    ]
    totals = (
        len(shell.Completer.custom_matchers),
        len(shell.configurables),
        sum(len(callbacks) for callbacks in shell.events.callbacks.values()),
        len(shell.magics_manager.magics["line"]),
        len(shell.magics_manager.magics["cell"]),
        len(shell.input_transformers_cleanup),
        len(shell.input_transformers_post),
        len(shell.ast_transformers),
    )
    return sorted(ours), totals


def test_row_39_load_reload_and_unload(shell, lend):
    model = lend("gpt2")
    once = registered(shell)
    assert len(once[0]) >= 5
    with harness.unharmed(model, shell):
        shell.run_cell("%load_ext interp")
        assert registered(shell) == once
        for _ in range(3):
            shell.run_cell("%reload_ext interp")
            assert registered(shell) == once
    for name in harness.bodied():
        assert harness.worked(harness.ask("magic", shell, harness.valid(name))) is not None
    shell.run_cell("%unload_ext interp")
    ours, totals = registered(shell)
    assert ours == []
    assert [a - b for a, b in zip(once[1], totals, strict=True)] == [1, 1, 0, 1, 1, 0, 1, 0]
    assert "not found" in harness.ask("magic", shell, "%interp status").shown
    shell.run_cell("%unload_ext interp")
    shell.run_cell("%load_ext interp")
    assert registered(shell) == once
    assert harness.worked(harness.ask("magic", shell, "%interp status")).title.startswith("gpt2")


def test_row_39_the_extension_runs_twice_without_a_reload(shell, lend):
    import interp

    lend("gpt2")
    once = registered(shell)
    for _ in range(3):
        interp.load_ipython_extension(shell)
    assert registered(shell) == once
    for _ in range(2):
        interp.unload_ipython_extension(shell)
    assert registered(shell)[0] == []
    interp.load_ipython_extension(shell)


@pytest.mark.parametrize("name", harness.bodied())
def test_row_39_results_and_settings_outlive_a_reload(name, shell, lend):
    model = lend("gpt2")
    harness.ask("magic", shell, harness.valid(name).source(out="kept"))
    kept = shell.user_ns["kept"]
    before = harness.content(kept)
    forwards = model.forwards
    shell.run_cell("%config Interp.store_budget = 1000000")
    shell.run_cell("%reload_ext interp")
    assert harness.content(kept) == before
    assert "<div" in kept.html()
    again = harness.worked(harness.ask("magic", shell, harness.valid(name)))
    assert harness.answer(again) == harness.answer(kept)
    assert model.forwards == forwards, "the store did not outlive the reload"
    from interp.interface.session import session

    assert session.settings.store_budget == 1_000_000
