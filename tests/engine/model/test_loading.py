"""Every way to load a model gives the model that was meant, and a way that fails leaves everything as it was."""

from __future__ import annotations

import copy
import gc
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformer_lens.model_bridge import TransformerBridge

import interp
import models
from interp.engine.model.load import Options, load
from interp.errors import InputError
from real import PROMPT

pytestmark = pytest.mark.usefixtures("one_thread")

IDS = [5, 90, 33, 171, 40, 2]
CPU = Options(device="cpu")


def logits(model: Any, ids: list[int] = IDS) -> torch.Tensor:
    return model.run(ids).logits


def reference(hf: Any, ids: list[int] = IDS) -> torch.Tensor:
    with torch.no_grad():
        return hf(torch.tensor([ids])).logits


@pytest.mark.parametrize("family", ["gpt2", "llama", "neox", "bert"])
def test_a_folder(folder: Callable[..., Path], family: str) -> None:
    hf = models.FAMILIES[family](len(models.tokenizer(encoder=family == "bert")))
    model = load(folder(family), options=CPU)
    torch.testing.assert_close(logits(model), reference(hf), rtol=0, atol=1e-4)
    assert model.name == family
    assert model.geometry.n_kv_heads == (2 if family == "llama" else 4)
    assert model.geometry.causal == (family != "bert")
    assert not model.user_hooks()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_a_dtype(folder: Callable[..., Path], dtype: str) -> None:
    model = load(folder("llama"), options=Options(device="cpu", dtype=dtype))
    assert model.dtype == dtype
    assert str(logits(model).dtype) == f"torch.{dtype}"
    hf = models.llama(len(models.tokenizer())).to(getattr(torch, dtype))
    torch.testing.assert_close(logits(model), reference(hf), rtol=0, atol=0.1 if dtype == "bfloat16" else 1e-2)


def test_a_gguf_file(gguf_file: Path, smollm2: Any, capsys: pytest.CaptureFixture[str]) -> None:
    model = load(gguf_file, options=CPU)
    assert capsys.readouterr() == ("", "")
    ids = list(smollm2.tokens.encode(interp.Prompt(PROMPT)).ids)
    assert list(model.tokens.encode(interp.Prompt(PROMPT)).ids) == ids
    assert torch.equal(logits(model, ids), logits(smollm2, ids))
    assert "dequantised" in model.notes[0]
    assert model.name == gguf_file.stem


@pytest.mark.parametrize("family", ["gpt2", "llama", "neox", "bert"])
def test_an_object_in_memory_is_rewired_and_says_so(family: str) -> None:
    tokenizer = models.tokenizer(encoder=family == "bert")
    hf = models.FAMILIES[family](len(tokenizer))
    expected = reference(hf)
    model = load(hf, tokenizer=tokenizer, options=CPU)
    torch.testing.assert_close(logits(model), expected, rtol=0, atol=1e-4)
    assert any("rewired" in note for note in model.notes)


@pytest.mark.parametrize("family", ["gpt2", "llama", "neox", "bert"])
def test_a_copy_leaves_the_object_alone(family: str) -> None:
    hf = models.FAMILIES[family](340)
    names, expected = list(hf.state_dict()), reference(hf)
    model = load(hf, copy_model=True, options=CPU)
    with torch.no_grad():
        next(model.hf_model.parameters()).add_(1)
    assert list(hf.state_dict()) == names
    assert torch.equal(reference(hf), expected)
    assert any("copy" in note for note in model.notes)


def test_a_model_without_a_language_models_head_is_refused_and_left_alone() -> None:
    whole = models.bert(340)
    config = whole.config
    config.num_labels = 2
    for kind, message in (
        (transformers.BertForSequenceClassification, r"interp\.saliency_of_classifier\(text, model, tokenizer"),
        (transformers.BertModel, "a BertModel has no language-model head: load it with AutoModelForCausalLM"),
    ):
        hf = kind(config).eval()
        before = [(name, type(module)) for name, module in hf.named_modules()]
        with pytest.raises(InputError, match=message):
            load(hf, tokenizer=models.tokenizer(encoder=True), options=CPU)
        assert [(name, type(module)) for name, module in hf.named_modules()] == before


