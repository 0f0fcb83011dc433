"""What a tracker is told, read back from the tracker's own files."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import interp
from interp.errors import InputError
from interp.spec import Pair, Prompt

PAIR = Pair(Prompt(ids=(5, 11, 23, 31, 8, 40)), Prompt(ids=(5, 11, 64, 31, 8, 40)), (7,), (9,))


@pytest.fixture
def patched(lend: Callable[..., Any]) -> Any:
    lend("gpt2")
    return interp.patch(pairs=[PAIR])


def test_tensorboard(patched: Any, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        patched.log(writer, step=7)
        interp.tokens("one two").log(writer)  # without a single number of its own, or a step
    read = EventAccumulator(str(tmp_path))
    read.Reload()
    (event,) = read.Scalars("patch/clean_metric")
    assert event.step == 7
    assert event.value == pytest.approx(patched.clean_metric, rel=1e-6)
    (image,) = read.Images("patch/picture")
    assert image.width > 300
    histogram = read.Histograms("patch/effect")[0].histogram_value
    assert histogram.num == patched.effect.size
    assert histogram.max == pytest.approx(np.nanmax(patched.effect), rel=1e-6)
    assert (
        patched.provenance.fingerprint.encode()
        in read.Tensors("patch/provenance/text_summary")[0].tensor_proto.string_val[0]
    )


def logged(data: bytes) -> Iterator[bytes]:
    """Yield the records of an offline run: LevelDB's log of 32 KiB blocks, after a header of its own."""
    block, header, place, held = 32768, struct.Struct("<IHB"), 7, b""
    while place < len(data):
        if block - place % block < header.size:
            place += block - place % block
            continue
        _, length, kind = header.unpack_from(data, place)
        place += header.size
        held += data[place : place + length]
        place += length
        if kind in {1, 4}:  # a whole record, or the last part of one
            yield held
            held = b""


def test_weights_and_biases_offline(patched: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb
    from wandb.proto import wandb_internal_pb2 as records

    monkeypatch.setenv("WANDB_SILENT", "true")
    with wandb.init(mode="offline", dir=str(tmp_path), project="interp") as run:
        patched.log(run, step=3)
    wandb.teardown()  # waits for its writer, which the end of a run does not
    (path,) = tmp_path.rglob("*.wandb")
    told: dict[str, Any] = {}
    for data in logged(path.read_bytes()):
        record = records.Record()
        record.ParseFromString(data)
        for item in record.history.item:
            told["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
    assert told["patch/clean_metric"] == pytest.approx(patched.clean_metric)
    assert told["_step"] == 3
    assert told["patch/table/nrows"] == patched.effect.size
    assert told["patch/picture/width"] > 300


def test_others_are_refused(patched: Any) -> None:
    with pytest.raises(InputError, match="SummaryWriter; dict is neither"):
        patched.log({})
