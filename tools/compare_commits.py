"""Compare what two commits compute: every command of the README, and each command by its different ways.

``python tools/compare_commits.py OLD NEW [--quick] [--alias old=new] [--only PATTERN]``; OLD and NEW are source trees
or git revisions. Each side makes the same calls in a process of its own (`compared_calls` lists them, `record_calls`
makes them), on the bundled model, on small random ones of several families and, without ``--quick``, on SmolLM2.
Printed for each call: the largest difference of any field, as a part of the field's scale, max(1, largest size), and
whether all are equal to the last bit; then the worst of all. The exit status is 1 where a difference is above 1e-6, a
text or a shape of a result differs, or one side alone fails. What says how a result was made (provenance, notes, the
one line) may change its words, and fields may come and go: these are listed, and not judged.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from compared_calls import FILES, SESSION, Call, large, quick
from trees import ROOT, environment, named, tree

LIMIT = 1e-6
FAMILIES = ("gpt2", "llama", "neox", "gemma2", "cohere", "bloom", "granite", "bert")
# Words about a result, and counts of how it was made, rather than the result.
WORDS = frozenset({"provenance", "notes", "notes[]", "line"})
# Of provenance this is the result's own all the same: what was run.
JUDGED = re.compile(r"(^|\.)provenance\.(tokens|seed)")
UNKNOWN = ("there is no command", "has no flag", "is not one of", "takes no")


@dataclass
class Verdict:
    """How far the two answers to one call are from each other."""

    largest: float = 0.0
    where: str = ""
    equal: bool = True
    fields: int = 0
    wrong: list[str] = field(default_factory=list)
    noted: list[str] = field(default_factory=list)
    skipped: str = ""
    error: str = ""

    @property
    def failed(self) -> bool:
        return bool(self.wrong) or not self.largest <= LIMIT


def judged(name: str) -> bool:
    """Whether a field is the result's own, not words about it."""
    return bool(JUDGED.search(name)) or WORDS.isdisjoint(name.split("."))


def difference(one: Any, other: Any) -> tuple[float, bool]:
    """Return the largest difference as a part of the scale, and whether the two are equal to the last bit."""
    both = np.isnan(one) & np.isnan(other)
    same = both | ((one == other) & (np.signbit(one) == np.signbit(other)))
    if same.all():
        return 0.0, True
    with np.errstate(invalid="ignore"):
        difference = np.where(both | (one == other), 0.0, np.abs(one - other))
    if not np.isfinite(difference).all():
        return float("inf"), False
    finite = [part[np.isfinite(part)] for part in (one, other)]
    scale = max(1.0, *(float(np.abs(part).max(initial=0.0)) for part in finite))
    return float(difference.max()) / scale, False


def renamed(name: str, aliases: Mapping[str, str]) -> str:
    for old, new in aliases.items():
        parts = name.replace("[", ".[").split(".")
        name = ".".join(new if part == old else part for part in parts).replace(".[", "[")
    return name


