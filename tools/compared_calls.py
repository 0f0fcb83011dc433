"""The calls that `compare_commits` makes: every line of the README's table, and each command by its different ways.

Plain data, as a user types it: a line behind ``%interp`` and, where there is one, the cell below it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

TEXT = "When Mary and John went to the store, John gave a drink to"
PAIR = f"clean: {TEXT.replace('John gave', 'Mary gave')}\ncorrupted: {TEXT}\nanswer: John\nwrong: Mary"
_SWAPPED = "clean: Mary and John {0}\ncorrupted: John and Mary {0}\nanswer: Mary\nwrong: John"
# Two pairs with nothing shared in front: of two lengths, and of one.
TWO = f"{_SWAPPED.format('went to the store, John gave a drink to')}\n\n{_SWAPPED.format('sat, John gave it to')}"
EVEN = f"{_SWAPPED.format('went to the store, John gave a drink to')}\n\n{PAIR.replace('When ', '')}"
MASKED = "Mary gave the [MASK] to John"
MASKED_PAIR = "clean: Mary gave the [MASK] to John\ncorrupted: John gave the [MASK] to Mary\nanswer: John\nwrong: Mary"
COUNTRIES = (("France", "Paris"), ("Italy", "Rome"), ("Japan", "Tokyo"), ("Spain", "Madrid"), ("Cuba", "Havana"))
MOODS = (("great", "good"), ("lovely", "good"), ("bad", "sad"), ("awful", "sad"))
FILES = {
    "texts.txt": "\n\n".join(f"The capital of {country} is {city}." for country, city in COUNTRIES),
    "reviews.csv": "\n".join(
        ["text,mood", *(f"The {noun} was {word},{mood}" for noun in ("film", "book", "song") for word, mood in MOODS)]
    ),
    "love.txt": "I love you\n\nYou are wonderful",
}
SITES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "z", "q", "k", "v", "pattern", "neuron")
DIVISIONS = ("layer", "head", "position", "head-position", "neuron")
HEADED = ("z", "q", "k", "v", "pattern")
METRICS = ("logit", "logprob", "prob", "rank", "kl", "own")  # "own" is a function of the notebook's
# The session's own commands say what there is (memory, names, help): their differences are listed, not judged.
SESSION = ("load", "models", "use", "unload", "status", "clear", "help", "connect", "workers", "disconnect")
# Families whose networks are known, and those whose attention and MLP run side by side.
KNOWN = ("gpt2", "llama", "neox")
PARALLEL = ("neox", "cohere")
_PAIRED = ("patch", "path")  # what the README types with pairs below it


@dataclass(frozen=True)
class Call:
    """One call: on which model, the line, and the cell below it; `origin` is ``README`` or ``ways``."""

    model: str
    line: str
    body: str | None = None
    origin: str = "ways"

    @property
    def command(self) -> str:
        return self.line.split()[0]


def readme(tree: Path) -> list[str]:
    """Return what the rows of a tree's README type, with something in the place of what stands for a name."""
    text = (tree / "README.md").read_text("utf-8")
    rows = [row.replace("\\|", "|") for row in re.findall(r"^\| (`%.*?) \| ", text, re.MULTILINE)]
    found = [command for row in rows for command in re.findall(r"`(%%?interp [^`]*)`", row)]
    given = {
        "use NAME": "use {model}",
        " [NAME]": "",
        "[COMMAND]": "patch",
        "FILE": "texts.txt",
        "…": TEXT.replace("John gave", "Mary gave"),
    }
    for name, value in given.items():
        found = [command.replace(name, value) for command in found]
    return found


def python_lines(tree: Path) -> str:
    """Return the README's Python block, less the line that needs a tracker."""
    (block,) = re.findall(r"```python\n(.*?)```", (tree / "README.md").read_text("utf-8"), re.DOTALL)
    return "\n".join(line for line in block.split("\n") if "tracker" not in line)


# On a model of 30 layers: the same ways, fewer pairs, nodes or steps.
_SMALLER = {
    "patch --task": " --n 4",
    "ablate --heads 1.0": " --n 4",
    "circuit --task": " --n 2",
    "validate c": " --n 2 --random 2 --top 3",
    "mediate": " --n 2 --layer 10-12",
    "heads --task": " --n 4",
    "heads --relation": " --n 6",
    "lens-train": " --layer 3,20 --steps 10",
    "task --task": " --n 4",
    "saliency": " --steps 10",
    "steer": " --n 5",
    "heads": " --n 3",
    "probe": " --folds 3 --shuffles 1",
    "compose": " --kind k",
}


