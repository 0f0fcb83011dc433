"""The language of a magic's line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interp.errors import InputError
from interp.magics.parser import parse, split


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("load gpt2", ["load", "gpt2"]),
        ("load gpt2 # the small one", ["load", "gpt2"]),
        ("# nothing else", []),
        ("load a#b", ["load", "a#b"]),
        ("load 'a # b'  # c", ["load", "a # b"]),
        ('load "my models/x" --dtype="bf16"', ["load", "my models/x", "--dtype=bf16"]),
        (r"load C:\models\x", ["load", r"C:\models\x"]),
        ("load {1+1} $HOME", ["load", "{1+1}", "$HOME"]),
        ("", []),
        ("status;", ["status"]),
        ("load 'a;'", ["load", "a;"]),
    ],
)
def test_split(line: str, words: list[str]) -> None:
    assert split(line) == words


CHARACTERS = st.characters(exclude_characters="\"'#;“”„‟‘’‚‛«»", exclude_categories=["Z", "C"])


@given(st.lists(st.text(CHARACTERS, min_size=1)))
def test_words_without_quotes_come_back_as_they_were(words: list[str]) -> None:
    assert split("  ".join(words)) == words


@pytest.mark.parametrize("line", ["load 'x", 'load "x', "load it's", "load a'b c"])
def test_an_open_quote_is_refused(line: str) -> None:
    with pytest.raises(InputError, match="quote is not closed"):
        split(line)


@pytest.mark.parametrize(
    ("line", "arguments", "output"),
    [
        ("attention", {}, None),
        ("attention --layer 5 -o att", {"layer": 5}, "att"),
        ("attention --layer=0-2,7 --out x", {"layer": (0, 1, 2, 7)}, "x"),
        ("attention --head 3 --no-bos --truncate", {"head": 3, "bos": False, "truncate": True}, None),
        ("attention --bos", {"bos": True}, None),
        ("attention --model gpt2", {"model": "gpt2"}, None),
        ("predict --top 3", {"top": 3}, None),
        ("load ./x --dtype bfloat16 --remote-code", {"source": "./x", "dtype": "bfloat16", "remote_code": True}, None),
        ("unload", {}, None),
        ("help attention", {"command": "attention"}, None),
        ("help", {}, None),
    ],
)
def test_parse(line: str, arguments: dict[str, object], output: str | None) -> None:
    call = parse(line)
    assert call.command.name == line.split()[0]
    assert call.arguments == arguments
    assert call.output == output


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("atention", r"did you mean attention\?"),
        ("--layer 5 attention", "the command comes first"),
        ("attention --layr 5", r"did you mean --layer\?"),
        ("attention --layer", "--layer needs a value"),
        ("attention --layer --head 3", "--layer needs a value"),
        ("attention --layer x", "5, 0-3 or 0,5,7"),
        ("attention --layer 3-1", "5, 0-3 or 0,5,7"),
        ("attention --truncate=yes", "takes no value"),
        ("attention some text", "the prompt goes in quotes, or on the line below"),
        ("predict --top many", "not a whole number"),
        ("predict -o 3x", "not a name"),
        ("predict -o class", "not a name"),
        ("tokens -n 3", "no flag -n"),
        ("use", "use needs NAME"),
        ("status now", "status takes no 'now'"),
        ("attention --layer 0 --layer 1", "--layer is given twice; give it once, several values with commas"),
        ("predict --top 3 --top=3", "--top is given twice; give it once$"),
        ("attention --bos --no-bos", "--bos is given twice"),
        ("attention -o a --out=b", "--out is given twice; a result is bound to one name"),
        ("ablate --heads 0.1, 0.2", "write a list without spaces, 0.1,0.2"),
        ("patch ioy", "a task has its flag, --task ioy, and pairs go on the lines below"),
        ("attention --layer 0-99999", "names more than 10000 numbers"),
        ("load “my models/x”", "curly quote; type straight ones"),
        ("attention --layer=“0”", "curly quote; type straight ones"),
        ("attention —layer 0", "type two hyphens: --layer"),
        ("attention –-layer=0", "type two hyphens: --layer=0"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(line: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        parse(line)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("line", "arguments"), [("--help", {}), ("-h", {}), ("patch --help", {"command": "patch"})])
def test_help_is_also_asked_for_as_elsewhere(line: str, arguments: dict[str, object]) -> None:
    call = parse(line)
    assert call.command.name == "help"
    assert call.arguments == arguments
