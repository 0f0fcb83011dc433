"""From a hub name, a folder, a GGUF file, an adapter or an object in memory to a `LoadedModel`.

Every way ends in the same two things, a Hugging Face model and its tokenizer, which `TransformerBridge` then wraps.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import json
import re
import shutil
import tempfile
import traceback
import weakref
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
import transformers
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors import SafetensorError
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.sources._hf_format import determine_architecture_from_hf_config
from transformer_lens.model_bridge.sources.transformers.helpers import get_hf_model_class_for_architecture

from interp.engine import memory
from interp.engine.model.loaded import LoadedModel, Said
from interp.errors import InputError, OutOfMemory

# Pickles run code when they are opened; what is not fetched cannot be opened.
_FETCHED = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")

OnStep = Callable[[int, int, str], None]
Value = TypeVar("Value")

# What tutorials call a model, by transformer-lens' names of old → what the hub calls it.
_OLD_NAMES = {"gpt2-small": "gpt2"}


@dataclass
class Source:
    """A Hugging Face model and tokenizer, ready to be wrapped, and what is worth knowing about how they came."""

    name: str
    model: Any
    tokenizer: Any
    notes: list[str] = field(default_factory=list[str])
    lacks_head: str = ""


@dataclass(frozen=True)
class Options:
    """How to load: see `interp.load`."""

    device: str = "auto"
    dtype: str = "auto"
    revision: str | None = None
    remote_code: bool = False
    adapter: str | None = None
    on_step: OnStep = lambda done, total, what: None  # noqa: ARG005


def load(
    source: Any, *, tokenizer: Any = None, copy_model: bool = False, name: str | None = None, options: Options
) -> LoadedModel:
    """Load `source`: a name, a path, a Hugging Face or PEFT model, or a TransformerBridge.

    Raises
    ------
    InputError
        Nothing is there, the hub cannot be reached, the weights are pickles, remote code is needed, the tokenizer
        does not survive saving, or the object is of a kind that cannot be wrapped.
    OutOfMemory
        The model does not fit.
    """
    try:
        return _load(source, tokenizer, copy_model, name, options)
    except (RuntimeError, MemoryError) as error:
        if not memory.is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)
    # Outside the except block, so that the new error does not carry the old one's frames.
    device = _device(options.device)
    memory.empty_cache(device)
    what = name or (source if isinstance(source, str | Path) else type(source).__name__)
    raise OutOfMemory(
        f"out of memory while loading {what}: {memory.readable(memory.free_bytes(device))} is free on {device}; free "
        "some with %interp unload or %interp clear, or use --dtype bfloat16"
    )


def _load(source: Any, tokenizer: Any, copy_model: bool, name: str | None, options: Options) -> LoadedModel:
    if isinstance(source, TransformerBridge):
        if options.adapter is not None:
            raise InputError(
                "a TransformerBridge takes no adapter any more; give the Hugging Face model it was made of"
            )
        return LoadedModel(name or _plain_name(str(source.cfg.model_name)), source)
    with _quiet():
        if isinstance(source, str | Path):
            found = _from_path(str(source), options)
        elif isinstance(source, torch.nn.Module):
            found = _from_object(source, tokenizer, copy_model or options.adapter is not None)
        else:
            raise InputError(f"cannot load a {type(source).__name__}; give a name, a folder, a model or a bridge")
        if options.adapter is not None:
            found = _adapted(found, Path(options.adapter).expanduser())
        options.on_step(2, 3, "wrapping the model")
        before = told(f"transformers cannot run {found.name}", lambda: _said(found.model))
        bridge = _wrap(found)
        model = told(
            f"transformer-lens cannot run {found.name}",
            lambda: LoadedModel(
                name or found.name, bridge, notes=found.notes, lacks_head=found.lacks_head, before=before
            ),
        )
    if model.device.type == "mps":
        _compare_with_cpu(model)
    options.on_step(3, 3, "ready")
    return model


def told(what: str, ask: Callable[[], Value], what_to_do: str = "") -> Value:
    """Call into a library, whose own errors become one line that begins with `what`.

    Raises
    ------
    InputError
        The library failed, but not for want of memory.
    """
    try:
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
def _quiet() -> Generator[None]:
    """Silence transformers' own progress bars and load report: interp says what matters of them itself."""
    bars = transformers.utils.logging.is_progress_bar_enabled()
    level = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.utils.logging.set_verbosity(level)
        if bars:
            transformers.utils.logging.enable_progress_bar()


