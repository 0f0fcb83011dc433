"""Claims about a model, as they are typed: a variable, what carries it, and what exchanging that does to the answer.

What is read and what is written back stand in one file, though a long one, so that neither changes alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from interp.errors import InputError, closest
from interp.prompts import Prompts
from interp.sites import FEATURES, find
from interp.spans import END, NAME
from interp.spec import FEATURE, Node

_EXAMPLE = "variable: name = {IO}"
_CARRIED = "carried by: resid_post layer 2 at {S2}"
_SWAP = "swap name -> the answer becomes the other name"
_LINES = ("variable", "carried", "swap", "prompts")
_NUMBERS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8}

_KEYED = re.compile(r"(variable|carried(?:\s+by)?)\s*(?::|\bis\b)?\s+(.*)", re.IGNORECASE)
_SWAPPED = re.compile(rf"swap(?:ping)?\s+({NAME.pattern})\s*(?:->|→|=>|:)\s*(.*)", re.IGNORECASE)
_VALUED = re.compile(rf"({NAME.pattern})(?:\s*(?:=|\bis\b)\s*(.+))?", re.IGNORECASE)
_ORDER = re.compile(rf"\{{?({NAME.pattern})\}}?\s+before\s+\{{?({NAME.pattern})\}}?", re.IGNORECASE)
_SPAN = re.compile(rf"(?:the\s+tokens?\s+at\s+)?\{{({NAME.pattern})\}}", re.IGNORECASE)
_POSITION = re.compile(rf"\{{({NAME.pattern})\}}|(?:position\s+)?(-?\d{{1,9}})|({NAME.pattern})", re.IGNORECASE)
_SUBSPACE = re.compile(r"(\d{1,6}|[a-z]+)[-\s]+dim(?:ensional)?\s+subspace\s+of\s+(.*)", re.IGNORECASE)
_RULE = re.compile(r"features?\s+of\s+(?:the\s+)?rule\s+(.+)", re.IGNORECASE)
_FEATURE = re.compile(rf"(?:features?\s+)?({FEATURE.pattern})", re.IGNORECASE)
_LAYER = re.compile(r"(\w+)\s+(?:of\s+|in\s+)?layer\s+(\d{1,9})(?:\s*,?\s*head\s+(\d{1,9}))?", re.IGNORECASE)
_BLOCK = re.compile(r"(mlp|attention|attn)\s+(?:of\s+|in\s+)?(?:layer\s+)?(\d{1,9})", re.IGNORECASE)
_HEAD = re.compile(r"(?:head\s+)?(L?\d{1,9}[.H]\d{1,9})", re.IGNORECASE)
_QUOTES = re.compile(r'"(?:[^"\\]|\\.)*"')
_HIDDEN = re.compile("\0(\\d+)\0")


@dataclass(frozen=True)
class Value:
    """What a variable's value is in a prompt.

    Attributes
    ----------
    kind
        ``"span"`` (the tokens there), ``"answer"``, ``"order"`` (whether the first span stands before the second), or
        ``"given"``: Python gives it for each prompt.
    spans
        The names of the spans.

    Examples
    --------
    >>> str(Value("order", ("IO", "S1")))
    '{IO} before {S1}'
    """

    kind: Literal["span", "answer", "order", "given"]
    spans: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.kind in {"span", "order"}:
            return " before ".join(f"{{{name}}}" for name in self.spans)
        return "the answer" if self.kind == "answer" else "given"


@dataclass(frozen=True)
class Carrier:
    """A place that is said to carry a variable: an activation, and the positions of a prompt at which it is meant.

    Attributes
    ----------
    site, layer
        As `interp.Site` has them; the features of a rule are of any layer, ``-1``.
    at
        Names of spans and numbers of positions.
    head
        Of a site with heads; ``None`` means all of them.
    features
        Of the site ``features``: which.
    rule
        The label of the features that are meant, where they are meant by it.

    Examples
    --------
    >>> str(Carrier("z", 5, ("END",), head=1)), str(Carrier("resid_post", 2, ("S2", 9)))
    ('head 5.1 at END', 'resid_post layer 2 at {S2}, position 9')
    """

    site: str
    layer: int
    at: tuple[str | int, ...]
    head: int | None = None
    features: tuple[int, ...] = ()
    rule: str = ""

    @property
    def what(self) -> str:
        """The activation, without its positions."""
        if self.rule:
            return f"the features of rule {_quoted(self.rule)}"
        if self.features:
            names = ", ".join(f"F{self.layer}.{one}" for one in self.features)
            return f"feature{'s' * (len(self.features) > 1)} {names}"
        if self.site == "z" and self.head is not None:
            return f"head {self.layer}.{self.head}"
        if self.site == "mlp_out":
            return f"mlp {self.layer}"
        return f"{self.site} layer {self.layer}" + ("" if self.head is None else f" head {self.head}")

    @property
    def where(self) -> str:
        """Its positions."""
        return ", ".join(f"position {one}" if isinstance(one, int) else _span(one) for one in self.at)

    def __str__(self) -> str:
        return f"{self.what} at {self.where}"


@dataclass(frozen=True)
class Outcome:
    """What becomes of the answer.

    Attributes
    ----------
    kind
        ``"value"``: the other prompt's value of the variable; ``"answer"``: the other prompt's answer; ``"wrong"``: the
        prompt's own wrong answer; ``"token"``; ``"stays"``; ``"given"``: what a Python function returns.
    token
        The token: a text, or an id.
    """

    kind: Literal["value", "answer", "wrong", "token", "stays", "given"]
    token: str | int = ""

    def said(self, variable: str) -> str:
        """Return it as a line has it.

        Examples
        --------
        >>> Outcome("value").said("name"), Outcome("stays").said("name")
        ('the answer becomes the other name', 'the answer stays')
        """
        if self.kind == "stays":
            return "the answer stays"
        if self.kind == "token":
            token = f"token {self.token}" if isinstance(self.token, int) else _quoted(self.token)
        else:
            words = {"value": f"the other {variable}", "answer": "the other answer", "wrong": "the wrong one"}
            token = words.get(self.kind, "given")
        return f"the answer becomes {token}"


@dataclass(frozen=True)
class Claim:
    """What is believed of a model: `variable` is carried by `carriers`, and exchanging them does this to the answer.

    Attributes
    ----------
    rank
        How many dimensions of the carriers are meant, which are looked for; ``None`` means all of them.

    Examples
    --------
    >>> claim = Claim.parse("variable: name = {IO}\\ncarried by: L5H1 at END\\nswap name -> becomes the other name")
    >>> print(claim)
    variable: name = {IO}
    carried by: head 5.1 at END
    swap name -> the answer becomes the other name
    >>> Claim.parse(str(claim)) == claim
    True
    """

    variable: str
    value: Value
    carriers: tuple[Carrier, ...]
    outcome: Outcome
    rank: int | None = None

    def __str__(self) -> str:
        return (
            f"variable: {self.variable} = {self.value}\ncarried by: {self.carried}\n"
            f"swap {self.variable} -> {self.outcome.said(self.variable)}"
        )

    @property
    def carried(self) -> str:
        """What carries it, in words."""
        every = " and ".join(map(str, self.carriers))
        return every if self.rank is None else f"a {self.rank}-dimensional subspace of {every}"

    @property
    def spans(self) -> tuple[str, ...]:
        """The names of spans that it uses; ``END``, which every prompt has, is none."""
        at = [one for carrier in self.carriers for one in carrier.at if isinstance(one, str)]
        return tuple(dict.fromkeys(one for one in [*self.value.spans, *at] if one.upper() != END))

    @staticmethod
    def parse(text: str) -> Claim:
        """Return the claim that three lines spell, whatever their case and order.

        Raises
        ------
        InputError
            A line that is none of the three, one that is missing, or what cannot be read in it; what to type is said.
        """
        return _claim(text)


@dataclass(frozen=True)
class Claimed:
    """What a command that tests claims is asked: the claim, and the prompts that it is tested on.

    Attributes
    ----------
    prompts
        The prompts with their answers.
    notes
        On how they were chosen.

    Examples
    --------
    >>> from interp.spec import Prompt, Prompts
    >>> claim = Claim("name", Value("answer"), (Carrier("z", 5, ("END",), head=1),), Outcome("answer"))
    >>> len(Claimed(claim, Prompts((Prompt("A"), Prompt("B")))).prompts.prompts)
    2
    """

    claim: Claim
    prompts: Prompts
    notes: tuple[str, ...] = ()


def divided(text: str) -> tuple[str, str]:
    """Return the lines of a claim, and what stands below a line ``prompts:``.

    Examples
    --------
    >>> divided("swap name -> the answer stays\\nprompts:\\nclean: A is")
    ('swap name -> the answer stays', 'clean: A is')
    """
    found = re.search(r"^[ \t]*prompts[ \t]*:[ \t]*$", text, re.IGNORECASE | re.MULTILINE)
    return (text, "") if found is None else (text[: found.start()].rstrip("\r\n"), text[found.end() :].strip("\r\n"))


def _claim(text: str) -> Claim:
    said: dict[str, str] = {}
    swapped = ""
    for number, raw in enumerate(re.split(r"\r\n|\n|\r", text), 1):
        line = raw.strip()
        if not line:
            continue
        keyed, swap = _KEYED.fullmatch(line), _SWAPPED.fullmatch(line)
        if keyed is None and swap is None:
            raise _unread(line, number)
        key = "swap" if swap is not None else keyed[1].lower().split()[0] if keyed is not None else ""
        if key in said:
            raise InputError(f"line {number} gives {key} a second time; a claim has one line of each")
        if swap is not None:
            swapped, said[key] = swap[1], swap[2]
        elif keyed is not None:
            said[key] = keyed[2].strip()
    for key, example in (("variable", _EXAMPLE), ("carried", _CARRIED), ("swap", _SWAP)):
        if key not in said:
            line = "carried by" if key == "carried" else key
            raise InputError(f"the claim has no line {line}: type one, such as {example}")
    variable, value = _variable(said["variable"])
    if swapped.lower() != variable.lower():
        raise InputError(f"the variable is {variable}, and {swapped!r} is swapped; type swap {variable} -> …")
    rank, carriers = carriers_of(said["carried"])
    return Claim(variable, value, carriers, _outcome(said["swap"], variable, value), rank)


def _unread(line: str, number: int) -> InputError:
    word = re.split(r"\W", line, maxsplit=1)[0]
    if word.lower() == "swap":
        return InputError(f"line {number} cannot be read: {line[:60]}; type it such as {_SWAP}")
    example = {"variable": _EXAMPLE, "carried": _CARRIED, "swap": _SWAP}
    near = closest(word, _LINES)
    known = next((text for key, text in example.items() if key in near), f"{_EXAMPLE}, {_CARRIED} or {_SWAP}")
    return InputError(f"line {number} is no line of a claim{near}: {line[:60]}; type {known}")


def _variable(text: str) -> tuple[str, Value]:
    found = _VALUED.fullmatch(text)
    if found is None:
        raise InputError(f"the variable {text[:60]!r} cannot be read; type a name and what it is, such as {_EXAMPLE}")
    name, said = found[1], (found[2] or "given").strip()
    if said.lower() in {"the answer", "answer"}:
        return name, Value("answer")
    if said.lower() == "given":
        return name, Value("given")
    if order := _ORDER.fullmatch(said):
        return name, Value("order", (order[1], order[2]))
    if span := _SPAN.fullmatch(said):
        return name, Value("span", (span[1],))
    braces = f"; a span stands in braces: {{{said}}}" if NAME.fullmatch(said) else ""
    raise InputError(
        f"{name} = {said[:60]} cannot be read{braces or ': a variable is'} "
        f"{'' if braces else '{SPAN}, the answer, {SPAN} before {SPAN}, or given (in Python)'}".rstrip()
    )


def _outcome(text: str, variable: str, value: Value) -> Outcome:
    said = re.sub(r"^(?:then\s+)?(?:the\s+answer\s+)?(?:becomes|is|turns\s+into)\s+", "", text.strip(), flags=re.I)
    plain = re.sub(r"^the\s+", "", said.rstrip(".").strip(), flags=re.IGNORECASE).lower()
    if plain in {"answer stays", "stays", "same", "answer stays the same", "stays the same", "unchanged"}:
        return Outcome("stays")
    if said[:1] in "\"'" and len(said) > 1 and said[-1] == said[0]:
        return Outcome("token", _unquoted(said))
    if token := re.fullmatch(r"(?:token\s+)?(\d{1,9})", plain):
        return Outcome("token", int(token[1]))
    if plain in {"other answer", "source's answer", "other prompt's answer", "answer of the other prompt"}:
        return Outcome("answer")
    if plain in {"wrong one", "wrong answer", "wrong"}:
        return Outcome("wrong")
    if plain == "given":
        return Outcome("given")
    if plain == f"other {variable.lower()}":
        if value.kind == "order":
            raise InputError(
                f"{variable} is which of two stands first, no token; type the answer becomes the other answer"
            )
        return Outcome("value")
    if plain.startswith("other "):
        raise InputError(f"there is no variable {plain[6:60]!r}; type the answer becomes the other {variable}")
    raise InputError(
        f"{text.strip()[:60]!r} does not say what the answer becomes; type the answer becomes the other {variable}, "
        'the other answer, the wrong one, a token in quotes (" Paris"), or the answer stays'
    )


def carriers_of(text: str) -> tuple[int | None, tuple[Carrier, ...]]:
    """Return the dimensions of a subspace, where one is meant, and the places that a text names.

    Raises
    ------
    InputError
        A place that cannot be read, or one without its position.

    Examples
    --------
    >>> carriers_of("a 2-dimensional subspace of resid_post layer 2 at {S2}")
    (2, (Carrier(site='resid_post', layer=2, at=('S2',), head=None, features=(), rule=''),))
    >>> [str(carrier) for carrier in carriers_of("L5H1 and 5.2 at END")[1]]
    ['head 5.1 at END', 'head 5.2 at END']
    """
    kept: list[str] = []

    def hide(found: re.Match[str]) -> str:
        kept.append(found[0])
        return f"\0{len(kept) - 1}\0"

    pieces = re.split(r"\s*,\s*(?:and\s+)?|\s+and\s+", _QUOTES.sub(hide, text.strip().rstrip(".")), flags=re.IGNORECASE)
    ranks: set[int] = set()
    found: list[Carrier] = []
    for piece in (_HIDDEN.sub(lambda one: kept[int(one[1])], one) for one in pieces):
        bare = re.sub(r"^(?:the|an?)\s+", "", piece.strip(), flags=re.IGNORECASE)
        if subspace := _SUBSPACE.match(bare):
            ranks.add(_rank(subspace[1]))
            bare = re.sub(r"^(?:the|an?)\s+", "", subspace[2], flags=re.IGNORECASE)
        alone = _POSITION.fullmatch(bare)
        if alone is not None and found and found[-1].at and not _HEAD.fullmatch(bare) and not FEATURE.fullmatch(bare):
            found[-1] = replace(found[-1], at=(*found[-1].at, *_at(bare)))
            continue
        what, _, where = _cut(bare)
        found.append(replace(_place(what.strip()), at=_at(where.strip()) if where.strip() else ()))
    if not found[-1].at:
        raise InputError(f"say where {found[-1].what} is meant: at a span, at {{S2}}, at END or at position 9")
    for n in range(len(found) - 2, -1, -1):  # "L5H1 and L5H2 at END": both are meant there
        if not found[n].at:
            found[n] = replace(found[n], at=found[n + 1].at)
    if len(ranks) > 1:
        raise InputError("a claim has one subspace, over all of its places: give one number of dimensions")
    return (ranks.pop() if ranks else None), _merged(found)


def _cut(text: str) -> tuple[str, str, str]:
    """Return what stands before and behind the last ``at`` that no quote holds."""
    held = list(_QUOTES.finditer(text))
    ats = re.finditer(r"\s+at\s+", text, re.IGNORECASE)
    free = [one for one in ats if not any(q.start() < one.start() < q.end() for q in held)]
    return (text, "", "") if not free else (text[: free[-1].start()], " at ", text[free[-1].end() :])


def _rank(text: str) -> int:
    rank = _NUMBERS.get(text.lower(), int(text) if text.isdigit() else 0)
    if rank < 1:
        raise InputError(f"a subspace has 1 or more dimensions; {text!r} is no such number")
    return rank


def _merged(found: Sequence[Carrier]) -> tuple[Carrier, ...]:
    """Return places, each once; features of one layer that are meant at one place are one."""
    made: list[Carrier] = []
    for one in found:
        same = (one.site, one.layer, one.at, "")
        alike = (n for n, held in enumerate(made) if (held.site, held.layer, held.at, held.rule) == same)
        before = next(alike, None) if one.features else None
        if before is not None:
            made[before] = replace(made[before], features=tuple(dict.fromkeys([*made[before].features, *one.features])))
        elif one not in made:
            made.append(one)
    return tuple(made)


def _at(text: str) -> tuple[str | int, ...]:
    found = _POSITION.fullmatch(text)
    if found is None:
        raise InputError(f"{text[:60]!r} is no position; type a span such as {{S2}}, END, or position 9")
    if found[2] is not None:
        return (int(found[2]),)
    name = found[1] or found[3]
    return (END if name.upper() == END else name,)


def _place(text: str) -> Carrier:
    if rule := _RULE.fullmatch(text):
        name = rule[1].strip()
        return Carrier(FEATURES.name, -1, (), rule=_unquoted(name) if name[:1] in "\"'" else name)
    if feature := _FEATURE.fullmatch(text):
        node = Node.parse(feature[1])
        return Carrier(FEATURES.name, node.layer, (), features=(node.head,))
    if block := _BLOCK.fullmatch(text):
        return Carrier("mlp_out" if block[1].lower() == "mlp" else "attn_out", int(block[2]), ())
    if layer := _LAYER.fullmatch(text):
        return _of_site(layer[1].lower(), int(layer[2]), None if layer[3] is None else int(layer[3]))
    try:
        node = Node.parse(re.sub(r"^head\s+", "", text, flags=re.IGNORECASE))
    except InputError:
        node = Node("")
    if node.kind == "head":
        return Carrier("z", node.layer, (), head=node.head)
    if node.kind == "mlp":
        return Carrier("mlp_out", node.layer, ())
    word = text.split()[0] if text.split() else ""
    near = closest(word, ["resid_post", "resid_pre", "head", "mlp", "feature"])
    raise InputError(
        f"{text[:60]!r} is no place in a model{near}; type resid_post layer 2, head 5.1, mlp 3 or feature F2.417, and "
        "where, such as at {S2}"
    )


def _of_site(name: str, layer: int, head: int | None) -> Carrier:
    kind = find(name)
    if kind.heads_first:
        raise InputError(
            f"{name} has no vector at a position, so that nothing can be exchanged there; use z, q, k or v"
        )
    if kind is FEATURES:
        raise InputError(f"say which features of layer {layer}: feature F{layer}.417, or the features of rule NAME")
    if head is not None and not kind.headed:
        raise InputError(f"{name} has no heads; leave head {head} out, or type head {layer}.{head}")
    return Carrier(name, layer, (), head=head)


def _span(name: str) -> str:
    return name if name == END else f"{{{name}}}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _unquoted(text: str) -> str:
    if text[0] == '"':
        try:
            found: Any = json.loads(text)
        except ValueError:  # as it was typed, with a backslash that is one
            found = text[1:-1]
        return str(found)
    return text[1:-1]
