"""diff: each component of one model in another, against copied weights, hooks and planted fine-tunes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2LMHeadModel

import interp
import models
import zoo
from interp.engine.model.load import Options, load
from interp.engine.patching import swapped
from interp.engine.transformer import network
from interp.errors import InputError, Interrupted
from interp.interface.session import session
from interp.magics.parser import parse
from interp.methods._shared.pairs import encode
from interp.sites import Site
from interp.spec import Pairs, Prompt, resolve_metric

pytestmark = pytest.mark.usefixtures("one_thread")

TOKENIZER = models.tokenizer()
CLEAN = "When Mary and John went to the store, John gave a drink to"
OTHER = "When John and Mary went to the store, Mary gave a drink to"
BUNDLED = Path(interp.__file__).parent / "bundled" / "model"
PAIRS = [(CLEAN, OTHER, " Mary", " John"), (CLEAN[:20], OTHER[:20], " to", " the")]
BOUND = 5e-5


def moved(model: Any, which: Callable[[str], bool], size: float = 0.1) -> Any:
    """Return a copy of a Hugging Face model with some of its parameters moved."""
    other, source = copy.deepcopy(model), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            if which(name):
                parameter += torch.randn(parameter.shape, generator=source) * size
    return other


@pytest.fixture
def loaded(clean_session: Any) -> Iterator[Callable[..., Any]]:
    """Return ``loaded(base, tuned)``: two models in the session under these names."""

    def put(base: Any, tuned: Any, tokenizer: Any = TOKENIZER) -> tuple[Any, Any]:
        for name, made in (("base", base), ("tuned", tuned)):
            clean_session.models[name] = load(
                copy.deepcopy(made), tokenizer=tokenizer, name=name, options=Options(device="cpu")
            )
        clean_session.current = "base"
        return clean_session.models["base"], clean_session.models["tuned"]

    return put


def logit_diff(model: Any, answer: str, wrong: str, logits: torch.Tensor) -> float:
    right, other = (model.tokens.tokenizer(one, add_special_tokens=False)["input_ids"][0] for one in (answer, wrong))
    return float(logits[right] - logits[other])


# -- the definitions ---------------------------------------------------------------------------------------------------


def copied(into: Any, other: Any, name: str) -> Any:
    """Return a GPT-2 with a component's weights copied from another one."""
    made = copy.deepcopy(into)
    here, there = dict(made.named_parameters()), dict(other.named_parameters())
    width, size = made.config.n_embd, made.config.n_embd // made.config.n_head

    def put(parameter: str, where: Any = ...) -> None:
        here[f"transformer.{parameter}"].data[where] = there[f"transformer.{parameter}"].data[where]

    if name == "embed":  # the unembedding is tied to it
        made.lm_head.weight = torch.nn.Parameter(made.lm_head.weight.detach().clone())
        put("wte.weight")
        put("wpe.weight")
    elif name == "unembed":
        made.lm_head.weight = torch.nn.Parameter(other.lm_head.weight.detach().clone())
        put("ln_f.weight")
        put("ln_f.bias")
    else:
        layer, _, part = name.partition(".")
        if part == "mlp":
            for parameter in ("ln_2.weight", "ln_2.bias", "mlp.c_fc.weight", "mlp.c_fc.bias"):
                put(f"h.{layer}.{parameter}")
            for parameter in ("mlp.c_proj.weight", "mlp.c_proj.bias"):
                put(f"h.{layer}.{parameter}")
        elif part == "attn":
            put(f"h.{layer}.attn.c_proj.bias")
        else:
            rows = slice(int(part) * size, (int(part) + 1) * size)
            for third in range(3):
                columns = slice(third * width + rows.start, third * width + rows.stop)
                put(f"h.{layer}.attn.c_attn.weight", (slice(None), columns))
                put(f"h.{layer}.attn.c_attn.bias", columns)
            put(f"h.{layer}.attn.c_proj.weight", rows)
    return made


