"""DistilBERT: BERT without types of tokens."""

from __future__ import annotations

from typing import Any

from interp.engine.transformer.families._encoder import Encoder
from interp.engine.transformer.families._family import plain
from interp.engine.transformer.linear import Activation


class DistilBERT(Encoder):
    """Sanh et al. (2019), "DistilBERT, a Distilled Version of BERT: Smaller, Faster, Cheaper and Lighter"."""

    names = ("distilbert",)
    normed = frozenset({"resid_mid"})  # its attention is a module without the norm

    def activation(self, mlp: Any) -> Activation:
        """Return the activation function of an MLP."""
        return plain(mlp.activation)

    def act(self, model: Any) -> Any:
        """Return the activation function of the prediction head of a model of Hugging Face's."""
        return model.activation


FAMILY = DistilBERT()
