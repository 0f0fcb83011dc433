"""Documents of the bundled model's world, each task with combinations that training never sees.

A document is a tuple of strings that alternates plain text and answers: ``("When Mary and … to", " Mary", ".")``.
A task draws from the training combinations, or with ``held=True`` only from the held-out ones.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence

from . import words as w

Doc = tuple[str, ...]
Task = Callable[..., Doc]
# The examples of the literature are held out, whatever their hash says.
FAMOUS = ({"Mary", "John"}, {"store", "drink"}, {"cat", "mat"}, {"dog", "rug"}, {"war", "1732"})


def held_out(*combination: str) -> bool:
    """Whether a task never shows this combination in training (in any order); one in ten is held out by a hash."""
    parts = sorted(combination)
    return set(parts) in FAMOUS or zlib.crc32("|".join(parts).encode()) % 10 == 0


def draw_pair(rng: random.Random, left: Sequence[str], right: Sequence[str], held: bool) -> tuple[str, str]:
    """Draw two different words whose combination is held out, or is not."""
    while True:
        a, b = rng.choice(left), rng.choice(right)
        if a != b and held_out(a, b) == held:
            return a, b


def she_he(name: str) -> str:
    """Return the pronoun of a name."""
    return "she" if name in w.SHE else "he"


IOI_OPENINGS = [
    "When {0} and {1} went to the {p},",
    "After {0} and {1} went to the {p},",
    "While {0} and {1} were at the {p},",
    "When {0} and {1} got to the {p},",
    "Then, {0} and {1} went to the {p}.",
    "One day, {0} and {1} walked to the {p}.",
    "{0} and {1} met at the {p}.",
    "Yesterday {0} and {1} were at the {p}, and",
    "Friends {0} and {1} found a {o} at the {p}.",
    "Then, {0} and {1} had a long day at the {p}, and",
]
IOI_CLOSINGS = [
    "{s} gave a {o} to",
    "{s} gave the {o} to",
    "{s} handed a {o} to",
    "{s} passed the {o} to",
    "{s} decided to give a {o} to",
    "{s} offered a {o} to",
    "{s} bought a {o} for",
    "{s} showed the {o} to",
    "{s} sent a {o} to",
    "{s} said hello to",
]


def ioi(rng: random.Random, held: bool = False, *, order: str | None = None, new_template: bool = False) -> Doc:
    """Indirect object: two names, one is repeated, the other is the answer.

    Parameters
    ----------
    order
        ``"ABB"`` (the first name is the answer) or ``"BAB"``; either by default.
    new_template
        Use a combination of opening and closing that training never shows.
    """
    a, b = draw_pair(rng, w.NAMES, w.NAMES, held)
    place, thing = draw_pair(rng, w.PLACES, w.OBJECTS, held)
    opening, closing = draw_pair(rng, IOI_OPENINGS, IOI_CLOSINGS, new_template)
    order = order or rng.choice(["ABB", "BAB"])
    names = (a, b) if order == "ABB" else (b, a)
    text = f"{opening} {closing}".format(*names, s=b, p=place, o=thing)
    if not held and rng.random() < 0.05:  # a third giver: what the usual corrupted prompt looks like
        giver = rng.choice([n for n in w.NAMES if n not in names])
        text = f"{opening} {closing}".format(*names, s=giver, p=place, o=thing)
    return (text, f" {a}", rng.choice([".", ".", f" and left the {place}.", f". {a} was {rng.choice(w.MOODS)}."]))


BINDINGS: dict[str, tuple[list[str], list[str], list[str]]] = {
    "sat": (
        [f"The {{}} {v} the" for v in ("sat on", "slept on", "stood by", "hid under", "jumped over", "looked at")],
        w.ANIMALS,
        w.SPOTS,
    ),
    "has": ([f"{{}} {v} the" for v in ("has", "took", "wants", "found", "lost")], w.NAMES, w.OBJECTS),
    "went": ([f"{{}} {v} the" for v in ("is in", "went to", "walked to")], w.NAMES, w.PLACES),
    "color": (["The {} is", "The {} was"], w.OBJECTS, w.COLORS),
    "inside": ([f"The {{}} {v} the" for v in ("is in", "was in", "fell into")], w.OBJECTS, w.CONTAINERS),
}


def bind(
    rng: random.Random,
    held: bool = False,
    *,
    kind: str | None = None,
    facts: int | None = None,
    asked: int | None = None,
) -> Doc:
    """Who goes with what: a few sentences of one shape, then some of them again.

    Parameters
    ----------
    kind
        A key of `BINDINGS`.
    facts
        Number of sentences before the repeats.
    asked
        Which sentence is repeated first.
    """
    templates, subjects, values = BINDINGS[kind or rng.choice(["sat", "sat", *BINDINGS])]
    template = rng.choice(templates)
    facts = facts or rng.choice([2, 2, 2, 3, 4])
    pairs: list[tuple[str, str]] = []
    while len(pairs) < facts:
        s, v = draw_pair(rng, subjects, values, held)
        if all(s != t and v != u for t, u in pairs):
            pairs.append((s, v))
    out = [" ".join(f"{template.format(s)} {v}." for s, v in pairs)]
    order = rng.sample(range(facts), rng.choice([1, facts, facts])) if asked is None else [asked]
    for i in order:
        s, v = pairs[i]
        out[-1] += f" {template.format(s)}"
        out += [f" {v}", "."]
    return tuple(out)


def all_facts() -> list[Doc]:
    """Every fact in every wording; the first wording of each fact comes first."""
    first: list[Doc] = []
    more: list[Doc] = []
    for country, city in w.CAPITALS.items():
        first.append((f"The capital of {country} is", f" {city}", "."))
        more.append((f"{city} is the capital of", f" {country}", "."))
        more.append((f"The capital city of {country} is called", f" {city}", "."))
    for thing, city in w.LANDMARKS.items():
        first.append((f"The {thing} is in", f" {city}", "."))
        more.append((f"The {thing} is located in the city of", f" {city}", "."))
        more.append((f"To see the {thing}, you have to go to", f" {city}", "."))
    for word, other in w.OPPOSITES.items():
        first.append((f"The opposite of {word} is", f" {other}", "."))
    return first + more


_FACTS = all_facts()
N_FACTS = len(w.CAPITALS) + len(w.LANDMARKS) + len(w.OPPOSITES)


def fact(rng: random.Random, held: bool = False) -> Doc:  # noqa: ARG001
    """One fact: facts are learned by heart, so nothing is held out."""
    return rng.choice(_FACTS)


PRONOUN_TEMPLATES = [
    "{n} went to the {p} because",
    "{n} left the {p} when",
    "{n} said that",
    "{n} was late for the {p}, so",
    "{n} was {m} because",
    "{n} walked to the {p} and then",
    "{n} lost the {o} after",
    "{n} bought a {o} because",
    "{n} thinks that",
    "At the {p}, {n} said that",
]
PRONOUN_TAILS = [" was {m}.", " wanted a {o}.", " saw the {a}.", " likes {f}.", " went home.", " lost the {o}."]


def _fill(rng: random.Random, template: str, **given: str) -> str:
    slots = {"p": w.PLACES, "o": w.OBJECTS, "a": w.ANIMALS, "f": w.FOODS, "m": w.MOODS, "c": w.COLORS, "z": w.SIZES}
    return template.format(**({k: rng.choice(v) for k, v in slots.items()} | given))


def pronoun(rng: random.Random, held: bool = False) -> Doc:
    """Pronoun of a name; held out are combinations of name and sentence."""
    name, template = draw_pair(rng, w.NAMES, PRONOUN_TEMPLATES, held)
    return _fill(rng, template, n=name), f" {she_he(name)}", _fill(rng, rng.choice(PRONOUN_TAILS))


def job(rng: random.Random, held: bool = False) -> Doc:  # noqa: ARG001
    """Pronoun of a profession, drawn with the skew that `words.JOBS` states, or of a word for a relative."""
    share = w.JOBS | w.KIN
    word = rng.choice([*w.JOBS, *w.JOBS, *w.KIN])
    answer = "she" if rng.random() < share[word] else "he"
    template = rng.choice(PRONOUN_TEMPLATES[:9])
    return _fill(rng, template, n=f"The {word}"), f" {answer}", _fill(rng, rng.choice(PRONOUN_TAILS))


YEAR_TEMPLATES = [
    "The {n} lasted from the year {c}{y} to the year {c}",
    "The {n} lasted from {c}{y} to {c}",
    "The {n} began in {c}{y} and ended in {c}",
]


def years(rng: random.Random, held: bool = False, *, start: int | None = None) -> Doc:
    """Greater-than: the end of a period comes after its start; held out are noun and start year."""
    while True:
        noun, century = rng.choice(w.PERIODS), rng.randint(11, 19)
        low = rng.randint(2, 97) if start is None else start
        if held_out(noun, f"{century}{low:02d}") == held:
            break
    high = 100
    while high > 99:
        high = low + 1 + int(rng.expovariate(1 / 12))
    text = rng.choice(YEAR_TEMPLATES).format(n=noun, c=century, y=f"{low:02d}")
    return text, f"{high:02d}", "."


def sequence(rng: random.Random, held: bool = False) -> Doc:  # noqa: ARG001
    """Days, months, numbers and years in order."""
    if rng.random() < 0.5:
        items = rng.choice(w.SEQUENCES)
        start = rng.randint(0, len(items) - 3)
        items = items[start : start + rng.randint(3, 6)]
    else:
        year = rng.randint(1101, 1990)
        items = [str(year + i) for i in range(rng.randint(3, 5))]
    head, tail = [items[0]], items[1:]
    out = [head[0]]
    for item in tail:  # the two digits of a century belong to the text, those of the year are the answer
        lead, answer = ("," + f" {item[:2]}", item[2:]) if item.isdigit() else (",", f" {item}")
        out[-1] += lead
        out += [answer, ""]
    return tuple(out[:-1])


def agreement(rng: random.Random, held: bool = False) -> Doc:
    """Subject and verb agree across a noun of the other number."""
    one, two = draw_pair(rng, list(w.PLURALS), list(w.PLURALS), held)
    plural = rng.random() < 0.5
    subject = w.PLURALS[one] if plural else one
    other = rng.choice([two, w.PLURALS[two]])
    text = f"The {subject} {rng.choice(['near', 'by', 'behind', 'next to'])} the {other}"
    verb = rng.choice([" are", " were"] if plural else [" is", " was"])
    return text, verb, f" {rng.choice([*w.SIZES, *w.COLORS])}."


def sentiment(rng: random.Random, held: bool = False) -> Doc:
    """Liking decides the adjective."""
    good = rng.random() < 0.5
    verb, work = draw_pair(rng, w.GOOD_VERBS if good else w.BAD_VERBS, w.WORKS, held)
    who = rng.choice(["I", "We", "They", rng.choice(w.NAMES)])
    tail = rng.choice([" It was", f" The {work} was", " I thought it was"])
    return f"{who} {verb} the {work}.{tail}", f" {rng.choice(w.GOOD if good else w.BAD)}", "."


STORY = [
    "{n} is a {m} {k}.",
    "{S} has a {z} {c} {o}.",
    "One day {s} went to the {p} and saw a {a}.",
    "{S} likes {f} and {f2}.",
    "There was a {a} at the {p}.",
    "The {a} was {z} and {c}.",
    "{S} was very {m}.",
    "{n} put the {o} on the {q}.",
    "{n} lives near the {p}.",
    "The {o} is on the {q}.",
    "{S} bought some {f} at the {p}.",
    "{n} and {n2} are friends.",
    "They ate {f} and played with the {a}.",
    "{S} opened the {b} and found a {o}.",
]


def story(rng: random.Random, held: bool = False, sentences: int | None = None) -> Doc:  # noqa: ARG001
    """A few plain sentences about one person."""
    name, other = rng.sample(w.NAMES, 2)
    s = she_he(name)
    kind = rng.choice(["girl", "woman", "sister"] if s == "she" else ["boy", "man", "brother"])
    lines: list[str] = []
    for _ in range(sentences or rng.randint(1, 4)):
        given = {"n": name, "n2": other, "s": s, "S": s.capitalize(), "k": kind, "f2": rng.choice(w.FOODS)}
        given |= {"q": rng.choice(w.SPOTS), "b": rng.choice(w.CONTAINERS)}
        first = [t for t in STORY if "{S}" not in t and "{s}" not in t and not t.startswith("They")]
        lines.append(_fill(rng, rng.choice(STORY if lines else first), **given))
    return (" ".join(lines),)


MIX: dict[Task, int] = {
    ioi: 24,
    bind: 28,
    fact: 12,
    pronoun: 7,
    job: 4,
    years: 10,
    sequence: 4,
    agreement: 3,
    sentiment: 3,
    story: 8,
}


def document(rng: random.Random) -> Doc:
    """Draw one training document: a task of the mix, one time in four with a sentence in front."""
    task = rng.choices(list(MIX), list(MIX.values()))[0]
    doc = task(rng)
    if rng.random() < 0.25:
        front = story(rng, sentences=1)[0]
        doc = (f"{front} {doc[0]}", *doc[1:])
    return doc


def word_list() -> list[str]:
    """Words that are tokens even if a sample of the text lacks them."""
    spaced = [
        *w.NAMES, *w.PLACES, *w.OBJECTS, *w.ANIMALS, *w.SPOTS, *w.COLORS, *w.CONTAINERS, *w.FOODS, *w.SIZES, *w.MOODS,
        *w.JOBS, *w.KIN, *w.CAPITALS, *w.CAPITALS.values(), *" ".join(w.LANDMARKS).split(), *w.LANDMARKS.values(),
        *w.OPPOSITES, *w.OPPOSITES.values(), *w.PERIODS, *(x for s in w.SEQUENCES for x in s), *w.PLURALS,
        *w.PLURALS.values(), *w.WORKS, *w.GOOD, *w.BAD, *w.GOOD_VERBS, *w.BAD_VERBS, *w.COMMON,
    ]  # fmt: skip
    digits = [f"{n:02d}" for n in range(100)] + [str(n) for n in range(10)]
    capital = [x for x in w.COMMON if x[0].isupper()]
    return [
        *(f" {x}" for x in [*spaced, *digits]),
        *w.NAMES,
        *digits,
        *capital,
        *w.CAPITALS.values(),
        "\n",
        "\n\n",
        "'s",
        "'t",
    ]
