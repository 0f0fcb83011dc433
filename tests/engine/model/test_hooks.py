"""Hooks and gates are off when their scope ends, whatever ended it; who put a hook on is told apart."""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from interp.engine.model import hooks
from interp.engine.model.hooks import census, foreign, run_hooked
from interp.engine.model.load import Options, load

IDS = [7, 8, 9, 10]
BATCH = torch.tensor([IDS])


@pytest.fixture(params=["gpt2", "llama", "neox"])
def model(request: pytest.FixtureRequest, lend: Callable[..., Any]) -> Any:
    return lend(request.param)


@pytest.fixture
def own(folder: Callable[..., Path]) -> Any:
    """Return a model that a test may change."""
    return load(folder("gpt2"), options=Options(device="cpu"))


def point(model: Any, name: str = "blocks.0.hook_resid_post") -> Any:
    return model.bridge.hook_dict[name]


def test_a_hook_runs_and_is_gone(model: Any) -> None:
    before, seen = census(model.modules()), list[Any]()
    expected = model.bridge(BATCH)

    def see(tensor: torch.Tensor, hook: Any) -> None:  # noqa: ARG001
        seen.append(tensor.shape)

    result = run_hooked([(point(model), see)], lambda: model.bridge(BATCH))
    assert torch.equal(result, expected)
    assert seen == [(1, 4, 32)]
    assert census(model.modules()) == before


def test_nested_scopes_take_off_their_own(model: Any) -> None:
    before, order = census(model.modules()), list[str]()

    def hook(name: str) -> Any:
        return lambda tensor, hook: order.append(name)  # noqa: ARG005

    def inside() -> Any:
        run_hooked([(point(model), hook("inner"))], lambda: model.bridge(BATCH))
        return model.bridge(BATCH)

    run_hooked([(point(model), hook("outer"))], inside)
    assert order == ["outer", "inner", "outer"]
    assert census(model.modules()) == before


class Stop(Exception):
    pass


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt, MemoryError, SystemExit])
@pytest.mark.parametrize("where", ["body", "hook", "before", "after"])
def test_an_error_anywhere_leaves_no_hook(model: Any, error: type[BaseException], where: str) -> None:
    before, handler = census(model.modules()), signal.getsignal(signal.SIGINT)

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    def nothing(*_: Any, **__: Any) -> None:
        return None

    with pytest.raises(error):
        run_hooked(
            [(point(model), fail if where == "hook" else nothing), (point(model, "hook_embed"), nothing)],
            fail if where == "body" else lambda: model.bridge(BATCH),
            before=fail if where == "before" else None,
            after=fail if where == "after" else None,
        )
    assert census(model.modules()) == before
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_hook_that_the_user_adds_meanwhile_stays(own: Any) -> None:
    before = census(own.modules())

    def adds(tensor: Any, hook: Any) -> None:  # noqa: ARG001
        hook.add_hook(mine)

    def mine(tensor: Any, hook: Any) -> None:
        pass

    run_hooked([(point(own), adds)], lambda: own.bridge(BATCH))
    assert {entry[2] for entry in census(own.modules()) - before} == {id(mine)}


def test_an_interrupt_while_hooks_are_taken_off_waits(model: Any) -> None:
    before = census(model.modules())
    with pytest.raises(KeyboardInterrupt):
        run_hooked([], lambda: None, after=lambda: signal.raise_signal(signal.SIGINT))
    installed: list[int] = []

    def prepare() -> None:
        signal.raise_signal(signal.SIGINT)
        installed.append(1)

    with pytest.raises(KeyboardInterrupt):
        run_hooked([(point(model), lambda t, hook: None)], lambda: None, before=prepare)  # noqa: ARG005
    assert installed == [1]
    assert census(model.modules()) == before


def test_results_per_head_are_z_times_w_o(model: Any) -> None:
    for layer in range(model.geometry.n_layers):
        held = model.run(IDS).activations
        gate = bool(model.bridge.cfg.use_attn_result)
        result, z = held[f"blocks.{layer}.attn.hook_result"], held[f"blocks.{layer}.attn.hook_z"]
        w_o = model.bridge.blocks[layer].attn.W_O
        expected = torch.einsum("bphd,hdm->bphm", z.reshape(*z.shape[:2], w_o.shape[0], -1), w_o)
        assert result.shape == (1, len(IDS), model.geometry.n_heads, model.geometry.d_model)
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-5)
        assert bool(model.bridge.cfg.use_attn_result) == gate
        assert not model.user_hooks()


