"""Each fast kernel equals its slow twin and torch's own: values and all gradients, in float64.

The C++ has float and bf16 only: it is compared with the reference in float64 on the same numbers.
"""
from importlib import import_module

import pytest
import reference
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from reference import close
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from ulmfit.kernels import KERNELS, native
from ulmfit.kernels.linear_cross_entropy import IGNORE, linear_cross_entropy, linear_cross_entropy_reference
from ulmfit.kernels.lstm import Layer, backward_steps, forward_steps, lasting, lstm_library, lstm_padded, ready
from ulmfit.kernels.pooling import Window, joined, pool, pool_reference
from ulmfit.kernels.products import add_weight_gradient

BF16 = 2 ** -8  # spacing of its numbers, relative
compiled = pytest.mark.skipif(native.library() is None, reason="the C++ kernels are not built (make setup)")


@pytest.fixture(params=[pytest.param(True, marks=compiled), False], ids=["C++", "torch"])
def with_and_without_native(request, monkeypatch):
    if not request.param: monkeypatch.setattr(native, "library", lambda: None)


class Products(TorchDispatchMode):
    "Counts the matrix products that run while it is on."
    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.count += function.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm)
        return function(*arguments, **(keywords or {}))


# --- LSTM ---

def lstm_arguments(t: int, b: int, inputs: int, h: int, dtype=torch.float64) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(t * 10 + b)
    shapes = [(t, b, inputs), (b, h), (b, h), (4 * h, inputs), (4 * h, h), (4 * h,), (4 * h,)]
    return [(torch.randn(*s, generator=rng, dtype=torch.float64) * (h ** -0.5 if s[0] == 4 * h else 1)).to(dtype)
            .requires_grad_() for s in shapes]


def of_kernel(layer):
    def call(x, h, c, *weights):
        out, (h, c) = layer(x, (h, c), *weights)
        return out, h, c
    return call


