"""Old against new: what `patching`, `attribution`, `edges` and `lens` time of interp, for two commits in turns.

OLD and NEW are source trees or git revisions. Each has a process of its own (`turns`), on one thread; the two take
turns, and who begins changes with each round, so that whatever else the machine does meets both. Printed for each case:
the ratio old / new of the medians of CPU seconds, above 1 where the new commit is faster, and that of the minima. Where
it is below the bar, twice as many rounds are added, and all count: other work on the machine moves few rounds by more
than the bar allows. The exit status is 1 where any stays below.

``python benchmarks/commits.py OLD NEW [--seconds N] [--only TEXT]``
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from trees import ROOT, environment, named, tree

BAR = 0.97
LEAST, MOST = 3, 15  # rounds


class Side:
    """One commit's process: it runs a case when told to, and says how long that took."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, str(ROOT / "benchmarks" / "turns.py"), str(folder)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(folder)
        )
        self.names: list[str] = self._answer()

    def _answer(self) -> list[str] | float:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"a side stopped with status {self._process.wait()}")
        return json.loads(line)

    def seconds(self, name: str) -> float:
        """Run a case once and return its CPU seconds."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{self.names.index(name)}\n")
        self._process.stdin.flush()
        return self._answer()

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def take_turns(sides: tuple[Side, Side], name: str, rounds: int, taken: tuple[list[float], list[float]]) -> None:
    """Add the seconds of both sides, who take turns, to those taken."""
    for turn in range(rounds):
        for side in (0, 1) if turn % 2 == 0 else (1, 0):
            taken[side].append(sides[side].seconds(name))


def measure(sides: tuple[Side, Side], name: str, budget: float) -> float:
    """Print a case's ratio and return it."""
    for side in sides:
        side.seconds(name)  # the first call compares with the hooked forward
    old, new = taken = ([], [])
    take_turns(sides, name, LEAST, taken)
    pace = (sum(old) + sum(new)) / LEAST
    take_turns(sides, name, min(MOST, int(budget / max(pace, 1e-3))) - LEAST, taken)
    if statistics.median(old) / statistics.median(new) < BAR:
        take_turns(sides, name, 2 * len(old), taken)
    middle = [statistics.median(one) for one in (old, new)]
    ratio = middle[0] / middle[1]
    mark = " " if ratio >= BAR else "!"
    print(
        f"  {ratio:5.3f}{mark} (minima {min(old) / min(new):5.3f})   CPU s: old {middle[0]:7.3f}, "
        f"new {middle[1]:7.3f}, {len(old):2} rounds   {name}",
        flush=True,
    )
    return ratio


def main() -> int:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("old", help="a source tree or a git revision")
    arguments.add_argument("new", help="another")
    arguments.add_argument("--seconds", type=float, default=8.0, help="of CPU to a case, within 3 to 15 rounds")
    arguments.add_argument("--only", default="", metavar="TEXT", help="cases whose name has this in it alone")
    options = arguments.parse_args()
    started = time.monotonic()
    with tree(options.old) as old, tree(options.new) as new:
        print(f"old: {named(old)}\nnew: {named(new)}\nratio old / new of medians, bar {BAR}", flush=True)
        sides = (Side(old), Side(new))
        names = [name for name in sides[0].names if name in sides[1].names]
        for alone in sorted({*sides[0].names} ^ {*sides[1].names}):
            print(f"  only one side has: {alone}")
        chosen = [name for name in names if options.only in name]
        ratios = {name: measure(sides, name, options.seconds) for name in chosen}
        for side in sides:
            side.end()
    below = [name for name, ratio in ratios.items() if ratio < BAR]
    worst = min(ratios, key=lambda name: ratios[name])
    print(f"{len(ratios)} cases, {len(below)} below {BAR}; the lowest is {ratios[worst]:.3f}: {worst}")
    print(f"{time.monotonic() - started:.0f} s")
    return int(bool(below))


if __name__ == "__main__":
    sys.exit(main())
