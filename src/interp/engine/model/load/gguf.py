"""A model from a GGUF file, as Ollama and llama.cpp keep them, dequantised."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from interp.engine.model.load.asked import Held, refuse_adapter_beside, refuse_larger
from interp.engine.model.load.source import Options, Source, device_of, named_dtype, translated
from interp.errors import InputError

_PARTS = 10_000_000  # of a header; a vocabulary of 262,144 tokens has a million


def from_gguf(path: Path, options: Options) -> Source:
    """Read a GGUF file."""
    try:
        import gguf  # noqa: F401  # pyright: ignore[reportUnusedImport, reportMissingImports]
    except ImportError:
        raise InputError("GGUF files need the gguf package: pip install gguf") from None
    refuse_adapter_beside(path.parent, f"{path.parent.name} holds {path.name}")
    options.on_step(1, 3, f"reading {path.name}")
    device = device_of(options.device)
    place = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
    auto: tuple[Any, Any, Any] = (
        transformers.AutoConfig,
        transformers.AutoModelForCausalLM,
        transformers.AutoTokenizer,
    )

    def both() -> tuple[Any, Any]:
        with _read_once() as reader:
            config = auto[0].from_pretrained(**place)
            held = Held.by(tensor.shape.tolist() for tensor in reader(str(path)).tensors)
            refuse_larger(path.name, config, held, lambda: auto[1].from_config(config))
            return (
                auto[1].from_pretrained(**place, dtype=torch.float32, attn_implementation="eager"),
                auto[2].from_pretrained(**place),
            )

    model, tokenizer = translated(f"{path.name} cannot be read as a GGUF file", both, "; fetch it again")
    if not model.config.architectures:  # which transformer-lens goes by
        model.config.architectures = [type(model).__name__]
    notes = [f"{path.name} is a quantised model, dequantised to float32"]
    dtype = torch.float32 if options.dtype == "auto" else named_dtype(options.dtype)
    return Source(path.stem, model.to(device=device, dtype=dtype).eval(), tokenizer, notes)


@contextlib.contextmanager
def _read_once() -> Generator[Callable[[str], Any]]:
    """Let transformers take a file's header apart once, not for each of configuration, weights and tokenizer.

    Yields the function that does. No length that the header gives is believed beyond the file's end.
    """
    gguf: Any = importlib.import_module("gguf")
    utilities: Any = importlib.import_module("transformers.modeling_gguf_pytorch_utils")

    class Bounded(gguf.GGUFReader):  # pyright: ignore[reportUntypedBaseClass]
        def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> Any:
            self.parts = getattr(self, "parts", 0) + 1
            if int(offset) + int(count) * np.dtype(dtype).itemsize > len(self.data) or self.parts > _PARTS:
                raise ValueError("a length in it is beyond its end")
            return super()._get(offset, dtype, count, override_order)

    held: dict[str, Any] = {}

    def reader(path: Any, *_: Any) -> Any:
        if str(path) not in held:
            held[str(path)] = Bounded(path)
        return held[str(path)]

    before = gguf.GGUFReader, utilities.tqdm
    gguf.GGUFReader, utilities.tqdm = reader, _no_bar
    try:
        yield reader
    finally:
        gguf.GGUFReader, utilities.tqdm = before


def _no_bar(tensors: Any, **_options: Any) -> Any:
    """Stand for the one progress bar that transformers has no switch for."""
    return tensors
