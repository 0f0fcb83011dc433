"""No edit of a model's weights or state, and no sequence of edits, gets an answer that was true before it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import models
from interp.engine.model.load import Options, load
from interp.interface import registry
from interp.interface.session import session
from sampled import turns

from . import edits_of_code, edits_of_objects
from .edits import EDITS, Inapplicable, Subject

assert edits_of_code
assert edits_of_objects  # they fill the table

pytestmark = pytest.mark.usefixtures("one_thread")

IDS = [5, 90, 33, 171, 40, 2]
FAMILIES = ["gpt2", "llama", "neox"]


@contextlib.contextmanager
def subject(family: str) -> Iterator[Subject]:
    """Yield a fresh model of `family`, and put back what an edit did outside it."""
    model = load(models.FAMILIES[family](340), name=family, options=Options(device="cpu"))
    made = Subject(model, family)
    session.models[family] = model
    session.current = family
    try:
        yield made
    finally:
        for undo in reversed(made.undo):
            undo()
        session.models.pop(family, None)
        session.current = None


def context(of: Subject) -> Any:
    return torch.autocast("cpu", of.autocast) if of.autocast else contextlib.nullcontext()


def ask(of: Subject) -> tuple[torch.Tensor, torch.Tensor, list[tuple[str, int, float]]]:
    """Return the attention pattern, all logits and the likeliest tokens, as commands give them."""
    with context(of):
        pattern = session.call(registry.find("attention"), IDS).pattern
        logits = of.model.run(IDS).logits
        top = session.call(registry.find("predict"), IDS, top=5).top
    return torch.from_numpy(pattern), logits, top


def compute(of: Subject) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the attention pattern and all logits, straight from the bridge."""
    with context(of), torch.no_grad():
        kept: dict[str, torch.Tensor] = {}

        def keep(tensor: torch.Tensor, hook: Any) -> None:
            kept[hook.name] = tensor.detach().clone()

        points = [of.bridge.hook_dict[f"blocks.{n}.attn.hook_pattern"] for n in range(of.model.geometry.n_layers)]
        for point in points:
            point.add_hook(keep)
        try:
            logits = of.bridge(torch.tensor([IDS]))
        finally:
            for point in points:
                handle = point.fwd_hooks.pop()
                handle.hook.remove()
    pattern = torch.stack([kept[point.name][0] for point in points])
    return pattern.float(), logits


def agree(of: Subject, after: str) -> None:
    """Fail unless what interp answers is what the bridge computes now; in training mode, unless it is drawn anew."""
    try:
        pattern, logits = compute(of)
    except Exception:  # an edit, or a sequence of them, that the bridge itself cannot run
        with pytest.raises(Exception, match=""):  # noqa: PT011
            ask(of)
        return
    training = any(module.training for module in of.bridge.modules())
    random = training and bool(logits.isfinite().all()) and not torch.equal(compute(of)[1], logits)
    answered = ask(of)
    if random:
        repeated = ask(of)
        assert not torch.equal(repeated[1], answered[1]), f"one draw was kept, after {after}"
        return
    assert torch.equal(answered[0].nan_to_num(), pattern.nan_to_num()), f"a stale pattern, after {after}"
    assert answered[1].dtype == logits.dtype, f"stale logits, after {after}"
    assert torch.equal(answered[1].nan_to_num(), logits.nan_to_num()), f"stale logits, after {after}"
    last = logits[0, -1].float().softmax(-1)
    for _, index, probability in answered[2]:
        # The last position alone is another matrix product than all positions together: one rounding apart.
        close = 1e-6 if logits.dtype in {torch.float32, torch.float64} and not of.autocast else 2e-2
        assert not last.isfinite().all() or abs(float(last[index]) - probability) <= close, (
            f"a stale prediction, after {after}"
        )


def _rotated() -> list[Any]:
    """Every edit on every family: on one of them in turn between edits, on all where there is time."""
    return [
        pytest.param(name, family, marks=() if number % len(FAMILIES) == which else pytest.mark.slow)
        for number, name in enumerate(EDITS)
        for which, family in enumerate(FAMILIES)
    ]


@pytest.mark.parametrize(("name", "family"), _rotated())
def test_an_edit_leaves_no_stale_answer(name: str, family: str) -> None:
    with subject(family) as made:
        before = ask(made)
        try:
            EDITS[name].apply(made)
        except Inapplicable as reason:
            pytest.skip(str(reason))
        agree(made, name)
        moves = EDITS[name].moves
        if moves is not None:
            after = ask(made)
            moved = not (torch.equal(before[0], after[0]) and torch.equal(before[1], after[1]))
            assert moved == moves, "the edit did not do what it is here for" if moves else "the edit moved the answer"
        with contextlib.suppress(Inapplicable):  # the second time what it installs is there, and only its value changes
            EDITS[name].apply(made)
            agree(made, f"{name}, twice")


def test_the_table_is_long_enough() -> None:
    assert len(EDITS) >= 150


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@settings(
    max_examples=int(os.environ.get("INTERP_EXAMPLES", turns(40))),
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(names=st.lists(st.sampled_from(sorted(EDITS)), min_size=2, max_size=10))
def test_no_sequence_of_edits_leaves_a_stale_answer(family: str, names: list[str]) -> None:
    with subject(family) as made:
        ask(made)
        done: list[str] = []
        for name in names:
            done.append(name)
            # An edit may be impossible after another.
            with contextlib.suppress(Inapplicable):
                EDITS[name].apply(made)
            agree(made, " → ".join(done))


def test_a_forward_at_a_freed_address_is_another_forward() -> None:
    with subject("gpt2") as made:
        module: Any = made.part("blocks.0.attn.q")
        old = module.forward
        for factor in (1.0, 2.0, 3.0, 4.0):
            module.forward = lambda x, factor=factor: old(x) * factor
            agree(made, f"a forward times {factor}")
            del module.forward  # and its address with it
            agree(made, "the forward taken off")