def test_tokens_added_after_loading_survive(folder: Callable[..., Path]) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder("gpt2"))
    tokenizer.add_tokens(["<thought>"])
    hf = models.gpt2(len(tokenizer))
    model = load(hf, tokenizer=tokenizer, options=CPU)
    encoded = model.tokens.encode(interp.Prompt("a <thought> b"))
    assert "<thought>" in encoded.strings
    assert encoded.ids[encoded.strings.index("<thought>")] == len(tokenizer) - 1


def test_a_model_without_a_tokenizer_takes_ids() -> None:
    model = load(models.gpt2(340), options=CPU)
    assert logits(model).shape == (1, len(IDS), 340)
    with pytest.raises(InputError, match="no tokenizer"):
        model.run("text")


def test_a_bridge_is_taken_as_it_is(folder: Callable[..., Path]) -> None:
    bridge = TransformerBridge.boot_transformers(str(folder("gpt2")), device="cpu")
    bridge.set_use_attn_result(True)
    expected = bridge(torch.tensor([IDS]))
    model = load(bridge, name="mine", options=CPU)
    assert model.bridge is bridge
    assert model.name == "mine"
    assert bridge.cfg.use_attn_result
    assert torch.equal(logits(model), expected)


def adapted(family: str) -> tuple[Any, Any]:
    """Return a PEFT model whose adapter does something, and the model without it."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        hf = models.FAMILIES[family](len(models.tokenizer()))
        plain = copy.deepcopy(hf)
        targets = ["c_attn", "c_fc"] if family == "gpt2" else ["q_proj", "v_proj", "up_proj"]
        config = peft.LoraConfig(
            r=4, target_modules=targets, init_lora_weights=False, fan_in_fan_out=family == "gpt2", task_type="CAUSAL_LM"
        )
        return peft.get_peft_model(hf, config).eval(), plain


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_peft_model_is_what_peft_computes(family: str) -> None:
    adapter, plain = adapted(family)
    expected = reference(adapter)
    assert float((expected - reference(plain)).abs().max()) > 1e-2
    model = load(adapter, tokenizer=models.tokenizer(), options=CPU)
    torch.testing.assert_close(logits(model), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(reference(adapter), expected, rtol=0, atol=0)
    assert any("merged" in note for note in model.notes)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_an_adapters_folder(family: str, folder: Callable[..., Path], tmp_path: Path) -> None:
    adapter, _ = adapted(family)
    expected = reference(adapter)
    adapter.peft_config["default"].base_model_name_or_path = str(folder(family))
    adapter.save_pretrained(tmp_path / "adapter")
    model = load(tmp_path / "adapter", options=CPU)
    torch.testing.assert_close(logits(model), expected, rtol=0, atol=1e-4)
    assert model.name == "adapter"
    assert model.run("The cat").logits.shape[-1] == model.geometry.d_vocab


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("kind", ["folder", "object"])
def test_an_adapter_on_a_base_that_is_named(family: str, kind: str, tmp_path: Path, clean_session: Any) -> None:
    adapter, plain = adapted(family)
    expected = reference(adapter)
    adapter.peft_config["default"].base_model_name_or_path = None
    adapter.save_pretrained(tmp_path / "lora")
    with pytest.raises(InputError, match="--adapter"):
        clean_session.load(tmp_path / "lora")
    before = reference(plain)
    plain.save_pretrained(tmp_path / "base")
    source = tmp_path / "base" if kind == "folder" else plain
    model = clean_session.load(source, adapter=tmp_path / "lora", device="cpu")
    torch.testing.assert_close(logits(model), expected, rtol=0, atol=1e-4)
    assert any("lora was merged" in note for note in model.notes)
    assert model.name.endswith("+lora")
    torch.testing.assert_close(reference(plain), before, rtol=0, atol=0)


def test_adapters_that_cannot_be_taken(folder: Callable[..., Path], tmp_path: Path, clean_session: Any) -> None:
    adapter, _ = adapted("gpt2")
    adapter.save_pretrained(tmp_path / "lora")
    with pytest.raises(InputError, match="no adapter folder"):
        clean_session.load(folder("gpt2"), adapter=tmp_path)
    with pytest.raises(InputError, match="does not fit llama"):
        clean_session.load(folder("llama"), adapter=tmp_path / "lora")
    (tmp_path / "lora" / "adapter_model.safetensors").rename(tmp_path / "lora" / "adapter_model.bin")
    with pytest.raises(InputError, match="pickle"):
        clean_session.load(folder("gpt2"), adapter=tmp_path / "lora")
    assert clean_session.models == {}


def test_damaged_folders_say_what_is_wrong(folder: Callable[..., Path], tmp_path: Path, clean_session: Any) -> None:
    source = shutil.copytree(folder("gpt2"), tmp_path / "model")
    weights = source / "model.safetensors"
    whole = weights.read_bytes()
    for damaged in (whole[:100], whole[: len(whole) // 2], b"\0" * 64):
        weights.write_bytes(damaged)
        with pytest.raises(InputError, match="the weights of model are damaged") as refused:
            clean_session.load(source)
        assert "\n" not in str(refused.value)
    weights.write_bytes(whole)
    (source / "config.json").write_text("[1]")
    with pytest.raises(InputError, match="no model's configuration"):
        clean_session.load(source)
    (source / "config.json").write_text('{"model_type": "segformer", "architectures": ["SegformerModel"]}')
    with pytest.raises(InputError, match="SegformerModel"):
        clean_session.load(source)
    assert clean_session.models == {}


def _split(source: Path, *, index: bool, shards: int) -> None:
    """Make the weights of a folder the first of `shards` files, with an index that names them all, or without."""
    first, *rest = [f"model-{n + 1:05}-of-{shards:05}.safetensors" for n in range(shards)]
    names = list(load_file(source / "model.safetensors"))
    (source / "model.safetensors").rename(source / first)
    where = {name: rest[0] if rest and n > 3 else first for n, name in enumerate(names)}
    if index:
        (source / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a pointer": (
        lambda at: (at / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1"),
        "the weights of model are damaged",
    ),
    "a shard is gone": (
        lambda at: _split(at, index=True, shards=2),
        "the weights of model are damaged .*00002-of-00002",
    ),
    "no index": (lambda at: _split(at, index=False, shards=1), "the weights of model are damaged .*no file named"),
    "another shape": (
        lambda at: _configured(at, vocab_size=300),
        r"the weight .*weight of model has the shape \(\d+, 32\) and its configuration asks for \(300, 32\)",
    ),
    "no such activation": (lambda at: _configured(at, activation_function="nope"), "model cannot be loaded: .*nope"),
    "no number": (lambda at: _configured(at, n_layer="two"), "its config.json cannot be used: .*n_layer"),
}


def _configured(at: Path, **changes: Any) -> None:
    held = json.loads((at / "config.json").read_text())
    (at / "config.json").write_text(json.dumps(held | changes))


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_wrong_with_a_folder_is_said(damage: str, folder: Any, tmp_path: Path, clean_session: Any) -> None:
    spoil, says = DAMAGES[damage]
    source = shutil.copytree(folder("gpt2"), tmp_path / "model")
    spoil(source)
    with pytest.raises(InputError, match=says) as refused:
        clean_session.load(source)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400
    assert clean_session.models == {}


def test_a_tokenizer_that_cannot_be_read_is_told(folder: Any, tmp_path: Path) -> None:
    source = shutil.copytree(folder("gpt2"), tmp_path / "model")
    (source / "tokenizer.json").write_text("{")
    model = load(source, options=CPU)
    assert any(note.startswith("its tokenizer cannot be read (") for note in model.notes)
    with pytest.raises(InputError, match="no tokenizer; give token ids"):
        model.run("a text")
    assert logits(model).shape[1] == len(IDS)


def test_a_damaged_gguf_file(gguf_file: Path, tmp_path: Path) -> None:
    for content in (b"", b"GGUF" + bytes(40), gguf_file.read_bytes()[:3_000_000]):
        (tmp_path / "cut.gguf").write_bytes(content)
        with pytest.raises(
            InputError, match=r"^cut\.gguf cannot be read as a GGUF file: .*; fetch it again$"
        ) as refused:
            load(tmp_path / "cut.gguf", options=CPU)
        assert "\n" not in str(refused.value)


def test_damaged_adapters(folder: Any, tmp_path: Path) -> None:
    adapter, _ = adapted("gpt2")
    adapter.save_pretrained(tmp_path / "lora")
    weights, settings = tmp_path / "lora" / "adapter_model.safetensors", tmp_path / "lora" / "adapter_config.json"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:50])
    with pytest.raises(InputError, match="the weights of lora are damaged: SafetensorError"):
        load(folder("gpt2"), options=Options(device="cpu", adapter=str(tmp_path / "lora")))
    weights.write_bytes(whole)
    for text, says in (
        ("[1]", "adapter_config.json is no adapter's configuration"),
        ("{", "adapter_config.json' is not JSON"),
        (json.dumps({"base_model_name_or_path": str(tmp_path / "lora")}), "names another adapter"),
    ):
        settings.write_text(text)
        with pytest.raises(InputError, match=says) as refused:
            load(tmp_path / "lora", options=CPU)
        assert "\n" not in str(refused.value)


def test_objects_that_cannot_be_taken() -> None:
    vocabulary = len(models.tokenizer())
    many = {"vocab_size": vocabulary, "num_hidden_layers": 1, "num_attention_heads": 4, "hidden_size": 32}
    bare = transformers.LlamaModel(transformers.LlamaConfig(**many, intermediate_size=64))
    t5 = transformers.T5Config(vocab_size=vocabulary, d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4)
    biased = transformers.GPTNeoXConfig(**many, intermediate_size=64, attention_bias=False)
    for made, says in (
        (models.llama(vocabulary).to("meta"), "on the meta device, without values"),
        (transformers.T5ForConditionalGeneration(t5), "an encoder with a decoder"),
        (transformers.GPTNeoXForCausalLM(biased), "cannot wrap GPTNeoXForCausalLM"),
        (bare, "LlamaModel"),
    ):
        with pytest.raises(InputError, match=says) as refused:
            load(made, tokenizer=models.tokenizer(), options=CPU)
        assert "\n" not in str(refused.value)
        assert len(str(refused.value)) < 400
    with pytest.raises(InputError, match="not a str"):
        load(models.gpt2(vocabulary), tokenizer="gpt2", options=CPU)


def test_a_model_of_a_configuration_that_was_never_saved(clean_session: Any) -> None:
    config = transformers.GraniteConfig(
        vocab_size=len(models.tokenizer()),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        residual_multiplier=0.5,
        logits_scaling=4.0,
        attention_multiplier=0.3,
    )
    made = transformers.AutoModelForCausalLM.from_config(config)
    expected = reference(made.eval())
    assert made.config.architectures is None
    model = clean_session.load(made, tokenizer=models.tokenizer())
    assert torch.allclose(logits(model), expected, atol=1e-4)
    assert model.doubt == ""


def test_a_bridge_that_computes_something_else_says_so_in_every_answer(clean_session: Any) -> None:
    made = models.gpt2(len(models.tokenizer()))
    expected = reference(made)
    model = clean_session.load(copy.deepcopy(made), tokenizer=models.tokenizer())
    assert torch.allclose(logits(model), expected, atol=1e-4)
    assert interp.predict(IDS).notes == ()

    odd = models.gpt2(len(models.tokenizer()))
    odd.config.scale_attn_weights = False  # which the bridge does not read
    for block in odd.transformer.h:
        block.attn.scale_attn_weights = False
        block.attn.scaling = 1.0
    expected = reference(odd)
    model = clean_session.load(odd, tokenizer=models.tokenizer())
    assert not torch.allclose(logits(model), expected, atol=1e-2)
    assert "otherwise than Hugging Face" in model.doubt
    for result in (interp.predict(IDS), interp.attention(IDS), interp.predict(IDS)):
        assert model.doubt in result.notes
    assert model.doubt in interp.status().notes


def test_the_tokenizers_own_folder_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    model = load(models.gpt2(len(models.tokenizer())), tokenizer=models.tokenizer(), options=CPU)
    assert logits(model).shape[1] == len(IDS)
    model.close()
    del model
    gc.collect()
    assert list(tmp_path.glob("interp-tokenizer-*")) == []


def test_several_models_side_by_side(folder: Callable[..., Path], clean_session: Any) -> None:
    loaded = {family: clean_session.load(folder(family), device="cpu") for family in ("gpt2", "llama", "neox")}
    answers = {family: interp.attention(IDS, model=family).pattern for family in loaded}
    assert len({answer.tobytes() for answer in answers.values()}) == 3
    for family, model in loaded.items():
        forwards = model.forwards
        again = interp.attention(IDS, model=family)
        assert again.provenance.model == family
        assert (again.pattern == answers[family]).all()
        assert model.forwards == forwards
    assert clean_session.current == "neox"
    clean_session.unload("neox")
    assert clean_session.current == "llama"


def test_a_hub_name_offline_is_refused_and_the_old_model_stays(lend: Callable[..., Any], clean_session: Any) -> None:
    model = lend("gpt2")
    for name in ("someone/no-such-model", "no-such-model"):
        with pytest.raises(InputError, match=name) as refused:
            clean_session.load(name)
        assert "\n" not in str(refused.value)
    assert clean_session.current == "gpt2"
    assert clean_session.get() is model
    assert interp.attention(IDS).pattern.shape == (2, 4, len(IDS), len(IDS))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("./nowhere", "no folder"),
        ("a b c", "neither"),
        (3, "cannot load a int"),
        (torch.nn.Linear(2, 2), "cannot wrap"),
    ],
)
def test_what_cannot_be_loaded_is_refused_in_one_line(source: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        load(source, options=CPU)
    assert "\n" not in str(refused.value)


def test_pickles_are_refused(folder: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((folder("gpt2") / "config.json").read_text())
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04N.")
    with pytest.raises(InputError, match="pickle"):
        load(tmp_path, options=CPU)


def test_a_checkpoint_with_missing_weights_is_refused(folder: Callable[..., Path], tmp_path: Path) -> None:
    for path in folder("llama").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    held = load_file(tmp_path / "model.safetensors")
    del held["model.layers.1.mlp.up_proj.weight"]
    save_file(held, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="lacks 1 weight"):
        load(tmp_path, options=CPU)


def test_an_encoder_without_a_head_has_attention_and_no_predictions(minilm: Any) -> None:
    assert minilm.lacks_head
    result = interp.attention("A man walks his dog.")
    assert result.pattern.shape[:2] == (6, 12)
    assert not result.causal
    for refuses in (lambda: interp.predict("A man [MASK] his dog."), lambda: minilm.run("A man.").logits):
        with pytest.raises(InputError, match="no language-model head") as refused:
            refuses()
        assert "\n" not in str(refused.value)


def test_a_decoder_without_a_head(tmp_path: Path) -> None:
    models.gpt2(len(models.tokenizer())).transformer.save_pretrained(tmp_path)
    models.tokenizer().save_pretrained(tmp_path)
    model = load(tmp_path, options=CPU)
    # GPT-2's head is its embedding: it lacks nothing.
    torch.testing.assert_close(logits(model), reference(models.gpt2(len(models.tokenizer()))), rtol=0, atol=1e-4)