@pytest.mark.parametrize(
    ("name", "switch"),
    [
        ("blocks.0.attn.hook_result", "use_attn_result"),
        ("blocks.0.attn.hook_q_input", "use_split_qkv_input"),
        ("blocks.0.hook_q_input", "use_split_qkv_input"),
        ("blocks.0.hook_attn_in", "use_attn_in"),
        ("blocks.0.attn.hook_attn_in", "use_attn_in"),
        ("blocks.0.hook_mlp_in", "use_hook_mlp_in"),
    ],
)
@pytest.mark.parametrize("on", [False, True])
def test_gates_are_put_back_as_they_were(own: Any, name: str, switch: str, on: bool) -> None:
    getattr(own.bridge, f"set_{switch}")(on)
    expected = own.bridge(BATCH)
    assert own.run(IDS).activations[name].shape[:2] == (1, len(IDS))
    assert bool(getattr(own.bridge.cfg, switch)) == on
    assert torch.equal(own.bridge(BATCH), expected)


def test_an_error_in_a_gated_run_puts_the_gate_back(own: Any) -> None:
    def fail(*_: Any) -> Any:
        raise Stop

    own.bridge.blocks[1].original_component.register_forward_pre_hook(fail)
    with pytest.raises(Stop):
        own.activations(own.tokens.encode(interp_prompt()), ["blocks.0.attn.hook_result"])
    assert not own.bridge.cfg.use_attn_result


def interp_prompt() -> Any:
    from interp.spec import Prompt

    return Prompt(ids=tuple(IDS))


def test_hooks_of_the_user_are_named_and_bypass_the_store(own: Any) -> None:
    assert own.user_hooks() == ()
    own.bridge.run_with_cache(BATCH)  # leaves hooks of transformers' own behind
    assert own.user_hooks() == ()
    expected = own.run(IDS).logits

    def steer(tensor: Any, hook: Any) -> Any:  # noqa: ARG001
        return tensor + 1

    own.bridge.add_hook("blocks.1.hook_resid_pre", steer)
    assert own.user_hooks() == ("blocks.1.hook_in: steer",) or "steer" in own.user_hooks()[0]
    entries = own.store.ledger().entries
    steered = own.run(IDS).logits
    assert not torch.equal(steered, expected)
    assert own.store.ledger().entries == entries
    own.bridge.reset_hooks()
    assert own.user_hooks() == ()
    forwards = own.forwards
    assert torch.equal(own.run(IDS).logits, expected)
    assert own.forwards == forwards


def test_a_library_function_on_a_hook_point_is_the_users(own: Any) -> None:
    from transformer_lens.patching import layer_pos_patch_setter

    own.bridge.add_hook("blocks.1.hook_resid_pre", functools.partial(layer_pos_patch_setter, index=[0, 0]))
    assert len(own.user_hooks()) == 1


def test_torch_hooks_and_global_ones_are_found() -> None:
    module = nn.Linear(2, 2)
    handles = [
        module.register_forward_hook(print),
        module.register_forward_pre_hook(print),
        module.register_full_backward_hook(print),
        nn.modules.module.register_module_forward_hook(print),
    ]
    assert len(foreign([("one", module)])) == 4
    for handle in handles:
        handle.remove()
    assert foreign([("one", module)]) == []


def test_a_backward_pass_can_be_stopped_at_each_layer_and_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = [torch.randn(16, 16) for _ in range(6)]
    layers: list[int] = []

    def slope(*, listening: bool) -> torch.Tensor:
        x = y = torch.arange(16.0).requires_grad_()
        for weight in weights:
            y = (y @ weight).tanh()
            y = hooks.stoppable(y) if listening else y
        return torch.autograd.grad(y.sum(), x)[0]

    def stop(gradient: torch.Tensor) -> None:  # noqa: ARG001
        layers.append(1)
        if len(layers) == 3:
            raise KeyboardInterrupt

    assert torch.equal(slope(listening=True), slope(listening=False))
    assert not hooks.stoppable(torch.ones(2)).requires_grad
    monkeypatch.setattr(hooks, "_listen", stop)
    with pytest.raises(KeyboardInterrupt):
        slope(listening=True)
    assert len(layers) == 3, "it went no further"
