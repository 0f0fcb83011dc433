"""A result's way back to the model that it came from."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from interp.errors import InputError
from interp.results import Result, held_in
from interp.spec import Intervention, as_interventions

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.model.operation import Operation


class Live:
    """A Result's way back to the model that it came from, which it does not keep alive."""

    def __init__(
        self, model: LoadedModel, state: str, ids: tuple[int, ...], interventions: tuple[Intervention, ...] = ()
    ) -> None:
        self._model = weakref.ref(model)
        self._name = model.name
        self._state = state
        self.ids = ids
        self._interventions = interventions

    def __deepcopy__(self, memo: dict[int, Any]) -> Live:
        return self

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        return type(None), ()  # another process has another model: a pickled result comes back without this

    def run(self, body: Callable[[LoadedModel], Any]) -> Any:
        """Call `body` with the model, under its lock.

        Raises
        ------
        InputError
            The model is gone or has changed since the result was made, or a cell is using it at the moment.
        """
        model = self._model()
        if model is None:
            raise InputError(f"{self._name} is no longer loaded; load it and run the cell again")

        def once(operation: Operation) -> Any:
            if operation.fingerprint != self._state:
                raise InputError(f"{self._name} has changed since this was computed; run the cell again")
            model.intervene(self._interventions)
            return body(model)

        return model.operate_if_free("view", once)


def bind(result: Result, model: LoadedModel, arguments: Mapping[str, Any]) -> Result:
    """Return a result that another process made of `model`, by a call with `arguments`, with its way back to that."""
    changes = as_interventions(arguments.get("interventions"))

    def live(one: Result) -> Live:
        return Live(model, result.provenance.fingerprint, next(iter(one.provenance.prompts), ()), changes)

    for part in held_in(result):
        object.__setattr__(part, "_live", live(part))
    return replace(result, _live=live(result))
