"""Memory over many texts: what `neurons`, `feature` and `probe` take as they read N of them, N = 10^5 unless told.

    python benchmarks/million_texts.py 1000000 neurons feature probe --workers 2

Printed is how much of this process is in memory, at most in each tenth of the texts, and by how much that is above the
first tenth, which is to be below 100 MB; of a probe also what its fits take then, which come when all is read.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any

import interp
from interp.interface.session import session
from interp.lazy import Lazy
from interp.spec import Prompt, Texts

MB = 2**20
WHO = ("Anna", "The ferry", "A dog", "My neighbour", "The chemist", "Nobody", "The old clock")
DID = ("saw", "carried", "forgot", "sold", "measured", "followed")
WHAT = ("the key", "a loaf of bread", "two letters", "the red house", "a violin", "the price of salt", "a long list")


def sentence(number: int) -> str:
    """Return a text; those of different numbers differ."""
    parts = [(WHO, 1), (DID, 7), (WHAT, 42)]
    who, did, what = (words[number // step % len(words)] for words, step in parts)
    return f"{who} {did} {what} " * (1 + number % 3) + f"in the year {number}."


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith("VmRSS"))


class Watch:
    """Looks at the memory as a command goes on."""

    def __init__(self, count: int) -> None:
        self.count, self.after, self.tenths = count, 0, [0] * 11

    def __call__(self, done: int, total: int, said: str) -> None:  # noqa: ARG002
        """Take a look."""
        if total != self.count:  # not texts any more
            self.after = max(self.after, resident())
        else:
            tenth = 10 * done // total
            self.tenths[tenth] = max(self.tenths[tenth], resident())

    def __str__(self) -> str:
        seen = [one for one in self.tenths if one]
        grown = (max(seen) - seen[0]) / MB
        more = f", then {self.after / MB:.0f} MB" if self.after else ""
        return f"MB {' '.join(f'{one / MB:.0f}' for one in seen)}: {grown:+.0f}{more}"


def main() -> None:
    """Run what is asked for."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("count", nargs="?", type=int, default=10**5)
    asked.add_argument("what", nargs="*", default=["neurons", "feature", "probe"])
    asked.add_argument("--workers", type=int, default=0)
    given = asked.parse_args()
    interp.load()
    interp.features_load("bundled")
    if given.workers:
        interp.connect(given.workers)

    def read() -> Iterator[Prompt]:
        return (Prompt(sentence(number)) for number in range(given.count))

    texts = Texts(Lazy(read), source="made up")
    numbers: Any = range(given.count)
    commands: dict[str, Any] = {
        "neurons": lambda: interp.neurons("1.*", texts),
        "feature": lambda: interp.feature("2.17", texts),
        "probe": lambda: interp.probe(
            [sentence(number) for number in numbers], [number % 7 for number in numbers], layer=2, folds=2, shuffles=1
        ),
    }
    for name in given.what:
        session.on_step = watch = Watch(given.count)
        begun = time.monotonic()
        result = commands[name]()
        took = time.monotonic() - begun
        print(f"{name:8} {given.count:,} texts in {took:.0f} s, {result.provenance.path}: {watch}", flush=True)


if __name__ == "__main__":
    main()
