"""The language of a magic's line: a command, its arguments, ``-o NAME``, and a comment at the end."""

from __future__ import annotations

import keyword
import re
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from interp import files
from interp.errors import InputError, closest
from interp.interface import kinds, registry
from interp.interface.registry import Command, Parameter
from interp.spec import Pairs, Prompt, Prompts

_WORD = re.compile(r"""(?:[^\s"']|"[^"]*"|'[^']*')+""")
_OUTPUT = ("-o", "--out")
_HELP = ("-h", "--help", "?")
_BODY = ("--text", "--prompt")  # what a command over one prompt takes there is its prompt
# What a word processor makes of quotes and of two hyphens.
_CURLY = re.compile(r"(--[\w-]+=)?[“”„‟‘’‚‛«»]")
_DASHED = re.compile(r"[-‐‑‒–—―−]*[‐‑‒–—―−][-‐‑‒–—―−]*(?=[^\W\d])")


class Quoted(str):
    """A word that stood in quotes."""

    __slots__ = ()


@dataclass(frozen=True)
class Call:
    """A parsed line.

    Attributes
    ----------
    command
        What is to be run.
    arguments
        Python name → value, for what was given.
    output
        The name to bind the result to, or ``None``.
    prompt
        The prompt, where it stands on the line in quotes.
    silent
        Whether the line ends in a semicolon, so that the result is not shown.
    """

    command: Command
    arguments: dict[str, Any] = field(default_factory=dict[str, Any])
    output: str | None = None
    silent: bool = False
    prompt: str | None = None


def split(line: str) -> list[str]:
    """Return the words of `line`, less a trailing comment; quotes hold a word together and are dropped.

    Nothing is expanded or evaluated. A backslash is a backslash.

    Raises
    ------
    InputError
        A quote that is not closed, or a curly one.

    Examples
    --------
    >>> split('load "./my models" --device cpu  # the small one')
    ['load', './my models', '--device', 'cpu']
    """
    return _words(line)[0]


def _words(line: str) -> tuple[list[str], bool]:
    """Return the words of `line`, and whether a semicolon ends it."""
    words: list[str] = []
    silent = False
    at, end = 0, len(line.rstrip())
    while at < len(line):
        if line[at].isspace():
            at += 1
            continue
        if line[at] == "#":
            break
        found = _WORD.match(line, at)
        if found is None or (found.end() < len(line) and not line[found.end()].isspace()):
            raise InputError(f"a quote is not closed in: {line.strip()}")
        word = found.group()
        if _CURLY.match(word):
            raise InputError(f"{word} begins with a curly quote; type straight ones, \" or '")
        if found.end() >= end and word.endswith(";"):
            word, silent = word[:-1], True
            if not word:
                break
        plain = re.sub(r'"([^"]*)"|\'([^\']*)\'', lambda m: m.group(1) or m.group(2) or "", word)
        words.append(Quoted(plain) if word[0] in "\"'" and word[-1] == word[0] else plain)
        at = found.end()
    return words, silent