# -- names and paths -----------------------------------------------------------------------------------------------


def _from_path(source: str, options: Options) -> Source:
    path = Path(source).expanduser()
    if path.is_file() and path.suffix == ".gguf":
        return _from_gguf(path, options)
    if path.is_file() and path.suffix in _PICKLES:
        raise _pickled(path.name, "it is a pickle")
    if path.is_file():
        raise InputError(f"{source} is a file; give its folder, or a .gguf file")
    if path.is_dir():
        ggufs = sorted(path.glob("*.gguf"))
        if ggufs and not (path / "config.json").exists():
            if len(ggufs) > 1:
                raise InputError(f"{source} holds {len(ggufs)} GGUF files; name one: {ggufs[0].name}")
            return _from_gguf(ggufs[0], options)
        return _from_folder(path, _folder_name(path), options, local=True)
    if source.startswith((".", "/", "~")) or source.count("/") > 1 or "\\" in source:
        raise InputError(f"there is no folder {source!r} (looked in {Path.cwd()})")
    source = _OLD_NAMES.get(source, source)
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", source):
        raise InputError(f"{source!r} is neither a folder nor a hub name such as gpt2 or owner/name")
    return _from_folder(_fetched(source, options), _plain_name(source), options, local=False)


def _fetched(repository: str, options: Options) -> Path:
    if options.remote_code and not re.fullmatch(r"[0-9a-f]{40}", options.revision or ""):
        raise InputError("--remote-code runs the repository's code: pin it with --revision and a full commit hash")
    options.on_step(0, 3, f"fetching {repository}")
    patterns = [*_FETCHED, *(["*.py"] if options.remote_code else [])]
    try:
        return Path(snapshot_download(repository, revision=options.revision, allow_patterns=patterns))
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


def _from_folder(folder: Path, name: str, options: Options, *, local: bool) -> Source:
    adapter = folder / "adapter_config.json"
    if adapter.exists() and not (folder / "config.json").exists():
        return _from_adapter(folder, name, options)
    config = _config(folder, name, options, local=local)
    if not any(folder.glob("*.safetensors")):
        pickles = _pickles(folder)
        if pickles or not local:
            raise _pickled(name, f"only {', '.join(pickles) or 'pickles'}")
        raise InputError(f"{folder} holds no .safetensors file")
    try:
        architecture = determine_architecture_from_hf_config(config)
        model_class: Any = get_hf_model_class_for_architecture(architecture)
    except (ValueError, KeyError, NotImplementedError) as error:
        raise InputError(
            f"transformer-lens cannot wrap {name} ({_architecture(config)}): {reason_of(error)}"
        ) from error
    options.on_step(1, 3, f"reading {name}")
    device = _device(options.device)
    dtype, notes = _dtype(options.dtype, device, config)
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
        ),
    )
    tokenizer, lost = _tokenizer(folder, options)
    notes += lost
    found = Source(name, model.to(device).eval(), tokenizer, notes)
    for key, held, asked in sorted(report["mismatched_keys"]):
        raise InputError(
            f"the weight {key} of {name} has the shape {tuple(held)} and its configuration asks for {tuple(asked)}: "
            "its config.json is another model's"
        )
    missing = sorted(report["missing_keys"])
    head = [key for key in missing if key.startswith(("lm_head", "cls.", "embed_out", "generator"))]
    rest = [key for key in missing if key not in head]
    if rest:
        raise InputError(f"{name} lacks {len(rest)} weights its configuration asks for, such as {rest[0]}")
    if head:
        found.lacks_head = head[0]
        found.notes.append("the checkpoint has no language-model head: attention and activations only, no predictions")
    return found


def _read(name: str, ask: Callable[[], Value]) -> Value:
    try:
        return told(f"{name} cannot be loaded", ask)
    except InputError as error:
        if isinstance(error.__cause__, SafetensorError | OSError | json.JSONDecodeError):
            reason = reason_of(error.__cause__)
            raise InputError(f"the weights of {name} are damaged ({reason}); fetch or save them again") from None
        raise


