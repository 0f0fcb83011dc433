"""Which task's prompts a claim is about that names none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from interp.errors import InputError, closest

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel


def task_with(model: LoadedModel, spans: Sequence[str], command: str) -> str:
    """Return the only task whose prompts have slots of all these names.

    Raises
    ------
    InputError
        There is none, or there are several.
    """
    from interp import tasks

    slots = _slots(model)
    wanted = {name.lower() for name in spans}
    found = [name for name, own in slots.items() if wanted and wanted <= own]
    if len(found) == 1:
        return found[0]
    every = ", ".join(tasks.names())
    if len(found) > 1:
        raise InputError(
            f"{' and '.join(found)} have the slots {', '.join(spans)}: say which, such as --task {found[0]}"
        )
    if not wanted:
        raise InputError(f"{command} needs prompts: name a --task ({every}), or type them below a line prompts:")
    known = sorted({slot for own in slots.values() for slot in own})
    odd = next((name for name in spans if name.lower() not in known), "")
    said = f"no task has a slot {odd}{closest(odd, known)}" if odd else f"no task has all of {', '.join(spans)}"
    raise InputError(f"{said}: name a --task ({every}), or type prompts that mark them below a line prompts:")


def _slots(model: LoadedModel) -> dict[str, set[str]]:
    """Return task → its slots' names, of those that the model's tokenizer can spell."""
    from interp import tasks
    from interp.methods._shared.pairs import vocabulary

    found: dict[str, set[str]] = {}
    for name in tasks.names():
        try:
            pair = tasks.build(name, vocabulary(model), n=1).pairs[0]
        except InputError:  # it has options that must be given, or words that this tokenizer cuts
            continue
        found[name] = {slot.lower() for slot in pair.slots}
    return found
