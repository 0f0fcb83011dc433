"""Positions by the names of spans: what they mean, in every command that takes one, against plain hooks and numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp import truth
from interp.errors import InputError
from interp.interface import registry
from interp.methods._shared import named_positions
from interp.results import resolve
from interp.results.tables import Float

FAMILIES = ("gpt2", "llama", "neox", "gemma2", "bloom")
ONE = "[Mary]{IO} gave the [book]{OBJ} to John, and"
LONG = "The [old Mary Smith]{IO} gave the [green pen]{OBJ} to John, and"
OTHER = "The [old John Smith]{IO} gave the [green pen]{OBJ} to John, and"
TOLERANCE = 5e-5


def places(model: Any, text: str) -> dict[str, list[int]]:
    """Return where the tokens of each mark stand."""
    return {name: list(own) for name, own in model.encode(_prompt(text)).spans.items()}


def shown(result: Any) -> str:
    """Return a result's picture."""
    return resolve(result._html)(result)


def _prompt(text: str) -> Any:
    from interp.prompts import as_prompt

    return as_prompt(text)


def logits_of(model: Any, ids: Any, hooks: Any = ()) -> torch.Tensor:
    return model.bridge.run_with_hooks(torch.tensor([list(ids)]), fwd_hooks=list(hooks), return_type="logits")[
        0
    ].detach()


# -- what a name means -------------------------------------------------------------------------------------------------


def test_a_name_means_the_tokens_of_what_is_marked(lend: Any) -> None:
    model = lend("gpt2")
    encoded = model.encode(_prompt(LONG))
    spanned = named_positions.of_prompt(model, encoded)
    assert "".join(encoded.strings[n] for n in spanned.positions("IO")).replace(" ", "") == "oldMarySmith"
    assert "".join(encoded.strings[n] for n in spanned.positions("obj")).replace(" ", "") == "greenpen"
    assert spanned.positions("END") == (len(encoded.ids) - 1,) == spanned.positions(-1)
    assert spanned.positions(("END", 0, "OBJ")) == (len(encoded.ids) - 1, 0, *spanned.positions("OBJ"))
    assert spanned.position("IO") == spanned.positions("IO")[-1]


def test_what_is_no_span_is_refused_in_a_line_that_lists_those_that_there_are(lend: Any) -> None:
    lend("gpt2")
    for command, more in (
        (interp.lens, {"position": "S2"}),
        (interp.steer, {"at": "S2", "toward": "a", "against": "b", "n": 1}),
    ):
        with pytest.raises(InputError, match=r"^no span 'S2'; the prompt has IO, OBJ, END: mark .*\[Mary\]\{S2\}$"):
            command(ONE, **more)
    two = [interp.Pair(ONE, ONE.replace("Mary", "John"), "a", "b"), interp.Pair("[Mary]{IO} so", "[John]{IO} so", "a")]
    for command, more in (
        (interp.ablate, {"heads": "0.0", "at": "OBJ"}),
        (interp.ablate, {"knockout": "0.0:END->OBJ"}),
        (interp.path, {"at": "OBJ", "to": "1.0.q"}),
    ):
        with pytest.raises(InputError, match=r"^pair 1: no span 'OBJ'; the prompt has IO, END: mark "):
            command(pairs=two, metric="logit", **more)
    with pytest.raises(InputError, match=r"^text 1: no span 'A'; the prompt has END"):
        interp.heads(prompts=["[Mary]{A} gave", "Mary gave"], from_="END", to="A")
    with pytest.raises(InputError, match="no position 99; positions are 0–"):
        interp.lens(ONE, position=99)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("S2", "S2"),
        ("-1", -1),
        ("3", 3),
        ("0-2", (0, 1, 2)),
        ("IO,END", ("IO", "END")),
        ("IO,4-5,-2", ("IO", 4, 5, -2)),
    ],
)
def test_names_and_numbers_are_typed_alike(typed: str, meant: Any) -> None:
    taking = [
        parameter
        for command in registry.commands().values()
        for parameter in command.parameters
        if parameter.names in {"positions", "steered positions"}
    ]
    assert len(taking) >= 7
    for parameter in taking:
        assert parameter.values.parse(typed, parameter.flag) == meant
        assert parameter.check(typed) == meant
    with pytest.raises(InputError, match="cannot be read"):
        taking[0].values.parse("1-x", "--at")


