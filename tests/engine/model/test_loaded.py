"""What a command leaves behind: its account, its notes, and the store that makes the second one free."""

from __future__ import annotations

import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import interp
import models
from faults import harness
from interp.engine.model.load import Options, load
from interp.errors import InputError
from interp.interface import registry
from interp.interface.session import session
from interp.spec import Prompt

PROMPTS = [name for name, command in registry.commands().items() if command.body is Prompt]
TEXT = "When Mary and John went to the store"


@pytest.fixture
def own(folder: Callable[..., Path], clean_session: Any) -> Any:
    """Return a model that a test may change, as the current one."""
    return clean_session.load(folder("llama"), device="cpu")


def count(monkeypatch: pytest.MonkeyPatch, model: Any = None) -> list[str]:
    """Return a list that grows with each module that is called, whoever calls it; with `model`, with each of its own.

    Its final norm and head, which only read a residual stream that is there, are not a forward's.
    """
    seen: list[str] = []
    original: Any = torch.nn.Module.__call__
    owners = [] if model is None else [(model.bridge, "ln_final"), (model.bridge, "mlm_head")]
    reading = {module for owner, name in owners for module in getattr(owner, name, torch.nn.Identity()).modules()}
    counted = None if model is None else {module for _, module in model.modules()} - reading

    def call(self: Any, *inputs: Any, **named: Any) -> Any:
        if counted is None or self in counted:
            seen.append(type(self).__name__)
        return original(self, *inputs, **named)

    # Code of the user's own in its place would bypass the store; this passes for torch's.
    passing = types.FunctionType(call.__code__, {"__name__": "torch"}, closure=call.__closure__)
    monkeypatch.setattr(torch.nn.Module, "__call__", passing)
    return seen


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b, equal_nan=True)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    return a == b


