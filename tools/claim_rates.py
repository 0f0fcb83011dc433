"""How often `claim` supports what is false, and what is true, of models whose variables are known by construction.

    .venv/bin/python tools/claim_rates.py [--false 200] [--true N] [--subspaces 0] [--rank 2] [--seed 0]

A claim names a variable (the token at a position, a variable of the program at one, the answer), a place (the residual
stream, a head, an MLP) at a position, and what becomes of the answer. The interpreter of programs makes the same
interchanges in the variables themselves, and so says in how many of them the claim's prediction comes true: true claims
are those of which it does in all, false ones those of which it does in less than half; what is between is neither. Of a
subspace every set of the place's variables is tried: a claim is false only if none of them does it, and true only if
the subspace has room for the variable's values.
"""

from __future__ import annotations

import argparse
import itertools
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import interp
from interp import truth
from interp.claim_language import Carrier, Claim, Outcome, Value
from interp.sites import Site
from interp.spec import Pair, Prompt
from interp.truth.interpret import Exchange, answer, interchanged, values
from interp.truth.programs import PROGRAMS

PROMPTS = 32
TRIED = 24  # pairs of prompts by which claims are told apart before they are run
LEAST = 8
SETTLED = 0.9  # of a program's variable: as much of it on one value is a value

Ids = tuple[int, ...]


@cache
def compiled(name: str) -> truth.Compiled:
    return truth.build(name)


@cache
def prompts(name: str) -> tuple[Ids, ...]:
    """Return a program's prompts, each once."""
    found = [tuple(pair.clean.ids or ()) for pair in compiled(name).pairs(PROMPTS, seed=11).pairs]
    return tuple(dict.fromkeys(found))


@cache
def wrong(name: str) -> dict[Ids, int]:
    """Return each prompt's wrong answer."""
    return {tuple(pair.clean.ids or ()): int(pair.wrong[0]) for pair in compiled(name).pairs(PROMPTS, seed=11).pairs}


@cache
def said(name: str, base: Ids, source: Ids, carrier: Carrier, variables: tuple[str, ...] = ()) -> int | None:
    """Return the answer with an interchange, by construction."""
    program, at = compiled(name).program, tuple(int(one) for one in carrier.at)
    exchange = Exchange(Site(carrier.site, carrier.layer), at, at, carrier.head, variables)
    return answer(program, interchanged(program, base, source, [exchange]))


