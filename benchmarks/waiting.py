"""What a notebook sees of commands that take long on SmolLM2: when the first line comes, how often, and after a stop.

A kernel runs each command twice from an empty store, as a front end would ask for it. Once to the end, or for at most
LIMIT seconds: the time to the first message that shows something, and the longest time between two of them, the
result's included. Then interrupted in its midst: the time until the kernel is free again, and what is shown of what was
done. Printed beside the bars: 0.5 s (and 0.1 for the message to arrive), 2 s and 2 s; the exit status is 1 where one is
missed.

``python benchmarks/waiting.py [--limit SECONDS] [--only TEXT]``
"""

from __future__ import annotations

import argparse
import queue
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyter_client.manager import start_new_kernel

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import itertools

import fetch_smollm2
from trees import ROOT, environment

FIRST, BETWEEN, STOP = 0.6, 2.0, 2.0  # seconds
STORY = "When Mary and John went to the store, John gave a drink to"
LONG = " ".join([STORY + " Mary."] * 12)
CELLS = {
    "patch": "%interp patch --task ioi --n 8",
    "patch by position": "%interp patch --task ioi --n 4 --site resid_pre --by position",
    "patch attn_out": "%interp patch --task ioi --n 8 --site attn_out --by position",
    "patch attribution": "%interp patch --task ioi --n 16 --method attribution --verify 8",
    "path": "%interp path --task ioi --n 2 --from all --to logits",
    "mediate": "%interp mediate --task ioi --n 8",
    "ablate": "%interp ablate --heads 9.1,10.0,18.6 --mode mean --text texts.txt --n 150",
    "circuit eap-ig": "%interp circuit --task ioi --n 8",
    "circuit eap": "%interp circuit --task ioi --n 16 --method eap",
    "circuit exact": "%interp circuit --task ioi --n 2 --method exact",
    "circuit acdc": "%interp circuit --task ioi --n 2 --method acdc --among 300",
    "validate": "%interp validate c --n 8",
    "heads": "%interp heads",
    "heads roles": "%interp heads --task ioi --n 8",
    "neurons": "%interp neurons 3.*,9.* --text texts.txt --n 150",
    "saliency": f"%%interp saliency --answer Mary\n{LONG[:900]} {STORY}",
    "lens": f"%%interp lens\n{LONG}",
    "lens-train": "%interp lens-train --text texts.txt --n 150",
    "probe": "%interp probe --text labelled.csv --label label",
    "generate": f"%%interp generate --n 200\n{STORY}",
    "steer": f"%%interp steer --layer 10 --toward love --against hate --n 60\n{STORY}",
    "compose": "%interp compose",
}


@dataclass
class Seen:
    """What came back of one cell, and when, in seconds from its start."""

    at: list[float] = field(default_factory=list[float])
    shown: str = ""
    error: str = ""
    ended: float = 0.0


class Kernel:
    """A kernel as a front end has it."""

    def __init__(self, folder: str) -> None:
        self.manager, self.client = start_new_kernel(env=environment(ROOT), cwd=folder)

    def run(self, code: str, stop_after: float | None = None) -> Seen:
        """Run a cell; interrupt it after so many seconds, when it is not over by then."""
        seen, began, stopped = Seen(), time.monotonic(), False
        message = self.client.execute(code, store_history=False)
        while True:
            now = time.monotonic() - began
            if stop_after is not None and not stopped and now >= stop_after:
                self.manager.interrupt_kernel()
                stopped = True
            try:
                got: dict[str, Any] = self.client.get_iopub_msg(timeout=0.05)
            except queue.Empty:
                continue
            if got["parent_header"].get("msg_id") != message:
                continue
            kind, content, now = got["msg_type"], got["content"], time.monotonic() - began
            if kind == "status" and content["execution_state"] == "idle":
                seen.ended = now
                return seen
            if kind in {"display_data", "update_display_data", "execute_result", "stream", "comm_msg", "comm_open"}:
                seen.at.append(now)
                data = content.get("data", {})
                seen.shown = data.get("text/plain", seen.shown) if isinstance(data, dict) else seen.shown
            if kind == "error":
                seen.error = f"{content['ename']}: {content['evalue']}"

    def end(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=float, default=60, help="seconds after which a whole run is stopped")
    parser.add_argument("--only", default="", help="commands whose name has this in it")
    options = parser.parse_args()
    model = fetch_smollm2.fetch()
    missed = 0
    folder = tempfile.mkdtemp()
    names, things = ["Mary", "John", "Anna", "Peter", "Laura", "Tom"], ["drink", "ring", "kiss", "snack", "bone"]
    said = [
        f"Then {a} and {b} went to the store, and after a long day {a} gave a {c} to {b}, who was glad of it."
        for a in names
        for b in names
        for c in things
        if a != b
    ]
    Path(folder, "texts.txt").write_text("\n\n".join(said))
    rows_of = [f'"{text}",{things.index(text.split(" gave a ")[1].split()[0]) % 2}' for text in said]
    Path(folder, "labelled.csv").write_text("\n".join(["text,label", *rows_of]))
    kernel = Kernel(folder)
    loading = kernel.run(f"%load_ext interp\n%interp load {model} --name SmolLM2 --device cpu")
    rows = [("load", loading, None)]
    kernel.run("%interp circuit --task ioi --n 2 --edges 3000 -o c")
    print(f"{'command':20} {'took':>8} {'first':>8} {'longest gap':>12} {'after a stop':>13}  what is left of it")
    for name, code in CELLS.items():
        if options.only in name:
            kernel.run("%interp clear")
            whole = kernel.run(code, options.limit)
            stopped = None
            if whole.ended > 1.5:
                at = min(options.limit, whole.ended) / 2
                kernel.run("interp.model.store.clear()")
                stopped = (at, kernel.run(code, at))
            rows.append((name, whole, stopped))
        for called, whole, stopped in rows:
            missed += report(called, whole, stopped)
        rows = []
    kernel.end()
    print(f"{missed} missed" if missed else "all within the bars")
    return int(missed > 0)


def report(name: str, whole: Seen, stopped: tuple[float, Seen] | None) -> int:
    """Print a command's line and return how many bars it misses."""
    ends = [*whole.at, whole.ended]
    first = ends[0]
    gap = max((after - before for before, after in itertools.pairwise(ends)), default=0.0)
    answer, left = 0.0, ""
    if stopped is not None:
        answer, left = stopped[1].ended - stopped[0], f"{stopped[1].error or 'over before'} {stopped[1].shown}"[:110]
    late = [first > FIRST, gap > BETWEEN, answer > STOP]
    marks = ["!" if one else " " for one in late]
    print(
        f"{name:20} {whole.ended:6.1f} s {first:6.2f} s{marks[0]} {gap:9.2f} s{marks[1]} {answer:10.2f} s{marks[2]}"
        + f"  {left}"
        + (f"  [{whole.error[:150]}]" if whole.error else ""),
        flush=True,
    )
    return sum(late)


if __name__ == "__main__":
    raise SystemExit(main())
