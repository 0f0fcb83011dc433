"""The public formats that dictionaries come in, one file each.

A format is a module with

- ``NAME``, what it is called;
- ``claims(folder) -> bool``, whether a folder is of this format, by the names of its files and what its config says;
- ``read(folder, wanted) -> Read``, with the tensors as the files have them (mapped, in the files' dtype).

`read` below finds the folder's format and looks through ``layer_*``-like folders where it is one of several layers.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from interp.engine.features.dictionary import Dictionary
from interp.errors import InputError

MODULES = ("saelens",)


@dataclass(frozen=True)
class Wanted:
    """What the model has, and what the user says where files do not.

    Attributes
    ----------
    widths
        Point (see `places.POINTS`) → how wide an activation is there, of this model.
    n_layers
        How many layers it has.
    point
        Where it reads (an SAE: and writes), as typed with ``--site``; ``None``: as the files say.
    layers
        Which layers, as typed with ``--layer``; ``None``: all that the files have, or what they say.
    """

    widths: Mapping[str, int]
    n_layers: int
    point: str | None = None
    layers: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Read:
    """What a folder holds.

    Attributes
    ----------
    format
        Its name.
    said
        What else its config says, such as texts to measure it on (``sample``).
    others
        Where files do not say all: index of a dictionary → other ways to read it, with what is other about them. The
        one that gives back best what it should write is meant.
    """

    format: str
    dictionaries: tuple[Dictionary, ...]
    said: Mapping[str, Any] = field(default_factory=dict[str, Any])
    others: Mapping[int, tuple[tuple[str, Dictionary], ...]] = field(
        default_factory=dict[int, tuple[tuple[str, Dictionary], ...]]
    )


class Format(Protocol):
    """A module of this folder."""

    NAME: str

    def claims(self, folder: Path) -> bool: ...

    def read(self, folder: Path, wanted: Wanted) -> Read: ...


def read(folder: Path, wanted: Wanted) -> Read:
    """Return the dictionaries of a folder, of whichever format it is.

    Raises
    ------
    InputError
        It is of none, a file of it is damaged or a pickle, or what is in it does not fit the model.
    """
    formats: Sequence[Any] = [importlib.import_module(f"{__name__}.{name}") for name in MODULES]
    for one in formats:
        if one.claims(folder):
            return one.read(folder, wanted)
    raise InputError(f"{folder.name} holds no dictionary that can be read; see %interp help features-load for formats")
