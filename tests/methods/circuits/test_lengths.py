"""Circuits over pairs of several lengths: how prompts line up, what is said, validated and kept in a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import interp
from interp.engine.circuits.subgraph import Subset
from interp.engine.model.tokens import Encoded
from interp.errors import InputError
from interp.methods._shared import pairs as pairs_of
from interp.methods._shared import span_places
from interp.methods._shared.pairs import encode
from interp.spec import Pair, Pairs, resolve_metric

pytestmark = pytest.mark.usefixtures("one_thread")

MARKED = (
    "[Mary]{IO} gave the [book]{OBJ} to John, and",
    "The old [Alice Smith]{IO} gave the [green pen]{OBJ} to John, and",
)
PLAIN = ("When Mary and John went, John gave it to", "When Mary and John went, Mary Ann gave it to")
SAME = ("When [Mary]{X} went to", "When [John]{Y} went to")  # marks that no span patch would take
ANSWERS = (" Mary", " John")
BODY = [(*pair, *ANSWERS) for pair in (MARKED, PLAIN, SAME)]


def line(ids: str) -> Encoded:
    """Return a prompt whose tokens are letters."""
    return Encoded(tuple(map(ord, ids)), tuple(ids), {})


@pytest.mark.parametrize(
    ("clean", "corrupted", "spans", "align", "expected"),
    [
        # What both begin and end with, and a middle of one token and of three.
        ("abXcd", "abPQRcd", {}, "last", {0: (0,), 1: (1,), 2: (4,), 3: (5,), 4: (6,)}),
        ("abXcd", "abPQRcd", {}, "mean", {0: (0,), 1: (1,), 2: (2, 3, 4), 3: (5,), 4: (6,)}),
        ("abPQRcd", "abXcd", {}, "last", {0: (0,), 1: (1,), 4: (2,), 5: (3,), 6: (4,)}),
        ("abPQRcd", "abXcd", {}, "mean", {0: (0,), 1: (1,), 2: (2,), 3: (2,), 4: (2,), 5: (3,), 6: (4,)}),
        # More tokens in front, spans that are marked, and one that stands elsewhere.
        ("Xbcd", "uvPQbcd", {"S": ((0,), (2, 3))}, "last", {0: (3,), 1: (4,), 2: (5,), 3: (6,)}),
        # Spans in another order: what is between goes with what is between, a span with its own.
        (
            "aXbPQc",
            "aRbYc",
            {"A": ((1,), (3,)), "B": ((3, 4), (1,))},
            "mean",
            {0: (0,), 1: (3,), 2: (2,), 3: (1,), 4: (1,), 5: (4,)},
        ),
        # What is between two spans has a middle of its own, and a token for which there is nothing.
        ("XaubY", "PQawvbY", {"S": ((0,), (0, 1))}, "last", {0: (1,), 1: (2,), 2: (4,), 3: (5,), 4: (6,)}),
        ("XauY", "PQaY", {"S": ((0,), (0, 1))}, "last", {0: (1,), 1: (2,), 3: (3,)}),
        # A space that is a token by itself, inside of what is marked.
        ("aXb", "aP Qb", {"S": ((1,), (1, 3))}, "mean", {0: (0,), 1: (1, 3), 2: (4,)}),
        ("aP Qb", "aXb", {"S": ((1, 3), (1,))}, "last", {0: (0,), 3: (1,), 4: (2,)}),
        ("aX-Yb", "aP-+Qb", {"S": ((1, 3), (1, 4))}, "last", {0: (0,), 1: (1,), 2: (2,), 3: (4,), 4: (5,)}),
        # The end is given the end, whatever the prompts end with.
        ("aX", "aPQ", {}, "mean", {0: (0,), 1: (2,)}),
    ],
)
def test_what_each_position_is_given(
    clean: str, corrupted: str, spans: Any, align: str, expected: dict[int, Any]
) -> None:
    ends = (len(clean) - 1, len(corrupted) - 1)
    places = spans or span_places.places(line(clean), line(corrupted), {}, "", ends=ends)
    found = span_places.whole(line(clean), line(corrupted), places, align, "", ends=ends)
    assert dict(found) == expected


def test_a_span_in_more_pieces_of_one_prompt_is_refused() -> None:
    places = {"S": ((0, 3), (0, 1)), "T": ((1,), (2,))}
    with pytest.raises(InputError, match="3 pieces in clean and in 2 in corrupted") as refused:
        span_places.whole(line("XaTXb"), line("PQTbcd"), places, "last", "pair 3: ", ends=(4, 5))
    assert str(refused.value).startswith("pair 3: ")
    with pytest.raises(InputError, match="--align last or mean"):
        span_places.whole(line("aXb"), line("aPQb"), {}, "each", "", ends=(2, 3))


@pytest.mark.parametrize("method", ["eap", "eap-ig", "exact", "acdc"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "neox"])
def test_every_method_takes_them(family: str, method: str, lend: Any) -> None:
    lend(family)
    found = interp.circuit(pairs=BODY, method=method, edges=20)
    assert 0 < found.kept.sum() <= 20
    assert np.isfinite(found.scores[found.exists]).all()
    assert [len(a) == len(b) for a, b in zip(found.checks.clean, found.checks.corrupted, strict=True)] == [
        False,
        False,
        True,
    ]
    (note,) = [note for note in found.notes if "different lengths" in note]
    assert note.startswith("the prompts of 2 of 3 pairs have different lengths and are aligned by spans (--align last)")
    assert not any("saturation" in note for note in found.notes)
    # All edges ablated, each is its corrupted prompt's own run.
    assert found.ablated_metric == pytest.approx(list(found.checks.corrupted_metric), abs=1e-4)
    if method != "acdc":
        for number, pair in enumerate(BODY):
            alone = interp.circuit(pairs=[pair], method=method, edges=20)
            size = np.nanmax(np.abs(alone.per_pair))
            assert np.allclose(found.per_pair[number], alone.per_pair[0], atol=0.01 * size, equal_nan=True)


def test_what_a_mean_gives_is_another_circuit_and_zero_needs_no_alignment(lend: Any) -> None:
    lend("llama")
    last, mean = (interp.circuit(pairs=BODY, method="eap", align=align) for align in ("last", "mean"))
    assert np.nanmax(np.abs(last.per_pair[0] - mean.per_pair[0])) > 1e-4
    assert np.array_equal(last.per_pair[2], mean.per_pair[2], equal_nan=True)
    assert any("have no counterpart and are never ablated" in note for note in last.notes)
    zero = interp.circuit(pairs=BODY, method="eap", ablation="zero")
    assert not any("--align" in note for note in zero.notes)
    for options, said in (
        ({"ablation": "mean"}, "corrupted and zero take any"),
        ({"positions": True}, "the scores without it take any"),
        ({"align": "each"}, "use --align last or mean"),
    ):
        with pytest.raises(InputError, match=said) as refused:
            interp.circuit(pairs=BODY, method="eap", **options)
        assert "\n" not in str(refused.value)


def test_positions_are_the_clean_prompts(lend: Any) -> None:
    lend("gpt2")
    found = interp.circuit(pairs=BODY[:1], method="eap", positions=True)
    assert found.by_position.shape[-1] == len(found.checks.clean[0]) != len(found.checks.corrupted[0])
    assert np.allclose(np.nansum(found.by_position, -1), np.nan_to_num(found.scores), atol=1e-5)


def test_validation_and_a_file_align_them_as_the_circuit_was(lend: Any, tmp_path: Path) -> None:
    model = lend("llama")
    for align in ("last", "mean"):
        found = interp.circuit(pairs=BODY, edges=25, align=align)
        report = interp.validate(found, on="same", random=2, top=3)
        again = interp.load_circuit(found.save(tmp_path / f"{align}.json"))
        assert again.checks.spans == found.checks.spans
        assert again.html() == found.html()
        assert interp.validate(again, on="same", random=2, top=3).alone == pytest.approx(list(report.alone))
        metric = resolve_metric("logit-diff")
        pairs = Pairs(tuple(Pair(a, b, (x,), (y,)) for a, b, x, y in BODY))  # pyright: ignore[reportArgumentType]
        encoded = encode(model, pairs, metric, lengths=True)
        cases = pairs_of.cases(model, encoded, metric, "noise", align=align, whole=True)

        def runs(_: Any, cases: Any = cases, kept: Any = found.kept) -> Any:
            import torch

            subset = Subset(model, cases)
            return subset.run(torch.stack([subset.whole, subset.nothing, torch.from_numpy(kept)]))

        whole, nothing, alone = model.operate("validate", {}, runs)
        assert report.whole == pytest.approx(whole.tolist(), abs=1e-5)
        assert report.nothing == pytest.approx(nothing.tolist(), abs=1e-5)
        assert report.alone == pytest.approx(alone.tolist(), abs=1e-5)
    data = json.loads((tmp_path / "mean.json").read_text())
    for damage, said in (
        (lambda d: d["checks"]["spans"].pop(), "checks.spans is of 2 pairs"),
        (lambda d: d["checks"]["spans"][0].update(IO=[[0], [99]]), "a span has no token"),
        (lambda d: d["checks"].update(spans=[]), "not of one length"),
    ):
        held = json.loads(json.dumps(data))
        damage(held)
        (tmp_path / "damaged.json").write_text(json.dumps(held))
        with pytest.raises(InputError, match=said):
            interp.load_circuit(tmp_path / "damaged.json")


def test_pairs_of_one_length_line_up_token_by_token_whatever_they_mark(lend: Any) -> None:
    lend("gpt2")
    plain = ("When Mary went to", "When John went to", *ANSWERS)
    for method in ("eap", "exact"):
        marked, own = (interp.circuit(pairs=[pair], method=method) for pair in (BODY[2], plain))
        assert np.array_equal(marked.per_pair, own.per_pair, equal_nan=True)
        assert marked.checks.spans == own.checks.spans == ()
