"""What heads do: a model whose heads are known, naive loops over the bridge's own activations, and real models."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import interp
from interp.engine.model.loaded import LoadedModel
from interp.engine.readouts import ov_qk
from interp.engine.transformer import network
from interp.engine.transformer.forward import forward
from interp.errors import InputError, Interrupted
from interp.methods._shared import labels
from interp.methods._shared.heads import flow, scores
from interp.methods._shared.heads.scores import explained

pytestmark = pytest.mark.usefixtures("one_thread")

FAMILIES = ["gpt2", "llama", "neox"]
NAMES = tuple(f" {name}" for name in "Mary John Alice Bob James Emma Sarah David Paul Kate".split())  # noqa: SIM905
TOKENS, PLACES = 24, 32  # of the planted model: ids, and dimensions of its positions


def planted(sign: float = 1.0) -> GPT2LMHeadModel:
    """Return a GPT-2 of two layers and two heads, written by hand.

    The residual stream holds the token (one of 24), its position (sines), and the previous token. Head 0.0 looks at the
    position before and copies its token to the third part; head 1.0 looks for its own token there, and adds the token
    that it finds to the logits, or with `sign` −1 takes it away. Heads 0.1 and 1.1 do nothing.
    """
    width = 2 * TOKENS + PLACES
    config = GPT2Config(
        n_layer=2, n_head=2, n_embd=width, n_positions=64, vocab_size=TOKENS, bos_token_id=None, eos_token_id=None
    )
    model = GPT2LMHeadModel(config).eval()
    here, there, before = slice(0, TOKENS), slice(TOKENS, TOKENS + PLACES), slice(TOKENS + PLACES, width)
    inner = width // 2
    angles = torch.outer(torch.arange(64.0), 0.9 ** torch.arange(PLACES // 2) * 1.5)
    one = torch.outer(torch.ones(1), 0.9 ** torch.arange(PLACES // 2) * 1.5)[0]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.endswith("weight") or parameter.dim() > 1:
                parameter.zero_()
        model.transformer.wte.weight[:, here] = 4 * torch.eye(TOKENS)
        model.transformer.wpe.weight[:, there] = torch.cat([angles.cos(), angles.sin()], 1)
        half = PLACES // 2
        back = torch.zeros(PLACES, PLACES)  # a position's sines → those of the one before
        for n in range(half):
            c, s = one[n].cos(), one[n].sin()
            back[n, n], back[half + n, n] = c, s
            back[n, half + n], back[half + n, half + n] = -s, c
        first, second = (block.attn for block in model.transformer.h)
        first.c_attn.weight[there, :PLACES] = 6 * back
        first.c_attn.weight[there, width : width + PLACES] = 6 * torch.eye(PLACES)
        first.c_attn.weight[here, 2 * width : 2 * width + TOKENS] = torch.eye(TOKENS)
        first.c_proj.weight[:TOKENS, before] = 4 * torch.eye(TOKENS)
        second.c_attn.weight[here, :TOKENS] = 4 * torch.eye(TOKENS)
        second.c_attn.weight[before, width : width + TOKENS] = 4 * torch.eye(TOKENS)
        second.c_attn.weight[here, 2 * width : 2 * width + TOKENS] = torch.eye(TOKENS)
        second.c_proj.weight[:TOKENS, here] = sign * 8 * torch.eye(TOKENS)
    assert inner >= PLACES
    return model


def naive(model: Any, result: Any) -> dict[str, np.ndarray]:
    """Return the attention scores by their definition, one prompt and head at a time, from the bridge's patterns."""
    g = model.geometry
    found: dict[str, list[np.ndarray]] = {}
    for ids in result.provenance.tokens[: result.n]:
        words = [index for index in ids if ids.count(index) == 2]
        length, front = len(words) // 2, ids.index(words[0])
        assert ids[front : front + length] == ids[front + length : front + 2 * length]
        places = {
            "previous_token": [(q, q - 1) for q in range(front + 1, front + 2 * length)],
            "current_token": [(q, q) for q in range(front + 1, front + 2 * length)],
            "first_token": [(q, 0) for q in range(front + 1, front + length)],
            "duplicate_token": [(q, q - length) for q in range(front + length, front + 2 * length)],
            "induction": [(q, q - length + 1) for q in range(front + length, front + 2 * length)],
        }
        sites = [f"blocks.{layer}.attn.hook_pattern" for layer in range(g.n_layers)]
        patterns = model.activations_of(ids, sites)
        for name, pairs in places.items():
            scores = np.zeros((g.n_layers, g.n_heads))
            for layer, site in enumerate(sites):
                for head in range(g.n_heads):
                    scores[layer, head] = np.mean([float(patterns[site][0, head, q, k]) for q, k in pairs])
            found.setdefault(name, []).append(scores)
    return {name: np.stack(values) for name, values in found.items()}