# -- one token is its number, to the last bit --------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_a_span_of_one_token_is_its_position(family: str, lend: Any) -> None:
    model = lend(family)
    text, other = "Mary [to]{A} the", "Mary [and]{A} the"
    (at,) = places(model, text)["A"]
    end = len(model.encode(_prompt(text)).ids) - 1
    same = np.array_equal
    lens = [interp.lens(text, position=one) for one in ("A", at)]
    assert same(lens[0].kl, lens[1].kl)
    assert lens[0].positions == lens[1].positions == (at,)
    steered = [interp.steer(text, at=one, layer=0, toward="a", against="the", n=2) for one in ("A", at, at - end - 1)]
    assert all(same(steered[0].logprobs, one.logprobs, equal_nan=True) for one in steered)
    assert steered[0].values[1] != 0
    pair: Any = {"clean": text, "corrupted": other, "metric": "logit", "answer": " John"}
    cut = [interp.ablate(knockout=f"1.1:{q}->{k}", **pair) for q, k in (("END", "A"), (end, at), (-1, at - end - 1))]
    assert all(same(cut[0].values, one.values) for one in cut)
    assert cut[0].effect[1] != 0
    without = [interp.ablate(heads="0.1", mlps=1, at=one, **pair) for one in ("A", at)]
    assert same(without[0].values, without[1].values)
    through = [interp.path(from_="all", to="q,k,v,mlps", at=one, **pair) for one in ("A", at)]
    assert same(through[0].patched, through[1].patched, equal_nan=True)
    looks = [interp.heads(prompts=[text, other], from_=q, to=k).scores for q, k in (("END", "A"), (end, at))]
    assert same(*(next(iter(one.values())) for one in looks))
    words = ("cat", "mat", "sat", "store", "Mary", "John", "one", "two", "three", "four", "five", "six", "seven")
    texts = [marked for word in words if places(model, marked := f"{word} [to]{{A}} the")["A"] == [at]]
    labels = [n % 2 for n in range(len(texts))]
    plain = [text.replace("[to]{A}", "to") for text in texts]
    probes = [interp.probe(read, labels, at=one, folds=2).coef for read, one in ((texts, "A"), (plain, at))]
    assert len(texts) >= 4
    assert probes[0].any()
    assert same(*probes)


def test_the_end_is_what_is_read_without_a_name(lend: Any) -> None:
    lend("llama")
    texts = [f"Mary {b} the {c}" for b in ("to", "and") for c in ("cat", "mat", "sat", "store")]
    labels = [0] * 4 + [1] * 4
    for position in ("last", "mean"):
        plain = interp.probe(texts, labels, folds=2)
        named = interp.probe(texts, labels, at="END", position=position, folds=2)
        assert np.array_equal(plain.coef, named.coef)
        assert named.at == "END"