def readme_calls(tree: Path, model: str, large: bool) -> Iterator[Call]:
    """Give the README's rows on one model; what it types at full size is made smaller for a large one."""
    for typed in readme(tree):
        marks, _, line = typed.partition(" ")
        line = line.replace("{model}", model)
        if large:
            if line.split()[0] in (*SESSION, "selfcheck"):
                continue  # once is enough: these need no model, or a fast one
            # --task, --n and --steps as the README has them give way.
            begins = next((b for b in _SMALLER if line.startswith(b)), None)
            if begins is not None:
                extra = _SMALLER[begins]
                for flag in re.findall(r" --[a-z]+", extra):
                    line = re.sub(rf"{flag} \S+", "", line)
                line += extra
            line = line.replace(" --n 40", " --n 8").replace(" --sweep 0,2,4,8", " --sweep 0,4")
        elif line == "unload":
            continue  # the model is needed below; the session's commands are tried by their own tests
        line = line.replace("selfcheck", "selfcheck --program induction --n 4")  # all of it: with the large model
        body = None if marks == "%interp" else PAIR if line.split()[0] in _PAIRED else TEXT
        yield Call(model, line, body, "README")


def patch_calls(
    model: str, layers: str = "", sites: Sequence[str] = SITES, few: bool = False, body: str = PAIR
) -> Iterator[Call]:
    """Give patching of every site, by every division, both ways, exact and estimated; `few` leaves ways out."""
    for site in sites:
        for by in DIVISIONS:
            if (by in ("head", "head-position") and site not in HEADED) or (by == "neuron" and site != "neuron"):
                continue
            chosen = f"patch --site {site} --by {by}{layers}"
            several = body if body is MASKED_PAIR else EVEN if "position" in by else TWO
            yield Call(model, f"{chosen} --direction noise", body)
            yield Call(model, chosen, several)
            yield Call(model, f"{chosen} --method attribution --steps 3 --direction noise", several)
            if not few:
                yield Call(model, chosen, body)
                yield Call(model, f"{chosen} --method attribution --verify 2", body)
    for metric in METRICS:
        yield Call(model, f"patch{layers} --metric {metric}", body)
        if metric not in ("rank", "own") and not few:
            yield Call(model, f"patch{layers} --metric {metric} --method attribution --verify 2", body)


def path_calls(model: str, senders: str, receivers: str) -> Iterator[Call]:
    """Give path patching with everything, heads or nothing kept between sender and receiver."""
    for freeze in ("all", "heads", "none"):
        for direction in ("denoise", "noise"):
            yield Call(model, f"path --from {senders} --to {receivers} --freeze {freeze} --direction {direction}", PAIR)
        yield Call(model, f"path --from {senders} --to logits --freeze {freeze}", TWO)
    yield Call(model, f"path --from {senders} --to {receivers} --metric kl", PAIR)


def ablate_calls(model: str) -> Iterator[Call]:
    """Give ablation by every mode, of heads, MLPs and a direction, and edges of attention knocked out."""
    for mode in ("zero", "mean", "resample", "noise"):
        yield Call(model, f"ablate --heads 0.1,1.0 --mlps 1 --mode {mode} --seed 3", TWO)
        yield Call(model, f"ablate --heads 0.1,1.0 --mlps 0 --mode {mode} --text texts.txt")
        yield Call(model, f"ablate --direction axis --layer 1 --mode {mode}", TWO)
    yield Call(model, "ablate --heads 1.0 --knockout 1.1:5->2,0.0:*->1", PAIR)
    yield Call(model, "ablate --knockout 1.1:5->2", TWO)
    yield Call(model, "ablate --knockout 0.0:*->1 --text texts.txt")
    yield Call(model, "ablate --direction axis --layer 0-1 --site resid_mid --text texts.txt")
    for metric in METRICS:
        yield Call(model, f"ablate --heads 0.0,1.1 --metric {metric}", PAIR)


