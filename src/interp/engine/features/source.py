"""From what a user types to the folder that holds dictionaries: a folder here, or one of a repository of the hub."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from huggingface_hub import HfApi, constants

from interp import files
from interp.engine.memory import readable
from interp.engine.model.load import hub
from interp.engine.model.load.source import reason_of
from interp.errors import InputError

# ae.pt is read without running code, or refused; other pickles are not fetched.
_FETCHED = ("*.json", "*.yaml", "*.npz", "*.safetensors", "ae.pt", "*/ae.pt")
_SUFFIXES = (".json", ".yaml", ".npz", ".safetensors", "ae.pt")
_HUB = re.compile(r"([\w-][\w.-]*/[\w.-]+)(?:/(.+))?")


def folder_of(given: str) -> Path:
    """Return the folder that is typed; a hub name may name one inside its repository: ``owner/name/layer_5/width_16k``.

    Raises
    ------
    InputError
        It is a file, nothing is there, or the hub cannot be reached or has more than there is room for.
    """
    path = files.path_of(given)
    found = files.there(path)
    if found == "folder":
        return path
    if found:
        raise InputError(f"{given!r} is a {'file' if found == 'file' else 'device'}; give the folder that it is in")
    named = _HUB.fullmatch(given)
    if named is None:
        raise InputError(f"there is no folder {given!r}; give a folder of dictionaries, a hub name, or bundled")
    repository, inside = named[1], (named[2] or "").strip("/")
    if ".." in Path(inside).parts:
        raise InputError(f"{given!r} climbs out of its repository; name a folder in it")
    _room(repository, inside)
    patterns = [f"{inside}/{pattern}" if inside else pattern for pattern in _FETCHED]
    folder = hub.snapshot(repository, patterns) / inside
    if not folder.is_dir():
        raise InputError(f"{repository} has no folder {inside!r} with dictionaries in it; see its files on the hub")
    return folder


def _room(repository: str, inside: str) -> None:
    """Refuse a repository whose files are larger than the disk has room for; offline there is nothing to fetch."""
    if constants.HF_HUB_OFFLINE:
        return
    try:
        listed = HfApi().model_info(repository, files_metadata=True).siblings or []
    except Exception as error:  # the download says what is wrong, or works from the cache
        _ = reason_of(error)
        return
    within = [one for one in listed if one.rfilename.startswith(f"{inside}/" if inside else "")]
    size = sum(one.size or 0 for one in within if one.rfilename.endswith(_SUFFIXES))
    place = Path(constants.HF_HUB_CACHE)
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if size > free:
        raise InputError(
            f"{repository} holds {readable(size)}, and the disk has {readable(free)} left; name a folder of it, such "
            f"as {repository}/layer_5/width_16k/average_l0_71"
        )