def parse(line: str) -> Call:
    """Return what `line` asks for.

    Raises
    ------
    InputError
        No or an unknown command, flag or value; the closest known one is named.

    Examples
    --------
    >>> parse("attention --layer 0-2 -o att").arguments
    {'layer': (0, 1, 2)}
    """
    words, silent = _words(line)
    if not words:
        return Call(registry.find("help"))
    if words[0].startswith("-"):
        if words[0] in _HELP:
            return Call(registry.find("help"))
        raise InputError(f"the command comes first: %interp COMMAND {words[0]} …; %interp help lists the commands")
    command = registry.find(words[0])
    if any(word in _HELP and word not in flags(command) for word in words[1:]):
        return Call(registry.find("help"), {"command": command.name})
    positional = [p for p in command.parameters if p.positional]
    outputs = [flag for flag in _OUTPUT if flag not in flags(command)]  # a command's own --out is a file
    arguments: dict[str, Any] = {}
    output: str | None = None
    prompt: str | None = None
    last: Parameter | None = None
    rest = deque(words[1:])
    while rest:
        word = rest.popleft()
        if re.fullmatch("-[a-z]", word) and f"-{word}" in flags(command):
            word = f"-{word}"  # -n as --n
        flag, equals, attached = word.partition("=")
        if flag in _BODY and prompt is None and _is_prompt(command, flag, attached if equals else "".join([*rest][:1])):
            prompt = attached if equals else _next(rest, word)
        elif word in outputs or (equals and flag in outputs):
            if output is not None:
                raise InputError(f"{flag} is given twice; a result is bound to one name")
            output = _name(attached if equals else _next(rest, word))
        elif word.startswith("--"):
            parameter, value = _flag(command, flag, attached if equals else None, rest)
            if parameter.name in arguments:
                several = ", several values with commas between them" if parameter.values.several else ""
                raise InputError(f"{parameter.flag} is given twice; give it once{several}")
            arguments[parameter.name], last = value, parameter
        elif word.startswith("-") and not re.fullmatch(r"-[\d.,–-]+", word):
            raise InputError(f"{command.name} has no flag {word}{closest('-' + word, flags(command))}")
        elif _DASHED.match(word):
            raise InputError(f"{word} begins with a long dash; type two hyphens: {_DASHED.sub('--', word, count=1)}")
        else:
            place = next((p for p in positional if p.name not in arguments), None)
            if place is None and positional and positional[-1].values.rest:
                last_of = positional[-1]
                arguments[last_of.name] = (*arguments[last_of.name], *last_of.values.parse(word, last_of.flag))
                continue
            if place is None and prompt is None and isinstance(word, Quoted) and Prompt in command.bodies:
                prompt = str(word)
                continue
            tasked = Pairs in command.bodies or (Prompts in command.bodies and not isinstance(word, Quoted))
            if place is None and tasked and "task" not in arguments and kinds.TASK.known(word):
                arguments["task"] = word
                continue
            if place is None:
                raise InputError(_surplus(command, word, before=words[len(words) - len(rest) - 2], last=last))
            arguments[place.name] = place.values.parse(word, place.flag)
    missing = [p for p in command.parameters if p.required and p.name not in arguments]
    if missing:
        raise InputError(
            f"{command.name} needs {missing[0].name.upper()}; %interp help {command.name} says what it takes"
        )
    return Call(command, arguments, output, silent, prompt)


def _is_prompt(command: Command, flag: str, value: str) -> bool:
    """Whether the `value` behind a flag is the prompt: where a file could be meant, it is what names none."""
    if Prompt not in command.bodies:
        return False
    return flag not in flags(command) or (Prompts in command.bodies and not files.is_texts(value))


def _surplus(command: Command, word: str, before: str, last: Parameter | None) -> str:
    if before.endswith(","):
        return f"{before!r} and {word!r} are two words: write a list without spaces, {before}{word}"
    if last is not None and last.values.several:
        return f"{before!r} and {word!r} are two words: write a list with commas, {last.flag} {before},{word}"
    heads = next((p.flag for p in command.parameters if p.names == "heads"), None)
    if heads is not None and re.fullmatch(r"L?\d+[.H]\d+.*", word, re.IGNORECASE):
        return f"{word!r} stands alone; {command.name} takes it behind a flag: {heads} {word}"
    if Pairs in command.bodies:
        below = f"pairs go on the lines below: %%interp {command.name} …"
        return f"{word!r} is no flag of {command.name}; a task has its flag, --task {word}, and {below}"
    if command.body is not None:
        return (
            f"{word!r} is no flag of {command.name}; the prompt goes in quotes, or on the line below "
            f"%%interp {command.name}"
        )
    return f"{command.name} takes no {word!r}; %interp help {command.name} says what it takes"


def flags(command: Command) -> dict[str, tuple[Parameter, bool | None]]:
    """Return flag → its parameter, and the value that it stands for where it takes none."""
    known: dict[str, tuple[Parameter, bool | None]] = {}
    for parameter in command.parameters:
        if parameter.positional:
            continue
        if parameter.kind is not bool:
            known[parameter.flag] = (parameter, None)
            continue
        if parameter.default is not True:
            known[parameter.flag] = (parameter, True)
        if parameter.default is not False:
            known[f"--no-{parameter.flag[2:]}"] = (parameter, False)
    return known


def _flag(command: Command, flag: str, attached: str | None, rest: deque[str]) -> tuple[Parameter, Any]:
    known = flags(command)
    if flag not in known:
        raise InputError(
            f"{command.name} has no flag {flag}{closest(flag, flags(command))}; %interp help {command.name}"
        )
    parameter, stands_for = known[flag]
    if stands_for is not None:
        if attached is not None:
            raise InputError(f"{flag} takes no value")
        return parameter, stands_for
    return parameter, parameter.values.parse(attached if attached is not None else _next(rest, flag), parameter.flag)


def _next(rest: deque[str], flag: str) -> str:
    if not rest or (rest[0].startswith("--")):
        raise InputError(f"{flag} needs a value after it")
    return rest.popleft()


def _name(text: str) -> str:
    if not text.isidentifier() or keyword.iskeyword(text):
        raise InputError(f"-o {text}: {text!r} is not a name that Python could bind")
    return text
