"""What answers depend on and no module holds: functions, names of adapters, packed weights, tokenizers."""

from __future__ import annotations

import builtins
import functools
import gc
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import torch.nn.functional as F
from tokenizers import normalizers
from torch import nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.models.llama import modeling_llama

import interp
import models
from interp.engine.model import code
from interp.engine.model.fingerprint import fingerprint, inspect
from interp.engine.model.load import Options, load
from interp.engine.model.loaded import LoadedModel
from interp.errors import InputError

pytestmark = pytest.mark.usefixtures("one_thread")

TEXT = "When Mary and John went to the store, John gave a drink to"
OTHER = "When Mary and John went to the store, Mary gave a drink to"
IDS = [5, 90, 33, 171, 40, 2]


@pytest.fixture
def model(clean_session: Any) -> LoadedModel:
    tokenizer = models.tokenizer()
    made = load(models.llama(len(tokenizer)), tokenizer=tokenizer, name="llama", options=Options(device="cpu"))
    clean_session.models["llama"] = made
    clean_session.current = "llama"
    return made


@contextmanager
def replaced(owner: Any, name: str, new: Any) -> Iterator[None]:
    own = vars(owner).get(name)
    setattr(owner, name, new)
    try:
        yield
    finally:
        delattr(owner, name) if own is None else setattr(owner, name, own)


def bridged(model: LoadedModel, ids: Any = IDS) -> torch.Tensor:
    with torch.no_grad():
        return model.bridge(torch.tensor([list(ids)]), return_type="logits")


def _of_queries(q: torch.Tensor, k: torch.Tensor, *more: Any, **named: Any) -> Any:  # noqa: ARG001
    return q * 0.5, k


def _embedding(*inputs: Any, old: Any = F.embedding, **named: Any) -> Any:
    return old(*inputs, **named) * 1.5


def _norm(self: nn.Module, *inputs: Any) -> Any:
    return nn.Module.__call__(self, *inputs) * 0.7


REPLACED: dict[str, tuple[Any, str, Any]] = {
    "a function of the modelling file": (modeling_llama, "apply_rotary_pos_emb", _of_queries),
    "one of torch.nn.functional": (F, "embedding", _embedding),
    "one that took the other's name": (F, "embedding", functools.wraps(F.embedding)(_embedding)),
    "the way a class is called": (modeling_llama.LlamaRMSNorm, "__call__", _norm),
}


@pytest.mark.parametrize("what", REPLACED)
def test_a_replaced_function_is_run_and_named_and_nothing_is_stored(model: LoadedModel, what: str) -> None:
    owner, name, new = REPLACED[what]
    before = model.run(IDS).logits
    digest = model.fingerprint()
    swept = interp.patch(TEXT, OTHER, answer=" Mary", wrong=" John", by="head")
    assert swept.provenance.path == "replay"
    with replaced(owner, name, new):
        run = model.run(IDS)
        assert torch.equal(run.logits, bridged(model))
        assert not torch.equal(run.logits, before)
        entries = model.store.ledger().entries
        hooked = interp.patch(TEXT, OTHER, answer=" Mary", wrong=" John", by="head")
        assert hooked.provenance.path.startswith("hooked: hooks of the user's own")
        assert len(hooked.provenance.user_hooks) == 1
        assert name in hooked.provenance.user_hooks[0]
        assert any("functions that you replaced" in note for note in hooked.notes)
        ids = model.tokens.encode(interp.Prompt(TEXT)).ids
        last = bridged(model, ids)[0, -1]
        right, wrong = hooked.checks.answer[0][0][1], hooked.checks.wrong[0][0][1]
        assert abs(float(last[right] - last[wrong]) - hooked.clean_metric) < 1e-4
        assert model.store.ledger().entries == entries
    assert model.fingerprint() == digest
    assert torch.equal(model.run(IDS).logits, before)
    assert interp.patch(TEXT, OTHER, answer=" Mary", wrong=" John", by="head").provenance.path == "replay"


