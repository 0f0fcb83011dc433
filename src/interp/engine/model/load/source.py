"""What every way of loading ends in, how it is asked for, and a library's errors in one line."""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, TypeVar, cast

import torch
import transformers
from huggingface_hub import constants

from interp.engine import memory
from interp.errors import InputError

# Pickles run code when they are opened.
PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})
WEIGHTS = PICKLES | {".gguf", ".safetensors"}

OnStep = Callable[[int, int, str], None]
Value = TypeVar("Value")


@dataclass
class Source:
    """A Hugging Face model and tokenizer, ready to be wrapped, and what is worth knowing about how they came."""

    name: str
    model: Any
    tokenizer: Any
    notes: list[str] = field(default_factory=list[str])
    lacks_head: str = ""
    on_disk: frozenset[int] = frozenset()  # addresses of weights that are


@dataclass(frozen=True)
class Options:
    """How to load: see `interp.load`."""

    device: str = "auto"
    dtype: str = "auto"
    revision: str | None = None
    remote_code: bool = False
    adapter: str | None = None
    max_memory: int | None = None
    device_map: str | Mapping[str, Any] | None = None
    on_step: OnStep = lambda done, total, what: None  # noqa: ARG005


def translated(what: str, ask: Callable[[], Value], what_to_do: str = "") -> Value:
    """Call into a library, which asks the hub nothing; its own errors become one line that begins with `what`.

    Raises
    ------
    InputError
        The library failed, but not for want of memory.
    """
    try:
        with offline():
            return ask()
    except InputError:
        raise
    except Exception as error:
        if memory.is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # they may hold a model
        raise InputError(f"{what}: {reason_of(error)}{what_to_do}") from error


def reason_of(error: Exception, most: int = 200) -> str:
    """Return what an error of a library says, on one line of at most `most` characters.

    Examples
    --------
    >>> reason_of(KeyError("rope")), reason_of(ValueError("no\\n  rope"))
    ("KeyError: 'rope'", 'no rope')
    """
    said = " ".join(str(error).split()).partition(" Available architectures:")[0]  # a list of hundreds
    if not isinstance(error, OSError | ValueError | RuntimeError | NotImplementedError | ImportError) or not said:
        said = f"{type(error).__name__}: {said}"
    return said if len(said) <= most else said[: most - 1] + "…"


@contextlib.contextmanager
def offline() -> Generator[None]:
    """Keep Hugging Face's client from asking anything: what is read lies here already, whatever its files name."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """Silence the libraries' own progress bars and load reports: interp says what matters of them itself."""
    bars = transformers.utils.logging.is_progress_bar_enabled()
    level = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    placing = logging.getLogger("accelerate")
    before = placing.level
    placing.setLevel(logging.ERROR)
    try:
        yield
    finally:
        placing.setLevel(before)
        transformers.utils.logging.set_verbosity(level)
        if bars:
            transformers.utils.logging.enable_progress_bar()


def refuse_limit(options: Options, what: str) -> None:
    """Refuse ``--max-memory`` and ``--device-map`` where weights are not read from a folder's files.

    Raises
    ------
    InputError
        One is asked for.
    """
    if options.device_map is not None:
        raise InputError(
            f"--device-map places the weights in a folder's safetensors, and {what}; load it without, or save it as "
            "one: model.save_pretrained(folder)"
        )
    if options.max_memory is not None:
        raise InputError(
            f"--max-memory leaves weights in a folder's safetensors, and {what}; load it without, or save it as one: "
            "model.save_pretrained(folder)"
        )


def pickles(folder: Path) -> list[str]:
    """Return the names of the pickles in a folder."""
    return sorted(path.name for path in folder.iterdir() if suffix_of(path) in PICKLES)


def suffix_of(name: str | PurePath) -> str:
    """Return a file's suffix in small letters, which is all that tells what is in it.

    Examples
    --------
    >>> suffix_of("A.GGUF")
    '.gguf'
    """
    return PurePath(name).suffix.lower()


def pickled(name: str, what: str) -> InputError:
    """Return the refusal of weights that are pickles, to be raised."""
    return InputError(
        f"{name} has no safetensors, {what}: a pickle runs code when it is opened; convert it with "
        "model.save_pretrained(folder) where you trust it, and load that folder"
    )


def device_of(name: str) -> torch.device:
    """Return the device of that name, ``"auto"`` the best there is; refuse one that is not here."""
    if name == "auto":
        best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(best)
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"{name!r} is no device; use auto, cpu, cuda, cuda:0 or mps") from None
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if not there.get(device.type, False):
        raise InputError(f"there is no {device.type} device here; use --device auto")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"there is no {name}; devices are cuda:0–cuda:{torch.cuda.device_count() - 1}")
    return device


def named_dtype(name: str) -> torch.dtype:
    """Return the dtype of that name, as PyTorch or as most people call it."""
    names = {"float32": "float32", "fp32": "float32", "float16": "float16", "fp16": "float16", "half": "float16"}
    names |= {"bfloat16": "bfloat16", "bf16": "bfloat16", "float64": "float64", "fp64": "float64"}
    if name not in names:
        raise InputError(f"{name!r} is no dtype; use auto, float32, bfloat16, float16 or float64")
    return cast(torch.dtype, getattr(torch, names[name]))


def dtype_of(options: Options, device: torch.device, config: Any) -> tuple[torch.dtype, list[str]]:
    """Return the dtype to load in, and what is worth knowing of it.

    ``"auto"`` is float32 on a CPU, else as stored; and as stored where the weights stay in their files.

    Raises
    ------
    InputError
        They are to stay there, and another dtype, or Apple's GPU, is asked for.
    """
    stored = getattr(config, "dtype", None)
    in_files = options.max_memory is not None
    on_disk = isinstance(options.device_map, Mapping) and "disk" in options.device_map.values()
    if in_files and device.type == "mps":
        refuse_limit(options, "on mps they are copied (use --device cpu)")
    if options.dtype != "auto":
        asked = named_dtype(options.dtype)
        if in_files and asked != stored:
            refuse_limit(options, f"these are {str(stored).removeprefix('torch.')}, not {options.dtype}")
        if on_disk and asked != stored:
            there = str(stored).removeprefix("torch.")
            raise InputError(
                f"what the device map leaves on disk is {there} there, not {options.dtype}; load it without --dtype, "
                "or put all of it on cpu"
            )
        return asked, []
    if (device.type == "cpu" and not (in_files or on_disk)) or not isinstance(stored, torch.dtype):
        return torch.float32, []
    plain = str(stored).removeprefix("torch.")
    return stored, [
        f"loaded in {plain}, the checkpoint's dtype; --dtype float32 is exact and slower"
    ] if plain != "float32" else []


def plain_name(name: str) -> str:
    """Return the last part of a hub name or a path."""
    return name.rstrip("/").split("/")[-1] or "model"
