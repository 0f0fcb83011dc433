"""The user's own random numbers go on as if no command had run: torch's, numpy's and Python's."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

import interp
from faults import harness
from interp.interface.session import session


def states() -> tuple[bytes, str, str]:
    return torch.get_rng_state().numpy().tobytes(), str(np.random.get_state()), str(random.getstate())


@pytest.mark.parametrize("name", harness.techniques())
def test_no_command_moves_them(name: str, shell: Any, lend: Any) -> None:
    lend("gpt2")
    harness.worked(harness.ask("magic", shell, harness.valid(name)))  # libraries are imported, which some do by chance
    session.get().store.clear()
    before = states()
    harness.worked(harness.ask("magic", shell, harness.valid(name)))
    assert states() == before


def test_neither_does_loading(clean_session: Any, folder: Any) -> None:
    before = states()
    clean_session.load(device="cpu")
    clean_session.load(folder("gpt2"), device="cpu")
    assert states() == before


def test_a_bridge_takes_a_tokenizer(clean_session: Any) -> None:
    """One that has none, such as a model of `boot_native`."""
    from interp import truth

    tokenizer = clean_session.load(device="cpu").tokens.tokenizer
    bridge = truth.build("induction").bridge()
    model = clean_session.load(bridge, tokenizer=tokenizer, name="program")
    assert model.tokens.tokenizer.get_vocab() == tokenizer.get_vocab()
    assert interp.use("program") is model
