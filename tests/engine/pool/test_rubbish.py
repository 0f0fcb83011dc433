"""Workers and kernels that say what they should not: one line, or the same result; and nothing hangs."""

from __future__ import annotations

import io
import json
import queue
import re
import struct
import threading
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

import interp
from interp.engine.model.operation import versions
from interp.engine.pool import messages, plain, protocol
from interp.engine.pool.messages import Garbled
from interp.engine.pool.protocol import WorkerLost
from interp.engine.pool.scheduling import _LIVES
from interp.engine.pool.worker import Loop

from .test_scheduling import PATIENCE, Threaded, answered, double, pool_of, task, values

__all__ = ["pool_of"]  # a fixture
PLAIN = messages.packed({"is": "done"}, {"x": torch.ones(3)})


def file_of(shape: list[float], data: bytes) -> bytes:
    """Return a safetensors file of one float32 tensor that has whatever shape, as no library writes it."""
    tensor = {"dtype": "F32", "shape": shape, "data_offsets": [0, len(data)]}
    text = json.dumps({"__metadata__": {"head": json.dumps({"is": "done"})}, "x": tensor}).encode()
    return struct.pack("<Q", len(text)) + text + data


RUBBISH = {
    "nothing": b"",
    "text": b"Traceback (most recent call last):\n",
    "zeros": bytes(100),
    "no JSON": struct.pack("<Q", 4) + b"{no}",
    "no head": save({"x": torch.ones(3)}),
    "a head of no JSON": save({}, metadata={"head": "{"}),
    "a head that is a list": save({}, metadata={"head": "[1]"}),
    "a deep head": save({}, metadata={"head": "[" * 100_000}),
    "another shape": file_of([4], bytes(12)),
    "no shape": file_of([float("nan")], bytes(4)),
    "a negative shape": file_of([-1], bytes(4)),
    "a huge shape": file_of([2**62, 2**62], bytes(4)),
    "truncated": PLAIN[:-5],
    "too long": PLAIN + bytes(5),
}


@pytest.mark.parametrize("what", RUBBISH)
def test_what_is_no_message_is_known_as_such(what: str) -> None:
    data = RUBBISH[what]
    with pytest.raises(Garbled, match=r"no message|no object"):
        messages.received(io.BytesIO(struct.pack("<Q", len(data)) + data))


@pytest.mark.parametrize("cut", [0, 3, 8, 20, len(PLAIN) + 7])
def test_a_message_that_ends_early_is_the_other_s_end(cut: int) -> None:
    whole = struct.pack("<Q", len(PLAIN)) + PLAIN
    with pytest.raises(EOFError) as said:
        messages.received(io.BytesIO(whole[:cut]))
    assert type(said.value) is EOFError
    assert torch.equal(messages.received(io.BytesIO(whole))[1]["x"], torch.ones(3))


@pytest.mark.parametrize("length", [1 << 37, 1 << 40, (1 << 64) - 1])
def test_a_huge_length_takes_no_memory(length: int) -> None:
    with pytest.raises(EOFError):
        messages.received(io.BytesIO(struct.pack("<Q", length) + b"abc"))