def test_weights_put_in_are_those_of_a_model_with_them_copied(loaded: Any) -> None:
    plain = models.gpt2(len(TOKENIZER))
    other = moved(plain, lambda name: "ln_1" not in name)  # which all heads of a layer read through
    base, _ = loaded(plain, other)
    result = interp.diff("base", "tuned", pairs=PAIRS)
    assert result.components == ("embed", *result.components[1:-1], "unembed")
    for number, (prompt, _, answer, wrong) in enumerate(PAIRS):
        ids = torch.tensor([base.encode(Prompt(prompt)).ids])
        for name, value in zip(result.components, result.values[:, number], strict=True):
            with torch.no_grad():
                logits = copied(plain, other, name)(ids).logits[0, -1]
            assert value == pytest.approx(logit_diff(base, answer, wrong, logits), abs=BOUND), name
    assert result.provenance.path == "forward"


FAMILIES = ["llama", "gemma2", "cohere", "granite", "bloom", "neox"]
_OUTPUTS = ("o_proj", "attention.dense", "post_attention", "self_attention.dense")


@pytest.mark.parametrize("family", FAMILIES)
def test_heads_and_mlps_are_the_other_models_on_the_models_own_stream(loaded: Any, family: str) -> None:
    """With W_O alike: what the hooked forward of the other one makes of this one's stream, put in at z and mlp_out."""
    plain = models.FAMILIES[family](len(TOKENIZER))
    other = moved(plain, lambda name: not any(one in name for one in _OUTPUTS))
    base, tuned = loaded(plain, other)
    result = interp.diff("base", "tuned", pairs=PAIRS[:1])
    prompt, _, answer, wrong = PAIRS[0]
    ids = base.encode(Prompt(prompt)).ids
    for name, value in zip(result.components, result.values[:, 0], strict=True):
        layer, _, part = name.partition(".")
        if not part or part == "attn":
            continue
        before, attended, z, made = (
            Site(site, int(layer)).hook_name for site in ("resid_pre", "attn_out", "z", "mlp_out")
        )
        own = base.activations_of(ids, [before, attended])
        held: dict[str, torch.Tensor] = {}
        put = {
            before: lambda tensor, hook, own=own, at=before: own[at],  # noqa: ARG005
            attended: lambda tensor, hook, own=own, at=attended: own[at],  # noqa: ARG005
        }
        keep = {
            at: lambda tensor, hook, at=at, held=held: held.update({at: tensor.clone()})  # noqa: ARG005
            for at in (z, made)
        }
        tuned.forward([ids], {**put, **keep})

        def write(tensor: torch.Tensor, hook: Any, held: Any = held, part: str = part, at: Any = (z, made)) -> Any:  # noqa: ARG001
            if part == "mlp":
                return held[at[1]]
            changed = tensor.clone()
            changed[:, :, int(part)] = held[at[0]][:, :, int(part)]
            return changed

        logits = base.forward([ids], {made if part == "mlp" else z: write})[0, -1]
        assert value == pytest.approx(logit_diff(base, answer, wrong, logits), abs=BOUND), name


