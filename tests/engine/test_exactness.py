"""A network whose reading is broken on purpose: every command falls back to hooks and says so, or refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

import interp
from faults import harness
from interp.engine import exactness
from interp.engine.features import activity
from interp.engine.patching import cases
from interp.engine.transformer import network
from interp.engine.transformer.block import Block
from interp.engine.transformer.network import Network
from interp.engine.transformer.parts import Rotation
from interp.errors import InputError, Interrupted
from interp.interface.body import pairs
from interp.results import Result
from sampled import EVERY

pytestmark = pytest.mark.usefixtures("one_thread")

BOUND = 1e-4
# Adam's first step is as large whatever the gradient is, so that what is nearly none may go either way.
BOUNDS = {"features-train": 0.05}
MADE = {"provenance", "notes", "_live", "seconds", "forwards"}
NAMES = tuple(f" {name}" for name in "Mary John Alice Bob James Emma Sarah David Paul Kate".split())  # noqa: SIM905  # of one token, for the task of two names

PAIR = """clean: When Mary gave John the drink to
corrupted: When Alice gave John the drink to
answer: Mary
wrong: John"""
DIFFERED = "the forward without hooks differed by"

# Beside the least cell of each command: the ways of doing it that compute in another way.
VARIANTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("patch", {"site": "resid_mid", "by": "position"}),
    ("patch", {"site": "k", "by": "head-position"}),
    ("patch", {"site": "pattern", "metric": "kl"}),
    ("patch", {"site": "neuron", "by": "neuron", "direction": "noise"}),
    ("patch", {"method": "attribution"}),
    ("patch", {"method": "attribution", "steps": 4, "metric": "prob"}),
    ("path", {"freeze": "none", "to": "1.0.q"}),
    ("path", {"freeze": "heads", "to": "1.0.v", "metric": "kl"}),
    ("ablate", {"mlps": 0, "heads": None}),
    ("ablate", {"heads": None, "knockout": "1.0:3->1"}),
    ("circuit", {"method": "eap"}),
    ("circuit", {"method": "eap", "ablation": "zero"}),
    ("circuit", {"method": "eap-ig", "ablation": "mean"}),
    ("circuit", {"method": "acdc"}),
    ("circuit", {"method": "acdc", "metric": "kl", "ablation": "zero"}),
    ("circuit", {"method": "exact"}),
    ("circuit", {"method": "exact", "ablation": "mean"}),
    ("circuit", {"method": "exact", "ablation": "zero", "metric": "kl"}),
    ("circuit", {"level": "head"}),
    ("heads", {"relation": "modifier", "n": 4}),
    ("saliency", {"method": "gradient-input"}),
    ("probe", {"position": "mean", "site": "mlp_out"}),
)


def _with_layers(net: Network, change: Callable[[Block], Block]) -> Network:
    return replace(net, layers=tuple(map(change, net.layers)))


def wrong_epsilon(net: Network) -> Network:
    """Return a network whose norms divide by too much."""
    return _with_layers(
        net,
        lambda layer: replace(layer, norm1=replace(layer.norm1, eps=0.1), norm2=replace(layer.norm2, eps=0.1)),
    )


def swapped_heads(net: Network) -> Network:
    """Return a network in which the first two heads write what the other one should."""

    def swap(layer: Block) -> Block:
        weight = layer.o.weight.detach().clone()
        first, second = weight[:, : net.d_head].clone(), weight[:, net.d_head : 2 * net.d_head].clone()
        weight[:, : net.d_head], weight[:, net.d_head : 2 * net.d_head] = second, first
        return replace(layer, o=replace(layer.o, linear=replace(layer.o.linear, weight=weight)))

    return _with_layers(net, swap)


def wrong_positions(net: Network) -> Network:
    """Return a network that rotates the other way round, or, where positions are learned, one place further."""
    if net.rotary is not None:
        rotary = net.rotary

        def turned(length: int) -> list[Rotation | None]:
            return [one and Rotation(one.cos.flip(-1), -one.sin, one.pairs) for one in rotary(length)]

        return replace(net, rotary=turned)

    assert net.embed.positions is not None
    return replace(net, embed=replace(net.embed, positions=net.embed.positions[1:]))


BREAKS = (wrong_epsilon, swapped_heads, wrong_positions)


class Reading:
    """`network.read` with a fault in it, and how often it was asked."""

    def __init__(self, fault: Callable[[Network], Network] | None) -> None:
        self.read = network.read
        self.fault = fault
        self.calls = 0

    def __call__(self, model: Any, **options: Any) -> Network:
        self.calls += 1
        net = self.read(model, **options)
        return net if self.fault is None else self.fault(net)


def cells(family: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield a name and a call of every command that needs a model, and of every other way in which it computes."""
    known = [name for name in harness.techniques() if harness.applies(name, family)]
    asked = [*((name, {}) for name in known), *VARIANTS]
    for name, options in asked:
        cell = harness.valid(name, family)
        if name in {"patch", "path", "mediate", "circuit", "ablate"}:
            cell = replace(cell, body=PAIR)
        cell = replace(cell, arguments=cell.arguments | options)

        def call(cell: harness.Cell = cell) -> Any:
            outcome = harness.ask("python", None, cell)
            if outcome.error is not None:
                raise outcome.error
            return outcome.value

        said = " ".join(f"{key}={value}" for key, value in options.items())
        yield f"{name} {said}".strip(), call
    yield "heads task=ioi", lambda: interp.heads(task="ioi", n=4)


