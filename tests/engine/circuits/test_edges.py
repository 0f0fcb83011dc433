"""Edge scores against their definition: one input of the model's at a time, on hooks and autograd."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge.sources.native import boot

from interp.engine.circuits import eap, edges, exact
from interp.engine.metrics import Scorer
from interp.engine.model.load import Options, load
from interp.engine.model.loaded import LoadedModel
from interp.engine.patching.cases import Case
from interp.engine.transformer import network
from interp.spec import Metric
from methods.patching.test_patch import build

pytestmark = pytest.mark.usefixtures("one_thread")

CLEAN = ((5, 11, 64, 31, 8, 40), (51, 11, 23, 31, 9, 40), (5, 7, 64, 30, 8, 4))
CORRUPTED = ((5, 11, 23, 31, 8, 40), (50, 12, 23, 31, 8, 44), (6, 11, 64, 31, 8, 40))
ABLATIONS = ("corrupted", "mean", "zero")
KINDS = [
    ("gpt2", {}),
    ("llama", {}),  # two query heads to one of keys and values
    ("neox", {}),  # attention and MLP side by side
    ("neox", {"use_parallel_residual": False}),
    ("qwen3", {}),  # norms of q and k per head
]
PLAIN = Metric()


def cases_of(metric: Metric = PLAIN, count: int = 3) -> list[Case]:
    return [
        Case(clean, corrupted, Scorer(metric, (7, 12), (9,)), len(clean) - 1, clean_base=True)
        for clean, corrupted in zip(CLEAN[:count], CORRUPTED[:count], strict=True)
    ]


def asked(model: LoadedModel, cases: Sequence[Case], **options: Any) -> edges.EdgeScores:
    return model.operate("circuit", {}, lambda _: eap.attribute_edges(model, cases, **options))


# -- the reference ---------------------------------------------------------------------------------------------------


class Naive:
    """Every edge by itself, on the bridge's own gates for the inputs of heads and MLPs."""

    def __init__(self, model: LoadedModel, cases: Sequence[Case], ablation: str) -> None:
        self.model, self.cases, self.ablation = model, cases, ablation
        self.depth = model.geometry.n_layers
        model.bridge.set_use_split_qkv_input(True)
        model.bridge.set_use_hook_mlp_in(True)

    def close(self) -> None:
        self.model.bridge.set_use_split_qkv_input(False)
        self.model.bridge.set_use_hook_mlp_in(False)

    def metric(self, ids: Sequence[int], added: Sequence[tuple[str, Any]] = ()) -> torch.Tensor:
        logits = self.model.bridge.run_with_hooks(torch.tensor([list(ids)]), fwd_hooks=list(added))[0, -1]
        return torch.stack([logits[7], logits[12]]).logsumexp(0) - logits[9]

    def output(self, ids: Sequence[int], writer: str) -> torch.Tensor:
        """Return what a writer writes, ``[position, d_model]``, without the biases that are never ablated."""
        layer, _, part = writer.partition(".")
        name = "blocks.0.hook_resid_pre"
        if part:
            name = f"blocks.{layer}.hook_mlp_out" if part == "mlp" else f"blocks.{layer}.attn.hook_z"
        held: list[torch.Tensor] = []
        with torch.no_grad():
            self.metric(ids, [(name, lambda tensor, hook: held.append(tensor.detach().clone()))])  # noqa: ARG005
        if part in {"", "mlp"}:
            return held[0][0]
        return held[0][0, :, int(part)] @ self.model.bridge.blocks[int(layer)].attn.W_O[int(part)].detach()

    def ablated(self, case: Case, writer: str) -> torch.Tensor:
        if self.ablation == "corrupted":
            return self.output(case.source, writer)
        if self.ablation == "mean":
            return torch.stack([self.output(other.source, writer) for other in self.cases]).mean(0)
        own = torch.zeros_like(self.output(case.base, writer))
        bias = None
        if writer.endswith("mlp"):
            mlp: Any = self.model.bridge.blocks[int(writer.split(".")[0])].mlp
            bias = dict(mlp.named_children())["out"].original_component.bias
        return own if bias is None else own + bias.detach()

    def place(self, reader: str) -> tuple[str, int | None]:
        layer, _, rest = reader.partition(".")
        if not rest:
            return f"blocks.{self.depth - 1}.hook_resid_post", None
        if rest == "mlp":
            return f"blocks.{layer}.hook_mlp_in", None
        head, _, kind = rest.partition(".")
        return f"blocks.{layer}.attn.hook_{kind}_input", int(head)

    def slope(
        self,
        case: Case,
        reader: str,
        begin: torch.Tensor | None = None,
        moved: tuple[str, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Return the gradient of one input, ``[position, d_model]``: that of a zero that is added to it."""
        name, head = self.place(reader)
        added = torch.zeros(len(case.base), self.model.geometry.d_model, requires_grad=True)

        def add(tensor: torch.Tensor, hook: Any) -> torch.Tensor:  # noqa: ARG001
            if head is None:
                return tensor + added
            spread = torch.zeros(tensor.shape[2]).index_fill(0, torch.tensor([head]), 1.0)
            return tensor + spread[None, None, :, None] * added[None, :, None]

        first = [] if begin is None else [("blocks.0.hook_resid_pre", lambda tensor, hook: begin[None])]  # noqa: ARG005
        if moved is not None:
            first = [(moved[0], lambda tensor, hook: tensor + moved[1].to(tensor))]  # noqa: ARG005
        (found,) = torch.autograd.grad(self.metric(case.base, [*first, (name, add)]), [added])
        return found

    def patched(self, case: Case, writer: str, reader: str) -> float:
        """Return the metric where one input reads the writer's ablated output in place of its own."""
        name, head = self.place(reader)
        change = self.ablated(case, writer) - self.output(case.base, writer)

        def put(tensor: torch.Tensor, hook: Any) -> torch.Tensor:  # noqa: ARG001
            tensor = tensor.clone()
            tensor[(slice(None), slice(None), head) if head is not None else ()] += change
            return tensor

        with torch.no_grad():
            return float(self.metric(case.base, [(name, put)]))


@pytest.fixture
def naive(request: pytest.FixtureRequest) -> Callable[..., Naive]:
    def of(*given: Any) -> Naive:
        made = Naive(*given)
        request.addfinalizer(made.close)
        return made

    return of


def close(found: torch.Tensor, expected: torch.Tensor, exists: torch.Tensor, bound: float = 1e-5) -> None:
    assert found[..., ~exists].isnan().all()
    apart = (found - expected)[..., exists].abs().max()
    assert apart <= bound * expected[..., exists].abs().max().clamp(min=1.0), float(apart)


@pytest.mark.slow
@pytest.mark.parametrize("ablation", ABLATIONS)
@pytest.mark.parametrize(("kind", "extra"), KINDS)
def test_gradients_of_single_inputs(kind: str, extra: dict[str, Any], ablation: str, naive: Any) -> None:
    model = build(kind, **extra)
    cases = cases_of()
    found = asked(model, cases, ablation=ablation)
    reference = naive(model, cases, ablation)
    expected = torch.zeros_like(found.per_pair)
    for n, case in enumerate(cases):
        for column, reader in enumerate(found.readers):
            slope = reference.slope(case, reader.name)
            for row, writer in enumerate(found.writers):
                if found.exists[row, column]:
                    change = reference.output(case.base, writer.name) - reference.ablated(case, writer.name)
                    expected[n, row, column] = (change * slope).sum()
    close(found.per_pair, expected, found.exists)
    assert np.allclose(found.clean, [float(reference.metric(case.base).detach()) for case in cases], atol=1e-5)


def exactly(model: LoadedModel, cases: Sequence[Case], **options: Any) -> edges.EdgeScores:
    return model.operate("circuit", {}, lambda _: exact.exact_edges(model, cases, **options))


@pytest.mark.parametrize("ablation", ABLATIONS)
@pytest.mark.parametrize(("kind", "extra"), KINDS)
def test_every_edge_by_itself(kind: str, extra: dict[str, Any], ablation: str, naive: Any) -> None:
    model = build(kind, **extra)
    cases = cases_of()
    found = exactly(model, cases, ablation=ablation)
    assert (found.path, found.stopped, found.notes) == ("replay", "", [])
    reference = naive(model, cases, ablation)
    edge_list = found.exists.nonzero().tolist()
    case = cases[1]
    clean = float(reference.metric(case.base).detach())
    for row, column in edge_list[::5]:
        expected = clean - reference.patched(case, found.writers[row].name, found.readers[column].name)
        assert abs(float(found.per_pair[1, row, column]) - expected) < 5e-5
    assert found.per_pair[:, ~found.exists].isnan().all()
    estimated = asked(model, cases, ablation=ablation)
    assert torch.allclose(found.clean, estimated.clean, atol=1e-5)
    assert torch.allclose(found.ablated, estimated.ablated, atol=1e-4)


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_positions_are_the_parts_of_the_scores(ablation: str, naive: Any) -> None:
    model = build("llama")
    cases = cases_of()
    found = asked(model, cases, ablation=ablation, positions=True)
    assert found.by_position is not None
    assert found.by_position.shape == (*found.exists.shape, 6)
    summed = asked(model, cases, ablation=ablation)
    close(found.per_pair, summed.per_pair, found.exists)
    close(found.by_position.sum(-1)[None], summed.per_pair.mean(0)[None], found.exists)
    reference = naive(model, cases, ablation)
    for row, column in found.exists.nonzero().tolist()[::11]:
        writer, reader = found.writers[row].name, found.readers[column].name
        parts = [
            ((reference.output(case.base, writer) - reference.ablated(case, writer)) * reference.slope(case, reader))
            for case in cases
        ]
        expected = torch.stack(parts).sum(-1).mean(0)
        assert torch.allclose(found.by_position[row, column], expected, atol=1e-5)


# -- the integral ----------------------------------------------------------------------------------------------------


def linear() -> LoadedModel:
    """Return a model without norms, whose attention is even and whose neurons are their own input: all is linear."""
    sizes: dict[str, Any] = {"n_layers": 3, "n_heads": 2, "d_model": 8, "d_head": 4, "d_mlp": 10, "d_vocab": 70}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        bridge = boot(TransformerBridgeConfig(**sizes, n_ctx=12, act_fn="relu", normalization_type=None))
        with torch.no_grad():
            for name, parameter in bridge.named_parameters():
                parameter.normal_(0.0, 0.15)
                if ".q." in name or ".k." in name:
                    parameter.zero_()
                if "fc_in" in name and name.endswith("bias"):
                    parameter.add_(20.0)  # so that no neuron is ever cut off
    return load(bridge.eval(), name="linear", options=Options())


@pytest.mark.parametrize("ablation", ABLATIONS)
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_on_a_linear_model_estimates_are_exact(ablation: str, steps: int) -> None:
    model = linear()
    cases = [replace(case, scorer=Scorer(PLAIN, (7,), (9,))) for case in cases_of()]
    exact, found = exactly(model, cases, ablation=ablation), asked(model, cases, ablation=ablation, steps=steps)
    assert exact.per_pair[:, exact.exists].abs().max() > 0.01
    close(found.per_pair, exact.per_pair, found.exists, 2e-4)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "neox"])
