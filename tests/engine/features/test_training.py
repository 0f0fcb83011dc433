"""Training on planted data: what is found of a random dictionary, revival, thresholds, gradients, and going on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from interp.engine.features import training
from interp.engine.features.dictionary import Dictionary
from interp.engine.features.places import Place
from interp.engine.features.training import Entries, Recipe, Trainer

ATOMS, DIM, ACTIVE = 64, 24, 3
PLACE = Place(0, "resid_post")
OUT = Place(0, "mlp_out")


def atoms(seed: int = 0, count: int = ATOMS, dim: int = DIM) -> Tensor:
    return functional.normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def codes(rows: int, seed: int, count: int = ATOMS) -> Tensor:
    """Return sparse activations, ``[row, atom]``: three atoms of each row, between 1 and 2."""
    draw = torch.Generator().manual_seed(seed)
    which = torch.rand(rows, count, generator=draw).topk(ACTIVE, 1).indices
    return torch.zeros(rows, count).scatter_(1, which, 1 + torch.rand(rows, ACTIVE, generator=draw))


def trained(recipe: Recipe, reads: Tensor, writes: Tensor, *, steps: int | None = None) -> Trainer:
    """Train from rows of planted activations, drawn anew for each step."""
    seen = codes(4096, 1)
    trainer = Trainer(recipe, training.beginning(recipe, seen @ reads, seen @ writes))
    for step in range(recipe.steps if steps is None else steps):
        drawn = codes(recipe.batch, 100 + step)
        trainer.step(drawn @ reads, drawn @ writes)
    return trainer


def recovery(found: Tensor, planted: Tensor) -> float:
    """Return the mean over atoms of the largest cosine with anything found."""
    return float((functional.normalize(found, dim=1) @ planted.T).max(0).values.mean())


def missed(one: Dictionary, read: Tensor, written: Tensor) -> float:
    made = one.output(one.encode(read), read)
    return float((made - written).square().sum() / (written - written.mean(0)).square().sum())


@pytest.mark.slow
@pytest.mark.parametrize("kind", training.KINDS)
def test_a_planted_dictionary_is_found_and_neither_pca_nor_chance_finds_it(kind: str) -> None:
    planted = atoms()
    recipe = Recipe(96, ACTIVE, kind, steps=400, batch=512, rate=1e-2)  # pyright: ignore[reportArgumentType]
    trainer = trained(recipe, planted, planted)
    seen = codes(4096, 1) @ planted
    found = trainer.dictionary(PLACE, PLACE, seen)
    components = torch.linalg.svd(seen - seen.mean(0))[2]
    pca = recovery(torch.cat([components, -components]), planted)
    chance = recovery(atoms(9, 96), planted)
    own = recovery(found.decoders[0], planted)
    print(f"{kind}: mean max cosine {own:.3f}, PCA {pca:.3f}, random {chance:.3f}")
    assert own >= 0.9
    assert max(pca, chance) < 0.6
    assert found.kind == "sae"
    assert missed(found, seen, seen) < 0.2


@pytest.mark.slow
def test_a_transcoder_finds_what_is_written_and_what_it_is_read_from() -> None:
    reads, writes = atoms(1), 3 * atoms(2, dim=16)
    trainer = trained(Recipe(96, ACTIVE, "batchtopk", steps=400, batch=512, rate=1e-2), reads, writes)
    seen = codes(4096, 1)
    found = trainer.dictionary(PLACE, OUT, seen @ reads)
    assert found.kind == "transcoder"
    assert recovery(found.decoders[0], functional.normalize(writes, dim=1)) >= 0.9
    # Two that read and write the same atom are in one row.
    nearest = (found.decoders[0] @ functional.normalize(writes, dim=1).T).argmax(0)
    across = functional.normalize(found.encoder, dim=1)[nearest] @ reads.T
    assert float((across.argmax(1) == torch.arange(ATOMS)).float().mean()) > 0.9


def test_what_is_saved_gives_what_was_trained_in_the_units_of_the_activations() -> None:
    reads, writes = 5 * atoms(1), 0.2 * atoms(2, dim=16)
    for kind, skip in (("topk", False), ("topk", True), ("batchtopk", False)):
        recipe = Recipe(80, 4, kind, steps=60, batch=256, rate=1e-2, skip=skip)  # pyright: ignore[reportArgumentType]
        trainer = trained(recipe, reads, writes)
        drawn = codes(512, 7)
        x, y = drawn @ reads + 2, drawn @ writes - 1
        found = trainer.dictionary(PLACE, OUT, x)
        torch.testing.assert_close(found.decoders[0].norm(dim=1), torch.ones(80))
        scaled, _ = trainer.scales.made(x, y)
        pre = trainer.pre(scaled)
        w = trainer.weights
        if kind == "topk":
            active = Entries.topk(pre, 4)
            made = active.written(w["decoder"])
        else:
            assert found.act.threshold is not None
            above = torch.where(pre > found.act.threshold / trainer.scales.size_out, pre, 0.0).relu()
            made = above @ w["decoder"]
        made = made + w["decoder_bias"] + (scaled @ w["skip"] if skip else 0.0)
        expected = made * trainer.scales.size_out + trainer.scales.mean_out
        torch.testing.assert_close(found.output(found.encode(x), x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", training.KINDS)
def test_gradients_are_those_of_autograd(kind: str) -> None:
    draw = torch.Generator().manual_seed(0)
    x, encoder = torch.randn(40, 10, generator=draw), torch.randn(30, 10, generator=draw).requires_grad_()
    bias, decoder = torch.randn(30, generator=draw).requires_grad_(), torch.randn(30, 6, generator=draw)
    decoder.requires_grad_()
    slope = torch.randn(40, 6, generator=draw)
    pre = x @ encoder.T + bias
    entries = Recipe(30, 5, kind).chosen(pre.detach())  # pyright: ignore[reportArgumentType]
    mask = torch.zeros(40, 30).index_put((entries.rows, entries.features), torch.ones(()))
    ((pre.relu() * mask) @ decoder).backward(slope)
    found = training.gradients(entries, x, slope, decoder.detach())
    for name, weight in (("encoder", encoder), ("bias", bias), ("decoder", decoder)):
        assert weight.grad is not None
        torch.testing.assert_close(found[name], weight.grad, rtol=1e-4, atol=1e-5)


def test_what_is_active() -> None:
    pre = torch.tensor([[3.0, 1.0, -1.0, 2.0], [0.5, -2.0, 4.0, 0.1]])
    each = Entries.topk(pre, 2)
    assert set(zip(each.rows.tolist(), each.features.tolist(), strict=True)) == {(0, 0), (0, 3), (1, 2), (1, 0)}
    over = Entries.batchtopk(pre, 2)  # four in all: 4, 3, 2 and 1
    assert over.rows.tolist() == [0, 0, 0, 1]
    assert over.features.tolist() == [0, 1, 3, 2]
    assert over.starts.tolist() == [0, 3]
    none = Entries.batchtopk(-pre.abs(), 2)
    assert len(none.values) == 0
    assert none.written(torch.randn(4, 3)).abs().sum() == 0


def test_batchtopk_has_k_in_the_mean_with_its_threshold() -> None:
    planted = atoms()
    trainer = trained(Recipe(96, ACTIVE, "batchtopk", steps=150, batch=512, rate=1e-2), planted, planted)
    found = trainer.dictionary(PLACE, PLACE, codes(4096, 1) @ planted)
    assert found.act.kind == "jumprelu"
    fresh = found.encode(codes(4096, 5) @ planted).counts.float()
    assert float(fresh.mean()) == pytest.approx(ACTIVE, rel=0.1)
    assert float(fresh.std()) > 0


def test_dead_features_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    planted = atoms()
    recipe = Recipe(80, ACTIVE, "topk", steps=150, batch=512, rate=1e-2)
    shares: list[float] = []
    for weight in (0.0, training._AUX):
        monkeypatch.setattr(training, "_AUX", weight)
        seen = codes(4096, 1) @ planted
        state = training.beginning(recipe, seen, seen)
        state["encoder"][:40] *= 1e-3  # they are never among the largest
        trainer = Trainer(recipe, state)
        for step in range(recipe.steps):
            rows = codes(512, 100 + step) @ planted
            trainer.step(rows, rows)
        shares.append(float(trainer.figures()[-1, 3]))
    assert shares[0] > 0.4, "without it they stay dead"
    assert shares[1] < 0.5 * shares[0]


def test_the_same_seed_gives_the_same_and_another_one_another() -> None:
    planted = atoms()
    recipe = Recipe(64, ACTIVE, steps=12, batch=128)
    first, again = (trained(recipe, planted, planted) for _ in range(2))
    other = trained(replace(recipe, seed=1), planted, planted)
    for name, weight in first.weights.items():
        assert torch.equal(weight, again.weights[name])
    assert not torch.equal(first.weights["encoder"], other.weights["encoder"])


def test_a_state_goes_on_bit_for_bit() -> None:
    planted = atoms()
    recipe = Recipe(64, ACTIVE, "batchtopk", steps=20, batch=128)
    whole = trained(recipe, planted, planted)
    part = trained(recipe, planted, planted, steps=9)
    rest = Trainer(recipe, {name: tensor.clone() for name, tensor in part.state().items()})
    for step in range(9, 20):
        rows = codes(128, 100 + step) @ planted
        rest.step(rows, rows)
    for name, tensor in whole.state().items():
        assert torch.equal(tensor, rest.state()[name]), name


def test_the_rate_rises_stays_and_falls() -> None:
    recipe = Recipe(steps=1000, rate=1.0)
    rates = [recipe.rate_at(step) for step in range(1000)]
    assert rates[0] == pytest.approx(0.02)
    assert rates[49:500] == [1.0] * 451
    assert 0 < rates[-1] < 0.01
    assert rates == sorted(rates[:50]) + rates[50:500] + sorted(rates[500:], reverse=True)
    assert Recipe(steps=1, rate=1.0).rate_at(0) == 1.0
