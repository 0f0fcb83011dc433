"""A small compiler: from a program over categorical variables to the weights of a transformer that computes it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from interp.errors import InputError
from interp.spec import Pair, Pairs, Prompt
from interp.truth.language import Head, Lookup, Program

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

ABLATIONS = ("corrupted", "mean", "zero")

GAIN = 6.0  # of a score of 1: e^6 against 1, so that the right position of twelve gets 0.97 and gradients live
UNEMBED = 8.0  # the logit of a value that is surely there
ASTRAY = 0.05  # the share of what a distractor writes that falls into the variables, as in superposition
JUNK = 24  # dims that only distractors write
IDLE = 24  # random neurons of each MLP


@dataclass(frozen=True)
class Compiled:
    """A program and the weights that compute it.

    Attributes
    ----------
    program
        The program.
    config
        Of the `TransformerBridgeConfig`.
    weights
        The native model's state.
    directions
        Variable → its values' directions in the residual stream, ``float64 [value, d_model]``.
    """

    program: Program
    config: Mapping[str, Any]
    weights: Mapping[str, Tensor] = field(repr=False)
    directions: Mapping[str, Tensor] = field(repr=False)

    def bridge(self) -> TransformerBridge:
        """Return the model, ready for `interp.load`; it has no tokenizer, prompts are ids.

        Examples
        --------
        >>> from interp.truth import build
        >>> build("induction").bridge().cfg.n_layers
        3
        """
        from transformer_lens.config import TransformerBridgeConfig
        from transformer_lens.model_bridge.sources.native import boot

        with torch.random.fork_rng(devices=[]):  # the weights that it draws are not kept, nor the numbers drawn
            bridge = boot(TransformerBridgeConfig(**self.config), model_name=self.program.name)
        bridge.load_state_dict(dict(self.weights))
        return bridge.eval()

    def pairs(self, n: int = 16, seed: int = 0) -> Pairs:
        """Return `n` pairs of prompts of one length, the same for a seed, with answers as token ids."""
        generator = random.Random(f"{self.program.name} {seed}")
        made: list[Pair] = []
        for _ in range(n):
            clean, corrupted, wrong = self.program.draw(generator)
            right = self.program.answer(clean)
            made.append(Pair(Prompt(ids=tuple(clean)), Prompt(ids=tuple(corrupted)), (right,), (wrong,)))
        return Pairs(tuple(made), task=self.program.name, metric="logit-diff")

    def truth(self, ablation: str = "corrupted") -> dict[tuple[str, str], bool | None]:
        """Return for each edge (writer, reader) whether ablating it alone changes the output, by construction.

        True: the reader reads a variable that the writer writes, and the ablation changes that variable. False: it
        reads none. ``None``, undefined: it does read one, which the ablation leaves as it is: a position is the same in
        the corrupted prompt, and in the mean over prompts. No variable has two writers, so there are no OR-gates,
        through which neither of two edges alone would change anything.

        Raises
        ------
        InputError
            An unknown ablation.

        Examples
        --------
        >>> from interp import truth
        >>> truth.build("induction").truth()["0.2", "2.1.k"]
        True
        """
        if ablation not in ABLATIONS:
            raise InputError(f"there is no ablation {ablation!r}; use {', '.join(ABLATIONS)}")
        program, writers, varying = self.program, self._writers(), {"token"}
        while True:
            more = {into for _, variable, into in program.reads() if into is not None and variable in varying}
            if more <= varying:
                break
            varying |= more
        found: dict[tuple[str, str], bool | None] = dict.fromkeys(edges(program.layers, program.heads), False)
        for reader, variable, _ in program.reads():
            edge = (writers[variable], reader)
            found[edge] = True if ablation == "zero" or variable in varying else found[edge] or None
        return found

    def carried_truth(self) -> dict[tuple[str, str], bool | None]:
        """Return the same of edges into values, MLPs and logits, where what heads attend to is held as it is.

        True: the reader reads a variable that the writer writes, and what it makes of it comes to the output by values
        and MLPs alone. ``None``: what it makes of it only says where other heads attend to.

        Examples
        --------
        >>> from interp import truth
        >>> truth.build("induction").carried_truth()["2.1", "logits"]
        True
        """
        program, writers = self.program, self._writers()
        plain = [
            (reader, variable, into) for reader, variable, into in program.reads() if reader[-2:] not in {".q", ".k"}
        ]
        carried: set[str | None] = {None}
        while more := {variable for _, variable, into in plain if into in carried} - carried:
            carried |= more
        every = edges(program.layers, program.heads)
        found: dict[tuple[str, str], bool | None] = {edge: False for edge in every if edge[1][-2:] not in {".q", ".k"}}
        for reader, variable, into in plain:
            edge = (writers[variable], reader)
            found[edge] = True if into in carried else found[edge] or None
        return found

    def _writers(self) -> dict[str, str]:
        """Return variable → what writes it."""
        found = {"token": "embed", "position": "embed"}
        for step in self.program.steps:
            found[step.writes] = step.name if isinstance(step, Head) else f"{step.layer}.mlp"
        return found


def edges(layers: int, heads: int) -> Iterator[tuple[str, str]]:
    """Yield every edge of a model whose blocks are sequential: what writes, and the input that reads it.

    Examples
    --------
    >>> len(list(edges(2, 1)))
    23
    """
    below = ["embed"]
    for layer in range(layers):
        for head in range(heads):
            for kind in "qkv":
                yield from ((writer, f"{layer}.{head}.{kind}") for writer in below)
        below += [f"{layer}.{head}" for head in range(heads)]
        yield from ((writer, f"{layer}.mlp") for writer in below)
        below.append(f"{layer}.mlp")
    yield from ((writer, "logits") for writer in below)


def compiled(program: Program, seed: int = 0) -> Compiled:
    """Return the weights of `program`: its steps where it says, and distractors everywhere else.

    Distractors read all of the residual stream with random weights, and write into dims that the program does not use,
    but for a share of `ASTRAY`. The basis of the residual stream is turned at random: no dim stands for a value.

    Raises
    ------
    ValueError
        A variable that is not read, not written, written twice, or read below where it is written.

    Examples
    --------
    >>> from interp.truth.programs import induction
    >>> compiled(induction()).config["n_layers"]
    3
    """
    _check(program)
    generator = torch.Generator().manual_seed(seed)
    sizes = program.sizes
    used = sum(sizes.values())
    width = used + JUNK
    basis = torch.linalg.qr(_normal(generator, width, width)).Q
    of = dict(zip(sizes, basis.split([*sizes.values(), JUNK]), strict=False))
    placed = {step.name if isinstance(step, Head) else f"{step.layer}.mlp": step for step in program.steps}
    own = [step for step in program.steps if isinstance(step, Head)]
    d_head = max(max(sum(sizes[m.key] for m in h.matches), sizes[h.writes]) for h in own)
    d_mlp = IDLE + max((len(step.bias) for step in program.steps if isinstance(step, Lookup)), default=0)

    def stray(count: int) -> Tensor:
        """Return what `count` dims of a distractor write, ``[d_model, count]``."""
        live = _normal(generator, count, used) * (ASTRAY / used**0.5)
        return (torch.cat([live, _normal(generator, count, JUNK) / JUNK**0.5], dim=1) @ basis).T

    def read(count: int) -> Tensor:
        return _normal(generator, count, width) / count**0.5

    state: dict[str, Tensor] = {
        "tok_embed.weight": of["token"],
        "pos.weight": of["position"],
        "head.weight": UNEMBED * of[program.output],
        "head.bias": torch.zeros(len(program.vocabulary)),
    }
    for layer in range(program.layers):
        parts: dict[str, list[Tensor]] = {name: [] for name in ("q", "k", "v", "o", "asked")}
        for head in range(program.heads):
            step = placed.get(f"{layer}.{head}")
            if isinstance(step, Head):
                made = _head(step, of, d_head)
            else:
                made = {"q": 4 * d_head**0.5 * read(d_head), "k": read(d_head), "v": read(d_head)}
                made |= {"o": 0.5 * stray(d_head), "asked": torch.zeros(d_head)}
            for name, tensor in made.items():
                parts[name].append(tensor)
        place = f"layers.{layer}.attn"
        state |= {f"{place}.{name}.weight": torch.cat(parts[name], dim=int(name == "o")) for name in "qkvo"}
        state |= {f"{place}.{name}.bias": torch.zeros(program.heads * d_head) for name in "kv"}
        state |= {f"{place}.q.bias": torch.cat(parts["asked"]), f"{place}.o.bias": torch.zeros(width)}
        into, out, bias = 2 * read(d_mlp), 0.5 * stray(d_mlp), 0.1 * _normal(generator, d_mlp)
        step = placed.get(f"{layer}.mlp")
        if isinstance(step, Lookup):
            count = len(step.bias)
            into[:count], bias[:count] = step.on.double() @ torch.cat([of[name] for name in step.reads]), step.bias
            out[:, :count] = (step.out.double() @ of[step.writes]).T
        place = f"layers.{layer}.mlp"
        state |= {f"{place}.in.weight": into, f"{place}.in.bias": bias}
        state |= {f"{place}.out.weight": out, f"{place}.out.bias": torch.zeros(width)}
    config = {
        "n_layers": program.layers,
        "n_heads": program.heads,
        "d_model": width,
        "d_head": d_head,
        "d_mlp": d_mlp,
        "d_vocab": len(program.vocabulary),
        "n_ctx": program.length,
        "act_fn": "relu",
        "normalization_type": None,
        "positional_embedding_type": "standard",
        "default_prepend_bos": False,
        "init_weights": False,
    }
    return Compiled(program, config, {name: tensor.float().contiguous() for name, tensor in state.items()}, of)


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _head(step: Head, of: Mapping[str, Tensor], d_head: int) -> dict[str, Tensor]:
    """Return one head's weights: a block of its dims for the key values of each term, in order."""
    width = next(iter(of.values())).shape[1]
    made = {name: torch.zeros(d_head, width, dtype=torch.float64) for name in "qkv"}
    asked, first = torch.zeros(d_head, dtype=torch.float64), 0
    strength = GAIN * d_head**0.5  # attention divides by the root of d_head
    for match in step.matches:
        dims = slice(first, first := first + len(of[match.key]))
        table = strength * match.table.double()
        made["k"][dims] = of[match.key]
        if match.query is None:
            asked[dims] = table[0]
        else:
            made["q"][dims] = table.T @ of[match.query]
    written = of[step.writes]
    made["v"][: len(written)] = step.table.double().T @ of[step.value]
    out = torch.zeros(width, d_head, dtype=torch.float64)
    out[:, : len(written)] = written.T
    return made | {"o": out, "asked": asked}


def _check(program: Program) -> None:
    written = {"token": -1, "position": -1}
    for step in program.steps:
        if step.writes in written:
            raise ValueError(f"{program.name}: {step.writes} is written twice")
        written[step.writes] = 2 * int(step.name.split(".")[0]) if isinstance(step, Head) else 2 * step.layer + 1
    for reader, variable, _ in program.reads():
        parts = reader.split(".")
        place = 2 * program.layers if reader == "logits" else 2 * int(parts[0]) + int(parts[1] == "mlp")
        if written.get(variable, place) >= place:
            raise ValueError(f"{program.name}: {reader} reads {variable}, which is not written below it")
    unread = set(written) - {variable for _, variable, _ in program.reads()} - {"token", "position"}
    if unread:
        raise ValueError(f"{program.name}: nothing reads {min(unread)}")