def test_more_steps_converge_to_an_exact_edge(kind: str) -> None:
    """Where one edge carries all and is read through a norm and a softmax, the integral is what it does."""
    model = build(kind)
    with torch.no_grad():
        for layer in network.read(model).layers:
            layer.o.weight.zero_()
            layer.down.weight.zero_()
    cases = cases_of(Metric("prob"))
    exact = exactly(model, cases)
    assert torch.allclose(exact.per_pair[:, 0, -1].double(), exact.clean - exact.ablated, atol=1e-6)
    assert exact.per_pair[:, 1:].nan_to_num().abs().max() < 1e-6
    off = [
        float((asked(model, cases, steps=steps).per_pair - exact.per_pair)[:, 0, -1].abs().max())
        for steps in (1, 2, 4, 32)
    ]
    size = float(exact.per_pair[:, 0, -1].abs().max())
    assert off[0] > 0.05 * size
    assert off[3] < 1e-4 * size
    assert off[3] < off[2] < off[0]


@pytest.mark.parametrize(("kind", "extra"), KINDS)
def test_points_between_the_prompts(kind: str, extra: dict[str, Any], naive: Any) -> None:
    """The mean gradient on the way between the embeddings, by a sum of many equal steps."""
    model = build(kind, **extra)
    cases = cases_of(count=1)
    found = asked(model, cases, steps=20)
    reference = naive(model, cases, "corrupted")
    begin, end = reference.output(cases[0].source, "embed"), reference.output(cases[0].base, "embed")
    parts = (torch.arange(50) + 0.5) / 50
    for column in range(1, len(found.readers), 7):
        reader = found.readers[column].name
        slopes = [reference.slope(cases[0], reader, begin + part * (end - begin)) for part in parts]
        slope = torch.stack(slopes).mean(0)
        for row, writer in enumerate(found.writers):
            if found.exists[row, column]:
                change = reference.output(cases[0].base, writer.name) - reference.ablated(cases[0], writer.name)
                expected = float((change * slope).sum())
                assert abs(float(found.per_pair[0, row, column]) - expected) < 2e-3


