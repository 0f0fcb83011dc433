"""BERT: positions and types of tokens are embedded, and the sum is normed."""

from __future__ import annotations

from typing import Any

from interp.engine.transformer.families._encoder import Encoder
from interp.engine.transformer.families._family import plain
from interp.engine.transformer.linear import Activation


class BERT(Encoder):
    """Devlin et al. (2019), "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding"."""

    names = ("bert",)

    def activation(self, mlp: Any) -> Activation:
        """Return the activation function of an MLP, whose two halves lie side by side in the layer."""
        return plain(mlp.intermediate.intermediate_act_fn)

    def act(self, model: Any) -> Any:
        """Return the activation function of the prediction head of a model of Hugging Face's."""
        return model.cls.predictions.transform.transform_act_fn


FAMILY = BERT()
