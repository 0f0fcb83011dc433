"""Fixtures of the methods' tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from real import gguf_file, minilm, minilm_folder, smollm2, smollm2_folder

__all__ = ["gguf_file", "minilm", "minilm_folder", "one_thread", "smollm2", "smollm2_folder"]


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Run torch on one thread: a small model gains nothing from more, and waits for them where cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