def test_a_model_written_by_hand_is_seen_through(clean_session: Any) -> None:
    clean_session.load(planted(), name="planted", device="cpu")
    result = interp.heads(n=6)
    assert result.labels["0.0"] == "previous token"
    assert result.labels["1.0"] == "induction"
    assert not {"previous token", "induction", "anti-induction"} & {result.labels.get(h) for h in ("0.1", "1.1")}
    assert result.scores["previous_token"][0, 0] > 0.9
    assert result.scores["induction"][1, 0] > 0.9
    assert result.scores["copying"][1, 0] == pytest.approx(1, abs=1e-3)
    assert result.scores["position_only"][0, 0] > 0.95
    assert result.scores["anti_induction"][1, 0] < -1
    assert result.losses[1] < result.losses[0] - 2
    assert result.top("induction") == ["1.0"]
    assert "more than 2 sd above chance" in result.evidence("1.0")
    assert "1 induction" in repr(result)


def test_a_head_that_takes_away_what_it_finds_is_an_anti_induction_head(clean_session: Any) -> None:
    clean_session.load(planted(-1.0), name="planted", device="cpu")
    result = interp.heads(n=6)
    assert result.labels["1.0"] == "anti-induction"
    assert result.labels["0.0"] == "previous token"
    assert result.scores["anti_induction"][1, 0] > 1
    assert result.scores["copying"][1, 0] == pytest.approx(-1, abs=1e-3)


def test_a_same_token_head_and_a_copying_head_have_their_classes(clean_session: Any) -> None:
    """Head 0.1 looks wherever its own token stands, itself included; 1.1 looks nowhere and copies what it averages."""
    model = planted()
    width, inner = model.config.n_embd, model.config.n_embd // 2
    first, second = (block.attn for block in model.transformer.h)
    with torch.no_grad():
        for start in (inner, width + inner):
            first.c_attn.weight[:TOKENS, start : start + TOKENS] = 4 * torch.eye(TOKENS)
        second.c_attn.weight[:TOKENS, 2 * width + inner : 2 * width + inner + TOKENS] = torch.eye(TOKENS)
        second.c_proj.weight[inner : inner + TOKENS, :TOKENS] = 0.1 * torch.eye(TOKENS)
    clean_session.load(model, name="planted", device="cpu")
    result = interp.heads(n=6)
    assert result.labels == {"0.0": "previous token", "0.1": "same token", "1.0": "induction", "1.1": "copying"}
    assert result.of("0.1") == pytest.approx(0.5, abs=0.1)
    assert result.scores["current_token"][0, 1] == pytest.approx(0.75, abs=0.1)
    assert result.of("1.1") == pytest.approx(1, abs=1e-3)
    assert "half of that or more to its earlier copy" in result.evidence("0.1")
    assert "1 copying" in repr(result)


