"""A linear layer's product is the same whichever library makes it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from interp.engine.transformer import linear

INSIDE, OUTSIDE = 48, 80
WEIGHTS = {
    "as torch keeps it": lambda: torch.randn(OUTSIDE, INSIDE),
    "as GPT-2 keeps it": lambda: torch.randn(INSIDE, OUTSIDE).T,
    "a part of GPT-2's queries, keys and values": lambda: torch.randn(INSIDE, 3 * OUTSIDE)[:, OUTSIDE : 2 * OUTSIDE].T,
    "a part of a wider one": lambda: torch.randn(OUTSIDE, 3 * INSIDE)[:, INSIDE : 2 * INSIDE],
    "every other column": lambda: torch.randn(OUTSIDE, 2 * INSIDE)[:, ::2],
    "one output": lambda: torch.randn(1, INSIDE),
}
ROWS = {
    "none": lambda: torch.randn(0, INSIDE),
    "one": lambda: torch.randn(1, INSIDE),
    "many": lambda: torch.randn(300, INSIDE),
    "batched": lambda: torch.randn(3, 5, INSIDE),
    "with gaps": lambda: torch.randn(7, 4, INSIDE)[:, 2],
    "repeated": lambda: torch.randn(3, 1, INSIDE).expand(3, 4, INSIDE),
}


def expected(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    out = x.double() @ weight.double().T
    return out if bias is None else out + bias.double()


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("kept", WEIGHTS)
@pytest.mark.parametrize("biased", [True, False])
def test_every_layout(rows: str, kept: str, biased: bool) -> None:
    torch.manual_seed(0)
    x, weight = ROWS[rows](), WEIGHTS[kept]()
    bias = torch.randn(len(weight)) if biased else None
    found = linear.linear(x, weight, bias)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected(x, weight, bias), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("then", [linear.gelu_tanh, functional.gelu, functional.silu, functional.relu])
def test_an_activation_on_the_way_is_the_one_afterwards(then: linear.Activation) -> None:
    torch.manual_seed(0)
    wide = torch.linspace(-30, 30, 200 * INSIDE).view(200, INSIDE)
    for x, weight in ((wide, torch.eye(INSIDE)), (torch.randn(20, INSIDE), torch.randn(OUTSIDE, INSIDE))):
        found = linear.linear(x, weight, None, then)
        torch.testing.assert_close(found.double(), then(expected(x, weight, None)), atol=1e-5, rtol=1e-5)


def test_what_is_no_number_stays_none() -> None:
    x = torch.zeros(3, INSIDE)
    x[1, 0] = float("nan")
    found = linear.linear(x, torch.ones(OUTSIDE, INSIDE), None, linear.gelu_tanh)
    assert found.isnan().any(-1).tolist() == [False, True, False]


def test_double_precision_stays_double() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(5, INSIDE, dtype=torch.float64), torch.randn(OUTSIDE, INSIDE, dtype=torch.float64)
    torch.testing.assert_close(linear.linear(x, weight, None), x @ weight.T, atol=1e-13, rtol=1e-13)


def test_gradients_flow() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(5, INSIDE, requires_grad=True), torch.randn(OUTSIDE, INSIDE)
    linear.linear(x, weight, None, linear.gelu_tanh).sum().backward()
    own = x.detach().clone().requires_grad_()
    linear.gelu_tanh(own @ weight.T).sum().backward()
    torch.testing.assert_close(x.grad, own.grad)


def test_autocast_is_obeyed() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert linear.linear(torch.randn(5, INSIDE), torch.randn(OUTSIDE, INSIDE), None).dtype == torch.bfloat16
