"""Forecasts before commands: `--dry-run` runs nothing, forwards are those of the provenance, files keep both."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import dictionaries
import interp
import zoo
from faults import harness
from interp import bundled
from interp.engine.features import activity
from interp.errors import InputError
from interp.interface import registry
from interp.results.forecast import Forecast

TEXTS = ["The cat sat on the mat.", "The dog sat on the rug and slept.", "Once upon a time"]
MANY = [f"{TEXTS[n % 3]} {' '.join(TEXTS[:2] * (n % 5))}" for n in range(12)]
PAIRS: Mapping[str, Any] = {"task": "ioi", "n": 4}
# Of two lengths, and one of one length among them.
LENGTHS: Mapping[str, Any] = {
    "pairs": [
        (f"When Mary and {s} went, {s} gave it to", f"When Mary and {s} went, {who} gave it to", " Mary", f" {s}")
        for s, who in (("John", "Mary Ann"), ("Tom", "Mr Smith and Mary"), ("Paul", "Mary"))
    ]
}

WHOLE = (
    "When John and Mary went to the store, Mary gave a drink to",
    "When John and Mary went to the store, John gave a drink to",
)


def circuit() -> Any:
    return interp.circuit(**PAIRS, edges=40, method="eap")


CALLS: dict[str, Callable[..., Any]] = {
    "patch": lambda **k: interp.patch(**PAIRS, **k),
    "patch by position": lambda **k: interp.patch(**PAIRS, site="resid_pre", by="position", **k),
    "patch kl": lambda **k: interp.patch(**PAIRS, metric="kl", **k),
    "patch neurons": lambda **k: interp.patch(**PAIRS, site="neuron", by="neuron", layer=1, **k),
    "attribution": lambda **k: interp.patch(**PAIRS, method="attribution", **k),
    "attribution, steps": lambda **k: interp.patch(**PAIRS, method="attribution", steps=5, **k),
    "spans of two lengths": lambda **k: interp.patch(**LENGTHS, site="z", by="span", **k),
    "attribution of two lengths": lambda **k: interp.patch(
        **LENGTHS, site="z", by="span", method="attribution", verify=2, **k
    ),
    "attribution of two lengths, steps": lambda **k: interp.patch(
        **LENGTHS, site="z", by="span", method="attribution", steps=4, **k
    ),
    "eap of two lengths": lambda **k: interp.circuit(**LENGTHS, method="eap", **k),
    "eap of two lengths, means": lambda **k: interp.circuit(**LENGTHS, method="eap", align="mean", **k),
    "exact circuit of two lengths": lambda **k: interp.circuit(**LENGTHS, method="exact", **k),
    "exact heads of two lengths": lambda **k: interp.circuit(**LENGTHS, method="exact", level="head", **k),
    "path": lambda **k: interp.path(**PAIRS, from_="heads", to="logits", **k),
    "path, heads frozen": lambda **k: interp.path(**PAIRS, from_="0.0,1.mlp", to="2.1.q", freeze="heads", **k),
    "mediate": lambda **k: interp.mediate(**PAIRS, correction="none", **k),
    "ablate": lambda **k: interp.ablate(**PAIRS, heads="0.0,1.0", mode="mean", **k),
    "ablate texts": lambda **k: interp.ablate(TEXTS, heads="1.0", mode="zero", **k),
    "eap": lambda **k: interp.circuit(**PAIRS, method="eap", **k),
    "eap of means": lambda **k: interp.circuit(**PAIRS, method="eap", ablation="mean", **k),
    "exact circuit": lambda **k: interp.circuit(**PAIRS, method="exact", **k),
    "exact heads": lambda **k: interp.circuit(**PAIRS, method="exact", level="head", **k),
    "patch, whole answers": lambda **k: interp.patch(*WHOLE, answer=" John and Mary", wrong=" Mary and", **k),
    "patch, whole answers by position": lambda **k: interp.patch(
        *WHOLE, answer=" John and", wrong=" Mary went to", site="resid_pre", by="position", **k
    ),
    "patch, loss": lambda **k: interp.patch(*WHOLE, metric="loss", **k),
    "mediate, whole answers": lambda **k: interp.mediate(*WHOLE, answer=" John and Mary", metric="prob", **k),
    "ablate, whole answers": lambda **k: interp.ablate(*WHOLE, answer=" John and Mary", wrong=" Mary", mlps=1, **k),
    "loss": lambda **k: interp.loss(TEXTS, **k),
    "loss, changed": lambda **k: interp.loss(
        TEXTS, interventions=[interp.Intervention(interp.Site("z", 1), mode="zero")], **k
    ),
    "neurons": lambda **k: interp.neurons("1.5,2.3", TEXTS, **k),
    "feature": lambda **k: interp.feature("1.17", TEXTS, **k),
    "feature, another layer": lambda **k: interp.feature("2.17", [*TEXTS, " ".join(TEXTS * 4)], context=20, **k),
    "features-label": lambda **k: interp.features_label("1.17,2.*", TEXTS * 3, **k),
    "features-train": lambda **k: interp.features_train(MANY, width=32, k=4, steps=5, batch=64, **k),
    "features-train, one site": lambda **k: interp.features_train(
        MANY, site="neuron", layer="1-2", width=16, k=2, steps=3, batch=32, kind="topk", **k
    ),
    "lens-train": lambda **k: interp.lens_train(TEXTS, steps=5, **k),
}


@pytest.fixture(scope="module")
def _loaded() -> Any:
    from interp.engine.model.load import Options, load

    return load(bundled.MODEL, name="bundled", options=Options(device="cpu"))


@pytest.fixture
def model(_loaded: Any, clean_session: Any) -> Any:
    _loaded.store.clear()
    _loaded.feature_sets.clear()
    activity.forget(_loaded)
    dictionaries.hold(_loaded)
    clean_session.models["bundled"], clean_session.current = _loaded, "bundled"
    return _loaded


@pytest.mark.parametrize("name", CALLS)
def test_forwards_are_those_of_the_provenance(name: str, model: Any) -> None:
    before = model.forwards, model.store.ledger().entries
    told = CALLS[name](dry_run=True)
    assert isinstance(told, Forecast)
    assert (model.forwards, model.store.ledger().entries) == before
    found = CALLS[name]()
    assert told.forwards == found.provenance.forwards == found.provenance.forecast.forwards
    assert told.flops == found.provenance.forecast.flops > 0
    # What was compared, and what the store has now, is not run again; the forecast knows.
    again = CALLS[name](dry_run=True)
    assert again.forwards == CALLS[name]().provenance.forwards


@pytest.mark.usefixtures("model")
def test_validation_is_forecast_too() -> None:
    found = circuit()
    told = interp.validate(found, n=4, random=3, top=2, dry_run=True)
    assert told.forwards == interp.validate(found, n=4, random=3, top=2).provenance.forwards


@pytest.mark.usefixtures("model")
def test_validation_over_pairs_of_two_lengths_is_forecast_too() -> None:
    found = interp.circuit(**LENGTHS, edges=40, method="eap")
    told = interp.validate(found, on="same", random=3, top=2, dry_run=True)
    assert told.forwards == interp.validate(found, on="same", random=3, top=2).provenance.forwards


@pytest.mark.usefixtures("model")
def test_an_input_that_is_looked_for_is_forecast_and_a_pass_that_is_kept_is_not() -> None:
    words: Mapping[str, Any] = {"optimise": True, "length": 4, "steps": 3}
    told = interp.feature("1.18", TEXTS, **words, dry_run=True)
    plain = interp.feature("1.18", TEXTS, dry_run=True)
    assert told.forwards == interp.feature("1.18", TEXTS, **words).provenance.forwards > plain.forwards
    assert interp.feature("1.19", TEXTS, dry_run=True).forwards == 0


@pytest.mark.usefixtures("model")
def test_a_graphs_validation_is_forecast_too() -> None:
    graph = interp.trace("The capital of France is", target=" Paris", nodes=1.0, edges=1.0)
    others = ["The largest city of France is", "In France the capital is, as everybody knows, called"]
    told = interp.validate(graph, top=2, paraphrases=others, dry_run=True)
    assert told.forwards == interp.validate(graph, top=2, paraphrases=others).provenance.forwards > 0


@pytest.mark.usefixtures("model")
def test_an_integral_is_forecast_as_most_converge() -> None:
    for pairs in (PAIRS, LENGTHS):
        told = interp.circuit(**pairs, dry_run=True)
        taken = interp.circuit(**pairs).provenance
        assert 0.5 < told.forwards / taken.forwards < 2


def test_with_hooks_of_the_users_own_every_cell_is_a_run(model: Any) -> None:
    with model.bridge.hooks(fwd_hooks=[("blocks.0.hook_resid_pre", lambda *_, **__: None)]):
        told = interp.patch(**PAIRS, layer=1, dry_run=True)
        taken = interp.patch(**PAIRS, layer=1).provenance
    assert told.path == "with hooks: hooks of the user's own"
    assert told.forwards == taken.forwards


@pytest.mark.usefixtures("model")
def test_what_does_not_fit_says_what_to_change(monkeypatch: pytest.MonkeyPatch) -> None:
    from interp.engine import memory

    monkeypatch.setattr(memory, "free_bytes", lambda _: 100_000)
    told = interp.patch(**PAIRS, dry_run=True)
    assert not told.fits
    assert "advice: try fewer pairs (--n)" in told.text()
    assert "is free" in told.summary()
    assert "fewer pairs" in told.html()
    (note,) = [note for note in interp.patch(**PAIRS).notes if note.startswith("this was to need")]
    assert note.endswith("less is needed with fewer pairs (--n)")


@pytest.mark.usefixtures("model")
def test_a_cell_takes_the_flag_and_gives_one_line(shell: Any) -> None:
    shell.run_cell("%interp patch --task ioi --n 2 --dry-run -o told").raise_error()
    told = shell.user_ns["told"]
    assert told.summary().startswith("patch: about ")
    assert told.code() == "interp.patch(task='ioi', n=2, dry_run=True)"
    assert len(told.text().splitlines()) == 1
    assert list(told.to_frame()["what"]) == [
        *("forwards", "flops", "bytes read", "peak bytes", "free bytes", "seconds"),
    ]


@pytest.mark.usefixtures("model")
def test_only_what_forecasts_takes_the_flag() -> None:
    takes = {name for name, one in registry.commands().items() if any(p.name == "dry_run" for p in one.parameters)}
    own = {"feature", "features-label", "features-train", "trace"}
    assert takes == {"ablate", "circuit", "lens-train", "loss", "mediate", "neurons", "patch", "path", "validate"} | own
    with pytest.raises(InputError, match="dry_run"):
        interp.tokens("The cat", dry_run=True)


@pytest.mark.usefixtures("model")
def test_rates_leave_torchs_random_numbers_alone() -> None:
    from interp.engine.forecast import rates

    rates._known.clear()
    before = torch.get_rng_state()
    interp.patch(**PAIRS, method="attribution", verify=2, dry_run=True)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.usefixtures("model")
def test_a_file_keeps_the_forecast_and_one_without_is_read(tmp_path: Path) -> None:
    found = circuit()
    path = found.save(tmp_path / "c.json")
    back = interp.load_circuit(path)
    assert back.provenance.forecast == found.provenance.forecast
    assert back.provenance.peak_bytes == found.provenance.peak_bytes
    held = json.loads(path.read_text("utf-8"))
    del held["provenance"]["forecast"], held["provenance"]["peak_bytes"]
    path.write_text(json.dumps(held), "utf-8")
    assert interp.load_circuit(path).provenance.forecast is None


@pytest.mark.usefixtures("clean_session")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", ["bert", "llama", "mixtral", "mamba", "gpt_oss", "ministral3", "native"])
def test_every_dry_run_on_a_family_is_a_forecast_or_one_line(family: str, dtype: torch.dtype) -> None:
    model = zoo.FAMILIES[family]().to(dtype)
    interp.load(model, tokenizer=zoo.tokenizer(family), name=family, device="cpu")
    made, lines = 0, dict[str, int]()
    for name in harness.techniques():
        if not any(one.name == "dry_run" for one in registry.find(name).parameters):
            continue
        try:  # a valid circuit is made for `validate`, where one can be
            cell = harness.valid(name, "bert" if family in zoo.ENCODERS else "gpt2")
            found = getattr(interp, name.replace("-", "_"))(*harness._python(cell), **cell.arguments, dry_run=True)
        except InputError as refusal:
            lines[name] = len(str(refusal).splitlines())
        else:
            assert isinstance(found, Forecast), name
            assert found.costs.seconds > 0, name
            made += 1
    assert made > 0
    assert set(lines.values()) <= {1}, lines
