"""All commands as help lists them: in groups, each with a sentence and a cell that can be typed as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from interp.interface.registry import Command, Parameter, commands

GROUPS: Mapping[str, tuple[str, ...]] = {
    "look": ("tokens", "predict", "loss", "attention", "heads", "ov", "qk", "compose"),
    "patch": ("task", "patch", "path", "ablate", "mediate", "diff"),
    "find": ("circuit", "validate", "trace", "investigate", "claim", "claims", "verify", "selfcheck"),
    "read": (
        *("lens", "lens-train", "dla", "saliency", "probe", "neurons"),
        *("features-load", "features-train", "feature", "features", "features-label"),
    ),
    "change": ("generate", "steer"),
    "manage": ("load", "models", "use", "unload", "status", "clear", "connect", "workers", "disconnect", "help"),
}
_OWN = "yours"  # of techniques that a notebook declares

_GIFT = "When Mary and John went to the store, John gave a drink to"
# What makes a cell's names: each is typed before.
_FIRST = {
    "validate": "%interp circuit --task ioi --n 8 --edges 60 -o c",
    "verify": "%interp patch --task ioi --n 4 -o p",
    "claims": "%%interp claim --task ioi --n 16\nvariable: name = {IO}\n"
    "carried by: resid_post layer 2 at {S2}\nswap name -> the answer becomes the other name",
    "trace": "%interp features-load bundled",
    "feature": "%interp features-load bundled",
    "features-label": "%interp features-load bundled",
    "unload": "%interp load --name second",
}
_CELLS: Mapping[str, str] = {
    "tokens": "%%interp tokens\nWhen Mary and John went to the store",
    "predict": f"%%interp predict --top 5\n{_GIFT}",
    "loss": "%%interp loss\nThe capital of France is Paris. The capital of Italy is Rome.",
    "attention": f"%%interp attention -o att\n{_GIFT}",
    "heads": "%interp heads --n 20",
    "ov": '%interp ov 3.0 --tokens " Mary, John"',
    "qk": '%interp qk 1.0 --tokens " Mary, John"',
    "compose": "%interp compose --kind k",
    "task": "%interp task ioi -n 16",
    "patch": f"%%interp patch\nclean: {_GIFT}\ncorrupted: {_GIFT.replace('John gave', 'Mary gave')}\n"
    "answer: Mary\nwrong: John",
    "path": "%interp path --task ioi --n 8 --from all --to logits",
    "ablate": "%interp ablate --task ioi --heads 1.0,2.0 --mode mean",
    "mediate": "%interp mediate --task ioi --n 12",
    "diff": "%interp diff bundled bundled --task ioi --n 4",
    "circuit": "%interp circuit --task ioi --n 8 --edges 60 -o c",
    "validate": "%interp validate c",
    "trace": f'%%interp trace --target " Mary" --against " John"\n{_GIFT}',
    "investigate": f"%%interp investigate\n{_GIFT}",
    "claim": _FIRST["claims"],
    "claims": "%interp claims",
    "verify": "%interp verify p",
    "selfcheck": "%interp selfcheck --program induction --n 2",
    "lens": f'%%interp lens --target " Mary"\n{_GIFT}',
    "lens-train": "%interp lens-train --text reviews.csv --steps 50",
    "dla": f'%%interp dla --answer " Mary" --wrong " John"\n{_GIFT}',
    "saliency": f'%%interp saliency --answer " Mary"\n{_GIFT}',
    "probe": "%interp probe --text reviews.csv --label mood",
    "neurons": "%interp neurons 3.1,3.7 --text reviews.csv",
    "features-load": "%interp features-load bundled",
    "features-train": "%interp features-train --text reviews.csv --width 64 --steps 50",
    "feature": "%interp feature 2.17 --text reviews.csv",
    "features": "%interp features",
    "features-label": "%interp features-label 2.17 --text reviews.csv",
    "generate": f"%%interp generate --n 12\n{_GIFT}",
    "steer": '%%interp steer --layer 2 --toward " happy" --against " sad" --n 12\nThe girl was very',
    "load": "%interp load",
    "models": "%interp models",
    "use": "%interp use bundled",
    "unload": "%interp unload second",
    "status": "%interp status",
    "clear": "%interp clear",
    "connect": "%interp connect 2",
    "workers": "%interp workers",
    "disconnect": "%interp disconnect",
    "help": "%interp help patch",
}


def grouped() -> dict[str, list[Command]]:
    """Return group → its commands, those of the user's own last."""
    known = commands()
    found = {group: [known[name] for name in names] for group, names in GROUPS.items()}
    listed = {name for names in GROUPS.values() for name in names}
    own = [command for name, command in known.items() if name not in listed]
    return found | ({_OWN: own} if own else {})


def cells(name: str) -> list[str]:
    """Return the cells that show a command: those that come first, and its own; none for a command of the user's.

    Examples
    --------
    >>> cells("validate")
    ['%interp circuit --task ioi --n 8 --edges 60 -o c', '%interp validate c']
    """
    return [cell for cell in (_FIRST.get(name), _CELLS.get(name)) if cell is not None]


def short(command: Command) -> str:
    """Return how a command is typed, without its flags.

    Examples
    --------
    >>> short(commands()["ov"]), short(commands()["patch"])
    ('%interp ov HEAD', '%%interp patch')
    """
    places = [parameter.name.upper() for parameter in command.parameters if parameter.positional and parameter.required]
    return " ".join([f"{'%%' if command.body else '%'}interp", command.name, *places])


def described() -> list[dict[str, Any]]:
    """Return all that help knows, as plain data: what ``%interp help --json`` writes."""
    return [
        {
            "name": command.name,
            "group": group,
            "summary": command.summary,
            "typed": short(command),
            "python": f"interp.{command.name.replace('-', '_')}",
            "body": [kind.__name__.lower() for kind in command.bodies],
            "arguments": [_argument(parameter) for parameter in command.parameters],
            "cells": cells(command.name),
            "examples": list(command.examples),
        }
        for group, found in grouped().items()
        for command in found
    ]


def _argument(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "flag": None if parameter.positional else parameter.flag,
        "type": parameter.kind.__name__,
        "required": parameter.required,
        "default": None if parameter.required else parameter.default,
        "choices": list(parameter.values.choices),
        "help": parameter.help,
    }
