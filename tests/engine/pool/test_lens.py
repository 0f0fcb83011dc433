"""A tuned lens in a pool: layers are shards, whose maps have the same bits whoever trains them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import interp
from interp.engine.pool.here import Here
from interp.engine.readouts import lens_training
from interp.errors import Interrupted

from .test_pool import Backwards

TEXTS = [[5 + n % 7, 9 + n % 5, 40 + n, 7, 2][: 3 + n % 3] for n in range(24)]
ARRAYS = ("weights", "biases", "logit_kl", "tuned_kl", "loss")


@pytest.mark.parametrize("family", ["llama", "gpt2", "neox"])
def test_any_number_of_workers_gives_the_same_bits(
    family: str, lend: Any, session_with: Any, one: Any, two: Any
) -> None:
    lend(family)
    found = []
    for pool in (None, Here(), one, two, Backwards()):
        session_with(pool)
        found.append(interp.lens_train(TEXTS, steps=8, batch=16, seed=3))
    plain, first = found[:2]
    for name in ARRAYS:
        for other in found[2:]:
            assert getattr(other, name).tobytes() == getattr(first, name).tobytes(), name
        np.testing.assert_allclose(getattr(plain, name), getattr(first, name), atol=1e-5, err_msg=name)
    assert found[3].provenance.path == "forward in 2 shards on 2 processes"
    assert (found[3].layers, found[3].tokens, found[3].steps) == (plain.layers, plain.tokens, plain.steps)


def test_texts_that_do_not_fit_together_are_drawn_from_as_in_one_process(
    lend: Any, session_with: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = lend("gpt2")
    # Of 30 tokens, whichever layers are mapped: a shard of one layer draws as the whole does.
    monkeypatch.setattr(lens_training, "_POOL", 30 * 4 * model.geometry.d_model * (model.geometry.n_layers + 1))
    plain = interp.lens_train(TEXTS, steps=9, batch=16)
    session_with(Here())
    shards = interp.lens_train(TEXTS, steps=9, batch=16)
    for name in ARRAYS:
        np.testing.assert_allclose(getattr(plain, name), getattr(shards, name), atol=1e-5, err_msg=name)


def test_an_interrupt_keeps_the_layers_that_are_trained(
    lend: Any, session_with: Any, clean_session: Any, two: Any, tmp_path: Any
) -> None:
    model = lend("llama")
    session_with(two)
    whole = interp.lens_train(TEXTS, steps=8, batch=16)
    model.store.clear()

    def stop(done: int, total: int, what: str) -> None:  # noqa: ARG001
        clean_session.on_step = None
        raise KeyboardInterrupt

    clean_session.on_step = stop
    file = tmp_path / "part.safetensors"
    with pytest.raises(Interrupted) as caught:
        interp.lens_train(TEXTS, steps=8, batch=16, out=str(file))
    part = caught.value.result
    (layer,) = part.layers
    assert part.notes[0] == "partial: interrupted when 1 of 2 layers had been trained"
    assert part.weights[0].tobytes() == whole.weights[layer].tobytes()
    assert file.is_file()