# -- several tokens are the plain hooked loop --------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_ablation_at_a_span_is_that_of_the_hooked_loop(family: str, lend: Any) -> None:
    model = lend(family)
    where = places(model, LONG)
    assert len(where["IO"]) > 1
    found = interp.ablate(LONG, OTHER, heads="0.1", mlps=1, at="IO,OBJ", metric="logit", answer=" John")
    ids = found.provenance.prompts[0]
    at = [*where["IO"], *where["OBJ"]]

    def head(z: torch.Tensor, hook: Any) -> torch.Tensor:  # noqa: ARG001
        changed = z.clone()
        changed[:, at, 1] = 0
        return changed

    def mlp(out: torch.Tensor, hook: Any) -> torch.Tensor:  # noqa: ARG001
        changed = out.clone()
        changed[:, at] = 0
        return changed

    hooks = [("blocks.0.attn.hook_z", head), ("blocks.1.hook_mlp_out", mlp)]
    answer = int(model.tokens.encode(interp.Prompt(" John", bos=False)).ids[0])
    for condition, held in enumerate(([], hooks[:1], hooks[1:], hooks)):
        expected = float(logits_of(model, ids, held)[-1, answer])
        assert found.values[condition] == pytest.approx(expected, abs=TOLERANCE)
    assert "IO, OBJ" in found.summary()
    assert "at IO, OBJ" in shown(found)


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_between_spans_is_cut_as_in_the_hooked_loop(family: str, lend: Any) -> None:
    model = lend(family)
    where = places(model, LONG)
    found = interp.ablate(LONG, OTHER, knockout="0.1:OBJ->IO,1:END->OBJ,END->IO", metric="logit", answer=" John")
    assert found.components == ("0.1:OBJ->IO", "1:END->OBJ", "END->IO")
    ids = found.provenance.prompts[0]
    end = [len(ids) - 1]

    def cut(queries: list[int], keys: list[int], heads: Any) -> Any:
        def write(pattern: torch.Tensor, hook: Any) -> torch.Tensor:  # noqa: ARG001
            left = pattern.clone()
            for query in queries:
                for key in keys:
                    left[:, heads, query, key] = 0
            return left / left.sum(-1, keepdim=True)

        return write

    name, every = "blocks.{}.attn.hook_pattern", slice(None)
    cuts = [
        [(name.format(0), cut(where["OBJ"], where["IO"], 1))],
        [(name.format(1), cut(end, where["OBJ"], every))],
        [(name.format(layer), cut(end, where["IO"], every)) for layer in range(model.geometry.n_layers)],
    ]
    answer = int(model.tokens.encode(interp.Prompt(" John", bos=False)).ids[0])
    for condition, held in enumerate([[], *cuts, [hook for own in cuts for hook in own]]):
        expected = float(logits_of(model, ids, held)[-1, answer])
        assert found.values[condition] == pytest.approx(expected, abs=TOLERANCE), condition
    assert "END → IO" in shown(found)


def test_what_cannot_be_cut_is_refused(lend: Any) -> None:
    lend("gpt2")
    for knockout, said in (
        ("0.0:IO->OBJ", "cuts nothing"),
        ("0.0:IO->*", "cuts every key"),
        ("9:END->IO", "no layer 9"),
        ("0.0:END-IO", "is no edge"),
    ):
        with pytest.raises(InputError, match=said):
            interp.ablate(ONE, ONE.replace("Mary", "John"), knockout=knockout, metric="logit", answer=" John")
    with pytest.raises(InputError, match="--at says where outputs"):
        interp.ablate(ONE, ONE, knockout="0.0:END->IO", at="IO", metric="logit", answer=" John")


def test_pairs_of_other_lengths_line_up_by_name(lend: Any) -> None:
    model = lend("llama")
    pairs = [interp.Pair(text, text.replace("Mary", "John"), " John") for text in (ONE, LONG)]
    together = interp.ablate(pairs=pairs, heads="0.1", at="IO", knockout="0.0:END->OBJ", metric="logit")
    alone = [
        interp.ablate(pairs=[pair], heads="0.1", at="IO", knockout="0.0:END->OBJ", metric="logit") for pair in pairs
    ]
    assert np.allclose(together.per_prompt, np.concatenate([one.per_prompt for one in alone], 1), atol=TOLERANCE)
    each = [
        float(next(iter(interp.heads(prompts=[text], from_="END", to="OBJ").scores.values()))[1, 2])
        for text in (ONE, LONG)
    ]
    both = next(iter(interp.heads(prompts=[ONE, LONG], from_="END", to="OBJ").scores.values()))
    assert both[1, 2] == pytest.approx(np.mean(each), abs=1e-6)
    assert model.tokens