@pytest.mark.parametrize(
    ("name", "family"),
    [(name, family) for name in PROMPTS for family in harness.FAMILIES if harness.applies(name, family)],
)
def test_the_second_identical_command_runs_no_forward(
    name: str, family: str, lend: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = lend(family)
    command = registry.find(name)
    asked = harness.valid(name, family).arguments
    seen = count(monkeypatch, model)
    forwards = model.forwards
    text = "The cat [MASK] on the mat" if family == "bert" else TEXT
    first = session.call(command, text, **asked)
    assert bool(seen) == (first.provenance.forwards > 0)
    assert model.forwards == forwards + first.provenance.forwards
    seen.clear()
    second = session.call(command, text, **asked)
    assert seen == []
    assert second.provenance.forwards == 0
    assert second.provenance.path == "store"
    assert second.provenance.fingerprint == first.provenance.fingerprint
    for field, value in vars(first).items():
        if field not in {"provenance", "_live"}:
            assert equal(getattr(second, field), value), field


@pytest.mark.usefixtures("own")
def test_predict_after_attention_runs_nothing() -> None:
    interp.attention(TEXT)
    assert interp.predict(TEXT).provenance.path == "store"


@pytest.mark.usefixtures("own")
def test_a_part_of_what_was_computed_is_not_computed_again() -> None:
    interp.attention(TEXT)
    assert interp.attention(TEXT, layer=1, head=2).provenance.forwards == 0
    assert interp.attention(TEXT + ".").provenance.forwards == 1


def test_provenance_tells_how_it_was_made(own: Any) -> None:
    result = interp.attention(TEXT, layer=1)
    p = result.provenance
    assert (p.model, p.technique, p.dtype, p.device, p.path, p.forwards) == (
        "llama",
        "attention",
        "float32",
        "cpu",
        "forward",
        1,
    )
    assert p.tokens == [list(own.tokens.encode(Prompt(TEXT)).ids)]
    assert p.tokens[0][0] == own.tokens.bos_id
    assert p.arguments == {"prompt": TEXT, "layer": 1}
    assert p.fingerprint == own.fingerprint()
    assert p.user_hooks == ()
    assert p.seconds > 0
    assert p.versions["torch"] == torch.__version__
    assert eval(result.code(), {"interp": interp}).provenance.path == "store"


def test_tokens_run_no_forward(own: Any) -> None:
    assert interp.tokens(TEXT).provenance.forwards == 0
    assert own.forwards == 0


def test_a_hooked_result_says_so(own: Any) -> None:
    own.bridge.add_hook("blocks.0.hook_resid_pre", lambda tensor, hook: tensor * 2)  # noqa: ARG005
    result = interp.attention(TEXT)
    assert result.provenance.path.startswith("hooked")
    assert len(result.provenance.user_hooks) == 1
    assert any("yours" in note for note in result.notes)
    assert interp.attention(TEXT).provenance.forwards == 1


def test_training_mode_with_dropout_is_drawn_anew_and_says_so(folder: Callable[..., Path], clean_session: Any) -> None:
    model = clean_session.load(folder("gpt2"), device="cpu")
    still = interp.attention(TEXT)
    model.bridge.train()
    first, second = interp.attention(TEXT), interp.attention(TEXT)
    assert first.provenance.forwards == second.provenance.forwards == 1
    assert not np.array_equal(interp.predict(TEXT).top, interp.predict(TEXT).top)
    assert any("training mode" in note for note in first.notes)
    model.bridge.eval()
    again = interp.attention(TEXT)
    assert np.array_equal(again.pattern, still.pattern)
    assert again.provenance.path == "store"
    assert not again.notes


@pytest.mark.usefixtures("own")
def test_bos_and_truncation_are_told() -> None:
    assert len(interp.tokens(TEXT, bos=False).ids) + 1 == len(interp.tokens(TEXT).ids)
    cut = interp.attention("one two " * 60, truncate=True)
    assert any("was cut" in note for note in cut.notes)


def test_a_view_of_a_model_that_has_changed_is_refused(own: Any) -> None:
    result = interp.attention(TEXT)
    assert result.value_norms().shape == (2, 4, len(result.tokens))
    with torch.no_grad():
        next(own.hf_model.parameters()).add_(0.01)
    with pytest.raises(InputError, match="has changed"):
        result.value_norms()


def test_a_run_of_a_model_that_has_changed_is_refused(own: Any) -> None:
    run = own.run([1, 2, 3])
    assert run.activations["blocks.0.hook_resid_post"].shape == (1, 3, 32)
    own.bridge.cfg.eps = 0.25
    with pytest.raises(InputError, match="has changed"):
        run.activations["blocks.0.hook_resid_post"]


def test_a_view_does_not_wait_for_a_busy_model(own: Any) -> None:
    result = interp.attention(TEXT)
    refused: list[str] = []

    def look() -> None:
        try:
            result.value_norms()
        except InputError as error:
            refused.append(str(error))

    with own.lock:
        thread = threading.Thread(target=look)
        thread.start()
        thread.join(10)
    assert "busy" in refused[0]
    assert result.value_norms().shape[0] == 2


def test_activations_are_what_run_with_cache_gives(own: Any) -> None:
    ids = [5, 90, 33, 171]
    with torch.no_grad():
        logits, cache = own.bridge.run_with_cache(torch.tensor([ids]))
    run = own.run(ids)
    assert torch.equal(run.logits, logits)
    for name in (
        "hook_embed",
        "blocks.0.hook_resid_mid",
        "blocks.1.attn.hook_k",
        "blocks.1.attn.hook_z",
        "ln_final.hook_scale",
    ):
        assert torch.equal(run.activations[name], cache[name]), name
    assert len(run.activations) == len(list(run.activations))
    assert torch.equal(run.activations["pattern", 0], cache["pattern", 0])
    assert ("resid_post", 1) in run.activations
    assert ("resid_post", 9) not in run.activations
    for odd in ((), (0, "pattern"), ("pattern", 9)):
        with pytest.raises(InputError, match=r"names no activation|no layer 9"):
            run.activations[odd]


def test_what_the_bridge_has_is_named(own: Any) -> None:
    for name in ("to_tokens", "run_with_cache", "W_Q", "cfg", "blocks"):
        with pytest.raises(AttributeError, match=rf"interp\.model has no '{name}', its bridge has: interp\.model\.bri"):
            getattr(own, name)
    with pytest.raises(AttributeError, match="LoadedModel has no attribute 'nothing'"):
        own.nothing  # noqa: B018
    assert not hasattr(own, "_repr_html_")


def test_interventions_of_another_kind_are_refused(own: Any) -> None:
    hook = ("blocks.0.attn.hook_z", lambda z, hook: z * 0)  # noqa: ARG005
    with pytest.raises(InputError, match=r"hooks of your own go to interp\.model\.bridge\.run_with_hooks"):
        own.run([1, 2], interventions=[hook])
    value = torch.zeros(40, 32)
    with pytest.raises(InputError, match=r"such as interp\.Site\('z', 5\), not 'blocks\.0\.hook_attn_out'"):
        interp.Intervention("blocks.0.hook_attn_out", value=value)  # pyright: ignore[reportArgumentType]
    change = interp.Intervention(interp.Site("attn_out", 0), value=value)
    assert repr(change) == f"Intervention({change.site!r}, mode=replace, value=Tensor [40, 32])"


@pytest.mark.parametrize("name", ["blocks.9.hook_resid_pre", "blocks.0.hook_residpre", "nothing"])
def test_an_unknown_activation_is_refused(own: Any, name: str) -> None:
    with pytest.raises(InputError, match=r"no (layer 9|hook)") as refused:
        own.run([1, 2]).activations[name]
    assert "\n" not in str(refused.value)


def test_neox_has_no_resid_mid(lend: Callable[..., Any]) -> None:
    model = lend("neox")
    with pytest.raises(InputError):
        model.run([1, 2]).activations["blocks.0.hook_resid_mid"]


def test_the_bridge_says_whether_bos_is_put_in_front(own: Any) -> None:
    own.bridge.cfg.default_prepend_bos = False
    expected = own.bridge.to_tokens(TEXT)[0].tolist()
    assert list(interp.tokens(TEXT).ids) == expected


def test_tokens_added_to_the_loaded_tokenizer_are_spelled(own: Any) -> None:
    own.tokens.strings([1])
    own.bridge.tokenizer.add_tokens(["éé"])
    assert own.tokens.string(len(own.bridge.tokenizer) - 1) == "éé"


def test_two_threads_take_turns(own: Any) -> None:
    wrong: list[Any] = []
    expected = {n: own.run([n, n + 1, n + 2]).logits.clone() for n in range(4)}
    own.store.clear()

    def work(n: int) -> None:
        for _ in range(5):
            if not torch.equal(own.run([n, n + 1, n + 2]).logits, expected[n]):
                wrong.append(n)
            own.store.clear()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_closed_model_keeps_nothing(folder: Callable[..., Path]) -> None:
    model = load(folder("gpt2"), options=Options(device="cpu"))
    model.run([1, 2, 3])
    model.close()
    assert model.store.ledger().entries == 0


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert", "gemma2"])
def test_modules_are_walked_as_torch_walks_them(family: str) -> None:
    model = load(models.FAMILIES[family](320), name=family, options=Options(device="cpu"))
    inside = [pair for pair in model.hf_model.named_modules() if pair[1] not in set(model.bridge.modules())]
    assert model.modules() == [*model.bridge.named_modules(), *inside]