def of_torch(x, h, c, *weights):
    names = [f"{n}_l0" for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    layer = nn.LSTM(x.shape[-1], h.shape[-1]).to(x.dtype)
    out, (h, c) = torch.func.functional_call(layer, dict(zip(names, weights)), (x, (h[None], c[None])))
    return out, h[0], c[0]


def values_and_gradients(function, arguments) -> list[torch.Tensor]:
    "Outputs, then the gradients by all arguments of a sum in which no two elements count alike."
    out = function(*arguments)
    rng = torch.Generator().manual_seed(7)
    total = sum((o * torch.randn(o.shape, generator=rng, dtype=torch.float64).to(o.dtype)).sum() for o in out)
    return [*out, *torch.autograd.grad(total, arguments)]


def twin(arguments) -> list[torch.Tensor]:
    "The same numbers in float64."
    return [a.detach().double().requires_grad_() for a in arguments]


def near(actual, expected, bound: float):
    "Every tensor within `bound` of the norm of what it should be."
    for a, e in zip(actual, expected, strict=True):
        assert a.shape == e.shape and (a - e).norm() <= bound * e.norm(), (a - e).norm() / e.norm()


IMPLEMENTATIONS = dict(fused=of_kernel(KERNELS["fused"].lstm), reference=of_kernel(KERNELS["reference"].lstm),
                       library=of_kernel(lstm_library), padded=of_kernel(lstm_padded), layer=Layer.apply,
                       module=of_torch)


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
@pytest.mark.parametrize("b, h", [(1, 4), (3, 4), (2, 5), (1, 1)])
@pytest.mark.parametrize("t", [1, 2, 7])
def test_lstm_equals_the_recurrence(t, b, h, name):
    arguments = lstm_arguments(t, b, 3, h)
    got, expected = (values_and_gradients(f, arguments) for f in (IMPLEMENTATIONS[name], reference.lstm))
    for a, e in zip(got, expected, strict=True): close(a, e)


SIZES = [(1, 1, 1, 1), (1, 6, 3, 4), (2, 1, 2, 5), (7, 3, 4, 16), (5, 7, 3, 17), (3, 13, 8, 70), (2, 6, 3, 401),
         (2, 16, 3, 32), (3, 17, 3, 33), (2, 33, 3, 70)]  # the matrix unit takes 32 rows and 32 of depth at once


@pytest.mark.parametrize("t, b, inputs, h", SIZES)
def test_lstm_in_float32_equals_float64(t, b, inputs, h, with_and_without_native):
    "Widths and batches that do and do not fill the C++'s vectors, rows and blocks."
    arguments = lstm_arguments(t, b, inputs, h, torch.float32)
    near(values_and_gradients(Layer.apply, arguments), values_and_gradients(reference.lstm, twin(arguments)), 2e-6)


@pytest.mark.parametrize("t, b, inputs, h", SIZES)
def test_lstm_in_bf16_stays_within_its_rounding(t, b, inputs, h, with_and_without_native):
    "Weights and states are float32, as in training; the bound is on the norm of each output and gradient."
    arguments = lstm_arguments(t, b, inputs, h, torch.float32)
    got = values_and_gradients(lambda x, *rest: of_kernel(KERNELS["fused"].lstm)(x.bfloat16(), *rest), arguments)
    near(got, values_and_gradients(reference.lstm, twin(arguments)), 4 * BF16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", ["fused", "reference"])
@torch.no_grad()
def test_lasting_weights_give_the_same_bits(name, dtype, with_and_without_native):
    kernel = KERNELS[name].lstm
    for t, b, inputs, h in SIZES:
        x, *state_and_weights = lstm_arguments(t, b, inputs, h, torch.float32)
        state, weights = state_and_weights[:2], state_and_weights[2:]
        same, prepared = lasting(kernel, dtype, *weights)
        (out, got), (expected, last) = same(x.to(dtype), state, *prepared), kernel(x.to(dtype), state, *weights)
        assert all(map(torch.equal, (out, *got), (expected, *last)))


@pytest.mark.parametrize("learning", [True, False])
def test_fused_lstm_in_float32_equals_the_recurrence(learning):
    "torch's own, on a path of its own in float32 (oneDNN), and another where no gradient is wanted."
    arguments = lstm_arguments(7, 3, 3, 4, torch.float32)
    with torch.set_grad_enabled(learning): got = IMPLEMENTATIONS["fused"](*arguments)
    for a, e in zip(got, reference.lstm(*arguments), strict=True): close(a, e, 1e-6)


@pytest.mark.parametrize("frozen", range(7), ids=["x", "h", "c", "w_ih", "w_hh", "b_ih", "b_hh"])
def test_what_is_frozen_costs_no_product_and_the_rest_of_the_gradients_is_unchanged(frozen):
    arguments = lstm_arguments(2, 3, 4, 5)
    rest = [a for i, a in enumerate(arguments) if i != frozen]
    expected = torch.autograd.grad(sum(o.sum() for o in reference.lstm(*arguments)), rest)
    arguments[frozen].requires_grad_(False)
    with Products() as products: got = torch.autograd.grad(sum(o.sum() for o in Layer.apply(*arguments)), rest)
    for a, e in zip(got, expected, strict=True): close(a, e)
    # one over the inputs, one a step in both directions, then one for each of x, h and the two matrices
    assert products.count == 1 + 2 + 2 + 4 - (frozen in (0, 1, 3, 4))


@pytest.fixture
def threads():
    "A function that sets their number for the test."
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@compiled
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_native_steps_do_not_depend_on_the_number_of_threads(dtype, threads):
    t, b, h = 5, 7, 70
    rng = torch.Generator().manual_seed(0)
    inputs, w, out = (torch.randn(*s, generator=rng).to(dtype) for s in ((t, b, 4 * h), (4 * h, h), (t, b, h)))
    found = []
    for n in (1, 2, 3):
        threads(n)
        gates, hs, cs = inputs.clone(), torch.zeros(t + 1, b, h, dtype=dtype), torch.zeros(t + 1, b, h)
        forward_steps(gates, ready(inputs[0].T, w, *torch.zeros(2, 4 * h)), hs, cs)
        d = backward_steps(gates, w, cs, out, torch.zeros(b, h), torch.zeros(b, h))
        found.append((gates, hs, cs, d.clone()))
    for other in found[1:]: assert all(map(torch.equal, found[0], other))


@pytest.mark.parametrize("dtype, bound", [(torch.float32, 1e-6), (torch.bfloat16, BF16)], ids=["fp32", "bf16"])
@pytest.mark.parametrize("m, n, e, filling", [(1, 1, 1, 0), (3, 17, 5, 3), (9, 16, 33, 0), (4, 40, 16, 8)])
def test_a_weight_gradient_is_added_without_its_filling(m, n, e, filling, dtype, bound, with_and_without_native):
    rng = torch.Generator().manual_seed(0)
    d, x = (torch.randn(m, k, generator=rng).to(dtype) for k in (n + filling, e))
    start = torch.randn(n, e, generator=rng)
    add_weight_gradient(out := start.clone(), d, x)
    near([out - start], [d[:, :n].double().T @ x.double()], bound)


def test_scratch_grows_and_is_reused():
    small, like = native.scratch(torch.zeros(1), 3), torch.zeros(1, dtype=torch.float64)
    large = native.scratch(like, 2, native.kept.bytes.numel())
    assert large.shape == (2, large.shape[1]) and large.dtype == torch.float64 and small.dtype == torch.float32
    assert native.scratch(like, 5).data_ptr() == large.data_ptr()


# --- decoder and loss ---

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
       rows=st.integers(1, 12) | st.none(),
       multiple=st.sampled_from([None, 4]), scale=st.sampled_from([1.0, -2.5]), data=st.data())
def test_linear_cross_entropy_equals_torchs(n, v, e, bias, rows, multiple, scale, data):
    "Any block of rows, filled up words, targets ignored, the loss multiplied before the gradient is taken."
    target = torch.tensor(data.draw(st.lists(st.sampled_from([IGNORE, *range(v)]), min_size=n, max_size=n)))
    target[data.draw(st.integers(0, n - 1))] = 0  # with none left torch's own is not a number
    arguments = decoder_arguments(n, v, e, bias)
    ours, theirs = our_loss(arguments, target, rows=rows, multiple=multiple), torch_loss(arguments, target)
    close(ours, theirs)
    got, expected = (torch.autograd.grad(scale * loss, arguments) for loss in (ours, theirs))
    for a, b in zip(got, expected, strict=True): close(a, b)


@pytest.mark.parametrize("n, blocks", [(256, [256]), (300, [300]), (520, [260, 260]), (900, [225] * 4)])
def test_blocks_of_rows_are_of_one_size(monkeypatch, n, blocks):
    "A few rows at the end would cost as much as a whole block's addition to the gradient."
    lce = import_module("ulmfit.kernels.linear_cross_entropy")
    sizes, original = [], lce.softmax_steps

    def noted(logits, *more):
        sizes.append(len(logits))
        return original(logits, *more)
    monkeypatch.setattr(lce, "LOGITS", dict(cpu=1))
    monkeypatch.setattr(lce, "softmax_steps", noted)
    our_loss(decoder_arguments(n, 3, 2, True), torch.arange(n) % 3)
    assert sizes == blocks


@pytest.mark.parametrize("bias", [True, False])
def test_the_slow_twin_equals_the_formula(bias):
    arguments, target = decoder_arguments(5, 4, 3, bias), torch.tensor([0, 3, IGNORE, 1, 3])
    x, weight, b = [*arguments, None][:3]
    expected = reference.cross_entropy(x @ weight.T + (0 if b is None else b), target)
    close(linear_cross_entropy_reference(x, weight, b, target), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_in_float64_are_not_read_as_other_numbers(dtype):
    "The C++ reads its biases and cells as float32 whatever they are."
    x, *more = lstm_arguments(3, 2, 4, 5)
    got, expected = (values_and_gradients(f, [a, *more]) for f, a in ((Layer.apply, x.to(dtype)), (reference.lstm, x)))
    near(got, expected, 4 * BF16)
    arguments, target = decoder_arguments(6, 5, 4, bias=True), torch.arange(6) % 5
    ours, exact = our_loss(arguments, target, dtype=dtype), torch_loss(arguments, target)
    assert abs(ours - exact) <= 2 * BF16 * exact


@compiled
def test_a_target_that_is_no_word_reaches_no_memory():
    "The run ends at a loss that is not a number; torch's own operations take whole numbers of 64 bits alone."
    x, weight, bias = (a.detach().float() for a in decoder_arguments(6, 5, 4, bias=True))
    target = torch.arange(6)  # five words
    assert linear_cross_entropy(x, weight, bias, target).isnan()
    with pytest.raises(RuntimeError): linear_cross_entropy(x, weight, bias, target.int())


def test_nothing_to_predict_is_loss_zero_and_gradient_zero():
    arguments = decoder_arguments(5, 4, 3, bias=True)
    loss = our_loss(arguments, torch.full((5,), IGNORE))
    assert loss.item() == 0
    assert all(not g.any() for g in torch.autograd.grad(loss, arguments))


@pytest.mark.parametrize("dtype, bound", [(torch.float32, 2e-6), (torch.bfloat16, 2 * BF16)], ids=["fp32", "bf16"])
@pytest.mark.parametrize("n, v, e", [(1, 1, 1), (1, 2, 3), (7, 17, 5), (64, 50, 32), (5, 2049, 8), (3, 4100, 7)])
def test_loss_in_lower_precision_stays_within_its_rounding(n, v, e, dtype, bound, with_and_without_native):
    """Numbers of words that do and do not fill the C++'s vectors and parts; the last target left out.

    The loss may be off by `bound` of the largest logit, a gradient by `bound` of its norm.
    """
    arguments = [(a.detach() / e ** 0.5).float().requires_grad_() for a in decoder_arguments(n, v, e, bias=True)]
    target = torch.arange(n) * 31 % v
    if n > 1: target[-1] = IGNORE
    ours, exact = our_loss(arguments, target, dtype=dtype, rows=3), torch_loss(doubles := twin(arguments), target)
    assert ours.dtype == torch.float32 and abs(ours - exact) <= bound * F.linear(*doubles).abs().max()
    got, expected = (torch.autograd.grad(loss, by) for loss, by in ((ours, arguments), (exact, doubles)))
    assert all(g.dtype == torch.float32 for g in got)
    near(got, expected, bound)


@pytest.mark.parametrize("logit", [-1e4, 88.0, 1e4, torch.inf, torch.nan])
def test_a_logit_far_out_does_what_torchs_does(logit, with_and_without_native):
    "Also where the loss is not a number: a run that diverges must be seen to."
    arguments = [torch.tensor([[1.0]]), torch.zeros(40, 1), torch.zeros(40)]
    arguments[2][[3, 35]] = logit
    for hit in (0, 3, 36):
        target = torch.tensor([hit])
        torch.testing.assert_close(our_loss(arguments, target), torch_loss(arguments, target), equal_nan=True)


def test_the_gradients_are_given_once():
    arguments = decoder_arguments(4, 3, 2, bias=True)
    loss = our_loss(arguments, torch.arange(4) % 3)
    loss.backward()
    with pytest.raises(RuntimeError, match="a second time"): loss.backward()


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


# --- pooling ---

def outputs(lengths: list[int], bptt: int, h: int, dtype: torch.dtype) -> list[Window]:
    "Windows of what an encoder could put out; no two of a unit are equal, and none is as high as 0."
    t, b = max(lengths), len(lengths)
    x = torch.rand(t, b, h, generator=torch.Generator().manual_seed(0)).argsort(dim=0).to(dtype) / 16 - 2
    made = []
    for start in range(0, t, bptt):
        active = torch.tensor([j for j, n in enumerate(lengths) if n > start])
        made.append(Window(active, x[start:start + bptt, active].clone().requires_grad_()))
    return made


def of_pool(function, windows: list[Window], lengths: list[int], dtype: torch.dtype) -> list[torch.Tensor]:
    return values_and_gradients(
        lambda *out: function([Window(w.active, o) for w, o in zip(windows, out)], torch.tensor(lengths), dtype),
        [w.out for w in windows])


@settings(deadline=None, max_examples=40)
@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=6), bptt=st.integers(1, 21))
def test_pooling_equals_the_loop(lengths, bptt):
    "Values and gradients of vectors, AR's sum and TAR's."
    windows = outputs(lengths, bptt, 4, torch.float64)

    def loop(*out):
        x = joined([Window(w.active, o) for w, o in zip(windows, out)], len(lengths), torch.float64)
        size, steps = 4 * sum(lengths), 4 * sum(n - 1 for n in lengths)
        return (reference.concat_pool(x, lengths), reference.ar(x, lengths) * size,
                reference.tar(x, lengths) * torch.tensor(steps, dtype=torch.float64))
    ours = of_pool(pool_reference, windows, lengths, torch.float64)
    for a, b in zip(ours, values_and_gradients(loop, [w.out for w in windows])): close(a, b)


