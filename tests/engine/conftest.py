"""Fixtures of the engine's tests."""

from __future__ import annotations

from real import gguf_file, minilm, minilm_folder, one_thread, smollm2, smollm2_folder

__all__ = ["gguf_file", "minilm", "minilm_folder", "one_thread", "smollm2", "smollm2_folder"]
