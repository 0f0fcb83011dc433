"""How the model's tokenizer cuts a prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from interp.errors import InputError
from interp.ids import types_of
from interp.interface.registry import technique
from interp.results import Result, resolve
from interp.results.tables import frame_of
from interp.spec import Prompt

if TYPE_CHECKING:
    import pandas as pd

    from interp.engine.model.loaded import LoadedModel


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class TokensResult(Result):
    """A prompt's tokens.

    Attributes
    ----------
    tokens, ids
        One string and one id per position; position 0 is BOS where the tokenizer has one.
    types
        Which sentence of a pair each token is of, as the model is told; empty where all are 0.
    glyphs
        Position → the character that tokens of partial bytes make together.
    spans
        Name → the positions of what is marked by it; of a chat also of its turns and its template.
    """

    tokens: tuple[str, ...]
    ids: tuple[int, ...]
    types: tuple[int, ...] = ()
    glyphs: Mapping[int, str] = field(default_factory=dict[int, str])
    spans: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])

    _html: ClassVar[str] = "interp.views.tokens:html"

    def __post_init__(self) -> None:
        if len(self.tokens) != len(self.ids):
            raise InputError(f"{len(self.tokens)} tokens and {len(self.ids)} ids; there must be one id to each token")

    def summary(self) -> str:
        """Return the model and the number of tokens."""
        return f"{self.provenance.model}: {len(self.ids)} tokens"

    @property
    def owners(self) -> list[str]:
        """Which span each token is of; an empty text where of none.

        Examples
        --------
        >>> interp.tokens("When [Mary]{IO} left", bos=False).owners
        ['', 'IO', '']
        """
        owner = {position: name for name, places in self.spans.items() for position in places}
        return [owner.get(position, "") for position in range(len(self.ids))]

    def text(self) -> str:
        """Return the tokens, one to a line."""
        visible = resolve("interp.views.kit.text:visible")
        rows = [
            f"{n:>5} {index:>8}  {visible(string)}"
            for n, (index, string) in enumerate(zip(self.ids, self.tokens, strict=True))
        ]
        shown = rows if len(rows) <= 60 else [*rows[:30], f"… {len(rows) - 50} more …", *rows[-20:]]
        return "\n".join([super().text(), *shown])

    def to_frame(self) -> pd.DataFrame:
        """Return one row per position: token and id, the type where there are two sentences, the span where any is."""
        columns = {"token": self.tokens, "id": self.ids} | ({"type": self.types} if self.types else {})
        columns |= {"span": tuple(self.owners)} if self.spans else {}
        return frame_of(columns).rename_axis("position")


@technique(body=Prompt)
def tokens(model: LoadedModel, prompt: Prompt) -> TokensResult:
    """How the tokenizer cuts a prompt, BOS included; runs no forward.

    Parameters
    ----------
    prompt
        The text, or a chat: lines that begin with system:, user: and assistant:, or a list of messages.

    Returns
    -------
    TokensResult
        ``tokens`` and ``ids``, one per position; ``spans``, where each name that the prompt has stands.

    Raises
    ------
    InputError
        An empty or too long prompt.

    Examples
    --------
    >>> interp.tokens("The capital of France is").tokens
    ('<|endoftext|>', 'The', ' capital', ' of', ' France', ' is')
    """
    encoded = model.encode(prompt)
    return TokensResult(
        tokens=encoded.strings,
        ids=tuple(encoded.ids),
        types=types_of(encoded.ids),
        glyphs=encoded.glyphs,
        spans=encoded.spans,
    )