def read(place: Path, aliases: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what was said of a call, and its numbers, with the fields' new names."""
    said = json.loads(place.with_suffix(".json").read_text("utf-8"))
    for part in ("texts", "shapes", "opaque"):
        said[part] = {renamed(name, aliases): value for name, value in said[part].items()}
    with np.load(place.with_suffix(".npz"), allow_pickle=False) as numbers:
        arrays = {renamed(name.partition(":")[2], aliases): numbers[name] for name in numbers.files}
    return said, arrays


def verdict(call: Call, old: tuple[Any, Any], new: tuple[Any, Any]) -> Verdict:
    """Compare the two answers to one call."""
    found = Verdict()
    (before, then), (after, now) = old, new
    was, is_ = before.get("error", ""), after.get("error", "")
    if was or is_:
        return _errors(found, was, is_)
    loose = call.command in SESSION
    for kind in ("texts", "shapes"):
        for name in sorted(before[kind].keys() & after[kind].keys()):
            found.fields += kind == "shapes"
            if before[kind][name] == after[kind][name]:
                continue
            line = f"{name}: {_first(before[kind][name], after[kind][name])}"
            (found.wrong if judged(name) and not loose else found.noted).append(line)
    for side, one, other in (("old", before, after), ("new", after, before)):
        mine, theirs = ({*said["texts"], *said["shapes"]} for said in (one, other))
        # Of a field that is gone, what it held is gone too.
        alone = {name.partition("[")[0] for name in mine - theirs if not name.endswith(".keys")}
        found.noted += [f"{name}: the {side} one alone" for name in sorted(alone)]
    for name in sorted(then.keys() & now.keys()):
        if then[name].shape != now[name].shape:
            continue  # said above
        largest, equal = difference(then[name].astype(np.float64), now[name].astype(np.float64))
        if not judged(name) or loose:
            found.noted += [] if equal else [f"{name}: {largest:.1e}"]
            continue
        found.equal = found.equal and equal
        if not largest <= found.largest:
            found.largest, found.where = largest, name
    found.equal = found.equal and not found.wrong
    return found


def _errors(found: Verdict, was: str, is_: str) -> Verdict:
    found.error = is_ or was
    if any(words in was for words in UNKNOWN):
        found.skipped = was
    elif not was:
        found.wrong.append(f"the new one alone fails: {is_}")
    elif not is_:
        found.noted.append(f"the new one answers where the old says: {was}")
    elif was != is_:
        found.noted.append(f"the error's words: {was!r}, {is_!r}")
    found.equal = not found.wrong
    return found


def _first(one: Sequence[str], other: Sequence[str]) -> str:
    """Return the first of two lists' items that differ, in short."""
    for left, right in zip(one, other, strict=False):
        if left != right:
            at = next((n for n, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), 0)
            start = max(0, at - 20)
            return f"{left[start : at + 40]!r}, then {right[start : at + 40]!r}"
    return f"{len(one)} items, then {len(other)}"


def models_of(place: Path, full: bool) -> dict[str, str]:
    """Return name → folder of the models that are loaded from one; the small ones are made here."""
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tools")]
    from transformers.utils import logging

    import models

    logging.disable_progress_bar()
    made = {family: str(models.save(place / family, family)) for family in FAMILIES}
    if full:
        import fetch_smollm2

        made["smollm2"] = str(fetch_smollm2.fetch())
    return made


def recorded(job: Path, folder: Path, out: Path) -> subprocess.Popen[bytes]:
    """Start the calls with the interp of `folder`; what they write themselves is of their own place."""
    out.mkdir()
    desk = out / "desk"
    desk.mkdir()
    for name, text in FILES.items():
        (desk / name).write_text(text, "utf-8")
    command = [sys.executable, str(ROOT / "tools" / "record_calls.py"), str(job), str(out)]
    return subprocess.Popen(command, cwd=desk, env=environment(folder))


def report(calls: Sequence[Call], verdicts: Sequence[Verdict]) -> int:
    """Print the table and what it comes to; return the exit status."""
    print(f"{'model':<9}{'difference':>11}  {'equal':<6}{'fields':>6}  call")
    for call, one in zip(calls, verdicts, strict=True):
        below = f" ‖ {call.body.splitlines()[0][:28]}…" if call.body and call.line != "python" else ""
        what = "skipped" if one.skipped else "error" if one.error else f"{one.largest:.1e}"
        mark = "" if call.origin == "ways" else " [README]"
        print(f"{call.model:<9}{what:>11}  {'yes' if one.equal else 'NO':<6}{one.fields:>6}  {call.line}{below}{mark}")
        for line in one.wrong:
            print(f"{'':>34}{'differs':<8} {line}")
        if one.largest > LIMIT:
            print(f"{'':>34}{'differs':<8} {one.where}")
        if one.error:
            print(f"{'':>34}{'says':<8} {one.error[:150]}")
    _print_noted(calls, verdicts)
    compared = [one for one in verdicts if not one.error]
    failed = sum(one.failed for one in verdicts)
    print(
        f"\n{len(calls)} calls: {sum(one.equal for one in compared)} of {len(compared)} with a result are equal to the "
        f"last bit, {sum(bool(one.error) and not one.skipped for one in verdicts)} refused or failed on both or one "
        f"side, {sum(bool(one.skipped) for one in verdicts)} skipped: the old side does not know them"
    )
    worst = max(range(len(calls)), key=lambda n: verdicts[n].largest, default=None)
    if worst is not None:
        call, one = calls[worst], verdicts[worst]
        at = f": {one.where} of {call.line} on {call.model}" if one.largest else ""
        print(f"largest difference {one.largest:.2e}{at}")
    print(f"{failed} calls differ by more than {LIMIT:.0e}, in a text or in a shape" if failed else "no call differs")
    return int(failed > 0)


def _print_noted(calls: Sequence[Call], verdicts: Sequence[Verdict]) -> None:
    """Print what is not judged, each thing once with how often it came."""
    said: Counter[str] = Counter()
    example: dict[str, str] = {}
    for call, one in zip(calls, verdicts, strict=True):
        for line in one.noted:
            key = line if line.endswith(" alone") else line.partition(":")[0]
            said[key] += 1
            example.setdefault(key, f"{call.line} on {call.model}: {line}")
    if said:
        print("\nnot judged (words about results, how they were made, fields of one side):")
    for key, count in said.most_common():
        print(f"  {count:5} × {key}   e.g. {example[key][:230]}")


def main() -> int:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("old", help="a source tree or a git revision")
    arguments.add_argument("new", help="another")
    arguments.add_argument("--quick", action="store_true", help="leave out SmolLM2")
    arguments.add_argument("--alias", action="append", default=[], metavar="OLD=NEW", help="a field has a new name")
    arguments.add_argument("--only", default="", metavar="PATTERN", help="only calls whose 'model: line' has it")
    cores = min(2, os.cpu_count() or 1)
    arguments.add_argument("--jobs", type=int, choices=(1, 2), default=cores, help="2: both sides at the same time")
    arguments.add_argument("--slow", type=float, default=5.0, help="say which calls take more CPU seconds than this")
    options = arguments.parse_args()
    aliases = dict(alias.split("=", 1) for alias in options.alias)
    started = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="interp-compare-") as name,
        tree(options.old) as old,
        tree(options.new) as new,
    ):
        place = Path(name)
        calls = quick(new, FAMILIES) + ([] if options.quick else large(new, "smollm2"))
        calls = [call for call in calls if re.search(options.only, f"{call.model}: {call.line}")]
        models = models_of(place, any(call.model == "smollm2" for call in calls))
        job = place / "job.json"
        job.write_text(json.dumps({"calls": [asdict(c) for c in calls], "models": models, "slow": options.slow}))
        print(f"old: {named(old)}\nnew: {named(new)}", flush=True)
        running: list[subprocess.Popen[bytes]] = []
        try:
            for side, folder in (("old", old), ("new", new)):
                running.append(recorded(job, folder, place / side))
                if options.jobs == 1:
                    running[-1].wait()
            for process, side in zip(running, ("old", "new"), strict=True):
                if process.wait() != 0:
                    raise SystemExit(f"the {side} side stopped with status {process.returncode}")
        finally:
            for process in running:
                process.kill()
        sides = [
            [read(place / side / f"{n:05}", aliases if side == "old" else {}) for n in range(len(calls))]
            for side in ("old", "new")
        ]
        verdicts = [verdict(call, *both) for call, *both in zip(calls, *sides, strict=True)]
    status = report(calls, verdicts)
    took = [sum(said["seconds"] for said, _ in side) for side in sides]
    print(f"{time.monotonic() - started:.0f} s; CPU seconds in calls: {took[0]:.0f} (old), {took[1]:.0f} (new)")
    return status


if __name__ == "__main__":
    sys.exit(main())
