"""VGG16-BN, ResNet-18 and ResNet-34 for 32x32 images: counts, structure, initialisation."""

import pytest
import torch
from torch import nn

from thriftylib.errors import SpecError
from thriftylib.options import NetworkOptions, find
from thriftylib.papers.networks import ResNet18Options, ResNet34Options, Vgg16BnOptions

CIFAR = (3, 32, 32)


def convolutions(network):
    return [module for module in network.modules() if isinstance(module, nn.Conv2d)]


@pytest.mark.parametrize(
    ("options", "kernels", "of_100", "of_10"),
    [
        (Vgg16BnOptions(), 14_761_764, 14_774_436, 14_728_266),
        (ResNet18Options(), 11_210_532, 11_220_132, 11_173_962),
        (ResNet34Options(), 21_311_268, 21_328_292, 21_282_122),
    ],
    ids=lambda value: getattr(value, "network", str(value)),
)
def test_counts(options, kernels, of_100, of_10):
    for classes, count in ((100, of_100), (10, of_10)):
        with torch.device("meta"):  # shapes alone
            network = options.build(CIFAR, classes)
        assert sum(parameter.numel() for parameter in network.parameters()) == count
        assert options.cost(CIFAR, classes).parameters == count
    assert options.cost(CIFAR, 100).kernel_parameters == kernels


@pytest.mark.parametrize(("name", "layers"), [("vgg16-bn", 16), ("resnet18", 18), ("resnet34", 34)])
def test_weight_layers_are_as_many_as_the_name_says(name, layers):
    with torch.device("meta"):
        network = find(NetworkOptions, name)().build(CIFAR, 10)
    weighted = [conv for conv in convolutions(network) if conv.kernel_size == (3, 3)]
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    assert len(linear) == 1
    assert len(weighted) + len(linear) == (layers if name != "vgg16-bn" else layers - 2)  # one linear layer, not three


def test_resnet_keeps_the_image_size_in_its_first_stage():
    network = ResNet18Options().build(CIFAR, 10)
    sizes = []
    for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
        stage.register_forward_hook(lambda module, inputs, output: sizes.append(tuple(output.shape[1:])))
    assert network(torch.randn(2, *CIFAR)).shape == (2, 10)
    assert sizes == [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]


def test_vgg_convolutions_have_biases_and_pools_are_the_first():
    assert all(conv.bias is not None for conv in convolutions(Vgg16BnOptions().build(CIFAR, 10)))
    features = Vgg16BnOptions(pools=2).build(CIFAR, 10)[0]
    assert features(torch.randn(1, *CIFAR)).shape == (1, 512, 8, 8)
    assert len(convolutions(features)) == 13


@pytest.mark.parametrize("options", [Vgg16BnOptions(), ResNet18Options()], ids=lambda options: options.network)
def test_initialisation_is_pytorchs_default(options):
    torch.manual_seed(0)
    for conv in convolutions(options.build(CIFAR, 10)):
        bound = conv.weight[0].numel() ** -0.5
        assert 0.9 * bound < conv.weight.abs().max() <= bound


@pytest.mark.parametrize("options", [Vgg16BnOptions(pools=3), ResNet18Options()], ids=lambda options: options.network)
def test_grey_images_of_8x8(options):
    assert options.build((1, 8, 8), 7)(torch.randn(2, 1, 8, 8)).shape == (2, 7)


def test_impossible_options_are_named():
    with pytest.raises(SpecError, match="Vgg16BnOptions.pools = 6: should be less than or equal to 5"):
        Vgg16BnOptions(pools=6)
    for method in ("resolve", "cost", "build"):
        with pytest.raises(SpecError, match="pools = 5: needs images of at least 32x32, not 8x8"):
            getattr(Vgg16BnOptions(), method)((1, 8, 8), 10)
    with pytest.raises(SpecError, match="unknown key 'blocks'"):
        ResNet18Options(blocks=(1, 1, 1, 1))