def circuit_calls(model: str, exact: bool = True, steps: int = 5) -> Iterator[Call]:
    """Give circuits by every method and ablation, each with a small card; `exact` also those that try every edge."""
    flags = {"eap-ig": f"--edges 30 --steps {steps}", "eap": "--edges 30"}
    if exact:
        flags |= {"exact": "--edges 30", "acdc": "--threshold 0.02 --among 40"}
    for method, size in flags.items():
        for ablation in ("corrupted", "mean", "zero"):
            yield Call(model, f"circuit --method {method} --ablation {ablation} {size} -o c", PAIR)
            yield Call(model, "validate c --random 3 --top 4")
    yield Call(model, f"circuit --level head --edges 30 --steps {steps}", PAIR)
    yield Call(model, "circuit --steps 3 --positions --threshold 0.01", PAIR)
    yield Call(model, f"circuit --metric kl --edges 20 --steps {steps}", PAIR)
    if exact:
        yield Call(model, "circuit --level head --method exact --edges 30", PAIR)


def reading_calls(model: str, large: bool = False, rotary: bool = True) -> Iterator[Call]:
    """Give what reads a model: patterns, lenses, attribution, weights, neurons, saliency, and what writes text."""
    for line in (
        "tokens",
        "predict --top 3",
        "attention",
        "attention --layer 0-1 --head 0,2",
        *(f"lens --at {at}" for at in ("pre", "mid", "post")),
        "lens --layer 0,1 --position 2-4 --top 3 --target ' Mary'",
        "dla",
        "dla --answer ' Mary' --wrong ' John' --top 4",
        "dla --answer ' Mary' --position 5",
        "saliency --steps 8",
        "saliency --baseline zero --steps 8 --metric prob",
        "saliency --method gradient-input --answer ' Mary' --wrong ' John'",
        "saliency --method gradient-input --metric logprob",
        "saliency --method rollout",
        "generate --n 6",
        "generate --n 6 --temperature 0.7 --seed 3",
        *(f"generate --n 6 --interventions off --at {at}" for at in ("all", "prompt", "new")),
        *(
            f"steer --layer 1 --toward love.txt --against texts.txt --sweep 0,3 --n 4 --site {site} --answer ' Mary'"
            for site in ("resid_pre", "resid_mid", "resid_post")
        ),
        *(f"steer --layer 1 --direction axis --strength 2 --n 4 --at {at}" for at in ("prompt", "new")),
        "steer --direction axis --n 4 --temperature 0.9 --seed 2 --metric kl",
    ):
        yield Call(model, line, TEXT)
    for line in (
        "ov 1.1 --top 4",
        "ov 0.0 --svd 2",
        "qk 1.1 --top 4" + " --offset 2" * rotary,
        "qk 0.0 --svd 2 --tokens ' Mary, John'",
        *(f"compose --kind {kind}" for kind in "qkv"),
        "neurons 1.5,0.3 --text texts.txt --top 3 --context 2",
        "neurons 1.5,0.3 --text texts.txt --top 3 --lowest",
        "heads --n 2 --seed 4",
        *(
            f"probe --text reviews.csv --label mood --folds 3 --shuffles 1 --position {where} --site {site}"
            for where, site in (("last", "resid_post"), ("mean", "mlp_out"), ("last", "attn_out"))
        ),
        "ablate --direction r --text texts.txt",
        "lens-train --text texts.txt --out trained.safetensors --steps 10 --layer 0-1",
    ):
        found = line + (" -o r" if line.startswith("probe") else "")
        if not (large and found.startswith("compose")):
            yield Call(model, found)
    yield Call(model, "lens --kind tuned --from trained.safetensors --at pre --layer 0-1", TEXT)
    if not large:
        yield Call(model, "neurons 1.* --text texts.txt --cluster tsne --points 40 --seed 1")
        yield Call(model, "neurons 1.*,0.* --text texts.txt --cluster tsne --of tokens --points 30")


def mediate_calls(model: str, flags: str = "", sites: Sequence[str] = SITES) -> Iterator[Call]:
    """Give mediation by every site."""
    for site in sites:
        if site != "neuron":
            yield Call(model, f"mediate --site {site} --correction none{flags}", TWO)
    if not flags:
        yield Call(model, "mediate --site neuron --layer 1", PAIR)
    yield Call(model, f"mediate --correction fdr_bh --metric kl{flags}", TWO)