def test_texts_are_read_for_marks_where_names_are_asked_for(lend: Any) -> None:
    model = lend("gpt2")
    marked = ["[Mary]{A} gave the book", "The [old cat]{A} sat"]
    plain = ["Mary gave the book", "The old cat sat"]
    found = interp.ablate(marked, heads="0.1", at="A")
    assert np.array_equal(found.per_prompt[0], interp.ablate(plain, heads="0.1").per_prompt[0])
    ids = [model.encode(interp.Prompt(text)).ids for text in plain]
    assert [tuple(one) for one in found.provenance.prompts][:2] == ids


@pytest.mark.parametrize("family", FAMILIES)
def test_steering_at_a_span_is_that_of_the_hooked_loop(family: str, lend: Any) -> None:
    model = lend(family)
    found = interp.steer(LONG, at="IO", layer=0, toward="a", against="the", n=1, answer=" John", metric="logit")
    at = places(model, LONG)["IO"]
    assert list(found.positions) == at
    assert found.at == "IO"
    ids = model.encode(_prompt(LONG)).ids

    def add(resid: torch.Tensor, hook: Any) -> torch.Tensor:  # noqa: ARG001
        changed = resid.clone()
        changed[:, at] += 4 * torch.tensor(found.direction)
        return changed

    logits = logits_of(model, ids, [("blocks.0.hook_resid_post", add)])[-1]
    answer = int(model.tokens.encode(interp.Prompt(" John", bos=False)).ids[0])
    assert found.values[1] == pytest.approx(float(logits[answer]), abs=TOLERANCE)
    again = model.run(_prompt(LONG), interventions=list(found.interventions(4.0))).activations[
        "blocks.1.hook_resid_post"
    ]
    assert torch.allclose(model.bridge.ln_final(again)[0, -1] @ model.bridge.unembed.W_U if False else again, again)
    with pytest.raises(InputError, match=f"IO is {len(at)} tokens"):
        found.intervention(4.0)
    assert "outlined: IO" in shown(found)


@pytest.mark.parametrize("family", [*FAMILIES, "bert"])
def test_attention_from_span_to_span_is_that_of_the_patterns(family: str, lend: Any) -> None:
    model = lend(family)
    end = "[MASK]" if family == "bert" else "and"
    texts = [f"The [old {name} Smith]{{IO}} gave the [green pen]{{OBJ}} to John, {end}" for name in ("Mary", "John")]
    texts.append(f"[Mary]{{IO}} gave a [pen]{{OBJ}} to John, {end}")
    for from_, to in (("OBJ", "IO"), ("END", "OBJ")):
        found = interp.heads(prompts=texts, from_=from_, to=to)
        each: list[Float] = []
        for text in texts:
            encoded = model.encode(_prompt(text))
            spans = dict(encoded.spans)
            mask = getattr(model.tokens.tokenizer, "mask_token_id", None)
            spans["END"] = (encoded.ids.index(mask) if family == "bert" else len(encoded.ids) - 1,)
            run = model.run(list(encoded.ids))
            patterns = [run.activations[f"blocks.{n}.attn.hook_pattern"][0] for n in range(model.geometry.n_layers)]
            looked = [
                sum(pattern[:, query, key] for query in spans[from_] for key in spans[to]) / len(spans[from_])
                for pattern in patterns
            ]
            each.append(torch.stack(looked).double().numpy())
        name = f"{from_} → {to}"
        assert found.scores[name] == pytest.approx(np.mean(each, 0), abs=TOLERANCE)
        assert found.spread[name] == pytest.approx(np.std(each, 0, ddof=1), abs=TOLERANCE)
        assert found.spans == (from_, to)
        assert found.n == 3
        strongest = found.top(n=1)[0]
        assert found.of(strongest) == found.scores[name].max()
        assert name in shown(found)
        assert any("tokens; all of them are meant" in note for note in found.notes)