def test_a_library_function_in_anothers_place_is_another_state_and_the_lean_way_is_compared_anew(
    model: LoadedModel,
) -> None:
    before = model.run(IDS).logits
    digest = model.fingerprint()
    assert interp.patch(TEXT, OTHER, answer=" Mary", wrong=" John", by="head").provenance.path == "replay"
    with replaced(F, "silu", F.relu):
        assert model.fingerprint() != digest
        assert model.user_hooks() == ()
        assert torch.equal(model.run(IDS).logits, bridged(model))
        assert not torch.equal(model.run(IDS).logits, before)
        swept = interp.patch(TEXT, OTHER, answer=" Mary", wrong=" John", by="head")
        assert "differed" in swept.provenance.path
    assert model.fingerprint() == digest


def test_a_function_that_no_forward_of_the_model_runs_is_no_part_of_its_state(model: LoadedModel) -> None:
    from transformers.models.gpt2 import modeling_gpt2

    digest = model.fingerprint()
    with replaced(modeling_gpt2, "eager_attention_forward", _of_queries):
        assert model.fingerprint() == digest
        assert model.user_hooks() == ()


@pytest.mark.parametrize("name", ["input", "print", "exit", "get_ipython"])
def test_what_a_front_end_puts_in_for_each_cell_is_no_change(
    name: str, model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel of Jupyter has an ``input`` of its own, another in every cell, and modules have arguments so named."""
    before = model.fingerprint()
    monkeypatch.setattr(builtins, name, lambda *_: None, raising=False)
    assert model.fingerprint() == before
    assert model.user_hooks() == ()


def test_a_builtin_that_computes_is_seen(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    own = range
    monkeypatch.setattr(builtins, "range", lambda *bounds: own(*bounds))
    assert any("range" in name for name in model.user_hooks())


def test_a_function_that_is_imported_where_it_is_run_is_seen() -> None:
    """The bridge takes Llama's rotation from its file in each forward, for other families too."""
    made = load(models.gemma2(340), name="gemma2", options=Options(device="cpu"))
    before = made.run(IDS).logits
    with replaced(modeling_llama, "apply_rotary_pos_emb", _of_queries):
        assert torch.equal(made.run(IDS).logits, bridged(made))
        assert not torch.equal(made.run(IDS).logits, before)


def test_a_replaced_function_is_not_kept_alive(model: LoadedModel) -> None:
    def mine(*inputs: Any, **named: Any) -> Any:
        return _embedding(*inputs, **named)

    with replaced(F, "embedding", mine):
        model.run(IDS)
    model.run(IDS)
    gone = weakref.ref(mine)
    del mine
    gc.collect()
    assert gone() is None


def test_reading_a_models_code_again_costs_a_look(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model.fingerprint()
    monkeypatch.setattr(code, "_Reach", None)  # it cannot be read again
    model.fingerprint()


def test_a_switched_adapter_answers_as_itself(clean_session: Any) -> None:
    hf = models.llama(340)
    torch.manual_seed(0)
    for name in "ab":
        config = peft.LoraConfig(r=2, target_modules=["v_proj"], init_lora_weights=False)
        peft.inject_adapter_in_model(config, hf, adapter_name=name)
    made = load(hf, name="adapted", options=Options(device="cpu"))
    clean_session.models["adapted"] = made
    made.hf_model.requires_grad_(False)
    layers = [module for module in made.hf_model.modules() if isinstance(module, peft.tuners.lora.LoraLayer)]
    answers: dict[str, torch.Tensor] = {}
    for name in "abab":
        for layer in layers:
            layer.set_adapter(name, inference_mode=True)
        answers.setdefault(name, bridged(made))
        assert torch.equal(made.run(IDS).logits, answers[name])
    assert not torch.equal(answers["a"], answers["b"])


def test_packed_weights_are_seen() -> None:
    part = nn.Linear(4, 4)
    part.qconfig = torch.ao.quantization.default_dynamic_qconfig  # type: ignore[assignment]
    packed: Any = torch.ao.nn.quantized.dynamic.Linear.from_float(part)
    named = list(nn.Sequential(packed).named_modules())
    first = inspect(named)
    assert first.own_code == ()
    assert inspect(named) == first
    whole = packed.weight().int_repr()
    seen = {first.digest}
    for scale in (0.01, 0.02):
        packed.set_weight_bias(torch._make_per_tensor_quantized_tensor(whole, scale, 0), packed.bias())
        seen.add(fingerprint(named))
    packed.set_weight_bias(packed.weight(), torch.ones(4))
    assert len({*seen, fingerprint(named)}) == 4


def test_what_cannot_be_looked_into_is_said_and_nothing_is_stored(model: LoadedModel) -> None:
    part: Any = model.bridge.blocks[0].mlp.original_component
    part.something = iter([1])
    assert any("cannot be looked into" in found for found in model.user_hooks())
    model.run(IDS)
    assert model.store.ledger().entries == 0


HOLDERS: dict[str, Callable[[torch.Tensor], Any]] = {
    "a list": lambda tensor: [1, tensor],
    "nested tables": lambda tensor: {"a": {"b": (tensor,)}},
    "an object": lambda tensor: type("Holder", (), {"__init__": lambda self: setattr(self, "held", tensor)})(),
    "a module in a list": lambda tensor: [nn.ParameterList([nn.Parameter(tensor)])],
    "a partial of a library's function": lambda tensor: functools.partial(torch.mul, other=tensor),
    "a bound method": lambda tensor: tensor.mul,
    "a numpy array of the same memory": lambda tensor: tensor.numpy(),
}


@pytest.mark.parametrize("what", HOLDERS)
def test_a_tensor_in_anything_is_seen(what: str) -> None:
    tensor = torch.zeros(3)
    module: Any = nn.Module()
    module._inside = HOLDERS[what](tensor)
    named = [("", module)]
    first = fingerprint(named)
    assert fingerprint(named) == first
    tensor[1] = 1.0
    assert fingerprint(named) != first


def test_which_layer_stands_twice_is_seen() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    found: set[str] = set()
    for order in ([first, second, first], [first, second, second]):
        found.add(fingerprint(list(nn.Sequential(*order).named_modules())))
    assert len(found) == 2


def test_a_kernel_of_the_users_own_is_named() -> None:
    named = [("", nn.Linear(2, 2))]
    library = torch.library.Library("aten", "IMPL")
    try:
        library.impl("special_erfcx", lambda x: x * 2, "CPU")
        assert any("special_erfcx" in found for found in inspect(named).own_code)
    finally:
        library._destroy()
    assert inspect(named).own_code == ()


def test_looking_by_the_user_is_no_change(model: LoadedModel) -> None:
    """The bridge wires itself in the first `run_with_cache`; what was stored before it still holds."""
    digest = model.fingerprint()
    model.bridge.run_with_cache(torch.tensor([IDS]))
    model.hf_model(torch.tensor([IDS]), output_attentions=True, output_hidden_states=True)
    assert model.fingerprint() == digest


@pytest.mark.parametrize("family", models.FAMILIES)
def test_a_forward_is_no_change_and_a_plain_model_runs_nothing_of_the_users(family: str) -> None:
    made = load(models.FAMILIES[family](340), name=family, options=Options(device="cpu"))
    digest = made.fingerprint()
    assert made.user_hooks() == ()
    bridged(made)
    bridged(made, range(3, 40))
    assert made.fingerprint() == digest


class _Keeping(nn.Module):
    """Keeps counters and caches in its class, as libraries do."""

    looked: bool
    other = 1
    made = 0

    def __init__(self) -> None:
        super().__init__()
        _Keeping.made += 1
        self.other = 2

    @classmethod
    def look(cls) -> None:
        cls.looked = True


def test_what_a_class_notes_of_itself_is_no_change(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training goes on in another process, where transformers has asked its class other things, or nothing."""
    kinds = [kind for kind in type(model.hf_model).__mro__ if issubclass(kind, PreTrainedModel)]
    for kind in kinds:
        monkeypatch.delattr(kind, "_can_set_attn_implementation_cached_value", raising=False)
    digest = model.fingerprint()
    for kind in kinds:
        kind._can_set_attn_implementation()
    assert vars(kinds[0])["_can_set_attn_implementation_cached_value"]
    assert model.fingerprint() == digest
    assert code._rebound(_Keeping, True) >= {"looked", "made"}
    assert "other" not in code._rebound(_Keeping, True)


_ELSEWHERE = """
import sys
sys.path.insert(0, sys.argv[1])
import torch, models
from interp.engine.model.load import Options, load
for family in sys.argv[2:]:
    made = load(models.FAMILIES[family](340), name=family, options=Options(device="cpu"))
    print(family, made.fingerprint())
"""


@pytest.mark.slow
def test_a_state_is_the_same_in_another_process() -> None:
    """A lens, and every saved result, carries the fingerprint of the model that it came from."""
    tests = str(Path(models.__file__).parent)
    found: list[dict[str, str]] = []
    for families in (["llama", "gpt2"], ["gpt2", "neox", "llama"]):
        ran = subprocess.run(
            [sys.executable, "-c", _ELSEWHERE, tests, *families], capture_output=True, text=True, check=True
        )
        found.append(dict(line.split() for line in ran.stdout.splitlines()))
    assert found[0]["llama"] == found[1]["llama"]
    assert found[0]["gpt2"] == found[1]["gpt2"]


# -- tokenizers ------------------------------------------------------------------------------------------------------


def _first_ids(model: LoadedModel) -> list[int]:
    return list(model.run("the store").tokens.ids)


def test_another_bos_is_taken_at_once(model: LoadedModel) -> None:
    tokenizer: Any = model.bridge.tokenizer
    bos = tokenizer.bos_token_id
    letter = tokenizer("A", add_special_tokens=False)["input_ids"][0]
    assert _first_ids(model)[0] == bos
    assert interp.attention("the store").tokens[0] == models.BOS
    tokenizer.bos_token = "A"
    assert _first_ids(model)[0] == letter
    assert interp.attention("the store").tokens[0] == "A"
    assert interp.predict("the store").provenance.tokens[0][0] == letter
    assert interp.lens("the store").provenance.tokens[0][0] == letter
    tokenizer.bos_token = None
    assert _first_ids(model)[0] not in {letter, bos}


def test_an_added_token_is_taken_at_once(model: LoadedModel) -> None:
    tokenizer: Any = model.bridge.tokenizer
    before = _first_ids(model)
    present = next(piece for piece in tokenizer.get_vocab() if piece.startswith("Ġ") and len(piece) > 3)
    assert model.tokens.string(tokenizer.get_vocab()[present]) == f" {present[1:]}"
    tokenizer.add_tokens([present])  # in the vocabulary already: its length does not tell
    assert model.tokens.string(tokenizer.get_vocab()[present]) == present
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("store", "John")
    assert _first_ids(model) != before


def test_whether_bos_is_put_in_front_is_asked_each_time(model: LoadedModel) -> None:
    with_bos = _first_ids(model)
    model.bridge.cfg.default_prepend_bos = False
    assert _first_ids(model) == with_bos[1:]


@pytest.mark.parametrize("family", ["bert", "llama", "gpt2"])
def test_a_name_in_a_registry_that_stands_for_something_else(family: str) -> None:
    model = load(models.FAMILIES[family](340), name=family, options=Options(device="cpu"))
    plain = sys.modules[type(model.hf_model).__module__].eager_attention_forward
    model.hf_model.config._attn_implementation = "mine"
    found: list[torch.Tensor] = []
    try:
        for factor in (0.3, 0.5, 0.9):

            def mine(*given: Any, factor: float = factor, **named: Any) -> Any:
                out, weights = plain(*given, **named)
                return factor * out, weights

            AttentionInterface.register("mine", mine)
            found.append(model.activations_of(IDS, ["logits"])["logits"])
            expected = model.bridge(torch.tensor([IDS]))
            assert torch.equal(found[-1], expected), factor
    finally:
        AttentionInterface._global_mapping.pop("mine")
    try:
        model.bridge(torch.tensor([IDS]))
    except KeyError:  # but for bridges with an attention of their own, which run
        with pytest.raises((InputError, KeyError)):
            model.activations_of(IDS, ["logits"])
