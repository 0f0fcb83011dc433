"""Prompt pairs of well-known tasks, with named positions and a metric, fitted to the tokenizer at hand.

A task is one file: a function that yields pairs, under ``@task``. Your own is registered the same way, in any cell:

>>> @task("colours")  # doctest: +SKIP
... def colours(vocabulary, rng, n):
...     '''The usual colour of a thing.'''
...     for thing, other in combinations(rng, ["grass", "blood"], ["snow", "coal"]): ...

A task may yield more pairs than the `n` that it is asked for, or pairs that do not line up: `build` takes what fits.
"""

from __future__ import annotations

from interp.tasks._drawing import TaskSet, build
from interp.tasks._fitting import Vocabulary, combinations, fill, make_pair
from interp.tasks._registry import Option, Task, find, names, task

__all__ = [
    "Option",
    "Task",
    "TaskSet",
    "Vocabulary",
    "build",
    "combinations",
    "fill",
    "find",
    "make_pair",
    "names",
    "task",
]