def test_the_interval_of_attention_between_spans_is_that_of_the_other_scores(lend: Any) -> None:
    from interp.methods._shared.intervals import interval

    lend("gpt2")
    texts = [f"[{a}]{{A}} gave the {b} to" for a in ("Mary", "John", "Alice") for b in ("cat", "mat")]
    found = interp.heads(prompts=texts, from_="END", to="A")
    alone = [next(iter(interp.heads(prompts=[text], from_="END", to="A").scores.values())) for text in texts]
    assert found.interval["END → A"] == pytest.approx(interval(np.stack(alone)), abs=1e-5)
    with pytest.raises(InputError, match="name them the other way round"):
        interp.heads(prompts=texts, from_="A", to="END")
    with pytest.raises(InputError, match="go together"):
        interp.heads(task="ioi", from_="END")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_probe_reads_a_span(family: str, lend: Any) -> None:
    model = lend(family)
    texts = [f"{a} [{b} cat]{{A}} the" for a in ("Mary", "John", "Alice") for b in ("to", "and")]
    labels = [0, 1] * 3
    for position in ("last", "mean"):
        found = interp.probe(texts, labels, at="A", position=position, folds=3)
        rows: list[torch.Tensor] = []
        for text in texts:
            encoded = model.encode(_prompt(text))
            held = model.run(list(encoded.ids)).activations["blocks.1.hook_resid_post"][0]
            own = held[list(encoded.spans["A"])]
            rows.append(own[-1] if position == "last" else own.mean(0))
        values = torch.stack(rows).double().numpy()
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        fitted = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000)).fit(values, labels)
        scaler, last = (step for _, step in fitted.steps)
        assert found.coef[1] == pytest.approx(last.coef_ / scaler.scale_, rel=2e-2, abs=2e-3)
        assert found.at == "A"


def test_a_probe_tells_the_prompts_of_pairs_apart_and_holds_out_both(lend: Any) -> None:
    lend("gpt2")
    pairs = [
        interp.Pair(f"{a} [to]{{A}} the {b}", f"{a} [and]{{A}} the {b}", " John")
        for a in ("Mary", "John", "Alice")
        for b in ("cat", "mat")
    ]
    found = interp.probe(pairs, at="A", folds=3)
    assert found.classes == ("clean", "corrupted")
    assert found.counts == (6, 6)
    assert found.score.max() == 1.0  # the token itself is another
    before = interp.probe(pairs, at=0, folds=3)
    assert before.score.max() <= 0.6  # what stands before is the same in both
    of_pairs = interp.probe(pairs, [0, 0, 1, 1, 0, 1], at="A", folds=3)
    assert of_pairs.counts == (3, 3)
    with pytest.raises(InputError, match="6 pairs and 2 labels"):
        interp.probe(pairs, [0, 1], at="A")
    with pytest.raises(InputError, match="not both"):
        interp.probe(pairs, task="ioi")


# -- paths -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("freeze", ["all", "heads", "none"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "neox"])
def test_a_path_through_a_span_is_that_of_the_hooked_loop(family: str, freeze: str, lend: Any) -> None:
    from methods.patching.test_path import Naive, reads

    model = lend(family)
    found = interp.path(
        LONG,
        OTHER,
        from_="0.0,0.mlp",
        to="1.1.q,1.0.k,1.0.v,1.mlp",
        by="span",
        freeze=freeze,
        metric="logit",
        answer=" John",
    )
    assert set(found.places) == {"IO", "OBJ", "END"}
    clean, corrupted = found.provenance.prompts[:2]
    spans = places(model, LONG) | {"END": [len(clean) - 1]}
    answer = int(model.tokens.encode(interp.Prompt(" John", bos=False)).ids[0])
    moved = 0
    for s, r in np.argwhere(found.exists).tolist():
        sender, receiver, place = found.senders[s], found.receivers[r], found.places[r]
        naive = _Within(Naive(model, corrupted, clean), spans[place], reads(receiver, model.geometry.n_layers))
        expected = float(naive(sender, receiver, freeze)[answer])
        assert found.patched[s, r] == pytest.approx(expected, abs=TOLERANCE), (sender, receiver, place)
        moved += abs(found.effect[s, r]) > 1e-6
    assert moved > 3
    assert found.name((0, 0)).endswith(f" at {found.places[0]}")
    assert "IO" in shown(found)