@pytest.mark.parametrize("family", [*FAMILIES, "bert"])
def test_the_scores_are_what_their_definitions_say(family: str, lend: Callable[..., Any]) -> None:
    model = lend(family)
    result = interp.heads(n=4, seed=7)
    found = naive(model, result)
    for name, each in found.items():
        assert np.allclose(result.scores[name], each.mean(0), atol=1e-5), name
        assert np.allclose(result.spread[name], each.std(0, ddof=1), atol=1e-5), name
    assert len({tuple(ids) for ids in result.provenance.tokens[:4]}) == 4
    assert ("copying" in result.scores) == (family != "bert")
    whole = len(result.provenance.tokens[0])
    even = [1 / (q + 1) for q in range(whole - whole // 2, whole)] if family != "bert" else [1 / whole]
    assert result.chance["induction"][0, 0] == pytest.approx(np.mean(even), abs=1e-6)
    assert all(low.shape == (2, *result.scores["induction"].shape) for low in result.interval.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_anti_induction_is_minus_the_heads_direct_effect_on_what_comes_again(
    family: str, lend: Callable[..., Any]
) -> None:
    """Against the model's own final norm and unembedding, with the norm's size kept as it was."""
    model = lend(family)
    result = interp.heads(n=3)
    bridge, g = model.bridge, model.geometry
    expected = np.zeros((3, g.n_layers, g.n_heads))
    for prompt, ids in enumerate(result.provenance.tokens):
        length = len(ids) // 2
        front = len(ids) - 2 * length
        sites = [f"blocks.{n}.attn.hook_z" for n in range(g.n_layers)]
        end = f"blocks.{g.n_layers - 1}.hook_resid_post"
        held = model.activations_of(ids, [*sites, end])
        module = bridge.ln_final.original_component
        resid = held[end][0].double()
        layer_norm = isinstance(module, torch.nn.LayerNorm)
        centred = resid - resid.mean(-1, keepdim=True) if layer_norm else resid
        eps = module.eps if layer_norm else module.variance_epsilon
        size = (centred.square().mean(-1) + eps).sqrt()
        for layer, site in enumerate(sites):
            z = held[site][0].view(len(ids), g.n_heads, g.d_head)
            for head in range(g.n_heads):
                written = (z[:, head] @ bridge.blocks[layer].attn.W_O[head]).detach().double()
                if layer_norm:
                    written = written - written.mean(-1, keepdim=True)
                normed = written / size[:, None] * module.weight.detach().double()
                logits = normed @ bridge.W_U.detach().double()
                repeat = range(front + length, front + 2 * length)
                effects = [float(logits[q, ids[q - length + 1]] - logits[q].mean()) for q in repeat]
                expected[prompt, layer, head] = -np.mean(effects)
    assert np.allclose(result.scores["anti_induction"], expected.mean(0), atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_hooked_forward_gives_the_same(
    family: str, lend: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    lend(family)
    plain = interp.heads(n=3)
    assert plain.provenance.path == "replay"
    monkeypatch.setattr(network, "FAMILIES", {})
    hooked = interp.heads(n=3)
    assert hooked.provenance.path.startswith("hooked")
    assert set(hooked.scores) == set(plain.scores) - {"copying", "anti_induction"}
    for name, values in hooked.scores.items():
        assert np.allclose(values, plain.scores[name], atol=1e-5)
    assert hooked.losses == pytest.approx(plain.losses, abs=1e-4)
    assert any("copying" in note for note in hooked.notes)


def test_position_explains_what_does_not_depend_on_the_tokens() -> None:
    torch.manual_seed(0)
    fixed = torch.rand(1, 1, 6, 6).tril().expand(50, 1, 6, 6)
    fixed = fixed / fixed.sum(-1, keepdim=True)
    assert explained(fixed, 0).allclose(torch.ones(50, 1, dtype=torch.float64))
    chance = torch.zeros(400, 1, 6, 6)  # every query looks at one visible key, drawn evenly
    for query in range(6):
        keys = torch.randint(0, query + 1, (400,))
        chance[torch.arange(400), 0, query, keys] = 1
    assert abs(float(explained(chance, 0).mean())) < 0.02


def test_labels_are_dots_in_the_attention_viewer_while_the_model_is_the_same(clean_session: Any) -> None:
    model = clean_session.load(planted(), name="planted", device="cpu")
    prompt = interp.Prompt(ids=(1, 2, 3, 1))
    assert interp.attention(prompt).labels == {}
    interp.heads(n=4)
    assert interp.attention(prompt).labels == {"0.0": "previous token", "1.0": "induction"}
    assert interp.attention(prompt, layer=1).labels == {"1.0": "induction"}
    with torch.no_grad():
        model.bridge.blocks[1].attn.o.original_component.weight.mul_(2)
    assert interp.attention(prompt).labels == {}


@pytest.mark.parametrize("family", [*FAMILIES, "bert"])
@pytest.mark.parametrize("relation", ["subject-verb", "modifier"])
def test_a_relations_attention_is_that_between_its_words(family: str, relation: str, lend: Callable[..., Any]) -> None:
    """Against the attention viewer's patterns, with the words found anew in the decoded tokens."""
    from interp.methods._shared.pairs import vocabulary
    from interp.tasks.relations import sentences

    model = lend(family)
    result = interp.heads(relation=relation, n=12)
    found, _ = sentences(relation, vocabulary(model), 12, 0)
    attention, elsewhere = [], []
    for sentence in found:
        pattern = interp.attention(sentence.text).pattern
        length = pattern.shape[-1]
        front = len(model.tokens.encode(interp.Prompt("a")).ids) - 1 - (family == "bert")
        dependent, head = ([p + front for p in places] for places in (sentence.dependent, sentence.head))
        queries, keys = (max(dependent, head), min(dependent, head)) if family != "bert" else (dependent, head)

        def mean(by: int, queries: Any = queries, keys: Any = keys, pattern: Any = pattern) -> np.ndarray:
            q, k = ([p + by for p in places] for places in (queries, keys))
            return sum(pattern[:, :, q, key].mean(-1) for key in k)

        last = length - (family == "bert")
        moves = [by for by in range(-length, length) if by and min(*queries, *keys) + by >= 1]
        moves = [by for by in moves if max(*queries, *keys) + by < last]
        attention.append(mean(0))
        # A sentence in which nothing else is as far apart counts as the others do.
        elsewhere.append(np.mean([mean(by) for by in moves], axis=0) if moves else np.full(mean(0).shape, np.nan))
    assert np.allclose(result.scores["attention"], np.mean(attention, axis=0), atol=1e-5)
    assert np.allclose(result.chance["attention"], np.nanmean(elsewhere, axis=0), atol=1e-5)
    beyond = np.mean(attention, axis=0) - np.nanmean(elsewhere, axis=0)
    assert np.allclose(result.scores["beyond_distance"], beyond, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_effects_through_queries_are_those_of_a_run_with_that_query(family: str, lend: Callable[..., Any]) -> None:
    model = lend(family)
    net = network.read(model)
    ids = torch.tensor([[5, 11, 23, 31, 8], [7, 9, 23, 30, 41]])
    other_ids = torch.tensor([[5, 12, 29, 31, 8], [7, 3, 20, 30, 44]])
    out = ov_qk.unembedding(net)
    towards = out[[3, 4]] - out[[50, 60]]
    with torch.no_grad():
        clean, other = flow.run(net, ids), flow.run(net, other_ids)
        readers = [(1, 0), (1, 3)]
        effects = flow.through_queries(net, clean, other, towards, readers)
        size = net.final.size(clean.end)
        layer = net.layers[1]
        for sender in range(net.n_heads):
            change = torch.zeros_like(clean.z[0])
            change[:, sender] = other.z[0][:, sender] - clean.z[0][:, sender]
            moved = clean.before[1] + change.flatten(1) @ net.layers[0].o.weight.T
            query = layer.q(layer.norm1(moved)).view(2, net.n_heads, net.d_head)
            seen: list[torch.Tensor] = []

            def put(at: int, q: torch.Tensor, query: torch.Tensor = query) -> torch.Tensor | None:
                if at == 0:
                    return None
                q = q.clone()
                q[:, -1, [0, 3]] = query[:, [0, 3]]
                return q

            def keep(at: int, z: torch.Tensor, seen: list[torch.Tensor] = seen) -> None:
                if at == 1:
                    seen.append(z[:, -1])

            forward(net, ids, {"q": put, "z": keep})
            lost = (clean.z[1] - seen[0]).flatten(1) @ layer.o.weight.T
            expected = (lost * towards).sum(-1) / size
            assert np.allclose(effects[:, 0, sender], expected.double().numpy(), atol=1e-5)
    assert not effects[:, 1].any()


@pytest.mark.parametrize("family", FAMILIES)
def test_roles_in_ioi_come_with_their_scores(family: str, lend: Callable[..., Any]) -> None:
    model = lend(family, added=NAMES)
    result = interp.heads(task="ioi", n=6)
    through = {"s_inhibition", "backup"} if "name mover" in result.labels.values() else set()
    assert set(result.scores) == {"duplicate_token", "end_to_s2", "end_to_io", "direct_effect"} | through
    assert result.kind == "ioi"
    pairs = interp.task("ioi", n=6, corruption="random-names").pairs
    g = model.geometry
    bridge = model.bridge
    expected = np.zeros((6, g.n_layers, g.n_heads))
    looked = np.zeros((6, g.n_layers, g.n_heads))
    for row, pair in enumerate(pairs):
        ids = model.tokens.encode(pair.clean).ids
        sites = [f"blocks.{n}.attn.hook_{part}" for n in range(g.n_layers) for part in ("z", "pattern")]
        end = f"blocks.{g.n_layers - 1}.hook_resid_post"
        held = model.activations_of(ids, [*sites, end])
        resid = held[end][0, -1]

        def logits(x: torch.Tensor, frozen: torch.Tensor = resid) -> torch.Tensor:
            # The final norm is linear once its size is fixed: what it makes of the sum less what it makes of the rest.
            module = bridge.ln_final.original_component
            if isinstance(module, torch.nn.LayerNorm):
                scale = (frozen.var(unbiased=False) + module.eps).sqrt()
                x = x - x.mean()
            else:
                scale = (frozen.square().mean() + module.variance_epsilon).sqrt()
            return (x / scale * module.weight) @ bridge.W_U

        answer, wrong = (
            model.tokens.tokenizer(w[0], add_special_tokens=False)["input_ids"][0] for w in (pair.answer, pair.wrong)
        )
        for layer in range(g.n_layers):
            z = held[f"blocks.{layer}.attn.hook_z"][0, -1].view(g.n_heads, g.d_head)
            for head in range(g.n_heads):
                moved = logits(z[head] @ bridge.blocks[layer].attn.W_O[head]).detach()
                expected[row, layer, head] = float(moved[answer] - moved[wrong])
                pattern = held[f"blocks.{layer}.attn.hook_pattern"][0, head]
                looked[row, layer, head] = float(pattern[pair.slots["s2"][0], pair.slots["s1"][0]])
    assert np.allclose(result.scores["direct_effect"], expected.mean(0), atol=1e-5)
    assert np.allclose(result.scores["duplicate_token"], looked.mean(0), atol=1e-5)
    assert "the clean logit difference" in result.notes[0]


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return ``interrupted(k)``: the next command is stopped, as Ctrl-C does, at its k-th step; 0 never."""
    steps = {"left": 0}

    def on_step(self: Any, done: int, total: int, said: str = "") -> None:  # noqa: ARG001
        assert done <= total
        steps["left"] -= 1
        if not steps["left"]:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(LoadedModel, "on_step", on_step)
    return lambda k: steps.update(left=k)


@pytest.mark.parametrize("hooked", [False, True])
@pytest.mark.parametrize("family", [*FAMILIES, "bert"])
def test_an_interrupt_keeps_the_prompts_that_were_run(
    family: str, hooked: bool, lend: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, interrupted: Any
) -> None:
    model = lend(family)
    if hooked:
        monkeypatch.setattr(network, "FAMILIES", {})
    before = interp.heads(n=12)
    hooks_before = model.user_hooks()
    each = 2 * (1 + (family == "bert"))  # layers, and what runs the tokens once besides
    interrupted(each + 1)
    with pytest.raises(Interrupted) as stopped:
        interp.heads(n=24)
    result = stopped.value.result
    assert result.n == 12
    assert result.notes[0] == "partial: interrupted after 12 of 24 prompts"
    for name, values in before.scores.items():
        np.testing.assert_array_equal(result.scores[name], values)
        np.testing.assert_array_equal(result.spread[name], before.spread[name])
    np.testing.assert_equal(result.losses, before.losses)
    assert result.provenance.technique == "heads"
    assert result.html()
    interrupted(1)
    with pytest.raises(KeyboardInterrupt) as stopped:
        interp.heads(n=24)
    assert not isinstance(stopped.value, Interrupted)  # nothing was there yet
    assert model.user_hooks() == hooks_before
    interrupted(0)
    np.testing.assert_array_equal(interp.heads(n=12).scores["induction"], before.scores["induction"])


def test_an_interrupt_after_the_last_prompt_loses_nothing(
    lend: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    lend("gpt2")
    whole = interp.heads()

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(labels, "keep", stop)
    with pytest.raises(Interrupted) as stopped:
        interp.heads()
    result = stopped.value.result
    assert "partial" not in repr(result)
    np.testing.assert_array_equal(result.scores["induction"], whole.scores["induction"])


def test_an_interrupt_keeps_the_sentences_that_were_run(lend: Callable[..., Any], interrupted: Any) -> None:
    lend("llama")
    whole = interp.heads(relation="modifier", n=40)
    assert whole.n == 40
    interrupted(5)
    with pytest.raises(Interrupted) as stopped:
        interp.heads(relation="modifier", n=40)
    result = stopped.value.result
    assert 2 <= result.n < 40
    assert f"partial: interrupted after {result.n} of 40 sentences" in result.notes
    assert np.isfinite(result.scores["beyond_distance"]).all()


def test_groups_change_nothing_but_what_is_compared_within_them(
    lend: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    lend("gpt2")
    whole = interp.heads(n=11)
    monkeypatch.setattr(scores, "_TOGETHER", 60)
    parted = interp.heads(n=11)
    assert scores.together(11, 47)[-1].stop == 11
    assert len(scores.together(11, 47)) == 5
    assert min(some.stop - some.start for some in scores.together(11, 47)) == 2
    for name, values in whole.scores.items():
        np.testing.assert_allclose(parted.scores[name], values, atol=1e-5 if name != "position_only" else 0.3)
    np.testing.assert_allclose(parted.losses, whole.losses, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "arguments", "message"),
    [
        ("gpt2", {"n": 1}, "use 2 or more"),
        ("gpt2", {"relation": "modifier", "task": "ioi"}, "not both"),
        ("gpt2", {"relation": "object"}, "is not one of"),
        ("gpt2", {"task": "facts"}, "known in ioi"),
        ("gpt2", {"task": "nothing", "from_": "END", "to": "IO"}, "tasks are"),
        ("gpt2", {"task": "ioi"}, "names of one token"),
        ("bert", {"task": "ioi"}, "leave --task out"),
    ],
)
def test_what_is_refused(family: str, arguments: Any, message: str, lend: Callable[..., Any]) -> None:
    lend(family)
    with pytest.raises(InputError, match=message):
        interp.heads(**arguments)


def test_a_model_without_a_tokenizer_has_no_sentences(clean_session: Any) -> None:
    clean_session.load(planted(), name="planted", device="cpu")
    with pytest.raises(InputError, match="no tokenizer"):
        interp.heads(relation="modifier")


def test_a_head_is_asked_by_name(lend: Callable[..., Any]) -> None:
    lend("llama")
    result = interp.heads(n=2)
    assert result.of("1.2", "induction") == result.scores["induction"][1, 2]
    for wrong in ("2.0", "0.4", "x", "1"):
        with pytest.raises(InputError, match=r"write 0\.0"):
            result.of(wrong, "induction")
    with pytest.raises(InputError, match="name a score"):
        result.of("0.0", "nothing")
    table = result.to_frame()
    assert len(table) == 8
    assert table.induction[6] == result.of("1.2", "induction")


def test_the_pictures_name_the_scores(lend: Callable[..., Any]) -> None:
    lend("gpt2")
    result = interp.heads(n=2)
    for picture in (result.svg("light"), result.svg("dark"), result.html()):
        for title in ("previous token", "anti-induction", "copying"):
            assert title in picture
    assert "tspan" not in result.html().partition('class="interp-foot"')[2]


def test_the_bundled_model_has_one_of_each(clean_session: Any) -> None:
    clean_session.load()
    result = interp.heads()
    assert result.labels["0.0"] == "previous token"
    assert result.labels["1.0"] == "induction"
    assert result.of("0.0") > 0.95
    assert result.of("1.0") > 0.95


def test_smollm2s_heads(smollm2: Any) -> None:  # noqa: ARG001
    result = interp.heads()
    known = {
        "induction": {"18.6": 0.90, "17.3": 0.77, "17.4": 0.70, "17.5": 0.61, "18.7": 0.58},
        "previous token": {"16.0": 0.89, "11.1": 0.84},
        "duplicate token": {"8.0": 0.63},
    }
    for label, heads in known.items():
        for head, value in heads.items():
            assert result.labels[head] == label
            assert result.of(head) == pytest.approx(value, abs=0.08)
    assert result.top("induction", 1) == ["18.6"]
    assert result.losses[0] == pytest.approx(14, abs=0.7)
    assert result.losses[1] == pytest.approx(3.4, abs=0.8)
    assert abs(int((result.scores["first_token"] > 0.4).sum()) - 147) < 25


def test_smollm2s_syntax_head_and_ioi_roles(smollm2: Any, interrupted: Any) -> None:  # noqa: ARG001
    subject = interp.heads(relation="subject-verb", n=40)
    assert subject.top("subject-verb", 1) == ["13.8"]
    assert subject.scores["beyond_distance"][13, 8] > 0.5
    roles = interp.heads(task="ioi", n=24)
    assert {"23.0", "23.2"} <= set(roles.top("name mover"))
    assert roles.labels["24.4"] == "negative name mover"
    assert roles.top("S-inhibition", 1) == ["20.0"]
    assert roles.labels["8.1"] == "duplicate token"
    interrupted(2)
    with pytest.raises(Interrupted) as stopped:
        interp.heads(task="ioi", n=24)
    partial = stopped.value.result
    assert "partial: interrupted; backup name mover heads were not looked for" in partial.notes
    assert set(roles.scores) - set(partial.scores) == {"backup"}
    assert partial.top("S-inhibition") == roles.top("S-inhibition")