@pytest.mark.parametrize("ablation", ["mean", "zero"])
@pytest.mark.parametrize(("kind", "extra"), KINDS[:3])
def test_points_between_ablated_and_clean_writers(kind: str, extra: dict[str, Any], ablation: str, naive: Any) -> None:
    """The writers of one half block move together, and all above them answers."""
    model = build(kind, **extra)
    cases = cases_of()
    steps = 3
    found = asked(model, cases, ablation=ablation, steps=steps)
    reference = naive(model, cases, ablation)
    case, names = cases[0], [node.name for node in found.writers]
    at, weight = np.polynomial.legendre.leggauss(steps)
    rows = {"embed": ["embed"], "0": ["0.0", "0.1", "0.2", "0.3"], "0.mlp": ["0.mlp"], "1": ["1.1"]}
    for stage, writers in rows.items():
        moved = [f"{stage}.{head}" for head in range(4)] if stage.isdigit() else writers
        changes = {name: reference.output(case.base, name) - reference.ablated(case, name) for name in moved}
        layer = int(stage.partition(".")[0]) if stage != "embed" else 0
        # What is written where the half block writes moves all that stands above it.
        name = f"blocks.{layer}.hook_{'mlp' if '.' in stage else 'attn'}_out"
        name = "blocks.0.hook_resid_pre" if stage == "embed" else name
        for column, reader in enumerate(found.readers):
            if not found.exists[names.index(writers[-1]), column] or column % 4:
                continue
            slope = torch.zeros(len(case.base), model.geometry.d_model)
            for point, part in zip((at + 1) / 2, weight / 2, strict=True):
                away = -(1 - point) * sum(changes.values())
                slope += part * reference.slope(case, reader.name, moved=(name, away))
            for writer in writers:
                expected = float((changes[writer] * slope).sum())
                off = abs(float(found.per_pair[0, names.index(writer), column]) - expected)
                assert off < 1e-4 * max(1.0, abs(expected)), (writer, reader)


# -- of all pairs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("done", [5, 2, 0], ids=["all pairs", "some pairs", "parts of pairs"])
def test_the_mean_is_over_the_pairs_that_are_done_or_over_what_there_is(done: int) -> None:
    exists = torch.tensor([[True, True, True], [False, True, True]])
    per_pair = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0))
    for pair in range(done, 5):
        per_pair[pair, 0, pair % 3] = float("nan")
    per_pair[:, ~exists] = float("nan")
    stopped = "" if done == 5 else "interrupted"
    none = torch.zeros(5, dtype=torch.float64)
    found = edges.EdgeScores([], [], exists, per_pair, None, none, none, none, stopped=stopped)
    assert found.finished.tolist() == [pair < done for pair in range(5)]
    expected = per_pair[:done].double().mean(0) if done else per_pair.double().nanmean(0)
    assert expected[exists].isfinite().all()
    assert torch.equal(found.scores.isnan(), ~exists)
    assert torch.allclose(found.scores[exists], expected[exists], rtol=1e-12)