class _Within:
    """A naive path whose receiver reads the base run's stream but at some positions."""

    def __init__(self, naive: Any, at: list[int], place: tuple[str, int | None]) -> None:
        self.naive, self.at, self.place = naive, at, place

    def __call__(self, sender: str, receiver: str, freeze: str) -> torch.Tensor:
        from methods.patching import test_path

        whole = test_path.logits_of
        name = self.place[0]
        model = self.naive.model
        bridge = model.bridge
        bridge.set_use_split_qkv_input(True)
        bridge.set_use_hook_mlp_in(True)
        own = self.naive.captured(self.naive.base, [name])[name]

        def kept(model: Any, ids: Any, hooks: Any) -> torch.Tensor:
            def back(tensor: torch.Tensor, hook: Any) -> torch.Tensor:  # noqa: ARG001
                changed = own.clone()
                changed[:, self.at] = tensor[:, self.at]
                return changed

            captures = any(function.__defaults__ for _, function in hooks)
            return whole(model, ids, hooks if captures else [*hooks, (name, back)])

        test_path.logits_of = kept
        try:
            return self.naive(sender, receiver, freeze)
        finally:
            test_path.logits_of = whole


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_paths_by_span_are_the_same_by_hooks(family: str, lend: Any) -> None:
    model = lend(family)
    asked: Any = {"from_": "all", "to": "q,k,v,mlps,logits", "by": "span", "metric": "logit", "answer": " John"}
    found = interp.path(LONG, OTHER, **asked)
    handle = model.hf_model.register_forward_hook(lambda *_: None)
    try:
        hooked = interp.path(LONG, OTHER, **asked)
    finally:
        handle.remove()
    assert hooked.provenance.path.startswith("hooked")
    assert found.provenance.path == "replay"
    assert found.patched == pytest.approx(hooked.patched, abs=TOLERANCE, nan_ok=True)
    assert {place for name, place in zip(found.receivers, found.places, strict=True) if name == "logits"} == {"END"}


def test_all_positions_are_what_a_path_is_without_them(lend: Any) -> None:
    model = lend("llama")
    count = len(model.encode(_prompt(LONG)).ids)
    asked: Any = {"from_": "all", "to": "q,k,v,mlps,logits", "metric": "logit", "answer": " John"}
    whole, every = (interp.path(LONG, OTHER, **more, **asked) for more in ({}, {"at": range(count)}))
    kept, again = (one.patched[:, np.argsort(one.receivers)] for one in (whole, every))
    assert np.array_equal(kept, again, equal_nan=True)
    with pytest.raises(InputError, match="logits are read where the prediction is measured, and IO is not there"):
        interp.path(LONG, OTHER, from_="0.0", to="logits", at="IO", metric="logit", answer=" John")


# -- the lens ----------------------------------------------------------------------------------------------------------


def test_the_lens_reads_a_span_and_names_it(lend: Any) -> None:
    model = lend("gpt2")
    whole, part = interp.lens(LONG), interp.lens(LONG, position="IO,END")
    at = [*places(model, LONG)["IO"], len(whole.tokens) - 1]
    assert list(part.positions) == at
    assert np.allclose(part.kl, whole.kl[:, at], atol=1e-6)
    assert list(part.spans) == ["IO", "END"]
    assert list(whole.spans) == ["IO", "OBJ"]
    for result, names in ((whole, ("IO", "OBJ")), (part, ("IO", "END"))):
        assert all(f">{name}</text>" in shown(result) for name in names)
    assert not interp.lens("Mary gave").spans


# -- planted truth, and a real model -----------------------------------------------------------------------------------