def task_calls(model: str, tasks: Sequence[str]) -> Iterator[Call]:
    """Give several pairs of each task."""
    for task in tasks:
        yield Call(model, f"task --task {task} --n 6 --seed 2")
        yield Call(model, f"patch --task {task} --n 5 --seed 2")
        yield Call(model, f"mediate --task {task} --n 5 --layer 1")
        yield Call(model, f"ablate --heads 0.1,1.0 --mode mean --task {task} --n 5")


def masked_calls(model: str) -> Iterator[Call]:
    """Give what can be asked of a model that reads in both directions."""
    yield from patch_calls(model, few=True, body=MASKED_PAIR)
    lines = "tokens", "predict", "attention", "lens", "dla", "saliency --steps 8", "saliency --method rollout"
    for line in (*lines, "saliency --method gradient-input"):
        yield Call(model, line, MASKED)
    yield Call(model, "ablate --heads 0.1,1.0 --mlps 1 --mode mean", MASKED_PAIR)
    yield Call(model, "mediate --correction none", MASKED_PAIR)
    yield Call(model, "probe --text reviews.csv --label mood --folds 3 --shuffles 1")
    yield Call(model, "neurons 1.5,0.3 --text texts.txt --top 3")
    yield Call(model, "circuit --edges 20", MASKED_PAIR)  # refused


def family_calls(family: str) -> Iterator[Call]:
    """Give the calls on a small random model."""
    sites = tuple(site for site in SITES if site != "resid_mid" or family not in PARALLEL)
    known = family in KNOWN
    if family == "bert":
        yield from masked_calls(family)
        return
    yield from patch_calls(family, sites=sites, few=not known)
    yield from path_calls(family, "all", "all")
    yield from ablate_calls(family)
    yield from mediate_calls(family, sites=sites if known else sites[-5:])
    if known:
        yield from circuit_calls(family)
        yield from reading_calls(family, rotary=family != "gpt2")
        return
    weights = ("ov", "qk", "compose", "neurons 1.*")
    # One of each that is refused is enough.
    yield from (call for call in reading_calls(family) if not call.line.startswith(weights))
    yield from (Call(family, line) for line in ("ov 1.1", "compose"))
    yield Call(family, "circuit --edges 30", PAIR)


def quick(tree: Path, families: Sequence[str]) -> list[Call]:
    """Return the calls on the bundled model and on small random ones of several families."""
    made = list(readme_calls(tree, "bundled", large=False))
    made.append(Call("bundled", "python", python_lines(tree), "README"))
    made += patch_calls("bundled")
    made += path_calls("bundled", "all", "all")
    made += ablate_calls("bundled")
    made += circuit_calls("bundled", exact=False)
    made += reading_calls("bundled", rotary=False)
    made += mediate_calls("bundled")
    made += task_calls("bundled", ("ioi", "induction", "facts", "greater-than", "gender-bias"))
    made += [
        Call("bundled", "circuit --method exact --edges 30", PAIR),
        Call("bundled", "circuit --method acdc --threshold 0.02 --among 40", PAIR),
        Call("bundled", "circuit --task ioi --n 6 --edges 40 -o c"),
        Call("bundled", "validate c --on same --random 4 --top 5"),
        Call("bundled", "validate c --n 6 --seed 9 --random 4 --top 5 --metric prob"),
        Call("bundled", "heads --relation modifier --n 6"),
        *(Call("bundled", f"selfcheck --program reverse --ablation {kind} --n 4") for kind in ("corrupted", "zero")),
    ]
    for family in families:
        made += family_calls(family)
    return made


def large(tree: Path, model: str) -> list[Call]:
    """Return the calls on a real model of 30 layers."""
    made = list(readme_calls(tree, model, large=True))
    # A layer's neurons are as many forwards: once.
    made += (call for call in patch_calls(model, " --layer 2,17") if "neuron --by neuron" not in call.line)
    made.append(Call(model, "patch --site neuron --by neuron --layer 17", PAIR))
    made.append(Call(model, "patch --site neuron --by neuron --layer 2,17 --method attribution", PAIR))
    made += path_calls(model, "3.1,3.mlp,embed", "20.4.q,20.1.k,21.mlp")
    made += ablate_calls(model)
    made += circuit_calls(model, exact=False, steps=2)
    made += reading_calls(model, large=True)
    made += mediate_calls(model, " --layer 4,18")
    made += task_calls(model, ("facts",))
    made.append(Call("bundled", "selfcheck", origin="README"))
    return made
