"""Interventions as a call gives them, and the functions that make them in a prompt's run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from interp.errors import InputError
from interp.sites import FEATURES
from interp.spec import Intervention

if TYPE_CHECKING:
    from interp.engine.model.hooks import Hook
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.model.tokens import Encoded

# What does to each prompt of a batch what it does to that prompt alone.
_ALIKE = frozenset({"zero", "mean", "add", "scale", "replace"})


def alike(changes: Sequence[Intervention]) -> bool:
    """Return whether changes do to each of several prompts that run together what they do to it alone.

    Noise is drawn for a whole batch, and a function of the user's may read it as one.

    Examples
    --------
    >>> from interp.sites import Site
    >>> alike([Intervention(Site("z", 0), mode="zero")]), alike([Intervention(Site("z", 0), mode="noise", value=1.0)])
    (True, False)
    """
    return all(one.mode in _ALIKE and one.site.kind is not FEATURES for one in changes)


def functions(model: LoadedModel, changes: Sequence[Intervention], encoded: Sequence[Encoded]) -> list[dict[str, Hook]]:
    """Return the functions that make changes in each prompt's run; those of prompts of one length are the same.

    The command's record says that its runs were changed.

    Raises
    ------
    InputError
        A change of what is not there; of several prompts the one is named that it does not fit.
    """
    if not changes:
        return [{} for _ in encoded]
    from interp.engine.model.interventions import functions_of

    made: dict[int, dict[str, Hook]] = {}
    for number, one in enumerate(encoded):
        if len(one.ids) not in made:
            try:
                made[len(one.ids)] = functions_of(model, changes, len(one.ids))
            except InputError as error:
                raise InputError(f"prompt {number}: {error}" if len(encoded) > 1 else str(error)) from None
    model.note("hooked: interventions")
    return [made[len(one.ids)] for one in encoded]