@dataclass(frozen=True)
class Asked:
    """A claim about a program's model, and its variable's value in each prompt."""

    program: str
    claim: Claim
    values: tuple[int, ...]

    def predicted(self, base: int, source: int) -> int:
        """Return what the answer becomes where a prompt is given what another one has."""
        of = compiled(self.program).program.answer
        if self.claim.outcome.kind == "value":
            return self.values[source]
        if self.claim.outcome.kind == "wrong":
            return wrong(self.program)[prompts(self.program)[base]]
        return of(prompts(self.program)[source if self.claim.outcome.kind == "answer" else base])

    def by_construction(self, pairs: Sequence[tuple[int, int]]) -> float:
        """Return the share of interchanges in which the prediction comes true; of a subspace the largest there is."""
        every, ids = compiled(self.program).program.sizes, prompts(self.program)
        counts = range(1, len(every) + 1) if self.claim.rank is not None else ()
        sets = [(), *(some for count in counts for some in itertools.combinations(every, count))]
        (carrier,) = self.claim.carriers
        return max(
            sum(said(self.program, ids[b], ids[s], carrier, some) == self.predicted(b, s) for b, s in pairs)
            for some in sets
        ) / len(pairs)

    @property
    def fits(self) -> bool:
        """Whether a subspace has room for the differences of the variable's values."""
        return self.claim.rank is None or len(set(self.values)) <= self.claim.rank + 1

    def fitting(self, pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return the pairs of prompts that a claim is tested by."""
        of, ids = compiled(self.program).program.answer, prompts(self.program)

        def fits(base: int, source: int) -> bool:
            other = self.claim.outcome.kind != "stays" and self.predicted(base, source)
            other = of(ids[source]) if self.claim.outcome.kind == "stays" else other
            return self.values[base] != self.values[source] and other != of(ids[base])

        return [pair for pair in pairs if fits(*pair)]

    def run(self, model: str) -> Any:
        """Return what the command says."""
        name = self.claim.variable
        of = compiled(self.program).program.answer
        bad = wrong(self.program)
        pairs = [Pair(Prompt(ids=ids), Prompt(ids=ids), (of(ids),), (bad[ids],)) for ids in prompts(self.program)]
        return interp.claim(self.claim, pairs=pairs, variables={name: list(self.values)}, model=model)


def variables(name: str) -> Iterator[tuple[str, tuple[int, ...], bool]]:
    """Yield a program's variables at each position: name, value in each prompt, whether that is a token."""
    program, ids = compiled(name).program, prompts(name)
    yield "answer", tuple(map(program.answer, ids)), True
    for at in range(program.length):
        yield f"token{at}", tuple(one[at] for one in ids), True
    found = [values(program, one) for one in ids]
    for variable in program.sizes.keys() - {"token", "position"}:
        for at in range(program.length):
            rows = [one[variable][at] for one in found]
            if all(float(row.max()) > SETTLED for row in rows) and len(rows[0]) > 1:
                yield f"{variable}{at}", tuple(int(row.argmax()) for row in rows), False


def carriers(name: str) -> Iterator[Carrier]:
    """Yield every place of a program's model at every position."""
    program = compiled(name).program
    for layer, at in itertools.product(range(program.layers), range(program.length)):
        for site in ("resid_pre", "resid_post", "mlp_out"):
            yield Carrier(site, layer, (at,))
        for head in range(program.heads):
            yield Carrier("z", layer, (at,), head=head)


@cache
def tried(name: str) -> tuple[tuple[int, int], ...]:
    """Return pairs of prompts by which claims are told apart before they are run."""
    every = range(len(prompts(name)))
    pairs = [(base, source) for base in every for source in every if base != source]
    return tuple(random.Random(name).sample(pairs, min(TRIED, len(pairs))))


def likely(one: Asked) -> str:
    """Return whether a claim is true, false or neither, of a few interchanges; nothing where there are too few."""
    fitting = one.fitting(tried(one.program))
    return truth_of(one, one.by_construction(fitting)) if len(fitting) >= LEAST else ""


def certainly(one: Asked) -> bool:
    """Return whether a claim is true of a few interchanges; of a subspace whether it is of all of the place."""
    (carrier,), ids = one.claim.carriers, prompts(one.program)
    fitting = one.fitting(tried(one.program))
    return (
        len(fitting) >= LEAST
        and one.fits
        and all(
            said(one.program, ids[base], ids[source], carrier) == one.predicted(base, source)
            for base, source in fitting
        )
    )


def truth_of(one: Asked, share: float) -> str:
    """Return what a claim is that comes true in such a share of interchanges."""
    return "true" if share == 1 and one.fits else "false" if share < 0.5 else "neither"


def drawn(name: str, seed: int, rank: int | None = None) -> Iterator[Asked]:
    """Yield claims in a drawn order: any variable, any place, any answer; every other one is of a place that matters.

    Such a place is one at which by construction an interchange mostly moves the answer.
    """
    generator = random.Random(f"{name} {seed}")
    of, ids = compiled(name).program.answer, prompts(name)
    own = [one for one in variables(name) if len(set(one[1])) > 1]
    places = list(carriers(name))

    def matters(carrier: Carrier) -> bool:
        moved = [said(name, ids[base], ids[source], carrier) != of(ids[base]) for base, source in tried(name)]
        return 2 * sum(moved) > len(moved)

    for number in itertools.count():
        carrier = generator.choice(places)
        while number % 2 and not matters(carrier):
            carrier = generator.choice(places)
        variable, at, is_token = generator.choice(own)
        kinds = ("value", "answer", "stays") if is_token and variable != "answer" else ("answer", "stays")
        outcome = Outcome(generator.choice(kinds if rank is None else kinds[:-1]))
        yield Asked(name, Claim(variable, Value("given"), (carrier,), outcome, rank), at)


def every(name: str, rank: int | None = None) -> Iterator[Asked]:
    """Yield each claim that the answer becomes another one.

    The other prompt's, the token at a position, or, of a variable of the program's, the wrong one.
    """
    for carrier in carriers(name):
        for variable, at, is_token in variables(name):
            if len(set(at)) > 1:
                outcome = Outcome("answer" if variable == "answer" else "value" if is_token else "wrong")
                yield Asked(name, Claim(variable, Value("given"), (carrier,), outcome, rank), at)


@dataclass
class Rates:
    """What was said: (truth, whether the answer is to stay) → verdict → how many; and of which claims wrongly."""

    counts: dict[tuple[str, bool], Counter[str]]
    wrong: list[str]

    def share(self, kind: str, *, stays: bool | None = None, verdict: str = "supported") -> tuple[int, int]:
        """Return how many of the claims of a kind got a verdict, of how many."""
        own = [count for (of, what), count in self.counts.items() if of == kind and stays in {None, what}]
        return sum(count[verdict] for count in own), sum(count.total() for count in own)

    def take(self, one: Asked, model: str) -> str:
        """Run a claim, and return whether it is true, false or neither by the interchanges that it was tested by."""
        result = one.run(model)
        if not result.n:
            return ""
        pairs = [(int(base), int(source)) for base, source in zip(result.base, result.source, strict=True)]
        kind = truth_of(one, one.by_construction(pairs))
        self.counts.setdefault((kind, one.claim.outcome.kind == "stays"), Counter())[result.verdict] += 1
        if (kind, result.verdict) in {("false", "supported"), ("false", "supported in part"), ("true", "rejected")}:
            self.wrong.append(f"{kind}, {one.program}: {'; '.join(str(one.claim).splitlines())}: {result.line()}")
        return kind


def rates(
    false: int, true: int | None = None, *, seed: int = 0, rank: int | None = None, names: Sequence[str] = ()
) -> Rates:
    """Return the verdicts of so many false claims over all programs alike, and of true ones.

    Parameters
    ----------
    true
        How many claims that the answer becomes another, and how many that it stays; all of the former, and half as many
        as there are false ones of the latter, where it is ``None``.
    """
    found = Rates({}, [])
    names = list(names) or list(PROGRAMS)
    for number, name in enumerate(names):
        model = f"compiled {name}"
        interp.load(compiled(name).bridge(), name=model)

        def part(total: int, number: int = number) -> int:
            return (total + len(names) - 1 - number) // len(names)

        wanted = {"false": part(false), "true": part(false // 2 if true is None else true)}
        if rank is not None:
            wanted["true"] = 0  # that the answer stays is claimed of whole places
        seen: set[Claim] = set()
        for one in itertools.islice(drawn(name, seed, rank), 40 * (false + 10)):
            kind = likely(one)
            if not any(wanted.values()):
                break
            if wanted.get(kind, 0) and one.claim not in seen and (kind == "false" or one.claim.outcome.kind == "stays"):
                seen.add(one.claim)
                wanted[kind] -= found.take(one, model) == kind
        certain = [one for one in every(name, rank) if certainly(one)]
        if true is not None:
            certain = random.Random(seed).sample(certain, min(part(true), len(certain)))
        for one in certain:
            found.take(one, model)
        interp.unload(model)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--false", type=int, default=200)
    parser.add_argument("--true", type=int, help="how many; all that there are when not given")
    parser.add_argument("--subspaces", type=int, default=0, help="so many false and true claims of subspaces besides")
    parser.add_argument("--rank", type=int, default=2, help="of the subspaces")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    runs = [("places", None, given.false, given.true)] if given.false else []
    if given.subspaces:
        runs.append((f"subspaces of {given.rank} dimensions", given.rank, given.subspaces, given.subspaces))
    for what, rank, false, true in runs:
        start = time.perf_counter()
        found = rates(false, true, seed=given.seed, rank=rank)
        print(f"{what}: {time.perf_counter() - start:.0f} s")
        for (kind, stays), counts in sorted(found.counts.items()):
            verdicts = ", ".join(f"{verdict} {count}" for verdict, count in sorted(counts.items()))
            print(f"  {kind:7} that the answer {'stays' if stays else 'becomes another':15}  {verdicts}")
        for kind in ("false", "true"):
            hits, of = found.share(kind, stays=None if kind == "false" else False)
            print(f"  {kind} claims supported: {hits} of {of} ({hits / max(of, 1):.1%})")
        print("".join(f"    {line}\n" for line in found.wrong), end="")


if __name__ == "__main__":
    main()
