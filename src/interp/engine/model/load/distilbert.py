"""DistilBERT's bridge, which transformer-lens has none of: where BERT's parts lie in it."""

from __future__ import annotations

from typing import Any

from transformer_lens.factories.architecture_adapter_factory import ArchitectureAdapterFactory
from transformer_lens.model_bridge.generalized_components import (
    AttentionBridge,
    BlockBridge,
    EmbeddingBridge,
    LinearBridge,
    MLPBridge,
    NormalizationBridge,
    PosEmbedBridge,
    UnembeddingBridge,
)
from transformer_lens.model_bridge.supported_architectures.bert import BertArchitectureAdapter

ARCHITECTURE = "DistilBertForMaskedLM"


class DistilBertAdapter(BertArchitectureAdapter):
    """BERT's layers without types of tokens; attention and MLP are modules of their own, and the norms beside them."""

    def __init__(self, cfg: Any) -> None:
        """Say what each part is called."""
        super().__init__(cfg)

        def norm(name: str) -> NormalizationBridge:
            return NormalizationBridge(name=name, config=self.cfg, use_native_layernorm_autograd=True)

        def linears(**names: str) -> dict[str, Any]:
            return {part: LinearBridge(name=name) for part, name in names.items()}

        attention = linears(q="q_lin", k="k_lin", v="v_lin", o="out_lin")
        self.component_mapping = {
            "embed": EmbeddingBridge(name="distilbert.embeddings.word_embeddings"),
            "pos_embed": PosEmbedBridge(name="distilbert.embeddings.position_embeddings"),
            "embed_ln": norm("distilbert.embeddings.LayerNorm"),
            "blocks": BlockBridge(
                name="distilbert.transformer.layer",
                submodules={
                    "ln1": norm("sa_layer_norm"),
                    "ln2": norm("output_layer_norm"),
                    "attn": AttentionBridge(name="attention", config=self.cfg, submodules=attention),
                    "mlp": MLPBridge(name="ffn", config=self.cfg, submodules=linears(**{"in": "lin1", "out": "lin2"})),
                },
            ),
            "mlm_head": LinearBridge(name="vocab_transform"),
            "ln_final": norm("vocab_layer_norm"),
            "unembed": UnembeddingBridge(name="vocab_projector"),
        }

    def prepare_model(self, hf_model: Any) -> None:
        """Read the MLPs' width, which goes by a name that transformer-lens does not know."""
        self.cfg.d_mlp = hf_model.config.hidden_dim


def register() -> None:
    """Let transformer-lens wrap DistilBERT."""
    ArchitectureAdapterFactory.register_adapter(ARCHITECTURE, DistilBertAdapter)
