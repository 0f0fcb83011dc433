"""A model from a hub name or a folder of safetensors."""

from __future__ import annotations

import json
import re
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors import SafetensorError
from transformer_lens.model_bridge.sources.transformers.helpers import get_hf_model_class_for_architecture

from interp import files
from interp.engine.model.load import placement
from interp.engine.model.load.asked import Held, refuse_larger, weights
from interp.engine.model.load.source import (
    Options,
    Source,
    Value,
    device_of,
    dtype_of,
    offline,
    pickled,
    pickles,
    reason_of,
    suffix_of,
    translated,
)
from interp.engine.model.load.wrap import architecture, wrapped_as
from interp.errors import InputError

# What is not fetched cannot be opened: no pickles.
_FETCHED = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken")


def fetched(repository: str, options: Options) -> Path:
    """Return the folder of the hub's cache that holds a repository, downloaded where it is not there yet.

    Raises
    ------
    InputError
        There is none, it cannot be reached, or its code is asked for without a commit's hash.
    """
    if options.remote_code and not re.fullmatch(r"[0-9a-f]{40}", options.revision or ""):
        raise InputError("--remote-code runs the repository's code: pin it with --revision and a full commit hash")
    options.on_step(0, 3, f"fetching {repository}")
    return snapshot(repository, [*_FETCHED, *(["*.py"] if options.remote_code else [])], revision=options.revision)


def snapshot(repository: str, patterns: list[str], *, revision: str | None = None) -> Path:
    """Return the folder of the hub's cache that holds the files of a repository whose names match.

    Raises
    ------
    InputError
        There is no such repository, or it cannot be reached.
    """
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))
    except RepositoryNotFoundError:
        raise InputError(
            f"the hub has no model {repository!r}, or it is private; check the spelling, or log in with hf auth login"
        ) from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"{repository} is no folder here and could not be fetched ({reason}); what has arrived is kept: "
            "try again, or give a local folder"
        ) from None


def from_folder(folder: Path, name: str, options: Options, *, local: bool) -> Source:
    """Read the model and the tokenizer in a folder; `local` where the user named the folder itself.

    Raises
    ------
    InputError
        Pickles alone, code to be run, or weights that are damaged, another model's, or not there.
    """
    config = _config(folder, name, options, local=local)
    held = weights(folder, name)
    if not any(folder.glob("*.safetensors")):
        found_pickles = pickles(folder)
        if found_pickles or not local:
            raise pickled(name, f"only {', '.join(found_pickles) or 'pickles'}")
        raise InputError(f"{folder} holds no .safetensors file")
    try:
        model_class: Any = get_hf_model_class_for_architecture(wrapped_as(config))
    except (ValueError, KeyError, NotImplementedError) as error:
        raise InputError(f"transformer-lens cannot wrap {name} ({architecture(config)}): {reason_of(error)}") from error
    options.on_step(1, 3, f"reading {name}")
    device = device_of(options.device)
    dtype, notes = dtype_of(options, device, config)

    def make() -> Any:
        return model_class.from_config(config, trust_remote_code=options.remote_code)

    _read(
        name,
        lambda: refuse_larger(
            name,
            config,
            Held.in_files(held),
            make,
        ),
    )
    placed = placement.device_map_of(options, make)
    # For what no file holds as it is used.
    spare = None if placed is None else tempfile.TemporaryDirectory(prefix="interp-weights-")
    model, report = _read(
        name,
        lambda: model_class.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation="eager",
            use_safetensors=True,
            trust_remote_code=options.remote_code,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are reported, and refused below
            **({} if spare is None else {"device_map": placed, "offload_folder": spare.name}),
        ),
    )
    if spare is not None:
        weakref.finalize(model, spare.cleanup)
    on_disk: frozenset[int] = frozenset()
    if any(parameter.is_meta for parameter in model.parameters()):
        model, on_disk, note = placement.from_files(name, model)
        notes.append(note)
    if placed is None and options.max_memory is None:  # else all but the layers go there, once they are known
        model = model.to(device)
    tokenizer, lost = _tokenizer(folder, options)
    notes += lost
    found = Source(name, model.eval(), tokenizer, notes, on_disk=on_disk)
    for key, held, asked in sorted(report["mismatched_keys"]):
        raise InputError(
            f"the weight {key} of {name} has the shape {tuple(held)} and its configuration asks for {tuple(asked)}: "
            "its config.json is another model's"
        )
    missing = sorted(report["missing_keys"])
    head = [key for key in missing if key.startswith(("lm_head", "cls.", "vocab_", "embed_out", "generator"))]
    rest = [key for key in missing if key not in head]
    if rest:
        raise InputError(f"{name} lacks {len(rest)} weights its configuration asks for, such as {rest[0]}")
    if head:
        found.lacks_head = head[0]
        found.notes.append("the checkpoint has no language-model head: attention and activations only, no predictions")
    return found


def _read(name: str, ask: Callable[[], Value]) -> Value:
    try:
        return translated(f"{name} cannot be loaded", ask)
    except InputError as error:
        if isinstance(error.__cause__, SafetensorError | OSError | json.JSONDecodeError):
            reason = reason_of(error.__cause__)
            raise InputError(f"the weights of {name} are damaged ({reason}); fetch or save them again") from None
        raise


def _config(folder: Path, name: str, options: Options, *, local: bool) -> Any:
    path = folder / "config.json"
    if not path.exists() and pickles(folder) and not any(folder.glob("*.safetensors")):
        raise pickled(name, f"only {', '.join(pickles(folder))}")
    if not path.exists():
        raise InputError(f"{folder} is no model folder: it holds no config.json")
    raw: Any = files.read_json(path, "fetch or save the model again")
    if not isinstance(raw, dict):
        raise InputError(f"{path} is no model's configuration: it holds a {type(raw).__name__}")
    kind, named = raw.get("model_type"), raw.get("transformers_weights")
    if named is not None and suffix_of(str(named)) != ".safetensors":
        raise pickled(name, f"and its config.json names {named}")
    known = isinstance(kind, str) and kind in transformers.CONFIG_MAPPING
    if "auto_map" in raw and not known and not options.remote_code:
        how = "--remote-code" if local else "--remote-code --revision <commit hash>"
        raise InputError(f"{name} needs Python code from its repository; read it, then allow it with {how}")
    auto: Any = transformers.AutoConfig
    return translated(
        f"{name}: its config.json cannot be used",
        lambda: auto.from_pretrained(folder, trust_remote_code=options.remote_code),
    )


def _names_code(path: Path) -> bool:
    try:
        return "auto_map" in files.read_json(path, "")
    except (InputError, TypeError):  # there is none, or what it holds is no mapping
        return False


def _tokenizer(folder: Path, options: Options) -> tuple[Any, list[str]]:
    """Return the tokenizer in a folder and what is worth knowing of it.

    A folder may hold weights alone; prompts are then given as ids, and a text says that it needs a tokenizer.
    """
    try:
        with offline():
            found: Any = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=options.remote_code)
        # Of some families one of no words is made where there are no files.
        return (None if getattr(found, "vocab_size", 1) == 0 else found), []
    except Exception as error:
        reason = reason_of(error)
    if _names_code(folder / "tokenizer_config.json"):
        return None, ["its tokenizer is Python code from its repository: prompts are ids only, unless --remote-code"]
    there = any(folder.glob("tokenizer*")) or any(folder.glob("vocab*"))
    return None, [f"its tokenizer cannot be read ({reason}): prompts are ids only"] if there else []