def _config(folder: Path, name: str, options: Options, *, local: bool) -> Any:
    path = folder / "config.json"
    if not path.exists() and _pickles(folder) and not any(folder.glob("*.safetensors")):
        raise _pickled(name, f"only {', '.join(_pickles(folder))}")
    if not path.exists():
        raise InputError(f"{folder} is no model folder: it holds no config.json")
    try:
        raw: Any = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {str(error).partition(chr(10))[0]}") from None
    if not isinstance(raw, dict):
        raise InputError(f"{path} is no model's configuration: it holds a {type(raw).__name__}")
    known = raw.get("model_type") in transformers.CONFIG_MAPPING
    if "auto_map" in raw and not known and not options.remote_code:
        how = "--remote-code" if local else "--remote-code --revision <commit hash>"
        raise InputError(f"{name} needs Python code from its repository; read it, then allow it with {how}")
    auto: Any = transformers.AutoConfig
    return told(
        f"{name}: its config.json cannot be used",
        lambda: auto.from_pretrained(folder, trust_remote_code=options.remote_code),
    )


def _pickles(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)


def _pickled(name: str, what: str) -> InputError:
    return InputError(
        f"{name} has no safetensors, {what}: a pickle runs code when it is opened; convert it with "
        "model.save_pretrained(folder) where you trust it, and load that folder"
    )


def _names_code(path: Path) -> bool:
    try:
        return "auto_map" in json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return False


def _tokenizer(folder: Path, options: Options) -> tuple[Any, list[str]]:
    """Return the tokenizer in a folder and what is worth knowing of it.

    A folder may hold weights alone; prompts are then given as ids, and a text says that it needs a tokenizer.
    """
    try:
        return transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=options.remote_code), []
    except Exception as error:
        reason = reason_of(error)
    if _names_code(folder / "tokenizer_config.json"):
        return None, ["its tokenizer is Python code from its repository: prompts are ids only, unless --remote-code"]
    there = any(folder.glob("tokenizer*")) or any(folder.glob("vocab*"))
    return None, [f"its tokenizer cannot be read ({reason}): prompts are ids only"] if there else []


def _from_gguf(path: Path, options: Options) -> Source:
    try:
        import gguf  # noqa: F401  # pyright: ignore[reportUnusedImport, reportMissingImports]
    except ImportError:
        raise InputError("GGUF files need the gguf package: pip install gguf") from None
    options.on_step(1, 3, f"reading {path.name}")
    device = _device(options.device)
    place = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
    auto: tuple[Any, Any] = (transformers.AutoModelForCausalLM, transformers.AutoTokenizer)
    reader: Any = importlib.import_module("transformers.modeling_gguf_pytorch_utils")
    bar, reader.tqdm = reader.tqdm, _no_bar
    try:
        model, tokenizer = told(
            f"{path.name} cannot be read as a GGUF file",
            lambda: (
                auto[0].from_pretrained(**place, dtype=torch.float32, attn_implementation="eager"),
                auto[1].from_pretrained(**place),
            ),
            "; fetch it again",
        )
    finally:
        reader.tqdm = bar
    notes = [f"{path.name} is a quantised model, dequantised to float32"]
    dtype = torch.float32 if options.dtype == "auto" else _named_dtype(options.dtype)
    return Source(path.stem, model.to(device=device, dtype=dtype).eval(), tokenizer, notes)


def _no_bar(tensors: Any, **_options: Any) -> Any:
    """Stand for the one progress bar that transformers has no switch for."""
    return tensors