@compiled
@pytest.mark.parametrize("dtype, bound", [(torch.float32, 1e-6), (torch.bfloat16, BF16)], ids=["fp32", "bf16"])
@pytest.mark.parametrize("h", [1, 16, 37, 64])
@pytest.mark.parametrize("lengths, bptt", [([1], 1), ([1, 1], 70), ([5, 2, 9, 1, 9], 3), ([7, 7], 7), ([3, 8], 2)])
def test_pooling_in_cpp_equals_the_reference(lengths, bptt, h, dtype, bound):
    "Documents that end at and within windows, sizes that do and do not fill a vector."
    windows = outputs(lengths, bptt, h, dtype)
    exact = [Window(w.active, w.out.detach().double().requires_grad_()) for w in windows]
    assert pool(windows, torch.tensor(lengths), torch.float32).vectors.grad_fn.name() == "PoolBackward"
    got = of_pool(pool, windows, lengths, torch.float32)
    near([g.double() for g in got], of_pool(pool_reference, exact, lengths, torch.float64), bound)


@pytest.mark.parametrize("function", [pool, pool_reference])
def test_the_highest_of_negative_outputs_is_not_the_padding(function):
    "A zero at a padded position would be the maximum."
    assert (function(outputs([2, 5], 5, 3, torch.float32), torch.tensor([2, 5]), torch.float32).vectors < 0).all()