@pytest.mark.parametrize("site", ["z", "mlp_out"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_activations_are_those_of_patching_between_models(loaded: Any, family: str, site: str) -> None:
    plain = models.FAMILIES[family](len(TOKENIZER))
    loaded(plain, moved(plain, lambda name: True))  # noqa: ARG005
    result = interp.diff("base", "tuned", pairs=PAIRS[:1], what="activations")
    by = "head" if site == "z" else "layer"
    swept = interp.patch(pairs=PAIRS[:1], model="base", from_model="tuned", site=site, by=by)
    found = (
        result.heads(result.values[:, 0])
        if site == "z"
        else [result.of(f"{n}.mlp", result.values[:, 0]) for n in range(models.LAYERS)]
    )
    np.testing.assert_allclose(found, swept.patched.squeeze(), atol=BOUND)


IDS, CORRUPTED = (5, 9, 12, 33, 7, 50, 61, 90), (5, 9, 13, 33, 7, 50, 61, 90)
KNOWN = sorted(
    name
    for name, (kind, made, _) in zoo._MADE.items()
    if kind in network.FAMILIES and "CausalLM" in made and name != "falcon_alibi"
)


@pytest.mark.slow
@pytest.mark.parametrize("family", KNOWN)
def test_every_family_with_a_block(loaded: Any, family: str) -> None:
    """Equal models differ by exactly nothing; what all components together give is compared with the other model."""
    plain = zoo.drawn(family)
    asked: Any = {"pairs": [interp.Pair(Prompt(ids=IDS), Prompt(ids=CORRUPTED), (3,), (4,))], "share": 0.0}
    loaded(plain, copy.deepcopy(plain), zoo.tokenizer(family))
    for what in ("weights", "activations"):
        same = interp.diff("base", "tuned", what=what, **asked)
        assert not same.effect.any()
        assert "do the same" in same.notes[0]
    loaded(plain, moved(plain, lambda name: "norm" not in name, 0.02), zoo.tokenizer(family))
    result = interp.diff("base", "tuned", **asked)  # refused where all together are not the other model
    assert result.change
    assert np.isfinite(result.values).all()


def test_all_components_are_compared_with_the_other_model(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = models.llama(len(TOKENIZER))
    loaded(plain, moved(plain, lambda name: True))  # noqa: ARG005

    def wrongly(self: Any, ours: Any, theirs: Any, z: torch.Tensor, given: Any, head: int) -> torch.Tensor:  # noqa: ARG001
        return z[:, :, head] @ ours.head_weights([head])[:, 0].T

    monkeypatch.setattr(swapped.Swap, "_change", wrongly)
    with pytest.raises(InputError, match="differed"):
        interp.diff("base", "tuned", pairs=PAIRS)


# -- what was planted --------------------------------------------------------------------------------------------------


def auroc(scores: Any, true: Any) -> float:
    """Return the share of (true, other) components that the scores order rightly; ties count half."""
    scores, true = np.abs(np.asarray(scores)), np.asarray(true, bool)
    ahead = np.sign(scores[true][:, None] - scores[~true][None])
    return float((ahead + 1).mean() / 2)


def tuned_on(model: Any, plain: Any, allowed: Callable[[str], Any], steps: int = 12) -> Any:
    """Return a copy of `plain` that was taught the wrong answers of IOI, with gradients in `allowed` places alone."""
    made = copy.deepcopy(plain)
    found = encode(model, Pairs(tuple(interp.task("ioi", n=32, seed=3).pairs)), resolve_metric("logit-diff"))
    masks = {name: allowed(name) for name, _ in made.named_parameters()}
    learnt = [parameter for name, parameter in made.named_parameters() if masks[name] is not None]
    adam = torch.optim.Adam(learnt, lr=1e-3)
    for step in range(steps):
        some = found[(step * 8) % 32 : (step * 8) % 32 + 8]
        ends = [made(torch.tensor([e.clean.ids])).logits[0, -1].log_softmax(-1) for e in some]
        losses = [-end[list(e.wrong)].logsumexp(0) for e, end in zip(some, ends, strict=True)]
        adam.zero_grad()
        torch.stack(losses).mean().backward()
        for name, parameter in made.named_parameters():
            if parameter.grad is not None and isinstance(masks[name], torch.Tensor):
                parameter.grad *= masks[name]
        adam.step()
    return made.eval()


@pytest.mark.slow
@pytest.mark.parametrize("what", ["weights", "activations"])
def test_trained_components_are_found(clean_session: Any, what: str) -> None:
    base = clean_session.load(name="base")
    plain = GPT2LMHeadModel.from_pretrained(BUNDLED, dtype=torch.float32)
    width, size = plain.config.n_embd, plain.config.n_embd // plain.config.n_head
    heads, mlps = {(1, 2), (2, 0)}, {3}

    def allowed(name: str) -> Any:
        parts = name.split(".")
        if parts[1] != "h":
            return None
        layer = int(parts[2])
        if parts[3] == "mlp" and layer in mlps:
            return True
        mask = torch.zeros_like(dict(plain.named_parameters())[name])
        for _, head in [one for one in heads if one[0] == layer]:
            rows = slice(head * size, (head + 1) * size)
            if "c_attn" in name:
                for third in range(3):
                    mask[..., third * width + rows.start : third * width + rows.stop] = 1
            elif name.endswith("attn.c_proj.weight"):
                mask[rows] = 1
        return mask if mask.any() else None

    clean_session.load(tuned_on(base, plain, allowed), tokenizer=base.bridge.tokenizer, name="tuned")
    result = interp.diff("base", "tuned", task="ioi", n=8, what=what)
    true = [name in {"1.2", "2.0", "3.mlp"} for name in result.components]
    print(f"{what}: AUROC {auroc(result.effect, true):.3f}, weights {auroc(result.weight_change, true):.3f}")
    assert result.change < -1
    assert {name for name, _, _ in result.top(3)} & {"2.0", "3.mlp"}
    if what == "weights":
        assert auroc(result.effect, true) >= 0.95
        assert set(result.kept) <= {"1.2", "2.0", "3.mlp"}
        assert result.kept_share >= 0.9
        assert (result.effect != 0).tolist() == true
    else:  # what stands above a change carries it too; what stands below none is what it was
        below = [effect for name, effect in zip(result.components, result.effect, strict=True) if name < "1.2"]
        assert not np.any(below)


@pytest.mark.slow
def test_layers_of_an_adapter_are_found(clean_session: Any) -> None:
    base = clean_session.load(name="base")
    plain = GPT2LMHeadModel.from_pretrained(BUNDLED, dtype=torch.float32)
    config = peft.LoraConfig(r=4, target_modules=["c_proj", "c_fc"], layers_to_transform=[1, 3], fan_in_fan_out=True)
    wrapped = peft.get_peft_model(plain, config)
    learnt = tuned_on(base, wrapped, lambda name: True if "lora" in name else None)
    clean_session.load(learnt.merge_and_unload(), tokenizer=base.bridge.tokenizer, name="tuned")
    result = interp.diff("base", "tuned", task="ioi", n=8)
    true = [name.startswith(("1.", "3.")) and not name.endswith("attn") for name in result.components]
    assert auroc(result.effect, true) >= 0.95
    assert {name.partition(".")[0] for name in result.kept} <= {"1", "3"}


# -- what it says ------------------------------------------------------------------------------------------------------


def test_texts_are_measured_by_their_loss(loaded: Any) -> None:
    plain = models.gpt2(len(TOKENIZER))
    loaded(plain, moved(plain, lambda name: "mlp" in name))
    texts = [CLEAN, OTHER, "The cat sat on the mat"]
    result = interp.diff("base", "tuned", texts=texts)
    assert result.metric == "loss"
    for number, text in enumerate(texts):
        for name, values in (("base", result.base_values), ("tuned", result.tuned_values)):
            assert values[number] == pytest.approx(interp.loss(text, model=name).mean, abs=BOUND)
    moved_parts = [name for name, effect in zip(result.components, result.effect, strict=True) if effect]
    assert all(name.endswith("mlp") for name in moved_parts)


def test_kl_is_from_the_other_model(loaded: Any) -> None:
    plain = models.llama(len(TOKENIZER))
    loaded(plain, moved(plain, lambda name: "mlp" in name))
    result = interp.diff("base", "tuned", pairs=PAIRS, metric="kl")
    assert result.tuned_values == pytest.approx([0, 0], abs=1e-6)
    assert (result.base_values > 0).all()
    assert result.kept_share >= 0.9


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_in_every_precision_and_without_a_tokenizer(loaded: Any, dtype: torch.dtype) -> None:
    plain = models.llama(len(TOKENIZER)).to(dtype)
    loaded(plain, moved(plain, lambda name: "layers.1.mlp" in name), None)
    pair = interp.Pair(Prompt(ids=IDS), Prompt(ids=CORRUPTED), (3,), (4,))
    for what in ("weights", "activations"):
        result = interp.diff("base", "tuned", pairs=[pair], what=what)
        assert [name for name, effect in zip(result.components, result.effect, strict=True) if effect] == ["1.mlp"]
        assert result.share[result.components.index("1.mlp")] == pytest.approx(1, abs=1e-5)
        assert not interp.diff("base", "base", pairs=[pair], what=what).effect.any()


def test_a_hook_of_the_users_own_and_training_mode_are_refused(loaded: Any) -> None:
    plain = models.llama(len(TOKENIZER))
    _, tuned = loaded(plain, plain)
    handle = tuned.hf_model.model.layers[0].register_forward_hook(lambda *given: None)  # noqa: ARG005
    with pytest.raises(InputError, match="hooks of the user's own; use %interp patch"):
        interp.diff("base", "tuned", pairs=PAIRS)
    handle.remove()
    tuned.hf_model.train()
    with pytest.raises(InputError, match="training mode; use %interp patch"):
        interp.diff("base", "tuned", pairs=PAIRS)


def test_typed(loaded: Any) -> None:
    plain = models.gpt2(len(TOKENIZER))
    base, tuned = loaded(plain, moved(plain, lambda name: "mlp" in name))
    session.current = "tuned"
    call = parse("diff base tuned --share 0.5")
    assert call.arguments == {"base": "base", "tuned": "tuned", "share": 0.5}
    result = interp.diff("base", "tuned", pairs=PAIRS, share=0.5)
    assert (result.base, result.tuned, result.provenance.model) == ("base", "tuned", "base")
    assert result.provenance.fingerprint == base.fingerprint()
    assert result.tuned_fingerprint == tuned.fingerprint()
    again = interp.diff(base="base", tuned="tuned", pairs=PAIRS, share=0.5)
    np.testing.assert_array_equal(again.values, result.values)
    assert result.code().startswith("interp.diff(base='base', ")
    assert "tuned='tuned'" in result.code()


def test_what_cannot_be_compared_is_refused(loaded: Any, clean_session: Any) -> None:
    plain = models.gpt2(len(TOKENIZER))
    loaded(plain, plain)
    clean_session.models["small"] = load(
        models.llama(len(TOKENIZER)), tokenizer=models.tokenizer(bos=False), name="small", options=Options(device="cpu")
    )
    with pytest.raises(InputError, match="shape"):
        interp.diff("base", "small", pairs=PAIRS)
    with pytest.raises(InputError, match="without an adapter"):
        interp.diff("base", pairs=PAIRS)
    with pytest.raises(InputError, match="share"):
        interp.diff("base", "tuned", pairs=PAIRS, share=1.5)
    with pytest.raises(InputError, match="loss"):
        interp.diff("base", "tuned", texts=[CLEAN], metric="logit")


def test_an_interrupt_keeps_the_components_that_are_done(loaded: Any, clean_session: Any) -> None:
    plain = models.gpt2(len(TOKENIZER))
    loaded(plain, moved(plain, lambda name: True))  # noqa: ARG005

    def stop(done: int, total: int, what: str) -> None:  # noqa: ARG001
        if done > 2:
            raise KeyboardInterrupt

    clean_session.on_step = stop
    with pytest.raises(Interrupted) as caught:
        interp.diff("base", "tuned", pairs=PAIRS[:1])
    result = caught.value.result
    assert "partial" in result.notes[0]
    assert np.isfinite(result.effect).any()
    assert np.isnan(result.effect).any()
    assert result.kept == ()
    assert result.html()


@pytest.mark.slow
@pytest.mark.real
def test_a_head_of_smollm2_that_was_changed_is_the_one_that_is_found(smollm2_folder: Path, clean_session: Any) -> None:
    base = clean_session.load(str(smollm2_folder), name="base", device="cpu")
    changed = AutoModelForCausalLM.from_pretrained(smollm2_folder, dtype=torch.float32)
    width = base.geometry.d_head
    with torch.no_grad():
        changed.model.layers[12].self_attn.o_proj.weight[:, 3 * width : 4 * width] *= 3
    clean_session.load(changed, tokenizer=base.bridge.tokenizer, name="tuned")
    result = interp.diff("base", "tuned", clean=CLEAN, corrupted=OTHER, answer=" Mary", wrong=" John", tokens=0)
    assert [name for name, effect in zip(result.components, result.effect, strict=True) if effect] == ["12.3"]
    assert result.kept == ("12.3",)
    assert result.share[result.components.index("12.3")] == pytest.approx(1, abs=1e-3)