def planted(session: Any, n: int) -> list[Any]:
    """Load the compiled program of indirect objects, and return its pairs with slots where it has its names."""
    made = truth.build("ioi")
    session.load(made.bridge(), name="program")
    pairs: list[Any] = []
    for pair in made.pairs(n).pairs:
        ids = pair.clean.ids or ()
        io, s1 = (2, 4) if ids[2] != ids[7] else (4, 2)
        other = interp.Prompt(ids=(*ids[:7], ids[io], *ids[8:]))  # the same people, the other one repeated
        slots = {"io": (io,), "s1": (s1,), "s2": (7,), "end": (9,)}
        pairs.append(replace(pair, corrupted=other, wrong=(ids[s1],), slots=slots))
    return pairs


def test_where_planted_heads_look_and_what_flows_where_is_found(clean_session: Any) -> None:
    pairs = planted(clean_session, 24)
    for from_, to, head in (("END", "IO", "2.1"), ("END", "S2", "1.2"), ("S2", "S1", "0.0")):
        looked = interp.heads(prompts=pairs, from_=from_, to=to)
        assert looked.top(n=1) == [head]
        assert looked.of(head) > 0.9 > looked.of(looked.top(n=2)[1])
    for cut, counts in (("2.1:END->IO", True), ("1.2:END->S2", True), ("0.0:S2->S1", True), ("2.1:END->S2", False)):
        found = interp.ablate(pairs=pairs, knockout=cut)
        assert bool(abs(found.effect[1]) > 0.3 * found.values[0]) is counts, cut
    assert interp.ablate(pairs=pairs, heads="0.0", at="S2").effect[1] < -0.3 * found.values[0]
    assert abs(interp.ablate(pairs=pairs, heads="0.0", at="IO,S1").effect[1]) < 0.05 * found.values[0]
    for sender, receiver, place in (("0.0", "1.2.v", "s2"), ("1.2", "2.1.q", "end")):
        by_span = interp.path(pairs=pairs, from_=sender, to=receiver, by="span")
        assert set(by_span.places) == {"io", "s1", "s2", "end"}
        effect = dict(zip(by_span.places, np.abs(by_span.effect[0]), strict=True))
        assert max(effect, key=lambda name: effect[name]) == place
        assert sum(effect.values()) - effect[place] < 0.05 * effect[place]


def test_what_a_planted_head_writes_is_read_off_at_its_span(clean_session: Any) -> None:
    pairs = planted(clean_session, 40)
    first = [pair.slots["io"][0] == 2 for pair in pairs]  # what the duplicate-token head writes at the repeat
    at_repeat, at_end = (interp.probe(pairs, np.array(first, int), at=at, folds=4) for at in ("S2", "END"))
    assert at_repeat.score[0] == 1.0  # head 0.0
    assert at_end.score[0] < 0.8 < at_end.score[1] == 1.0  # head 1.2 carries it to the end


@pytest.mark.real
def test_name_movers_of_the_real_model_are_those_of_its_patterns(smollm2: Any) -> None:
    found = interp.heads(task="ioi", from_="END", to="IO", n=16)
    pairs = interp.task("ioi", n=16).pairs
    patterns = [interp.attention(pair.clean).pattern for pair in pairs]
    each = np.stack([p[:, :, -1, pair.slots["io"][0]] for p, pair in zip(patterns, pairs, strict=True)])
    assert found.scores["END → IO"] == pytest.approx(each.mean(0), abs=1e-5)
    movers = interp.heads(task="ioi", n=16)
    same = interp.heads(prompts=interp.task("ioi", n=16, corruption="random-names"), from_="END", to="IO")
    named = [name for name, label in movers.labels.items() if label == "name mover"]
    assert named
    assert all(same.of(name) == pytest.approx(movers.of(name, "end_to_io"), abs=1e-5) for name in named)
    assert set(named) & set(found.top(n=8))
    assert smollm2 is not None
