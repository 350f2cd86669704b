"""The ordinary networks: the counts of the authors' baselines, and their structure."""

import pytest
import torch
from torch import nn

from thriftylib.errors import SpecError
from thriftylib.papers.networks import TinyDenseNetOptions, TinyResNetOptions
from thriftylib.papers.networks_parts import PadShortcut

CIFAR = (3, 32, 32)


def convolutions(network):
    return [module for module in network.modules() if isinstance(module, nn.Conv2d)]


@pytest.mark.parametrize(("options", "count"), [(TinyResNetOptions(), 68_050), (TinyDenseNetOptions(), 331_925)])
def test_counts_of_the_authors_baselines(options, count):
    network = options.build(CIFAR, 10)
    assert sum(parameter.numel() for parameter in network.parameters()) == count
    assert options.cost(CIFAR, 10).parameters == count


def test_tiny_resnet_is_resnet_20_with_8_16_32_channels():
    network = TinyResNetOptions().build(CIFAR, 10)
    assert [conv.out_channels for conv in convolutions(network)] == [8] * 7 + [16] * 6 + [32] * 6  # + 1 linear layer
    assert [conv.stride for conv in convolutions(network)].count((2, 2)) == 2
    assert {conv.kernel_size for conv in convolutions(network)} == {(3, 3)}  # the shortcuts have no weights
    assert len(convolutions(TinyResNetOptions(blocks=9).build(CIFAR, 10))) + 1 == 56


def test_pad_shortcut_keeps_every_second_pixel_and_surrounds_the_channels_with_zeros():
    x = torch.randn(2, 8, 7, 6)
    y = PadShortcut(4)(x)
    assert y.shape == (2, 16, 4, 3)
    assert torch.equal(y[:, 4:12], x[:, :, ::2, ::2])
    assert not y[:, :4].any()
    assert not y[:, 12:].any()


def test_tiny_densenet_is_densenet_bc_without_pooling_in_its_stem():
    network = TinyDenseNetOptions().build(CIFAR, 10)
    kernels = [conv.kernel_size[0] for conv in convolutions(network)]
    assert kernels == [3] + [1, 3] * 3 + [1] + [1, 3] * 6 + [1] + [1, 3] * 12 + [1] + [1, 3] * 8
    assert network.features(torch.randn(1, *CIFAR)).shape == (1, 193, 4, 4)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 96, 96)], ids=str)
@pytest.mark.parametrize("options", [TinyResNetOptions(), TinyDenseNetOptions()], ids=lambda options: options.network)
def test_other_image_shapes(options, shape):
    assert options.build(shape, 7)(torch.randn(2, *shape)).shape == (2, 7)


def test_impossible_options_are_named():
    with pytest.raises(SpecError, match="TinyResNetOptions.width = 7: should be a multiple of 2"):
        TinyResNetOptions(width=7)
    with pytest.raises(SpecError, match="TinyResNetOptions.blocks = 0: should be greater than or equal to 1"):
        TinyResNetOptions(blocks=0)
    with pytest.raises(SpecError, match=r"layers = \(3, 6, 12, 8\): needs images of at least 8x8, not 7x9"):
        TinyDenseNetOptions().build((3, 7, 9), 10)