class Rude(Threaded):
    """Gives other bytes than its worker's where its turn is to answer a shard, as often as it is told to."""

    def __init__(self, name: str, said: bytes, times: int) -> None:
        super().__init__(name)
        self.said, self.times = said, times

    def send(self, head: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        if head["do"] == "shard" and self.times:
            self.times -= 1
            said = self.said.replace(b"NUMBER", str(head["number"]).ljust(6).encode())
            self._words.put(said or b"-")
            return
        super().send(head, tensors)


def answer(head: Mapping[str, Any]) -> bytes:
    return messages.packed(head, {}).replace(b'\\"NUMBER\\"', b"NUMBER  ")


SAID = {
    **RUBBISH,
    "no kind": answer({"to": "NUMBER"}),
    "another kind": answer({"to": "NUMBER", "is": "exec"}),
    "another question's answer": answer({"to": "NUMBER", "is": "held", "fingerprint": "0"}),
    "half an answer": answer({"to": "NUMBER", "is": "done"}),
    "an answer that is no data": answer({"to": "NUMBER", "is": "done", "head": "all is well"}),
    "an error that says nothing": answer({"to": "NUMBER", "is": "failed"}),
}


@pytest.fixture(autouse=True)
def _job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(protocol.JOBS, "double", f"{double.__module__}:double")


@pytest.mark.parametrize("what", SAID)
def test_whoever_sends_rubbish_is_started_again_and_the_shard_runs_elsewhere(what: str, pool_of: Any) -> None:
    rude = Rude("rude", SAID[what], times=1)
    pool = pool_of(rude)
    reply = pool.submit(task(4)).result(PATIENCE)
    assert float(answered(reply)[1][0]) == 8.0
    assert reply.lost == ("rude",)
    assert rude.starts == 2
    assert values(pool, [task(x) for x in range(5)]) == [2.0 * x for x in range(5)]


def test_whoever_always_sends_rubbish_is_given_up(pool_of: Any) -> None:
    rude = Rude("rude", b"Segmentation fault", times=1000)
    pool = pool_of(rude, kind := Threaded("kind"))
    assert values(pool, [task(x) for x in range(40)]) == [2.0 * x for x in range(40)]
    assert rude.starts <= _LIVES
    assert kind.starts == 1
    alone = pool_of(Rude("rude", b"Segmentation fault", times=1000))
    with pytest.raises(WorkerLost, match="rude ended 3 times at one shard"):
        alone.submit(task(1)).result(PATIENCE)
    for _ in range(2):
        with pytest.raises(WorkerLost, match=r"no worker is left: rude ended \(sent 18 bytes that are no message\); "):
            alone.submit(task(2)).result(PATIENCE)


class Foreign(Threaded):
    """Has other libraries."""

    def start(self) -> None:
        super().start()
        self._words = queue.SimpleQueue()
        there = {**versions(), "torch": "1.0"} if self.worker.name == "old" else {"torch": versions()["torch"]}
        self._words.put(messages.packed({"is": "ready", "process": 0, "processor": "", "versions": there}, {}))


def test_other_libraries_are_refused_by_name(pool_of: Any, session_with: Any) -> None:
    mixed = pool_of(Foreign("old"), Threaded("b"), ready=False)
    assert values(mixed, [task(x) for x in range(10)]) == [2.0 * x for x in range(10)]
    mine = versions()["torch"]
    assert mixed.workers()[0].state == f"is refused: it has torch 1.0, the kernel {mine}"
    session_with(mixed)
    table = interp.workers()
    assert table.title == "shards run in threads, 1 of which takes none any more"
    assert [row[:2] for row in table.rows] == [("old", "refused"), ("b", "ready")]
    assert table.notes == (f"old is refused: it has torch 1.0, the kernel {mine}",)
    none = pool_of(Foreign("old"), Foreign("without"), ready=False)
    with pytest.raises(WorkerLost, match=r"old is refused: it has torch 1\.0, .*without is refused: it has \w+ None"):
        none.submit(task(1)).result(PATIENCE)


UNKNOWN: list[tuple[dict[str, Any], str]] = [
    ({}, "None is none of load, digests, change, asset, forget, shard"),
    ({"do": "exec", "code": "1"}, "'exec' is none of"),
    ({"do": ["load"]}, r"\['load'\] is none of"),
    ({"do": "load", "name": "m"}, "'load' needs its recipe, as dict"),
    ({"do": "load", "name": "m", "recipe": {"source": "/nowhere", "name": "m", "options": {"exec": 1}}}, "exec"),
    ({"do": "load", "name": "m", "recipe": {"source": "/nowhere", "name": "m", "options": {}}}, "/nowhere"),
    ({"do": "digests", "name": 3}, "'digests' needs its name, as str"),
    ({"do": "digests", "name": "m"}, "holds no model 'm'"),
    ({"do": "change", "name": "m"}, "holds no model 'm'"),
    ({"do": "asset", "digest": "a", "value": []}, "'asset' needs its value, as dict"),
    ({"do": "forget", "digests": [1]}, "'forget' needs its digests, as list"),
    ({"do": "shard", "shard": 1, "job": "double", "head": {}, "models": ["m"], "assets": []}, "holds no model 'm'"),
    ({"do": "shard", "shard": 1, "job": "os:system", "head": {}, "models": [], "assets": []}, "'os:system' is no job"),
    ({"do": "shard", "shard": 1, "job": "double", "head": {}, "models": [], "assets": ["a"]}, "'a'"),
    ({"do": "shard", "shard": 1, "job": "double", "head": {}, "models": [[]], "assets": []}, "its models, as list"),
    ({"do": "shard", "shard": "1", "job": "double", "head": {}, "models": [], "assets": []}, "its shard, as int"),
    ({"do": "shard", "shard": 1, "job": "double", "head": {}, "models": [], "assets": []}, "KeyError: 'asked'"),
]


def test_what_a_worker_does_not_know_is_refused_and_it_lives_on() -> None:
    words: queue.SimpleQueue[tuple[Mapping[str, Any], Mapping[str, Tensor]]] = queue.SimpleQueue()
    loop = Loop(lambda head, tensors: words.put((head, tensors)))
    threading.Thread(target=loop.serve, daemon=True).start()
    for number, (head, why) in enumerate(UNKNOWN):
        loop.ask({**head, "number": number}, {})
        said, tensors = words.get(timeout=PATIENCE)
        assert said["to"] == number
        assert said["is"] in ("refused", "failed"), said
        assert "\n" not in said["why"]
        assert re.search(why, said["why"]), said["why"]
        assert not tensors
    good = task(3, {})
    head = {"do": "shard", "shard": 1, "job": "double", "head": dict(good.head), "models": [], "assets": []}
    loop.ask({**head, "number": 99}, good.tensors)
    said, tensors = words.get(timeout=PATIENCE)
    assert (said["to"], said["is"]) == (99, "done")
    assert plain.whole(said["head"]["value"], tensors)[0] == 3
