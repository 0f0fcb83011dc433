"""The families that run without hooks: a head sweep of each, against transformer-lens' own, which hooks.

Of each family a random model of six layers; of an encoder the prediction at the one mask, which stands before what
differs. Then Gemma 3 270M on a pair of indirect object identification. The two are
interleaved in one process, at one thread, in CPU seconds; the figure is the smallest of the rounds. A sweep comes after
one on another pair, so that the first call's comparison with the hooked forward is apart. Printed besides: the largest
difference between the two answers, by the size of the largest, and how interp says that it ran.

With ``--half`` each is measured in bfloat16 too, where the ratio is to be at least 0.7 of that in float32.

``python benchmarks/reach.py [--only gemma2,olmo2,…] [--rounds N] [--half]``; ``gemma-3-270m`` is one of the names.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import fetch_gemma3
import numpy as np
import torch
from patching import SWEEPS, by_peer, cpu_seconds, pairs_of

import interp
import zoo
from interp.engine.transformer import network
from interp.errors import InputError
from interp.interface.session import session
from interp.spec import Pair, Prompt

REAL = "gemma-3-270m"
BAR, REAL_BAR, HALF_BAR = 8, 15, 0.7
WIDTH, HEADS, LAYERS, VOCABULARY = 256, 8, 6, 4000
MASKED = 4  # where an encoder's mask stands
# A setting of the zoo's small models → what it is here, where a family has it.
SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "word_embed_proj_dim", "dim"), WIDTH),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "hidden_dim"), 3 * WIDTH),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), WIDTH),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), LAYERS),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), HEADS),
    "num_key_value_heads": HEADS // 2,
    "head_dim": WIDTH // HEADS,
    "query_pre_attn_scalar": WIDTH // HEADS,
    "rotary_dim": WIDTH // HEADS // 2,
    "attention_types": [[["global", "local"], LAYERS // 2]],
    "vocab_size": VOCABULARY,
}


def families() -> list[str]:
    """Return the families of the zoo whose blocks are known, one of each architecture."""
    heads = ("CausalLM", "MaskedLM")
    named = {kind: name for name, (kind, made, _) in reversed(zoo._MADE.items()) if made.endswith(heads)}
    named["gpt2"] = "gpt2"
    return [named[kind] for kind in sorted(named) if kind in network.FAMILIES]


def made(family: str) -> Any:
    """Return a random model of a family, of the benchmark's size."""
    asked = {key: SIZES[key] for key in zoo.settings(family) if key in SIZES}
    model = zoo.drawn(family, **asked)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:  # the zoo's are for a width of 32
                parameter *= (32 / WIDTH) ** 0.5
    return model


def masked(pair: Pair, words: Any) -> Pair:
    """Return a pair with a mask in both of its prompts."""
    both = ([*prompt.ids] for prompt in (pair.clean, pair.corrupted))
    ids = [(*one[:MASKED], words.mask_token_id, *one[MASKED + 1 :]) for one in both]
    return Pair(Prompt(ids=ids[0]), Prompt(ids=ids[1]), pair.answer, pair.wrong)


def measure(name: str, model: Any, pair: Pair, warm: Pair, bar: float, rounds: int) -> float:
    """Print a line of the table; return the ratio."""
    peer, at = SWEEPS["head z"][2], -1 if model.geometry.causal else MASKED

    def ours(one: Pair) -> Any:
        model.store.clear()
        return interp.patch(pairs=[one])

    ours(warm)
    lean: list[float] = []
    hooked: list[float] = []
    for _ in range(rounds):
        seconds, found = cpu_seconds(lambda: ours(pair))
        lean.append(seconds)
        seconds, expected = cpu_seconds(lambda: by_peer(model, [pair], peer, at))
        hooked.append(seconds)
    ratio = min(hooked) / min(lean)
    off = np.abs(found.patched - expected).max() / max(1.0, np.abs(expected).max())
    print(
        f"  {name:<20} {ratio:6.1f}  {'' if ratio >= bar else f'below {bar:.1f}':<10} {off:.1e}   "
        f"CPU s: hooked {min(hooked):6.2f}, lean {min(lean):5.2f}   {found.provenance.path}",
        flush=True,
    )
    return ratio


def random_ones(names: list[str], rounds: int, half: bool) -> None:
    """Measure families by random models."""
    print(f"\n{LAYERS} layers × {HEADS} heads, width {WIDTH}, 15 tokens, prefix of 10, one pair (bar {BAR})")
    warm, pair = (pairs_of(VOCABULARY, 15, 10, 1, seed)[0] for seed in (2, 1))
    for name in names:
        try:
            words = zoo.tokenizer(name) if name in zoo.ENCODERS else None  # it says which token is the mask
            model = interp.load(made(name), tokenizer=words, name=name, device="cpu")
        except InputError as error:
            print(f"  {name:<14} not loaded: {error}")
            continue
        asked = (pair, warm) if words is None else (masked(pair, words), masked(warm, words))
        ratio = measure(name, model, *asked, BAR, rounds)
        if half:
            session.models.clear()
            model = interp.load(made(name).bfloat16(), tokenizer=words, name=name, device="cpu")
            share = measure(f"{name}, half", model, *asked, HALF_BAR * ratio, rounds) / ratio
            print(f"  {'':<20} {share:.2f} of that in float32 (bar {HALF_BAR})")
        session.models.clear()


def real_one(rounds: int) -> None:
    """Measure Gemma 3 270M."""
    model = interp.load(fetch_gemma3.fetch(), name=REAL, device="cpu")
    print(f"\n{REAL}, indirect object identification, one pair (bar {REAL_BAR})")

    def pair(one: str, other: str) -> Pair:
        start = f"When {one} and {other} went to the store,"
        ids = [model.encode(Prompt(f"{start} {name} gave a drink to")).ids for name in (other, one)]
        names = [model.encode(Prompt(f"x {name}")).ids[-1:] for name in (one, other)]
        return Pair(Prompt(ids=ids[0]), Prompt(ids=ids[1]), names[0], names[1])

    measure(REAL, model, pair("Mary", "John"), pair("Tom", "Anna"), REAL_BAR, rounds)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--only", help="names with commas between them; all when not given")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--half", action="store_true")
    given = arguments.parse_args()
    chosen = [*families(), REAL] if given.only is None else given.only.split(",")
    torch.set_num_threads(1)
    print("hooked / lean, and the difference by the size of the largest answer")
    if random := [name for name in chosen if name != REAL]:
        random_ones(random, given.rounds, given.half)
    if REAL in chosen:
        real_one(given.rounds)


if __name__ == "__main__":
    main()