def _from_adapter(folder: Path, name: str, options: Options) -> Source:
    path = folder / "adapter_config.json"
    try:
        base_name = json.loads(path.read_text("utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path} cannot be read: {reason_of(error)}") from None
    if not base_name:
        raise InputError(
            f"{folder} is an adapter that does not name its base model; load that one with --adapter {folder}"
        )
    _check_adapter(folder)
    base = Path(str(base_name)).expanduser()
    if (base / "adapter_config.json").exists() and not (base / "config.json").exists():
        raise InputError(
            f"{folder} names another adapter, {base_name}, as its base model; load the model with --adapter"
        )
    return replace(_adapted(_from_path(str(base_name), replace(options, adapter=None)), folder), name=name)


def _adapted(base: Source, folder: Path) -> Source:
    """Return `base` with the adapter in `folder` merged in; its weights are changed in place."""
    peft = _check_adapter(folder)
    merged: Any = told(
        f"the adapter {folder.name} does not fit {base.name}",
        lambda: peft.PeftModel.from_pretrained(base.model, folder).merge_and_unload(),
    )
    notes = [*base.notes, f"the adapter {folder.name} was merged into {base.name}"]
    return replace(base, name=f"{base.name}+{folder.name}", model=merged.eval(), notes=notes)


def _check_adapter(folder: Path) -> Any:
    """Return the peft package where `folder` holds an adapter that it can read without running code."""
    if not (folder / "adapter_config.json").is_file():
        raise InputError(f"{folder} is no adapter folder: it holds no adapter_config.json")
    if not (folder / "adapter_model.safetensors").exists():  # PEFT would open adapter_model.bin
        raise _pickled(folder.name, f"only {', '.join(_pickles(folder)) or 'no weights'}")
    return _peft()


def _peft() -> Any:
    try:
        import peft
    except ImportError:
        raise InputError("adapters need the peft package: pip install peft") from None
    return peft


# -- objects in memory ---------------------------------------------------------------------------------------------


def _from_object(model: Any, tokenizer: Any, copy_model: bool) -> Source:
    _refuse_other_heads(model)
    notes: list[str] = []
    model = getattr(model, "_orig_mod", model)  # what torch.compile made it of
    name = _plain_name(getattr(getattr(model, "config", None), "_name_or_path", "") or type(model).__name__)
    if hasattr(model, "merge_and_unload"):
        # Wrapping a PEFT model drops its adapter or crashes: a merged copy is what it computes.
        model = copy.deepcopy(model).merge_and_unload()
        notes.append("this is a copy with the adapter merged in; your object is as it was")
    elif copy_model:
        model = copy.deepcopy(model)
        notes.append("this is a copy; your object is as it was")
    else:
        notes.append(
            "your model object was rewired in place (parameters renamed, attention eager); copy=True leaves it alone"
        )
    if getattr(model, "config", None) is None or not hasattr(model, "save_pretrained"):
        raise InputError(f"cannot wrap a {type(model).__name__}; give a Hugging Face model or a TransformerBridge")
    if any(tensor.is_meta for tensor in model.parameters()):
        raise InputError(f"weights of {name} are on the meta device, without values; load them, and onto one device")
    if not model.config.architectures:  # of a model that was made of a configuration and never saved
        model.config.architectures = [type(model).__name__]
    return Source(name, model.eval(), _survivor(tokenizer) if tokenizer is not None else None, notes)


def _refuse_other_heads(model: Any) -> None:
    """Refuse a model without a language-model head of its own before wrapping it rewires half of it."""
    kind = type(model).__name__
    _refuse_two_stacks(kind, getattr(model, "config", None))
    if kind.endswith("ForSequenceClassification"):
        raise InputError(
            f"a {kind} is explained as it is: interp.saliency_of_classifier(text, model, tokenizer, target=1); for its "
            "attention load its folder or its name"
        )
    if getattr(model, "base_model", None) is model and model.get_output_embeddings() is None:
        raise InputError(
            f"a {kind} has no language-model head: load it with AutoModelForCausalLM, an encoder with "
            "AutoModelForMaskedLM, or give interp.load its folder or its name"
        )


def _survivor(tokenizer: Any) -> Any:
    """Return `tokenizer` as re-read from a folder, which the bridge does to it by path, losing tokens added since."""
    if not hasattr(tokenizer, "save_pretrained"):
        raise InputError(f"tokenizer= takes a tokenizer, such as AutoTokenizer gives, not a {type(tokenizer).__name__}")
    folder = tempfile.mkdtemp(prefix="interp-tokenizer-")
    try:
        tokenizer.save_pretrained(folder)
        read = transformers.AutoTokenizer.from_pretrained(folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    weakref.finalize(read, shutil.rmtree, folder, ignore_errors=True)
    if read.get_vocab() != tokenizer.get_vocab():
        lost = sorted(set(tokenizer.get_vocab()) - set(read.get_vocab()))
        raise InputError(f"the tokenizer does not survive saving ({len(lost)} tokens lost, such as {lost[:1]})")
    return read


def _wrap(source: Source) -> TransformerBridge:
    config = source.model.config
    _refuse_two_stacks(source.name, config)
    what = f"transformer-lens cannot wrap {source.name} ({_architecture(config)})"
    device = next(source.model.parameters()).device
    if source.tokenizer is None:
        return told(what, lambda: _wrap_without_tokenizer(source, device))
    return told(
        what,
        lambda: TransformerBridge.boot_transformers(
            f"local/{source.name}",
            hf_model=source.model,
            tokenizer=source.tokenizer,
            device=str(device),
            dtype=source.model.dtype,
        ),
    )


def _refuse_two_stacks(name: str, config: Any) -> None:
    if getattr(config, "is_encoder_decoder", False):
        raise InputError(f"{name} is an encoder with a decoder; interp takes models of one stack of layers")


def _wrap_without_tokenizer(source: Source, device: torch.device) -> TransformerBridge:
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    source.model.set_attn_implementation("eager")
    return build_bridge_from_module(
        source.model,
        determine_architecture_from_hf_config(source.model.config),
        hf_config=source.model.config,
        device=device,
        model_name=source.name,
    )


def _architecture(config: Any) -> str:
    return str((getattr(config, "architectures", None) or [getattr(config, "model_type", "unknown")])[0])


def _said(model: Any) -> Said | None:
    """Return a few tokens and what Hugging Face's own forward says of them; ``None`` where it gives no logits."""
    ids = [n % model.get_input_embeddings().weight.shape[0] for n in range(1, 9)]
    with torch.no_grad():
        logits = getattr(model(torch.tensor([ids], device=next(model.parameters()).device)), "logits", None)
    return (ids, logits[0].float().cpu()) if isinstance(logits, Tensor) and logits.dim() == 3 else None


# -- device, dtype, names ------------------------------------------------------------------------------------------


def _device(name: str) -> torch.device:
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


def _named_dtype(name: str) -> torch.dtype:
    names = {"float32": "float32", "fp32": "float32", "float16": "float16", "fp16": "float16", "half": "float16"}
    names |= {"bfloat16": "bfloat16", "bf16": "bfloat16", "float64": "float64", "fp64": "float64"}
    if name not in names:
        raise InputError(f"{name!r} is no dtype; use auto, float32, bfloat16, float16 or float64")
    return cast(torch.dtype, getattr(torch, names[name]))


def _dtype(name: str, device: torch.device, config: Any) -> tuple[torch.dtype, list[str]]:
    if name != "auto":
        return _named_dtype(name), []
    stored = getattr(config, "dtype", None)
    if device.type == "cpu" or not isinstance(stored, torch.dtype):
        return torch.float32, []
    plain = str(stored).removeprefix("torch.")
    return stored, [
        f"loaded in {plain}, the checkpoint's dtype; --dtype float32 is exact and slower"
    ] if plain != "float32" else []


def _folder_name(path: Path) -> str:
    """Return what to call the model in `path`; the snapshots of a hub cache are named after their repository."""
    resolved = path.resolve()
    if resolved.parent.name == "snapshots" and resolved.parent.parent.name.startswith("models--"):
        return resolved.parent.parent.name.split("--")[-1]
    return resolved.name


def _plain_name(name: str) -> str:
    return name.rstrip("/").split("/")[-1] or "model"


def _compare_with_cpu(model: LoadedModel) -> None:
    """Warn where a forward on Apple's GPU differs from the CPU's: some of its kernels have been wrong."""
    ids = torch.arange(1, min(9, model.geometry.d_vocab))[None]
    with torch.no_grad():
        there = model.bridge.forward(ids.to(model.device), return_type="logits").float().cpu()
        reference = copy.deepcopy(model.hf_model).to(device="cpu", dtype=torch.float32)(ids).logits
    difference = float((there - reference).abs().max())
    if difference > 1e-2:
        model.notes = (
            *model.notes,
            f"a forward on mps differs from the CPU's by {difference:.2g} of a logit; --device cpu is exact",
        )
