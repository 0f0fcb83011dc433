"""A Hugging Face sequence classifier as a function of its token embeddings; it is not bridged, and left as it is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from interp.engine.model import fingerprint, hooks
from interp.engine.model.tokens import Encoded, Tokens, type_count
from interp.errors import InputError, printable, unknown
from interp.ids import types_of
from interp.prompts import as_prompt


class Classifier:
    """A ``…ForSequenceClassification`` with its tokenizer.

    Attributes
    ----------
    model
        The user's own object.
    tokens
        Its tokenizer, which wraps a text as the classifier was trained to read it.
    classes
        Name → number.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        """Check what is given.

        Raises
        ------
        InputError
            It is no classifier, it is in training mode, or there is no tokenizer.
        """
        self.model: Any = model
        config: Any = getattr(model, "config", None)
        if not isinstance(model, nn.Module) or not hasattr(model, "get_input_embeddings") or config is None:
            raise InputError(
                f"model must be a Hugging Face …ForSequenceClassification, not {type(model).__name__}; "
                "interp.saliency explains a language model's answer"
            )
        if not callable(tokenizer):
            raise InputError("give the classifier's tokenizer: tokenizer=AutoTokenizer.from_pretrained(…)")
        if model.training:
            raise InputError(
                "the classifier is in training mode, where dropout makes every run differ; call eval() first"
            )
        self.embedding: Any = self.model.get_input_embeddings()
        self.classes = {str(name): int(index) for name, index in (getattr(config, "label2id", None) or {}).items()}
        spelled: Any = tokenizer
        vocabulary = int(getattr(self.embedding, "num_embeddings", 0) or len(spelled))
        window, types = _window(model, tokenizer), type_count(self.model.forward, config)
        self.tokens = Tokens(tokenizer, vocabulary, window, False, bidirectional=True, n_types=types)

    @property
    def name(self) -> str:
        """What results call it."""
        named = str(getattr(self.model.config, "_name_or_path", "") or type(self.model).__name__)
        return printable(named.rstrip("/").rpartition("/")[2])

    @property
    def device(self) -> torch.device:
        """The device of its embedding."""
        return self.embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of its embedding."""
        return self.embedding.weight.dtype

    def fingerprint(self) -> str:
        """Return the hash of all that its answers depend on."""
        return fingerprint.inspect(list(self.model.named_modules()), self.model.config).digest

    def encode(self, prompt: Any) -> Encoded:
        """Return a text, a pair of sentences or ids as tokens."""
        return self.tokens.encode(as_prompt(prompt))

    def embed(self, encoded: Encoded) -> Tensor:
        """Return token embeddings, ``[position, d_model]``, without positions."""
        return self.embedding(torch.tensor(encoded.ids, device=self.device)).detach()

    def logits(self, embeddings: Tensor, encoded: Encoded) -> Tensor:
        """Return the classes' logits, ``[n, class]``, of token embeddings ``[n, position, d_model]``.

        The prompt's ids say which sentence each position is of.

        Raises
        ------
        InputError
            What the model gives is not one row of logits for a text.
        """
        if len(embeddings) > 1 and getattr(self.model.config, "pad_token_id", None) is None:
            # A decoder then cannot tell where each text of a batch ends, and refuses.
            return torch.cat([self.logits(row[None], encoded) for row in embeddings])
        mask = torch.ones(embeddings.shape[:2], dtype=torch.int64, device=embeddings.device)
        types = self._types(encoded, len(embeddings))
        logits = getattr(self.model(inputs_embeds=embeddings, attention_mask=mask, **types), "logits", None)
        if not isinstance(logits, Tensor) or logits.dim() != 2:
            raise InputError(f"{type(self.model).__name__} gives no logits [text, class]: it is no sequence classifier")
        return logits

    def answer(self, embeddings: Tensor, encoded: Encoded) -> int:
        """Return the likeliest class of ``[position, d_model]``."""
        return int(hooks.guarded(lambda: self.logits(embeddings[None], encoded)[0].argmax()))

    def _types(self, encoded: Encoded, rows: int) -> dict[str, Tensor]:
        """Return what the classifier's forward is told of the prompt's sentences, for as many rows; nothing of one."""
        types = types_of(encoded.ids)
        return {"token_type_ids": torch.tensor([types] * rows, device=self.device)} if types else {}

    def index(self, given: int | str, which: str) -> int:
        """Return a class's number; `which` is for the message.

        Raises
        ------
        InputError
            No such class.
        """
        count = int(self.model.config.num_labels)
        named = ", ".join(f"{index} ({name})" for name, index in list(self.classes.items())[:8]) or f"0–{count - 1}"
        if isinstance(given, str):
            if given in self.classes:
                return self.classes[given]
            raise unknown("class", given, self.classes, f"{which} is one of {named}")
        if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given < count:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(f"there is no class {given!r}; {which} is one of {named}")
        return given

    def label(self, index: int) -> tuple[str, int]:
        """Return a class's name and number."""
        return next((name for name, number in self.classes.items() if number == index), f"class {index}"), index

    def patterns(self, encoded: Encoded) -> list[Tensor]:
        """Return each layer's attention, ``[head, query, key]``.

        Raises
        ------
        InputError
            The model gives none.
        """
        ids = torch.tensor([encoded.ids], device=self.device)
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **self._types(encoded, 1)}

        def run() -> Any:
            try:
                return self.model(**given, output_attentions=True)
            except TypeError:
                return None  # its forward has no such argument

        found: Any = getattr(hooks.guarded(run), "attentions", None)
        if not found or any(pattern is None for pattern in found):
            raise InputError(
                f"{type(self.model).__name__} gives no attention: load it with attn_implementation='eager', "
                "or use method='ig'"
            )
        return [pattern[0].detach() for pattern in found]


def _window(model: Any, tokenizer: Any) -> int:
    """Return how many tokens the classifier has positions for.

    RoBERTa-type models count positions from behind the padding's own, so that some of their table is never used.
    """
    positions = getattr(model.config, "max_position_embeddings", None)
    if not positions:
        return int(getattr(tokenizer, "model_max_length", 10**6))
    tables = (module for name, module in model.named_modules() if name.endswith("position_embeddings"))
    padding = next((getattr(table, "padding_idx", None) for table in tables), None)
    return int(positions) - (0 if padding is None else int(padding) + 1)