def numbers(value: Any) -> Iterator[np.ndarray]:
    """Yield all numbers of a result that are measured, in order."""
    if isinstance(value, Result) or is_dataclass(value):
        for each in fields(value):
            if each.name not in MADE:
                yield from numbers(getattr(value, each.name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from numbers(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from numbers(item)
    elif isinstance(value, float) or (isinstance(value, np.ndarray) and value.dtype.kind == "f"):
        yield np.atleast_1d(np.asarray(value, dtype=np.float64))


def answered(
    model: Any, call: Callable[[], Any], fault: Callable[[Network], Network] | None, monkeypatch: pytest.MonkeyPatch
) -> tuple[Any, str, int]:
    """Return what a call gives on a model of which nothing is known, its refusal, and how often the model was read."""
    exactness.forget(model)
    activity.forget(model)
    model.store.clear()
    reading = Reading(fault)
    with monkeypatch.context() as patch:
        patch.setattr(network, "read", reading)
        try:
            return call(), "", reading.calls
        except InputError as error:
            return None, str(error), reading.calls


def off(found: Any, expected: Any) -> float:
    """Return how far a result's numbers are from what they should be, by the size of each array."""
    worst = 0.0
    for one, other in zip(numbers(found), numbers(expected), strict=True):
        assert one.shape == other.shape
        assert np.array_equal(np.isfinite(one), np.isfinite(other))
        known = np.isfinite(other)
        size = max(1.0, np.abs(other[known]).max(initial=0))
        worst = max(worst, np.abs(one - other)[known].max(initial=0) / size)
    return worst


@pytest.fixture(scope="module")
def unbroken() -> dict[tuple[str, str], tuple[Any, str, int]]:
    """What is answered without a fault: (family, name of the call) → `answered`."""
    return {}


@pytest.mark.parametrize("fault", BREAKS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_broken_reading_misleads_no_command(
    family: str, fault: Callable[[Network], Network], lend: Any, unbroken: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call meets each fault on one family, and each family with one fault; all with ``INTERP_ZOO=all``."""
    model = lend(family, added=NAMES)
    asked: set[str] = set()
    used: set[str] = set()
    misled: list[str] = []
    for number, (name, call) in enumerate(cells(family)):
        # What loads or trains features is run for those that need them.
        other = (number + BREAKS.index(fault)) % 2 == (family == "gpt2")
        if other and not name.startswith("features") and not EVERY:
            continue
        asked.add(name)
        if (family, name) not in unbroken:
            unbroken[family, name] = answered(model, call, None, monkeypatch)
        expected, refusal, reads = unbroken[family, name]
        found, refused, again = answered(model, call, fault, monkeypatch)
        if refusal:
            misled.append(f"{name} is no example: {refusal}")
            continue
        assert bool(reads) == bool(again), name
        said = getattr(found, "provenance", None)
        if not reads or (said is not None and said.path == "forward"):  # read at most for a forecast
            assert off(found, expected) == 0, name
            continue
        used.add(name)
        if refused:
            right = f"without hooks, and here that cannot be: {DIFFERED}" in refused and "\n" not in refused
        else:
            bound = BOUNDS.get(name, BOUND)
            right = off(found, expected) < bound and said is not None
            right = right and said.path.startswith(f"hooked: {DIFFERED}")
        if not right:
            how = refused or f"off by {off(found, expected):.2g}, {found.provenance.path}"
            misled.append(f"{name}: {how}")
    assert not misled, "\n".join(misled)
    reading = {"neurons", "probe", "saliency", "heads", "heads task=ioi", "validate", "mediate"}
    assert asked & reading <= used, used
    assert {name for name, _ in VARIANTS} - reading <= {name.split()[0] for name in used}, used
    exactness.forget(model)


@pytest.mark.parametrize("fault", BREAKS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_faults_are_faults(family: str, fault: Callable[[Network], Network], lend: Any) -> None:
    model = lend(family)
    net = network.read(model)
    from interp.engine.transformer.forward import forward

    ids = torch.tensor([[5, 11, 23, 31, 8, 40]])
    right, wrong = (of.unembed(of.final(forward(of, ids)[:, -1])) for of in (net, fault(net)))
    assert exactness.difference(wrong, right) > 10 * exactness.TOLERANCE


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_what_a_view_asks_later_is_refused_too(family: str, lend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = lend(family, added=NAMES)
    result = interp.patch(pairs(PAIR), by="head-position")
    for fault in BREAKS:
        exactness.forget(model)
        with monkeypatch.context() as patch:
            patch.setattr(network, "read", Reading(fault))
            with pytest.raises(InputError, match=f"without hooks, and here that cannot be: {DIFFERED}"):
                result.likeliest((1, 0, 2))
    exactness.forget(model)
    assert result.likeliest((1, 0, 2))


# -- the protocol itself ---------------------------------------------------------------------------------------------


def asked(model: Any, value: float, seen: list[str], key: str = "a", length: int = 1) -> exactness.Done[float]:
    def sample() -> list[float]:
        seen.append("compared")
        return [exactness.difference(value, 1.0)]

    def lean(check: exactness.Check) -> float:  # noqa: ARG001
        return value

    def hooked(fallback: exactness.Fallback) -> float:  # noqa: ARG001
        return 1.0

    def work(operation: Any) -> exactness.Done[float]:  # noqa: ARG001
        return exactness.run(model, (key,), lean=lean, hooked=hooked, sample=sample, length=length)

    return model.operate("test", {}, work)


def test_one_comparison_for_each_state_and_key(lend: Any) -> None:
    model = lend("gpt2")
    seen: list[str] = []
    assert asked(model, 1.0, seen) == exactness.Done(1.0, "replay")
    assert asked(model, 1.00001, seen).answer == 1.00001
    assert len(seen) == 1
    asked(model, 1.0, seen, key="b")
    assert len(seen) == 2, "another key is another computation"
    asked(model, 1.0, seen, length=9)
    assert len(seen) == 3, "a prompt that is much longer says more"
    asked(model, 1.0, seen, length=5)
    assert len(seen) == 3
    exactness.forget(model)
    found = asked(model, 1.1, seen)
    assert (found.answer, found.path) == (1.0, f"hooked: {DIFFERED} 0.1 from the hooked one")
    assert found.notes == (
        "the forward without hooks differed by 0.1 from the hooked one on this model and was not used",
    )
    asked(model, 1.1, seen)
    assert len(seen) == 5, "what differed is never trusted"
    exactness.forget(model)


def test_another_state_is_compared_again(lend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = lend("gpt2")
    seen: list[str] = []
    asked(model, 1.0, seen)
    monkeypatch.setattr(type(model), "state", property(lambda self: "another"))  # noqa: ARG005
    asked(model, 1.0, seen)
    monkeypatch.setattr(type(model), "state", property(lambda self: None))  # noqa: ARG005
    asked(model, 1.0, seen)
    asked(model, 1.0, seen)
    assert len(seen) == 4, "outside of a command nothing is trusted"
    exactness.forget(model)


def test_an_empty_sample_is_not_trusted(lend: Any) -> None:
    model = lend("gpt2")
    called: list[int] = []

    def sample() -> list[float]:
        called.append(1)
        return []

    for _ in range(2):
        exactness.run(model, ("empty",), lean=lambda _: 1, hooked=lambda _: 2, sample=sample)
    assert len(called) == 2


def test_after_a_stop_little_is_compared_and_nothing_trusted(lend: Any) -> None:
    model = lend("gpt2")
    seen: list[int] = []

    def sample() -> Iterator[float]:
        for number in range(2 * exactness.STOPPED):
            seen.append(number)
            yield 0.0

    def stopped(check: exactness.Check) -> int:
        check(stopped=True)
        return 1

    exactness.run(model, ("stop",), lean=stopped, hooked=lambda _: 2, sample=sample)
    assert len(seen) == exactness.STOPPED
    exactness.run(model, ("stop",), lean=lambda _: 1, hooked=lambda _: 2, sample=sample)
    assert len(seen) == 3 * exactness.STOPPED
    exactness.forget(model)


@pytest.mark.parametrize(
    ("name", "options"), [("patch", {"method": "attribution"}), ("circuit", {"method": "eap"}), ("circuit", {})]
)
def test_a_stop_while_it_is_compared_waits_for_one_pair(
    name: str, options: dict[str, Any], clean_session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, ran = cases.unpatched, []

    def counted(*given: Any) -> Any:
        ran.append(given)
        if len(ran) == 2:
            raise KeyboardInterrupt
        return run(*given)

    exactness.forget(clean_session.load())
    with monkeypatch.context() as patch:
        patch.setattr(cases, "unpatched", counted)
        with pytest.raises(Interrupted) as stop:
            getattr(interp, name)(task="ioi", n=5, **options)
        assert len(ran) == 3
        assert "interrupted after 5/5 pairs" in " ".join(stop.value.result.notes)
        getattr(interp, name)(task="ioi", n=5, **options)
        assert len(ran) == 3 + exactness.SAMPLE


def test_where_there_is_no_other_way_it_is_refused_in_one_line(lend: Any) -> None:
    model = lend("gpt2")
    with pytest.raises(InputError, match=r"^things are done without hooks, and here that cannot be: .*; do others$"):
        exactness.run(
            model, ("no",), lean=lambda _: 1, hooked=exactness.Refusal("things are done", "do others"),
            sample=lambda: [0.5],
        )  # fmt: skip


@pytest.mark.parametrize(
    ("found", "expected", "apart"),
    [
        (torch.tensor([1.0, 100.0]), torch.tensor([2.0, 100.0]), 0.01),
        (torch.tensor([float("nan")]), torch.tensor([1.0]), float("inf")),
        (torch.zeros(2), torch.zeros(2), 0.0),
        (10.0, 20.0, 0.5),
        (float("inf"), 1.0, float("inf")),
    ],
)
def test_differences_are_by_size(found: Any, expected: Any, apart: float) -> None:
    assert exactness.difference(found, expected) == pytest.approx(apart)
