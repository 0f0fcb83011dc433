"""Models whose circuit is known by construction: programs compiled into weights, their prompts and their true edges.

Examples
--------
>>> from interp import truth
>>> model = truth.build("induction")
>>> sorted(edge for edge, true in model.truth("corrupted").items() if true)[:2]
[('0.2', '2.1.k'), ('2.1', 'logits')]
"""

from __future__ import annotations

from interp.errors import unknown
from interp.truth.compile import ABLATIONS, Compiled, compiled
from interp.truth.programs import PROGRAMS


def build(name: str, seed: int = 0) -> Compiled:
    """Return the compiled program `name`; `seed` is of its distractors.

    Raises
    ------
    InputError
        No such program; the closest one is named.

    Examples
    --------
    >>> build("reverse").program.length
    12
    """
    if name not in PROGRAMS:
        raise unknown("program", name, PROGRAMS, f"there are {', '.join(PROGRAMS)}")
    return compiled(PROGRAMS[name](), seed)


__all__ = ["ABLATIONS", "PROGRAMS", "Compiled", "build"]
