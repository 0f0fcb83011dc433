"""Models larger than memory: a sweep with ``--max-memory`` beside the same model in memory, and beside disk offload.

Printed, for SmolLM2 in float32 with at most 200 MB of its weights in memory:

1. the largest difference of any number of a command from the model in memory's;
2. what a sweep reads, by the count kept at the reads and by the kernel's own count with the file out of its cache, over
   the size of the file; a later sweep, after the first has been compared with the hooked forward;
3. of the weights, how many bytes were this process's own memory at any time, and how much of the file was mapped;
4. a head sweep beside a hooked one over accelerate's disk offload of the same folder, of which a few cells are run:
   the ratio of their times.

With ``--gigabytes N`` besides: a head sweep on a random model of that size in a container (a memory control group of
the kernel's) of half of it, and what it reads. The exit status counts the bars that are missed.

``python benchmarks/larger.py [--gigabytes 6]``
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import fetch_smollm2
import numpy as np
import torch
import transformers

import interp
from interp.engine.memory import readable
from interp.engine.model import mapped
from interp.spec import Pair, Prompt

LIMIT = "200MB"
CELLS = 4  # of the hooked sweep
READ_BAR, RATIO_BAR, DIFFERENCE_BAR = 1.05, 30, 1e-6
SITES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "z", "q", "k", "v", "pattern", "neuron")
STORY = "When Mary and John went to the store, John gave a drink to"
COMMANDS: dict[str, Callable[[], Any]] = {
    **{f"patch {site}": (lambda site=site: interp.patch(task="ioi", n=1, site=site, by="layer")) for site in SITES},
    "patch by head": lambda: interp.patch(task="ioi", n=1, site="z", by="head"),
    "patch by position": lambda: interp.patch(task="ioi", n=1, site="resid_pre", by="position"),
    "lens": lambda: interp.lens(STORY),
    "dla": lambda: interp.dla(STORY, answer="Mary"),
    "attention": lambda: interp.attention(STORY),
    "predict": lambda: interp.predict(STORY),
    "ablate": lambda: interp.ablate(task="ioi", n=1, heads=["9.1", "20.0"], mode="zero"),
}


def main() -> int:
    """Measure; return how many bars are missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--gigabytes", type=float, default=0)
    parser.add_argument("--child", nargs=2, metavar=("FOLDER", "LIMIT"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.child:
        print(json.dumps(child(*asked.child)))
        return 0
    folder = fetch_smollm2.fetch()
    missed = [difference(folder) > DIFFERENCE_BAR]
    found = measured(folder, LIMIT)
    missed += [report(found, folder), offloaded(folder, found["seconds"]) < RATIO_BAR]
    if asked.gigabytes:
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as made, container(asked.gigabytes / 2) as join:
            large(Path(made), asked.gigabytes)
            print(f"a random model of {asked.gigabytes:g} GB in a container of {asked.gigabytes / 2:g} GB")
            missed.append(report(measured(Path(made), f"{asked.gigabytes / 4:g}GB", join), Path(made)))
    return sum(missed)


def difference(folder: Path) -> float:
    """Return the largest difference of a number from that of the model in memory."""
    worst = 0.0
    interp.load(str(folder), device="cpu", name="resident")
    expected = {name: numbers(ask()) for name, ask in COMMANDS.items()}
    interp.unload("resident")
    interp.load(str(folder), device="cpu", max_memory=LIMIT, name="streamed")
    for name, ask in COMMANDS.items():
        found = numbers(ask())
        off = max(float(np.nanmax(np.abs(a - b), initial=0.0)) for a, b in zip(found, expected[name], strict=True))
        worst = max(worst, off)
        print(f"  {name:20} differs by {off:.1g}")
    interp.unload("streamed")
    print(f"largest difference {worst:.1g} (bar {DIFFERENCE_BAR:g})")
    return worst


def numbers(result: Any) -> list[Any]:
    """Return the columns of a result that hold numbers."""
    return [column.to_numpy(float) for _, column in result.to_frame().select_dtypes("number").items()]


def measured(folder: Path, limit: str, join: str = "") -> dict[str, Any]:
    """Return what a process of its own measures, in a container where `join` is one."""
    words = [sys.executable, __file__, "--child", str(folder), limit]
    if join:  # the shell enters it, and becomes the process
        words = ["sh", "-c", f'echo $$ > "{join}/cgroup.procs" && exec "$@"', "sh", *words]
    out = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(out.strip().splitlines()[-1])


def child(folder: str, limit: str) -> dict[str, Any]:
    """Sweep twice over pairs of one length, and return what the second took."""
    model = interp.load(folder, device="cpu", max_memory=limit)
    drawn = np.random.default_rng(0).integers(10, model.geometry.d_vocab - 10, (4, 15))
    pairs = [
        Pair(Prompt(ids=tuple(a)), Prompt(ids=(*a[:10], *b[10:])), 14, 15) for a, b in drawn.reshape(2, 2, 15).tolist()
    ]
    interp.patch(pairs=[pairs[0]], site="z", by="head")
    weights = list(model.hf_model.parameters())
    forget(Path(folder))
    peak, stop = {"own": 0, "mapped": 0}, threading.Event()

    def watch() -> None:
        before = status("RssFile")
        while not stop.wait(0.02):
            peak["own"] = max(peak["own"], sum(map(own_bytes, weights)))
            peak["mapped"] = max(peak["mapped"], status("RssFile") - before)

    before = read_by_kernel()
    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    result = interp.patch(pairs=[pairs[1]], site="z", by="head")
    seconds = time.perf_counter() - started
    stop.set()
    watcher.join()
    return {
        "seconds": seconds,
        "cells": int(result.done.size),
        "path": result.provenance.path,
        "counted": result.provenance.weights_read,
        "kernel": read_by_kernel() - before,
        "peak": status("VmHWM"),
        **peak,
    }


def report(found: dict[str, Any], folder: Path) -> bool:
    """Print what was measured; return whether more was read than the bar allows."""
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    counted, kernel = found["counted"] / size, found["kernel"] / size
    print(
        f"a head sweep ({found['path']}, {found['cells']} cells) in {found['seconds']:.1f} s read {counted:.2f} of the "
        f"file's {readable(size)} by count, {kernel:.2f} by the kernel's (bar {READ_BAR}); of the weights at most "
        f"{readable(found['own'])} were memory of its own and {readable(found['mapped'])} pages of the file; "
        f"the process at most {readable(found['peak'])}"
    )
    return max(counted, kernel) > READ_BAR


def offloaded(folder: Path, seconds: float) -> float:
    """Return how much longer a hooked sweep over accelerate's disk offload takes than `seconds`, from a few cells."""
    from transformer_lens.model_bridge import TransformerBridge

    with tempfile.TemporaryDirectory() as offload:
        placed = {"model.embed_tokens": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu"}
        placed |= {
            f"model.layers.{n}": "disk"
            for n in range(transformers.AutoConfig.from_pretrained(folder).num_hidden_layers)
        }
        hf = transformers.AutoModelForCausalLM.from_pretrained(
            folder, device_map=placed, offload_folder=offload, dtype=torch.float32, attn_implementation="eager"
        )
        bridge: Any = TransformerBridge.boot_transformers(str(folder), hf_model=hf)
        drawn = torch.randint(10, 40_000, (2, 15), generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            _, cache = bridge.run_with_cache(
                drawn[:1], names_filter=lambda name: name.endswith(("hook_z", "o.hook_in"))
            )
            places = [(layer, head) for layer in (3, 20) for head in range(CELLS // 2)]
            started = time.perf_counter()
            for layer, head in places:
                kept = cache[f"blocks.{layer}.attn.hook_z"]

                def put(z: Any, hook: Any, head: int = head, kept: Any = kept) -> Any:  # noqa: ARG001
                    z[:, :, head] = kept[:, :, head]
                    return z

                bridge.run_with_hooks(drawn[1:], fwd_hooks=[(f"blocks.{layer}.attn.hook_z", put)])
            each = (time.perf_counter() - started) / len(places)
    cells = bridge.cfg.n_layers * bridge.cfg.n_heads
    print(
        f"hooks over accelerate's disk offload: {each:.2f} s a cell, {each * cells:.0f} s for {cells}: "
        f"{each * cells / seconds:.0f}× as long (bar {RATIO_BAR})"
    )
    return each * cells / seconds


def large(folder: Path, gigabytes: float) -> None:
    """Write a random model of Llama's kind, a layer at a time."""
    from safetensors.torch import save_file

    width, inner, vocabulary = 2048, 5632, 32_000
    config = transformers.LlamaConfig(
        hidden_size=width,
        intermediate_size=inner,
        num_attention_heads=16,
        num_key_value_heads=4,
        vocab_size=vocabulary,
        tie_word_embeddings=True,
        dtype="float32",
    )
    each = 4 * (2 * width * width + 2 * width * width // 4 + 3 * width * inner)
    config.num_hidden_layers = round((gigabytes * 1e9 - 4 * width * vocabulary) / each)
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    with torch.device("meta"):
        shapes = {
            k: v.shape for k, v in transformers.LlamaForCausalLM(config).state_dict().items() if k != "lm_head.weight"
        }
    torch.manual_seed(0)
    of: dict[str, str] = {}
    for n in range(-1, config.num_hidden_layers):
        own = {k: s for k, s in shapes.items() if (f"layers.{n}." in k if n >= 0 else ".layers." not in k)}
        tensors = {k: torch.ones(s) if len(s) == 1 else torch.randn(s) * 0.02 for k, s in own.items()}
        save_file(tensors, folder / f"model-{n + 1}.safetensors", {"format": "pt"})
        of |= dict.fromkeys(own, f"model-{n + 1}.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": of}))
    forget(folder)


def forget(folder: Path) -> None:
    """Have the kernel keep nothing of a folder's weights: pages count for whoever reads them next."""
    os.sync()
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def container(gigabytes: float) -> Iterator[str]:
    """Make a memory control group below this process's own (root's to do), and take it away again."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, kinds, name = line.split(":", 2)
        root, limit = (
            ("/sys/fs/cgroup", "memory.max") if number == "0" else ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        )
        folder = Path(root + name) / f"interp-{os.getpid()}"
        if "memory" in kinds.split(",") or (number == "0" and Path(root, "memory.max").exists()):
            folder.mkdir()
            try:
                (folder / limit).write_text(str(int(gigabytes * 1e9)))
                yield str(folder)
            finally:
                folder.rmdir()
            return
    raise SystemExit("no memory control group can be made here")


def own_bytes(tensor: Any) -> int:
    """Return how many bytes of a tensor's pages are memory of this process's own."""
    page = mapped.PAGE
    start, end = -(-tensor.data_ptr() // page) * page, (tensor.data_ptr() + tensor.nbytes) // page * page
    own = mapped.own_pages(start, end) if end > start else None
    return 0 if own is None else int(own.sum()) * page


def status(name: str) -> int:
    """Return a size that the kernel tells of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def read_by_kernel() -> int:
    """Return how many bytes have been read from disks for this process."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


if __name__ == "__main__":
    sys.exit(main())
