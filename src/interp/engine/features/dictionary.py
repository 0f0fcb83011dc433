"""A dictionary: features that an activation is read as, and what each of them writes.

For an activation x, made ready as the dictionary was trained on it (`Taken`): pre = x' · encoderᵀ + bias, a = act(pre),
and it writes a · decoder + decoder_bias (+ x' · skip). A sparse autoencoder (SAE; Bricken et al. 2023, Cunningham et
al. 2023) writes where it reads; a transcoder (Dunefsky et al. 2024) reads an MLP's input and writes its output; a
cross-layer transcoder (CLT; Ameisen et al. 2025) writes the output of its layer's MLP and of every later one's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from interp.engine.features.codes import Codes
from interp.engine.features.places import Place
from interp.engine.transformer.linear import linear

Normed = Literal["", "layer", "token"]


@dataclass(frozen=True, eq=False)
class Taken:
    """What is done to an activation before it is read, in this order, and undone to what is written.

    Attributes
    ----------
    centre
        Whether its mean over dims is taken away: what models with centred writing weights show. Not undone.
    normed
        ``"layer"``: minus its mean and divided by its standard deviation; ``"token"``: to the length √d.
    scale
        What it is multiplied by.
    offset
        ``[d_in]``: what is taken away, such as the decoder's bias. Not undone: `decoder_bias` does that.
    """

    centre: bool = False
    normed: Normed = ""
    scale: float = 1.0
    offset: Tensor | None = None

    def sizes(self, x: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """Return what is taken away from x and what the rest is divided by, ``[…, 1]``; before scale and offset."""
        if self.normed == "layer":
            mean = x.mean(-1, keepdim=True)
            return mean, (x - mean).std(-1, keepdim=True) + 1e-5
        if self.normed == "token":
            return 0.0, x.norm(dim=-1, keepdim=True).clamp_min(1e-12) / x.shape[-1] ** 0.5
        return (x.mean(-1, keepdim=True) if self.centre else 0.0), 1.0

    def __call__(self, x: Tensor) -> Tensor:
        if self.centre and self.normed:
            x = x - x.mean(-1, keepdim=True)
        mean, size = self.sizes(x)
        if self.centre or self.normed:
            x = (x - mean) / size
        x = x if self.scale == 1.0 else x * self.scale
        return x if self.offset is None else x - self.offset

    def undone(self, written: Tensor, x: Tensor) -> Tensor:
        """Return what is written as the activation has it, of x before it was made ready."""
        written = written if self.scale == 1.0 else written / self.scale
        if not self.normed:
            return written
        if self.centre:
            x = x - x.mean(-1, keepdim=True)
        mean, size = self.sizes(x)
        return written * size + mean

    def factor(self, x: Tensor) -> Tensor | float:
        """Return what one unit written is in the activation, ``[…, 1]`` or a number."""
        size = self.sizes(x)[1] if self.normed else 1.0
        return size / self.scale


@dataclass(frozen=True, eq=False)
class Act:
    """What makes activations of pre-activations.

    Attributes
    ----------
    kind
        ``relu``; ``jumprelu``: as it is above `threshold`, else 0 (Rajamanoharan et al. 2024b; BatchTopK's too at
        inference, Bussmann et al. 2024); ``topk``: the `k` largest of a position, if positive (Gao et al. 2024);
        ``gated``: ReLU of ``pre · scale + magnitude``, where ``pre`` is above 0 (Rajamanoharan et al. 2024a).
    threshold
        ``[width]`` or ``[1]``.
    scale, magnitude
        ``[width]``: of a gated one, exp(r_mag), and b_mag − b_gate · exp(r_mag), since `Dictionary.bias` is b_gate.
    """

    kind: Literal["relu", "jumprelu", "topk", "gated"] = "relu"
    k: int = 0
    threshold: Tensor | None = None
    scale: Tensor | None = None
    magnitude: Tensor | None = None

    def __call__(self, pre: Tensor) -> Codes:
        """Return the activations of ``[row, width]``; `pre` is written to."""
        if self.kind == "topk":
            values, features = pre.topk(min(self.k, pre.shape[-1]), -1, sorted=False)
            return Codes.chosen(features, values.relu_(), pre.shape[-1])
        return Codes.of(self.dense(pre))

    def dense(self, pre: Tensor) -> Tensor:
        """Return the same as ``[row, width]``."""
        if self.kind == "topk":
            values, features = pre.topk(min(self.k, pre.shape[-1]), -1, sorted=False)
            return torch.zeros_like(pre).scatter_(-1, features, values.relu())
        if self.kind == "gated":
            assert self.scale is not None
            return torch.where(pre > 0, self.magnitudes(pre).relu(), pre.new_zeros(()))
        if self.kind == "jumprelu":
            assert self.threshold is not None
            return torch.where(pre > self.threshold, pre, pre.new_zeros(())).relu_()
        return pre.relu()

    def magnitudes(self, pre: Tensor) -> Tensor:
        """Return what becomes the activation of an active feature, and is linear in its input, of pre-activations."""
        if self.kind != "gated" or self.scale is None or self.magnitude is None:
            return pre
        return pre * self.scale + self.magnitude


@dataclass(frozen=True, eq=False)
class Dictionary:
    """One dictionary of a layer.

    Attributes
    ----------
    kind
        ``sae``, ``transcoder`` or ``clt``.
    reads
        Where it reads.
    writes
        Where it writes: one place, or for a CLT one in each layer from its own on.
    encoder
        ``[width, d_in]``.
    bias
        ``[width]``.
    decoders
        For each of `writes`, ``[width, d_out]``; as its file has them, so that what is mapped is read when needed.
    decoder_biases
        For each of `writes`, ``[d_out]``; ``None``: nothing.
    skip
        ``[d_in, d_out]``: of a skip transcoder (Paulo et al. 2025), what its input adds to what it writes.
    declared
        What its file says of it: ``fvu``, ``l0`` and so on.
    """

    kind: Literal["sae", "transcoder", "clt"]
    reads: Place
    writes: tuple[Place, ...]
    encoder: Tensor
    bias: Tensor
    decoders: tuple[Tensor, ...]
    decoder_biases: tuple[Tensor | None, ...]
    act: Act = field(default_factory=Act)
    taken: Taken = field(default_factory=Taken)
    skip: Tensor | None = None
    declared: dict[str, float] = field(default_factory=dict[str, float])

    @property
    def layer(self) -> int:
        """The layer that its features are named after: where it reads."""
        return self.reads.layer

    @property
    def width(self) -> int:
        """How many features it has."""
        return len(self.encoder)

    @cached_property
    def digest(self) -> str:
        """What tells it from every other one: a hash of its weights and of all that says how they are used."""
        said = hashlib.blake2b(digest_size=16)
        for part in (self, self.taken, self.act):
            for one in fields(part):
                value = getattr(part, one.name)
                listed: Sequence[object] = value if isinstance(value, tuple) else (value,)
                for item in listed:
                    if isinstance(item, Tensor):
                        said.update(f"{one.name} {tuple(item.shape)} {item.dtype}".encode())
                        said.update(item.detach().cpu().contiguous().view(torch.uint8).numpy().data)
                    elif not isinstance(item, Taken | Act | dict):
                        said.update(f"{one.name} {item!r}".encode())
        return said.hexdigest()

    def pre(self, x: Tensor) -> Tensor:
        """Return pre-activations, ``[row, width]``, of what it reads, ``[row, d_in]``, in its own dtype."""
        # Which features are active is a matter of the last digits: an autocast of the user's is not for this.
        with torch.autocast(x.device.type, enabled=False):
            return linear(self.taken(x.to(self.encoder.dtype)), self.encoder, self.bias)

    def encode(self, x: Tensor) -> Codes:
        """Return the features' activations of what it reads, ``[row, d_in]``."""
        return self.activated(self.pre(x))

    def activated(self, pre: Tensor) -> Codes:
        """Return the features' activations of pre-activations, ``[row, width]``."""
        return self.act(pre)

    def atoms(self, features: Tensor, to: int = 0) -> Tensor:
        """Return what features write at their `to`-th place for an activation of 1, ``[feature, d_out]``."""
        held = self.decoders[to]
        return held[features.to(held.device)].to(device=self.encoder.device, dtype=self.encoder.dtype)

    def written(self, codes: Codes, to: int = 0) -> Tensor:
        """Return the features' share of what `output` gives, ``[row, d_out]``, before `taken` is undone."""
        table, places = self.decoders[to], codes.features
        if table.dtype != codes.values.dtype or table.device != codes.values.device or self.kind == "clt":
            kinds, places = places.unique(return_inverse=True)
            table = self.atoms(kinds, to)
            if not len(kinds):
                return codes.values.new_zeros(len(codes), table.shape[-1])
        return functional.embedding_bag(places, table, codes.starts[:-1], mode="sum", per_sample_weights=codes.values)

    def output(self, codes: Codes, x: Tensor, to: int = 0) -> Tensor:
        """Return all that is written at the `to`-th place, ``[row, d_out]``; `x` is what was read, ``[row, d_in]``."""
        x = x.to(self.encoder.dtype)
        out, bias = self.written(codes, to), self.decoder_biases[to]
        out = out if bias is None else out + bias.to(out)
        if self.skip is not None and to == 0:
            with torch.autocast(x.device.type, enabled=False):
                out = out + self.taken(x) @ self.skip
        return self.taken.undone(out, x)

    def to(self, device: torch.device, dtype: torch.dtype) -> Dictionary:
        """Return it there and of that dtype; a CLT's decoders stay where they are."""

        def moved(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device=device, dtype=dtype)

        def every(part: Taken | Act) -> dict[str, object]:
            held = {one.name: getattr(part, one.name) for one in fields(part)}
            return {name: moved(value) if isinstance(value, Tensor) else value for name, value in held.items()}

        decoders = (
            self.decoders if self.kind == "clt" else tuple(t.to(device=device, dtype=dtype) for t in self.decoders)
        )
        return Dictionary(
            self.kind,
            self.reads,
            self.writes,
            self.encoder.to(device=device, dtype=dtype).contiguous(),
            self.bias.to(device=device, dtype=dtype),
            decoders,
            tuple(moved(bias) for bias in self.decoder_biases),
            Act(**every(self.act)),  # pyright: ignore[reportArgumentType]
            Taken(**every(self.taken)),  # pyright: ignore[reportArgumentType]
            moved(self.skip),
            self.declared,
        )

    @property
    def held(self) -> tuple[Tensor, ...]:
        """The matrices that are to be in memory; a CLT's decoders are read from their files."""
        every = (self.encoder, self.bias, self.skip, *(self.decoders if self.kind != "clt" else ()))
        return tuple(tensor for tensor in every if tensor is not None)

    @property
    def nbytes(self) -> int:
        """How many bytes it takes in memory."""
        return sum(tensor.nbytes for tensor in self.held)
