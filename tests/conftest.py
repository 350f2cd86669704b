"""What several test files share."""

import pytest
import torch
from torch import nn

from thriftylib.cost import Cost, batch_norm, conv, linear
from thriftylib.options import NetworkOptions
from thriftylib.spec import Run

torch.set_num_threads(1)  # the last digits depend on it


class ToyOptions(NetworkOptions, network="toy"):
    """One convolution, batch norm and a linear layer: the smallest network that has all that the engine must keep."""

    width: int = 4

    def cost(self, image_shape, classes):
        channels, height, width = image_shape
        size = [(height, width)]
        layers = conv("conv", channels, self.width, 3, size), batch_norm("norm", self.width, size)
        return Cost((*layers, linear("head", self.width, classes)))

    def build(self, image_shape, classes):
        return nn.Sequential(
            nn.Conv2d(image_shape[0], self.width, 3, padding=1, bias=False),
            nn.BatchNorm2d(self.width),
            nn.Tanh(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(self.width, classes),
        )


@pytest.fixture
def make_run():
    """A function that makes small runs on the embedded digits; keywords replace parts of the recipe or of the run."""

    def make(network="toy", options=None, *, seed=0, data=None, method=None, **recipe):
        values = {
            "name": "test",
            "epochs": 2,
            "batch_size": 128,
            "learning_rate": 0.1,
            "weight_decay": 5e-4,
            "schedule": {"kind": "one-cycle"},
            "augment": {"crop": 1, "flip": True},
            **recipe,
        }
        return Run(
            network={"name": network, "options": options or {}},
            data={"name": "digits", "train_images": 400, "test_images": 100, **(data or {})},
            recipe=values,
            seed=seed,
            method=method,
        )

    return make
