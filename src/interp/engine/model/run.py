"""One forward of a prompt as the user holds it: logits, and activations that are computed when they are looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor
from transformer_lens.utilities.components_utils import get_act_name

from interp.errors import InputError

if TYPE_CHECKING:
    from interp.engine.model.hooks import Hook
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.model.operation import Operation
    from interp.engine.model.tokens import Encoded


class Run:
    """One forward of a prompt: its logits, and every activation by hook name, computed when it is looked at.

    Attributes
    ----------
    logits
        ``[1, position, d_vocab]``, on the model's device.
    tokens
        The prompt as the model saw it.
    activations
        Hook name (``"blocks.5.hook_resid_post"``) → tensor with a batch axis of 1 in front. Do not write to them.

    Examples
    --------
    >>> run = interp.model.run("The cat sat")
    >>> run.activations["blocks.0.attn.hook_z"].shape
    torch.Size([1, 4, 4, 32])
    """

    def __init__(
        self,
        model: LoadedModel,
        tokens: Encoded,
        logits: Tensor,
        state: str,
        functions: Mapping[str, Hook] | None = None,
    ) -> None:
        self.logits = logits
        self.tokens = tokens
        self.activations: Mapping[str, Tensor] = _Activations(model, tokens, state, functions or {})

    def __repr__(self) -> str:
        return f"Run({len(self.tokens.ids)} tokens, logits {tuple(self.logits.shape)})"


class _Activations(Mapping[str, Tensor]):
    def __init__(self, model: LoadedModel, tokens: Encoded, state: str, functions: Mapping[str, Hook]) -> None:
        self._model = model
        self._tokens = tokens
        self._state = state
        self._functions = functions

    def __getitem__(self, name: str | tuple[str, int]) -> Tensor:
        full = _hook_name(name)

        def look(operation: Operation) -> Tensor:
            if operation.fingerprint != self._state:
                raise InputError("the model has changed since this run; run the prompt again")
            if self._functions:
                return self._model.captured(self._tokens, full, self._functions)
            return self._model.activations(self._tokens, [full])[full]

        return self._model.operate("run", {}, look)

    def __contains__(self, name: object) -> bool:
        try:
            return _hook_name(name) in self._model.hook_names  # Mapping's own would run the model to find out
        except InputError:
            return False

    def get(self, key: str | tuple[str, int], default: Any = None) -> Any:
        # Mapping's own waits for a KeyError.
        return self[key] if key in self else default  # noqa: SIM401

    def __iter__(self) -> Iterator[str]:
        return iter(self._model.hook_names)

    def __len__(self) -> int:
        return len(self._model.hook_names)

    def _ipython_key_completions_(self) -> tuple[str, ...]:
        return self._model.hook_names


def _hook_name(name: Any) -> Any:
    """Return a hook's name; ``("pattern", 0)`` is one, as in transformer-lens' own cache."""
    if not isinstance(name, tuple):
        return name
    try:
        return get_act_name(*cast("tuple[Any, ...]", name))
    except (TypeError, AttributeError):
        raise InputError(f"{name!r} names no activation; write ('pattern', 0), or a hook's name") from None
