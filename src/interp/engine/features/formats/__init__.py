"""The public formats that dictionaries come in, one file each.

A format is a module with

- ``NAME``, what it is called;
- ``claims(folder) -> bool``, whether a folder is of this format, by the names of its files and what its config says;
- ``read(folder, wanted) -> Read``, with the tensors as the files have them (mapped, in the files' dtype).

`read` below finds the folder's format and looks through ``layer_*``-like folders where it is one of several layers.
"""

from __future__ import annotations

import importlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from interp.engine.features.dictionary import Dictionary
from interp.errors import InputError
from interp.sites import ranges

MODULES = ("saelens", "gemma_scope", "gemma_scope_2", "sparsify", "dictionary_learning", "circuit_tracer")
_PICKLES = {".pt", ".pth", ".bin", ".pkl", ".ckpt"}
_DEPTH = 4  # of folders in folders: layer_5/width_16k/average_l0_71
_LAYER = re.compile(r"(?:layers?[._]?|blocks\.)(\d{1,6})")


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
    """Return the dictionaries of a folder, of whichever format it is; else those of the folders in it.

    Raises
    ------
    InputError
        It is of no format, a file of it is damaged or a pickle, or what is in it does not fit the model or what was
        typed.
    """
    found = _format(folder)
    parts = {folder: found} if found else {path: one for path in _below(folder) if (one := _format(path))}
    if not parts:
        pickled = next((path.name for path in sorted(folder.rglob("*")) if path.suffix in _PICKLES), None)
        if pickled:
            raise InputError(
                f"{folder} holds pickles, such as {pickled}, which run code when they are read; save the tensors as "
                "safetensors, in SAELens' format"
            )
        raise InputError(f"{folder} holds no dictionary of features; formats: {', '.join(MODULES)}, a folder each")
    layers = {path: _named_layer(path, folder) for path in parts}
    kept = [path for path, layer in layers.items() if wanted.layers is None or layer in {None, *wanted.layers}]
    reads = [parts[path].read(path, wanted) for path in kept]
    return _joined(folder, reads, wanted, {layer for layer in layers.values() if layer is not None})


def _joined(folder: Path, reads: Sequence[Read], wanted: Wanted, named: set[int]) -> Read:
    """Return what several folders hold together, by layer; `named`: those that the names of all folders say."""
    every = [(one, read.others.get(n, ())) for read in reads for n, one in enumerate(read.dictionaries)]
    chosen = [pair for pair in every if wanted.layers is None or pair[0].layer in wanted.layers]
    if not chosen:
        has = ranges(named | {one.layer for one, _ in every}) or "others"
        asked = ranges(wanted.layers or ())
        raise InputError(f"{folder} holds no dictionary of layer {asked}; it holds {has}")
    chosen.sort(key=lambda pair: pair[0].reads)
    places = [one.reads for one, _ in chosen]
    twice = next((place for place, following in itertools.pairwise(places) if place == following), None)
    if twice is not None:
        raise InputError(f"{folder} holds several dictionaries of {twice.name}; name the folder of one of them")
    said: dict[str, Any] = {}
    for read in reversed(reads):
        said |= read.said
    others = {n: other for n, (_, other) in enumerate(chosen) if other}
    return Read(reads[0].format, tuple(one for one, _ in chosen), said, others)


def _format(folder: Path) -> Format | None:
    modules: Sequence[Any] = [importlib.import_module(f"{__name__}.{name}") for name in MODULES]
    return next((one for one in modules if one.claims(folder)), None)


def _below(folder: Path, depth: int = _DEPTH) -> Iterator[Path]:
    """Yield the folders in a folder, outer ones first, by name."""
    inner = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    yield from inner
    if depth > 1:
        for path in inner:
            yield from _below(path, depth - 1)


def _named_layer(path: Path, folder: Path) -> int | None:
    """Return the layer that the names of folders, from `folder` on, say; ``None`` where they say none."""
    inside = "/".join(path.relative_to(folder).parts)
    found = _LAYER.search(inside)
    return int(found[1]) if found else None
