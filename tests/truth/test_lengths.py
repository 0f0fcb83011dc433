"""Pairs of two lengths of a compiled program: its true spans, exactly and by estimates, and its true edges."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import interp
from interp import truth
from interp.engine.model.load import Options, load
from interp.methods._shared.circuit.result import CircuitResult
from interp.methods.checks.selfcheck import BARS, auroc

pytestmark = pytest.mark.usefixtures("one_thread")

PAIRS = 12
Said = tuple[str, str, int, int]


@pytest.fixture(scope="module")
def compiled() -> truth.Compiled:
    return truth.build("induction")


@pytest.fixture
def model(compiled: truth.Compiled, clean_session: Any) -> Iterator[Any]:
    """Yield the induction program as the current model, with a tokenizer of its words."""
    words = {word: n for n, word in enumerate(compiled.program.vocabulary)}
    made = Tokenizer(models.WordLevel(words, unk_token="BOS"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    bridge = compiled.bridge()
    bridge.tokenizer = PreTrainedTokenizerFast(tokenizer_object=made)
    loaded = load(bridge, name="induction", options=Options())
    clean_session.models["induction"], clean_session.current = loaded, "induction"
    yield loaded
    loaded.close()


def letters(compiled: truth.Compiled, dice: random.Random, count: int) -> list[str]:
    return dice.sample(compiled.program.vocabulary[1:], count)


def split(compiled: truth.Compiled, pieces: int, seed: int) -> Said:
    """Return a pair: the clean prompt repeats a letter; in the corrupted one others stand where it was first.

    These end where the letter stood, so that no position changes but behind them.
    """
    dice = random.Random(seed)
    before, after = letters(compiled, dice, 12)[:3], ["o", "p"]
    first, said, wrong, *others = [w for w in letters(compiled, dice, 16) if w not in {*before, *after}][:6]
    clean = ["BOS", *before, f"[{first}]{{A}}", f"[{said}]{{B}}", *after[:1], first]
    instead = " ".join(others[:pieces])
    corrupted = ["BOS", *before[: 4 - pieces], f"[{instead}]{{A}}", f"[{said}]{{B}}", *after[: 1 + (pieces > 1)], first]
    ids = {word: n for n, word in enumerate(compiled.program.vocabulary)}
    return " ".join(clean), " ".join(corrupted), ids[said], ids[wrong]


@pytest.mark.parametrize("direction", ["denoise", "noise"])
@pytest.mark.parametrize("align", ["last", "mean"])
@pytest.mark.parametrize("method", ["exact", "attribution"])
@pytest.mark.usefixtures("model")
def test_the_true_spans_are_found_and_stay_on_top_when_a_name_is_split(
    method: str, align: str, direction: str, compiled: truth.Compiled
) -> None:
    # The letter is read where it stood first, then where what comes after it stands, then at the end.
    expected = {("resid_pre", 0): "A", ("resid_pre", 1): "B", ("resid_pre", 2): "B", ("resid_post", 2): "END"}
    for pieces in (1, 2, 3):
        pairs = [split(compiled, pieces, seed) for seed in range(6)]
        for (site, layer), name in expected.items():
            found = interp.patch(
                pairs=pairs,
                site=site,
                by="span",
                layer=layer,
                align=align,
                direction=direction,
                method=method,
                **({"steps": 6} if method == "attribution" else {}),
            )
            lengths = {(len(a), len(b)) for a, b in zip(found.checks.clean, found.checks.corrupted, strict=True)}
            assert lengths == ({(8, 8)} if pieces == 1 else {(8, 9)})
            effects = np.abs((found.effect if method == "exact" else found.estimate)[0])
            assert found.positions[int(effects.argmax())] == name, (pieces, site, layer, effects)
            assert np.sort(effects)[-2] < 0.5 * effects.max()


def of_many_lengths(compiled: truth.Compiled, seed: int, *, unequal: bool) -> Said:
    """Return a pair whose prompts repeat another letter each, with as many letters around as is drawn."""
    dice = random.Random(f"lengths {seed}")

    def prompt(sizes: Sequence[int]) -> tuple[list[str], list[str]]:
        held = letters(compiled, dice, sum(sizes) + 2)
        before, (first, said), after = held[: sizes[0]], held[-2:], held[sizes[0] : -2]
        return ["BOS", *before, f"[{first}]{{A}}", f"[{said}]{{B}}", *after, first], [first, said]

    sizes = (dice.randrange(1, 4), dice.randrange(1, 4))
    others = (dice.randrange(1, 4), dice.randrange(1, 4)) if unequal else sizes
    while True:
        (clean, own), (corrupted, other) = prompt(sizes), prompt(others)
        if not {*own} & {*other}:
            break
    ids = {word: n for n, word in enumerate(compiled.program.vocabulary)}
    return " ".join(clean), " ".join(corrupted), ids[own[1]], ids[other[1]]


@pytest.mark.parametrize("unequal", [False, True], ids=["several lengths", "two lengths in a pair"])
@pytest.mark.parametrize("method", ["exact", "acdc", "eap-ig", "eap"])
def test_the_true_edges_are_found(method: str, unequal: bool, compiled: truth.Compiled, model: Any) -> None:  # noqa: ARG001
    pairs = [of_many_lengths(compiled, seed, unequal=unequal) for seed in range(PAIRS)]
    asked = {"pairs": pairs, "method": method, "edges": 5}
    found: CircuitResult = interp.circuit(**asked, **({"align": "mean"} if unequal else {}))
    lengths = [len(tokens) for tokens in found.checks.clean]
    assert len(set(lengths)) > 2
    others = [len(tokens) for tokens in found.checks.corrupted]
    assert (sum(a != b for a, b in zip(lengths, others, strict=True)) > PAIRS // 2) == unequal
    known = {edge: true for edge, true in compiled.truth("corrupted").items() if true is not None}
    row, column = ({name: n for n, name in enumerate(names)} for names in (found.writers, found.readers))
    scores = np.abs(np.array([found.scores[row[writer], column[reader]] for writer, reader in known]))
    value = auroc(scores, np.array([*known.values()]))
    print(f"{method}, {'two lengths in a pair' if unequal else 'several lengths'}: AUROC {value:.3f}")
    assert value >= max(BARS[method], 0.85)


@pytest.mark.parametrize("unequal", [False, True], ids=["several lengths", "two lengths in a pair"])
def test_the_true_edges_alone_are_faithful(unequal: bool, compiled: truth.Compiled, model: Any) -> None:  # noqa: ARG001
    pairs = [of_many_lengths(compiled, seed, unequal=unequal) for seed in range(PAIRS)]
    found: CircuitResult = interp.circuit(pairs=pairs, method="exact", edges=40)
    report = interp.validate(found, on="same", random=5, top=0)
    print(f"faithfulness {report.faithfulness:.3f}, random {np.nanmean(report.random):.3f}")
    assert report.faithfulness > 0.85
    assert abs(report.left) < 0.2
    assert np.nanmean(report.random) < 0.5
    assert report.nothing == pytest.approx(list(found.checks.corrupted_metric), abs=1e-4)
