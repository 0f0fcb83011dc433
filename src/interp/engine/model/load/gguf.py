"""A model from a GGUF file, as Ollama and llama.cpp keep them, dequantised."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
import transformers

from interp.engine.model.load.source import Options, Source, device_of, named_dtype, translated
from interp.errors import InputError


def from_gguf(path: Path, options: Options) -> Source:
    """Read a GGUF file."""
    try:
        import gguf  # noqa: F401  # pyright: ignore[reportUnusedImport, reportMissingImports]
    except ImportError:
        raise InputError("GGUF files need the gguf package: pip install gguf") from None
    options.on_step(1, 3, f"reading {path.name}")
    device = device_of(options.device)
    place = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
    auto: tuple[Any, Any] = (transformers.AutoModelForCausalLM, transformers.AutoTokenizer)
    reader: Any = importlib.import_module("transformers.modeling_gguf_pytorch_utils")
    bar, reader.tqdm = reader.tqdm, _no_bar
    try:
        model, tokenizer = translated(
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
    dtype = torch.float32 if options.dtype == "auto" else named_dtype(options.dtype)
    return Source(path.stem, model.to(device=device, dtype=dtype).eval(), tokenizer, notes)


def _no_bar(tensors: Any, **_options: Any) -> Any:
    """Stand for the one progress bar that transformers has no switch for."""
    return tensors
