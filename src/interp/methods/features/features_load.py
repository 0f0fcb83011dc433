"""Loading dictionaries of features, and what they are worth on the model at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from interp import bundled, files
from interp.errors import InputError, printable
from interp.interface.registry import technique
from interp.methods._shared import feature_labels
from interp.methods._shared import texts as running
from interp.methods._shared.features import SAMPLE, features_of, sample_of
from interp.methods._shared.features_result import FeaturesResult
from interp.spec import FeaturePoint, FeatureSource, Indices, Prompt, resolve_indices

if TYPE_CHECKING:
    import torch

    from interp.engine.features.dictionary import Dictionary
    from interp.engine.features.formats import Read
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.model.tokens import Encoded

BUNDLED = "bundled-features"


@technique(body=None, name="features-load")
def features_load(
    model: LoadedModel,
    path: FeatureSource,
    *,
    site: FeaturePoint | None = None,
    layer: Indices = None,
    text: Annotated[str, "file"] | None = None,
    name: str | None = None,
    labels: Annotated[str, "file"] | None = None,
) -> FeaturesResult:
    """Load dictionaries of features (SAEs, transcoders, CLTs) and measure what they are worth on this model.

    A folder in the format of SAELens, Gemma Scope 1 or 2, sparsify, dictionary_learning or circuit-tracer, or a folder
    of such folders. They are measured on about 200 tokens, beside what their files declare: a wrong place or scale
    makes nothing fail, and everything meaningless.

    Parameters
    ----------
    path
        A folder, bundled, or a hub name; a folder inside a repository is named behind it.
    site
        Where they read, if not where their files say.
    layer
        Layers, such as 5, 0-3 or 0,5,7, of what has several; or the layer of files that do not say theirs.
    text
        A file of texts to measure on, instead of those that the files say, or plain sentences.
    name
        What to call the set here; its folder's name when not given.
    labels
        A file of labels, saved from the result of features-label; labels.json in the folder when not given.

    Returns
    -------
    FeaturesResult
        What is doubtful about them is in its notes, and in those of every later result.

    Raises
    ------
    InputError
        Nothing is there, it is of no known format, a pickle, damaged or too large, or does not fit the model; or
        labels of other features.

    Examples
    --------
    >>> interp.features_load("dictionaries", layer=0)
    FeaturesResult(dictionaries: 1 dictionary, 256 features)
    """
    from interp.engine.features import formats, held, places
    from interp.engine.features.source import folder_of

    if name is not None and not str(name).strip():
        raise InputError("--name is blank; type what to call the features here, or leave it out")
    chosen = None if layer is None else resolve_indices(layer, model.geometry.n_layers, "layer")
    own = path == "bundled" and not files.there(files.path_of(path))
    folder = _bundled() if own else folder_of(path)
    wanted = formats.Wanted(places.widths(model), model.geometry.n_layers, site, chosen)
    if site is not None and site not in wanted.widths:
        raise InputError(f"{model.name} has no {site}; it has {', '.join(wanted.widths)}")
    model.on_step(0, 3, f"reading {printable(folder.name)}")
    read = formats.read(folder, wanted)
    prompts, sample = _sample(model, read, text)
    model.on_step(1, 3, "measuring")
    with_loss = _predicts(model)
    dictionaries, notes = _meant(model, read, prompts)
    found = measured(model, dictionaries, prompts, loss=with_loss)
    made = held.FeatureSet(
        name=str(name) if name is not None else BUNDLED if own else printable(folder.absolute().name),
        source="bundled" if own else str(path),
        format=read.format,
        dictionaries=dictionaries,
        sample=sample,
        measured=tuple(found),
        said=read.said,
    )
    found, more = feature_labels.in_folder(made, folder) if labels is None else feature_labels.fitting(made, labels)
    made = replace(made, labels=found)
    held.hold(model, made)
    features_of(model, made.name)
    return FeaturesResult.of([made], made.name, (*notes, *more))


def measured(
    model: LoadedModel, dictionaries: Sequence[Dictionary], prompts: Sequence[Encoded], *, loss: bool
) -> list[Any]:
    """Return what dictionaries are worth on prompts, and tell how far that is."""
    from interp.engine.features.measure import measure

    return measure(
        model, dictionaries, prompts, loss=loss, on_step=lambda done, total: model.on_step(done, total, "measuring")
    )


def _bundled() -> Path:
    if not bundled.FEATURES.is_dir():
        raise InputError("no features come with this version; give a folder of dictionaries, or a hub name")
    return bundled.FEATURES


def _predicts(model: LoadedModel) -> bool:
    """Return whether there is a next-token loss to measure."""
    return model.geometry.causal and not model.lacks_head


def _sample(model: LoadedModel, read: Read, text: str | None) -> tuple[list[Encoded], tuple[str, ...]]:
    """Return what to measure on, as tokens and as texts: a file's, else what the dictionaries' files say, else ours."""
    said: Any = read.said.get("sample")
    if text is not None:
        texts: Sequence[Prompt] = running.from_file(text).texts
    elif isinstance(said, list | tuple) and said and all(isinstance(one, str) and one.strip() for one in said):
        texts = [Prompt(one) for one in said]
    else:
        texts = [Prompt(one) for one in SAMPLE]
    return sample_of(model, texts), tuple(one.text for one in texts if one.text is not None)


def _meant(
    model: LoadedModel, read: Read, prompts: Sequence[Encoded]
) -> tuple[tuple[Dictionary, ...], tuple[str, ...]]:
    """Return each dictionary where the model is, read in the way that gives back most, and which way where not all say.

    Raises
    ------
    InputError
        They do not fit into memory.
    """
    import torch

    from interp.engine import memory
    from interp.engine.features.measure import measure

    dtype: torch.dtype = getattr(torch, model.dtype)
    needed = sum(tensor.numel() for one in read.dictionaries for tensor in one.held) * dtype.itemsize
    free = memory.free_bytes(model.device)
    if needed > free:
        raise InputError(
            f"the dictionaries take {memory.readable(needed)}, and {memory.readable(free)} is free on {model.device}; "
            "load fewer with --layer, or free some with %interp clear"
        )
    notes: list[str] = []
    kept: list[Dictionary] = []
    for n, one in enumerate(read.dictionaries):
        ways = [("as its files have it", one), *read.others.get(n, ())]
        there = [(said, way) for said, way in ways if _lacking(model, way) is None]
        if not there:
            raise InputError(f"{model.name} shows no {_lacking(model, one)}, where a dictionary reads or writes")
        best = there[0][1].to(model.device, dtype)
        if len(there) > 1:
            moved = [way.to(model.device, dtype) for _, way in there]
            worth = [measure(model, [way], prompts, loss=False)[0].fvu for way in moved]
            order = sorted(range(len(worth)), key=lambda k: (worth[k] != worth[k], worth[k]))
            best = moved[order[0]]
            if order[0]:
                said = f"features of {best.reads.name}: {there[order[0]][0]}, of which their files say nothing"
                notes.append(f"{said}: FVU {worth[order[0]]:.2g}, otherwise {worth[0]:.2g}")
        kept.append(best)
    return tuple(kept), tuple(notes)


def _lacking(model: LoadedModel, one: Dictionary) -> str | None:
    """Return the first place of a dictionary's that the model does not show; ``None`` where it shows all."""
    places = (one.reads, *one.writes)
    return next((place.name for place in places if place.hook(model) not in model.site_hooks), None)
