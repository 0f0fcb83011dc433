"""Hundreds of interrupts at random moments inside forwards and the handling of hooks leave nothing behind."""

from __future__ import annotations

import random
import signal
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from interp.engine.model.hooks import census
from interp.engine.model.load import Options, load
from interp.engine.model.loaded import LoadedModel
from interp.interface import registry
from sampled import turns

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]

REFERENCE = torch.tensor([[3, 141, 59, 26, 53]])
PER_FAMILY = turns(334)
ENOUGH = {"landed": turns(100), "inside hooks": turns(33)}  # a busy machine may need more turns, up to MOST
MOST = 4 * PER_FAMILY


def attention(session: Any, model: LoadedModel, ids: list[int]) -> None:  # noqa: ARG001
    session.call(registry.find("attention"), ids)


def predict(session: Any, model: LoadedModel, ids: list[int]) -> None:  # noqa: ARG001
    session.call(registry.find("predict"), ids)


def gated(session: Any, model: LoadedModel, ids: list[int]) -> None:  # noqa: ARG001
    held = model.run(ids).activations
    held["blocks.0.attn.hook_result"], held["blocks.1.attn.hook_q_input"]


def from_a_view(session: Any, model: LoadedModel, ids: list[int]) -> None:  # noqa: ARG001
    model.operate_if_free("view", lambda _: model.run(ids))


WORK: list[Callable[[Any, LoadedModel, list[int]], None]] = [attention, predict, gated, from_a_view]


class Alarm:
    """Sends SIGINT to this process after given delays, as long as it is on."""

    def __init__(self) -> None:
        self.on = False
        self.delays: list[float] = []

    def start(self, delays: list[float]) -> None:
        self.delays = delays[1:]
        self.on = True
        signal.setitimer(signal.ITIMER_REAL, delays[0])

    def ring(self, *_: Any) -> None:
        if self.on:
            if self.delays:
                signal.setitimer(signal.ITIMER_REAL, self.delays.pop(0))
            signal.raise_signal(signal.SIGINT)

    def stop(self) -> None:
        self.on = False
        signal.setitimer(signal.ITIMER_REAL, 0)

    def interrupted(self, delays: list[float], work: Callable[[], object]) -> KeyboardInterrupt | None:
        """Call `work` with one or two interrupts; return the first, or ``None`` where it came too late for it."""
        stopped: KeyboardInterrupt | None = None
        try:
            try:
                try:
                    self.start(delays)
                    work()
                except KeyboardInterrupt as error:
                    stopped = error
                self.stop()
            except KeyboardInterrupt:  # the second of a pair, or one too late for the work
                self.stop()
        except KeyboardInterrupt:  # both were too late
            self.stop()
        return stopped


@pytest.mark.usefixtures("interrupts_in_collections")
@pytest.mark.parametrize("family", ["gpt2", "llama", "neox"])
def test_interrupts_leave_nothing_behind(family: str, folder: Callable[..., Path], clean_session: Any) -> None:
    model = load(folder(family), name=family, options=Options(device="cpu"))
    clean_session.models[family] = model
    clean_session.current = family
    dice = random.Random(family)
    handler = signal.getsignal(signal.SIGINT)
    with torch.no_grad():
        expected = model.bridge(REFERENCE)
    hooks, state = census(model.modules()), model.fingerprint()
    durations = {work: _duration(work, clean_session, model, dice) for work in WORK}
    alarm = Alarm()
    before = signal.signal(signal.SIGALRM, alarm.ring)
    seen = dict.fromkeys(ENOUGH, 0)
    turn = 0
    try:
        with ThreadPoolExecutor(1) as other:
            while turn < PER_FAMILY or (turn < MOST and any(seen[what] < count for what, count in ENOUGH.items())):
                turn += 1
                work = dice.choice(WORK)
                delays = [dice.uniform(1e-5, 0.9 * durations[work])]
                if dice.random() < 0.3:
                    delays.append(dice.choice([1e-5, 1e-4, 1e-3]))
                frames = _inside(alarm.interrupted(delays, lambda w=work: w(clean_session, model, _ids(dice))))
                seen["landed"] += bool(frames)
                seen["inside hooks"] += "run_hooked" in frames
                assert signal.getsignal(signal.SIGINT) is handler
                assert model._operation is None, f"turn {turn}: an account was left open"
                assert other.submit(_can_lock, model).result(), f"turn {turn}: the lock was left taken"
                assert census(model.modules()) == hooks, f"turn {turn}: a hook was left behind"
                assert torch.is_grad_enabled(), f"turn {turn}: gradients were left off"
                assert not model.bridge.cfg.use_attn_result, f"turn {turn}: a gate was left open"
                assert not model.bridge.cfg.use_split_qkv_input, f"turn {turn}: a gate was left open"
                with torch.no_grad():
                    assert torch.equal(model.bridge(REFERENCE), expected), f"turn {turn}: the logits moved"
                if turn % 20 == 0:
                    assert model.fingerprint() == state, f"turn {turn}: the model's state moved"
                    _answers_are_right(clean_session, model, _ids(dice))
    finally:
        alarm.stop()
        signal.signal(signal.SIGALRM, before)
    print(f"{family}: of {turn} interrupts {', '.join(f'{count} {what}' for what, count in seen.items())}")
    assert all(seen[what] >= count for what, count in ENOUGH.items()), seen


def _inside(stopped: KeyboardInterrupt | None) -> set[str]:
    """Return the functions that an interrupt stopped."""
    return set() if stopped is None else {frame.name for frame in traceback.extract_tb(stopped.__traceback__)}


def _ids(dice: random.Random) -> list[int]:
    return [dice.randrange(1, 300) for _ in range(dice.randrange(4, 20))]


def _duration(work: Callable[..., None], session: Any, model: LoadedModel, dice: random.Random) -> float:
    taken: list[float] = []
    for _ in range(5):
        start = time.perf_counter()
        work(session, model, _ids(dice))
        taken.append(time.perf_counter() - start)
    return sorted(taken)[2]


def _can_lock(model: LoadedModel) -> bool:
    taken = model.lock.acquire(blocking=False)
    if taken:
        model.lock.release()
    return taken


def _answers_are_right(session: Any, model: LoadedModel, ids: list[int]) -> None:
    """Compare an answer that may come from the store with one that cannot."""
    first = session.call(registry.find("attention"), ids).pattern
    model.store.clear()
    assert (session.call(registry.find("attention"), ids).pattern == first).all()


def test_autograds_switch_is_put_back_where_a_block_could_not(lend: Callable[..., Any]) -> None:
    model = lend("gpt2")

    def lost(_: Any) -> None:
        torch.set_grad_enabled(False)  # as torch.no_grad leaves it that an interrupt meets on its way out
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.operate("some", {}, lost)
    assert torch.is_grad_enabled()
