"""Less Is More's proximal steps in C against PyTorch's operators: values, momenta, layouts, what is left to those."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thriftylib.fast.compiled import library
from thriftylib.papers import less_is_more_method
from thriftylib.papers.less_is_more_method import group_sparsity, low_rank

pytestmark = pytest.mark.fast
OPERATORS = {"group_sparsity": group_sparsity, "low_rank": low_rank}
layouts = st.sampled_from([torch.contiguous_format, torch.channels_last])
shapes = st.tuples(*(st.integers(1, limit) for limit in (40, 23, 5, 5)))
seeds = st.integers(0, 2**16)
steps = st.sampled_from([0.0, 1e-6, 0.02, 0.4, 1.5, 40.0])


@pytest.fixture(autouse=True)
def compiler():
    if library("proximal", torch.float32) is None:
        pytest.skip("no C compiler works here")


def layer(shape, seed, dtype, layout=torch.contiguous_format):
    """Weight, bias and their momenta; among the neurons a zero one, one of rank one, a long and a short one."""
    generator = torch.Generator().manual_seed(seed)
    sizes = (shape, shape[:1]) * 2
    weight, bias, *momenta = (torch.randn(size, generator=generator, dtype=dtype) for size in sizes)
    weight[0], bias[0] = 0, 0
    weight[1:2] = 0.31
    weight[2:3] *= 1e3
    weight[3:4] *= 1e-3
    if weight.dim() == 4:
        weight, momenta[0] = weight.to(memory_format=layout), momenta[0].to(memory_format=layout)
    return weight, bias, momenta


def stepped(name, weight, bias, momenta, step, *, in_c):
    """What the step leaves; without ``in_c`` by PyTorch's operators."""
    tensors = [None if tensor is None else tensor.clone() for tensor in (weight, bias, *momenta)]
    with pytest.MonkeyPatch.context() as patch:
        if not in_c:
            for operator in OPERATORS:
                patch.setattr(less_is_more_method, f"_{operator}_in_c", lambda *_: False)
        OPERATORS[name](tensors[0], tensors[1], step, tensors[2:])
    return tensors


def assert_equal(found, expected, scale):
    """Each neuron to the rounding of its own length before the step."""
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            bound = scale.view(-1, *[1] * (one.dim() - 1)) * 40 * torch.finfo(one.dtype).eps
            assert ((one - other).abs() <= bound).all()
            zero = [(tensor == 0).reshape(len(scale), -1).all(1) for tensor in (one, other)]
            assert torch.equal(*zero)


@given(shapes, seeds, steps, layouts, st.sampled_from([torch.float32, torch.float64]), st.sampled_from(list(OPERATORS)))
@settings(max_examples=120, deadline=None)
def test_a_step_in_c_is_that_of_pytorchs_operators(shape, seed, step, layout, dtype, name):
    weight, bias, momenta = layer(shape, seed, dtype, layout)
    scale = weight.flatten(1).norm(dim=1) + bias.abs() + 1
    for given_bias, given_momenta in ((bias, momenta), (None, (momenta[0], None)), (bias, (None, None))):
        found, expected = (stepped(name, weight, given_bias, given_momenta, step, in_c=in_c) for in_c in (True, False))
        assert_equal(found, expected, scale)


@pytest.mark.parametrize("name", OPERATORS)
def test_it_runs_in_c_and_keeps_the_tensors_memory(name, monkeypatch):
    monkeypatch.setattr(torch.linalg, "vector_norm", None)
    monkeypatch.setattr(torch.linalg, "eigh", None)
    weight, bias, momenta = layer((17, 4, 5, 5), 0, torch.float32)
    places = [tensor.data_ptr() for tensor in (weight, bias)]
    OPERATORS[name](weight, bias, 0.1, momenta)
    assert places == [tensor.data_ptr() for tensor in (weight, bias)]
    assert (momenta[0][0] == 0).all()
    assert (momenta[0][2] != 0).all()


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize(
    "change",
    [
        lambda weight: weight.bfloat16(),
        lambda weight: weight[:, ::2],
        lambda weight: weight.expand(3, *weight.shape)[0].movedim(0, 1),
    ],
    ids=["bf16", "every second input", "neurons not in a row"],
)
def test_what_it_does_not_take_is_left_to_pytorch(name, change):
    weight = change(torch.randn(6, 6, 3, 3))
    found = weight.clone(memory_format=torch.preserve_format)
    in_c = getattr(less_is_more_method, f"_{name}_in_c")
    assert in_c(weight, None, 0.2, (None, None)) is False or weight.is_contiguous()
    OPERATORS[name](found, None, 0.2)
    expected = weight.float().contiguous()
    OPERATORS[name](expected, None, 0.2)
    torch.testing.assert_close(found.float(), expected, rtol=1e-2, atol=1e-2)


def test_filters_near_one_another_and_far_apart_in_size():
    """Equal singular values, and some of 1e-8 of the largest: their directions are anybody's, the result is not."""
    weight = torch.zeros(20, 6, 3, 2, dtype=torch.float64)
    weight[:, range(6), [0, 0, 1, 1, 2, 2], [0, 1, 0, 1, 0, 1]] = 1.0  # an identity along the channels
    weight[10:] *= torch.logspace(0, -8, 6, dtype=torch.float64)[:, None, None]
    for step in (1e-9, 0.3, 0.999, 1.001):
        found, expected = (
            stepped("low_rank", weight, None, (None, None), step, in_c=in_c)[0] for in_c in (True, False)
        )
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)
        single = stepped("low_rank", weight.float(), None, (None, None), step, in_c=True)[0]
        torch.testing.assert_close(single.double(), expected, rtol=0, atol=1e-6)
