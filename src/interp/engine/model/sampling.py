"""Which token comes next: the likeliest one, or one drawn from what temperature, top-k and top-p leave."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from interp.errors import InputError

_COLDEST = 1e-4  # a logit divided by less is no number any more


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    Attributes
    ----------
    temperature
        0 takes the likeliest token; above, tokens are drawn from softmax(logits / temperature).
    top_k, top_p
        Draw from the k likeliest tokens alone, ties with the last of them included; from the likeliest whose
        probabilities first sum to p. Where both are given, top-p is of what top-k leaves, as Hugging Face has it.
    seed
        Of the draws of the first text; that of each further one is larger by 1.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0

    def check(self, samples: int = 1) -> None:
        """Refuse what draws nothing.

        Raises
        ------
        InputError
            A temperature below 0, a k or a number of samples below 1, a p outside of (0, 1], or any of them where
            nothing is drawn.
        """
        if self.temperature != 0 and not _COLDEST <= self.temperature < float("inf"):
            raise InputError(
                f"--temperature {self.temperature} is none; use 0 (the likeliest token) or more, such as 0.7"
            )
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"--top-k {self.top_k} leaves no token to draw; use 1 or more, such as 50")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InputError(f"--top-p {self.top_p} is no share of the probability; use more than 0, at most 1")
        if samples < 1:
            raise InputError(f"--samples {samples} writes nothing; use 1 or more")
        if self.temperature:
            return
        given = {"--top-k": self.top_k is not None, "--top-p": self.top_p is not None, "--samples": samples > 1}
        named = [flag for flag, there in given.items() if there]
        if named:
            raise InputError(
                f"{' and '.join(named)} changes nothing at temperature 0, where the likeliest token is taken; add "
                "--temperature 1"
            )

    def chances(self, logits: Tensor) -> Tensor:
        """Return the probabilities that tokens are drawn with, ``[…, d_vocab]``, of their logits.

        Examples
        --------
        >>> Sampling(1.0, top_k=2).chances(torch.tensor([0.0, 0.0, -1.0]))
        tensor([0.5000, 0.5000, 0.0000])
        """
        logits = logits / self.temperature
        if self.top_k is not None:
            least = logits.topk(min(self.top_k, logits.shape[-1]), dim=-1).values[..., -1:]
            logits = logits.masked_fill(logits < least, float("-inf"))
        if self.top_p is not None and self.top_p < 1:
            chances, order = logits.double().softmax(-1).sort(descending=True, stable=True)
            before = chances.cumsum(-1) - chances
            out = torch.zeros_like(before, dtype=torch.bool).scatter(-1, order, before >= self.top_p)
            logits = logits.masked_fill(out, float("-inf"))
        return logits.softmax(-1)

    def sources(self, samples: int) -> list[torch.Generator]:
        """Return what each of several texts draws with: one of its own, so that none depends on how many there are."""
        return [torch.Generator().manual_seed(self.seed + n) for n in range(samples)]

    def next(self, logits: Tensor, sources: list[torch.Generator]) -> list[int]:
        """Return the next token of each text, of its logits, ``[text, d_vocab]``."""
        if not self.temperature:
            return logits.argmax(-1).tolist()
        chances = self.chances(logits.cpu())
        return [int(torch.multinomial(row, 1, generator=source)) for row, source in zip(chances, sources, strict=True)]
