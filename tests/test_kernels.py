"Each fast kernel equals its slow twin and torch's own: values and all gradients, in float64."
import pytest
import reference
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from reference import close
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from ulmfit.kernels.linear_cross_entropy import IGNORE, linear_cross_entropy, linear_cross_entropy_reference
from ulmfit.kernels.lstm import KERNELS, lstm

IN, H = 3, 4


def lstm_arguments(t: int, b: int, dtype=torch.float64) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(t * 10 + b)
    shapes = [(t, b, IN), (b, H), (b, H), (4 * H, IN), (4 * H, H), (4 * H,), (4 * H,)]
    return [torch.randn(*s, generator=rng, dtype=torch.float64).to(dtype).requires_grad_() for s in shapes]


def of_kernel(name: str):
    def call(x, h, c, *weights):
        out, (h, c) = lstm(x, (h, c), *weights, kernel=name)
        return out, h, c
    return call


def of_torch(x, h, c, *weights):
    names = [f"{n}_l0" for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    layer = nn.LSTM(IN, H).to(x.dtype)
    out, (h, c) = torch.func.functional_call(layer, dict(zip(names, weights)), (x, (h[None], c[None])))
    return out, h[0], c[0]


def values_and_gradients(function, arguments) -> list[torch.Tensor]:
    "Outputs, then the gradients by all arguments of a sum in which no two elements count alike."
    out = function(*arguments)
    rng = torch.Generator().manual_seed(7)
    total = sum((o * torch.randn(o.shape, generator=rng, dtype=torch.float64).to(o.dtype)).sum() for o in out)
    return [*out, *torch.autograd.grad(total, arguments)]


@pytest.mark.parametrize("implementation", [*map(of_kernel, KERNELS), of_torch], ids=[*KERNELS, "nn.LSTM"])
@pytest.mark.parametrize("b", [1, 3])
@pytest.mark.parametrize("t", [1, 2, 7])
def test_lstm_equals_the_recurrence(t, b, implementation):
    arguments = lstm_arguments(t, b)
    got, expected = (values_and_gradients(f, arguments) for f in (implementation, reference.lstm))
    for a, e in zip(got, expected, strict=True): close(a, e)


@pytest.mark.parametrize("learning", [True, False])
def test_fused_lstm_in_float32_equals_the_recurrence(learning):
    "Another path of torch's than in float64 (oneDNN), and one of its own where no gradient is wanted."
    arguments = lstm_arguments(7, 3, torch.float32)
    with torch.set_grad_enabled(learning): got = of_kernel("fused")(*arguments)
    for a, e in zip(got, reference.lstm(*arguments), strict=True): close(a, e, 1e-6)


def decoder_arguments(n: int, v: int, e: int, bias: bool, seed: int = 0) -> list[torch.Tensor]:
    "x, weight and, if wanted, bias."
    rng = torch.Generator().manual_seed(seed)
    shapes = [(n, e), (v, e), (v,)][:3 if bias else 2]
    return [torch.randn(*s, generator=rng, dtype=torch.float64).requires_grad_() for s in shapes]


def torch_loss(arguments, target):
    x, weight, bias = [*arguments, None][:3]
    return F.cross_entropy(F.linear(x, weight, bias), target, ignore_index=IGNORE)


def our_loss(arguments, target, **how):
    x, weight, bias = [*arguments, None][:3]
    return linear_cross_entropy(x, weight, bias, target, **how)


@settings(deadline=None, max_examples=60)
@given(n=st.integers(1, 9), v=st.integers(2, 6), e=st.integers(1, 4), bias=st.booleans(),
       rows=st.integers(1, 12) | st.none(), scale=st.sampled_from([1.0, -2.5]), data=st.data())
def test_linear_cross_entropy_equals_torchs(n, v, e, bias, rows, scale, data):
    "Any block of rows, targets ignored, the loss multiplied by something before the gradient is taken."
    target = torch.tensor(data.draw(st.lists(st.sampled_from([IGNORE, *range(v)]), min_size=n, max_size=n)))
    target[data.draw(st.integers(0, n - 1))] = 0  # with none left torch's own is not a number
    arguments = decoder_arguments(n, v, e, bias)
    ours, theirs = our_loss(arguments, target, rows=rows), torch_loss(arguments, target)
    close(ours, theirs)
    got, expected = (torch.autograd.grad(scale * loss, arguments) for loss in (ours, theirs))
    for a, b in zip(got, expected, strict=True): close(a, b)


@pytest.mark.parametrize("bias", [True, False])
def test_the_slow_twin_equals_the_formula(bias):
    arguments, target = decoder_arguments(5, 4, 3, bias), torch.tensor([0, 3, IGNORE, 1, 3])
    x, weight, b = [*arguments, None][:3]
    expected = reference.cross_entropy(x @ weight.T + (0 if b is None else b), target)
    close(linear_cross_entropy_reference(x, weight, b, target), expected)


def test_nothing_to_predict_is_loss_zero_and_gradient_zero():
    arguments = decoder_arguments(5, 4, 3, bias=True)
    loss = our_loss(arguments, torch.full((5,), IGNORE))
    assert loss.item() == 0
    assert all(not g.any() for g in torch.autograd.grad(loss, arguments))


def test_bf16_products_stay_within_their_rounding():
    "bf16 rounds to 2^-9; the loss may be off by 2^-7 of the largest logit, a gradient by 2^-6 of its own norm."
    arguments = [a.detach().float().requires_grad_() for a in decoder_arguments(64, 50, 32, bias=True)]
    target = torch.arange(64) % 50
    target[::5] = IGNORE
    ours, theirs = our_loss(arguments, target, dtype=torch.bfloat16, rows=20), torch_loss(arguments, target)
    largest = F.linear(*arguments).abs().max().item()
    assert ours.dtype == torch.float32 and abs(ours.item() - theirs.item()) < largest * 2 ** -7
    got, expected = (torch.autograd.grad(loss, arguments) for loss in (ours, theirs))
    for a, e in zip(got, expected, strict=True):
        assert a.dtype == torch.float32 and (a - e).norm() < 2 ** -6 * e.norm()


class Products(TorchDispatchMode):
    "Counts the matrix products that run while it is on."
    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.count += function.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm)
        return function(*arguments, **(keywords or {}))


@pytest.mark.parametrize("learning, expected", [(True, 3), (False, 1)])
def test_gradients_are_computed_only_where_they_are_wanted(learning, expected):
    arguments = decoder_arguments(6, 4, 3, bias=True)
    with Products() as products, torch.set_grad_enabled(learning):
        loss = our_loss(arguments, torch.arange(6) % 4, rows=6)
    assert products.count == expected
    assert loss.requires_grad == learning


@pytest.mark.parametrize("frozen", [0, 1, 2], ids=["x", "weight", "bias"])
def test_what_is_frozen_gets_no_gradient_and_the_rest_is_unchanged(frozen):
    arguments, target = decoder_arguments(6, 4, 3, bias=True), torch.arange(6) % 4
    expected = torch.autograd.grad(torch_loss(arguments, target), arguments)
    arguments[frozen].requires_grad_(False)
    our_loss(arguments, target, rows=4).backward()
    assert arguments[frozen].grad is None
    for i, (a, e) in enumerate(zip(arguments, expected, strict=True)):
        if i != frozen: close(a.grad, e)
