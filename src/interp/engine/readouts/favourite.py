"""The input that drives a neuron or a feature most: tokens found by gradients, one exchanged at a time.

Greedy coordinate gradient (Zou et al. 2023, "Universal and Transferable Adversarial Attacks on Aligned Language
Models"; the gradient of a token's choice is HotFlip's, Ebrahimi et al. 2018): the gradient says which tokens could
raise the activation at each place, some of these exchanges are drawn and run, and the best is taken if it is better.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from interp.engine import exactness, memory
from interp.engine.exactness import Refusal
from interp.engine.features.dictionary import Dictionary
from interp.engine.features.places import Place, flat
from interp.engine.model import hooks
from interp.engine.readouts.ov_qk import embedding
from interp.engine.transformer import network
from interp.engine.transformer.forward import forward
from interp.engine.transformer.network import Network
from interp.sites import SITES

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint

    from interp.engine.model.loaded import LoadedModel

TRIED, AMONG = 64, 128  # exchanges that are run in a step; tokens of a place that they are drawn from


@dataclass(frozen=True)
class Aim:
    """What is driven.

    Attributes
    ----------
    name
        What it is called.
    place
        Where it is read.
    of
        From what is there at the last token, ``[n, width]``, to what is raised, ``[n]``: differentiable.
    activations
        From what is there, ``[position, width]``, to activations, ``[position]``.
    """

    name: str
    place: Place
    of: Callable[[Tensor], Tensor]
    activations: Callable[[Tensor], Tensor]

    @classmethod
    def neuron(cls, layer: int, number: int) -> Aim:
        """Return a neuron of an MLP: its activation."""

        def own(x: Tensor) -> Tensor:
            return x[:, number]

        return cls(f"{layer}.{number}", Place(layer, "neuron"), own, own)

    @classmethod
    def feature(cls, dictionary: Dictionary, number: int) -> Aim:
        """Return a feature: its pre-activation, which has a gradient where it is not active, too."""
        row, bias = dictionary.encoder[number], dictionary.bias[number]

        def pre(x: Tensor) -> Tensor:
            return dictionary.taken(x.to(row)) @ row + bias

        def activations(x: Tensor) -> Tensor:
            return dictionary.encode(x).column(number)

        return cls(f"{dictionary.layer}.{number}", dictionary.reads, pre, activations)


@dataclass(frozen=True)
class Found:
    """An input.

    Attributes
    ----------
    ids
        Its tokens, behind a BOS where the model takes one.
    values
        What was raised, at the last token, from the random start on.
    interrupt
        What stopped the search.
    """

    ids: tuple[int, ...]
    values: tuple[float, ...]
    interrupt: KeyboardInterrupt | None = None


def favourite(model: LoadedModel, aim: Aim, *, length: int, steps: int, seed: int) -> Found:
    """Return the input of `length` tokens that raises `aim` most, among those that were come by.

    An interrupt ends the search, and what was found so far is returned with it.

    Raises
    ------
    InputError
        The model cannot be run without hooks.
    """
    climb = _Climb(model, aim, length, seed)

    def lean(check: exactness.Check) -> Found:
        climb.begin()
        check()
        return climb.run(steps)

    done = exactness.run(
        model,
        ("favourite", aim.place),
        lean=lean,
        hooked=Refusal("inputs are optimised", "leave --optimise out: the texts' own strongest places are shown"),
        sample=climb.sample,
        path="gradients",
        length=length + 1,
    )
    model.note(done.path, done.notes)
    return done.answer


class _Climb:
    net: Network
    words: Tensor
    ids: Tensor

    def __init__(self, model: LoadedModel, aim: Aim, length: int, seed: int) -> None:
        self.model, self.aim, self.length = model, aim, length
        self.draw = torch.Generator().manual_seed(seed)
        tokenizer: Any = model.tokens.tokenizer
        self.special = sorted({n for n in getattr(tokenizer, "all_special_ids", ()) if n < model.geometry.d_vocab})
        bos = model.tokens.bos_id
        self.front = [] if bos is None or not model.tokens.default_bos else [bos]
        self.values: list[float] = []

    def begin(self) -> None:
        """Read the model, and start at random tokens."""
        if self.aim.place.point == "mlp_unit":
            raise exactness.Unreadable("the forward without hooks has no norm without its gain")
        site = _site(self.aim.place)
        if site in SITES:
            exactness.require_known(site)
        self.net = network.read(self.model)
        self.words = embedding(self.net)
        every = torch.ones(len(self.words))
        every[self.special] = 0
        self.ids = every.multinomial(self.length, replacement=True, generator=self.draw)
        self.values = [float(self._values(self.ids[None])[0])]

    def sample(self) -> list[float]:
        """Compare the start with the hooked forward."""
        held: list[Tensor] = []
        place = self.aim.place

        def keep(tensor: Tensor, hook: HookPoint) -> None:  # noqa: ARG001
            held.append(flat(place, tensor)[:, -1].clone())

        self.model.forward([self._whole(self.ids.tolist())], {place.hook(self.model): keep})
        return [exactness.difference(self.values[0], float(self.aim.of(held[0])[0]))]

    def run(self, steps: int) -> Found:
        """Take the steps."""
        stopped = None
        try:
            for step in range(steps):
                hooks.guarded(self._step)
                self.model.on_step(step + 1, steps, f"{self.aim.name}: {self.values[-1]:.3g}")
        except KeyboardInterrupt as interrupt:
            stopped = interrupt
        return Found(tuple(self._whole(self.ids.tolist())), tuple(self.values), stopped)

    def _step(self) -> None:
        gains = self._gradient() @ self.words.T.to(self.net.unembed.weight.dtype)
        gains[:, self.special] = float("-inf")
        gains[torch.arange(self.length), self.ids] = float("-inf")
        among = gains.topk(min(AMONG, gains.shape[1] - len(self.special) - 1), 1).indices.cpu()
        places = torch.randint(self.length, (TRIED,), generator=self.draw)
        chosen = torch.randint(among.shape[1], (TRIED,), generator=self.draw)
        tried = self.ids.repeat(TRIED, 1)
        tried[torch.arange(TRIED), places] = among[places, chosen]
        values = self._values(tried)
        best = int(values.argmax())
        if float(values[best]) > self.values[-1]:
            self.ids = tried[best]
        self.values.append(max(self.values[-1], float(values[best])))

    def _gradient(self) -> Tensor:
        """Return how the aim changes with the stream that each token begins, ``[token, d_model]``."""
        with torch.enable_grad():
            begun = self.net.begin([self._whole(self.ids.tolist())]).detach().requires_grad_()
            (found,) = torch.autograd.grad(self._of(begun).sum(), begun)
        return found[0, len(self.front) :]

    def _values(self, ids: Tensor) -> Tensor:
        """Return the aim at the last token of some inputs, ``[n]``."""
        found: list[Tensor] = []

        def some(rows: Sequence[list[int]]) -> None:
            begun = self.net.begin([self._whole(row) for row in rows])
            found.append(self._of(begun).detach().double().cpu())

        def run() -> None:
            memory.halving(ids.tolist(), max(1, memory.ROWS // (self.length + 1)), some, self.model.device)

        hooks.guarded(run)
        self.model.count(1)
        return torch.cat(found)

    def _of(self, begun: Tensor) -> Tensor:
        held: list[Tensor] = []
        place, site = self.aim.place, _site(self.aim.place)

        def keep(layer: int, tensor: Tensor) -> None:
            if layer == place.layer:
                last = tensor[:, -1:]
                held.append(self.net.at(layer).norm2(last) if place.point == "mlp_normed" else flat(place, last))

        forward(self.net, edits={site: keep}, resid=begun, stop=place.layer + 1)
        return self.aim.of(held[0][:, 0])

    def _whole(self, ids: Sequence[int]) -> tuple[int, ...]:
        return (*self.front, *ids)


def _site(place: Place) -> str:
    return "mlp_in" if place.point == "mlp_normed" else place.point
