"""Ways to train one network: PyTorch's usual loop, and our engine with one part after another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from thriftylib.datasets.load import Dataset, Split
from thriftylib.errors import ThriftyError
from thriftylib.papers.expandnets_expansion import Expanded
from thriftylib.spec import Augment, Recipe, Run
from thriftylib.training import fast_path
from thriftylib.training.device import Precision
from thriftylib.training.execution import Execution
from thriftylib.training.progress import Progress
from thriftylib.training.trainer import Trainer


@dataclass(frozen=True)
class Way:
    """One way to train; ``parts`` are those of our engine that it uses.

    ``product`` trains nothing: it is a matrix product of as many multiply-adds as a training step has, the most that
    this machine could reach.
    """

    what: str
    parts: tuple[Literal["authors", "engine", "merged", "kernels", "product"], ...] = ()
    precision: Precision = "fp32"
    in_parallel: int = 1  # trainings at once, which share the threads, but have one each at least
    method: Mapping[str, Any] | None = None  # options of the run's method that it changes
    other: Mapping[str, Any] | None = None  # another network in the place of the run's
    device: str = "cpu"
    execution: Execution = "eager"

    def trainer(self, run: Run) -> Trainer:
        """Our engine before its first step, with the parts that it uses."""
        if self.method is not None:
            method = {"name": run.method.name, "options": {**run.method.options, **self.method}}
            run = Run.model_validate({**run.model_dump(), "method": method})
        if self.other is not None:
            run = Run.model_validate({**run.model_dump(), "network": self.other})
        split = Split(*(tensor.to(self.device) for tensor in random_images(run)))
        dataset = Dataset(run.data.info, split, split, None)
        training = Trainer(run, dataset, torch.device(self.device), self.precision, execution=self.execution)
        if "kernels" not in self.parts:
            fast_path.restore(training.network)
        for module in training.network.modules() if "merged" not in self.parts else ():
            if isinstance(module, Expanded):
                module.forward = module.chain.forward
        return training

    def network(self, run: Run) -> nn.Module:
        """What it trains, with the same first weights in each way."""
        network = self.trainer(run).network
        if "authors" in self.parts:
            state, options = network.state_dict(), run.options
            network = AuthorsFormulation(options.filters, options.iterations, options.history, options.pool)
            network.to(self.device).load_state_dict(state)
        return network if "engine" in self.parts else network.to(memory_format=torch.contiguous_format)

    def steps(self, run: Run) -> Iterator[None]:
        """A training step for each ``next``.

        Raises:
            ThriftyError: steps cannot be executed as ``execution`` says.
        """
        if "product" in self.parts:
            yield from _products(run, self.precision)
        if "engine" not in self.parts:
            yield from _usual_loop(run, self.network(run).train(), self.device)
        training = self.trainer(run)
        progress = Progress(run, training.steps, 0, shown=False)
        while True:
            training.step(progress)
            if training.executor.why:
                raise ThriftyError(f"{self.execution}: {training.executor.why}")
            yield


def bench_run(
    network: dict, steps: int, batch_size: int, method: dict | None = None, data: str = "cifar10", **changes: Any
) -> Run:
    """A run on random images of a data set's shape; ``steps`` are more than the bench needs: an epoch must not end."""
    schedule, augment = {"kind": "constant"}, Augment(crop=4, flip=True)
    recipe = Recipe(
        name="bench", epochs=1, batch_size=batch_size, learning_rate=0.01, schedule=schedule, augment=augment
    )
    recipe = recipe.model_copy(update=changes)
    return Run(network=network, data={"name": data, "train_images": steps * batch_size}, recipe=recipe, method=method)


def random_images(run: Run) -> tuple[Tensor, Tensor]:
    """Random uint8 images (N, C, H, W) and labels (N,)."""
    generator, info = torch.Generator().manual_seed(0), run.data.info
    shape = (run.data.training_images, *info.image_shape)
    pixels = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
    return pixels, torch.randint(len(info.classes), shape[:1], generator=generator)


class _UsualImages(TorchDataset):
    """Images one by one through PIL and torchvision's transforms, as torchvision's CIFAR10 gives them."""

    def __init__(self, run: Run) -> None:
        from torchvision import transforms  # takes a second to import

        pixels, labels = random_images(run)
        info = run.data.info
        self.pixels, self.labels = pixels.permute(0, 2, 3, 1).numpy(), labels.tolist()
        crop, flip = transforms.RandomCrop(32, padding=run.recipe.augment.crop), transforms.RandomHorizontalFlip()
        convert = transforms.ToTensor(), transforms.Normalize(info.mean, info.std)
        self.transform = transforms.Compose([transforms.ToPILImage(), crop, flip, *convert])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.pixels[index]), self.labels[index]


def _usual_loop(run: Run, network: nn.Module, device: str) -> Iterator[None]:
    """PyTorch's usual loop over a ``DataLoader`` with its defaults."""
    recipe = run.recipe
    optimizer = torch.optim.SGD(
        network.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    criterion, running_loss, correct = nn.CrossEntropyLoss(), 0.0, 0
    for inputs, labels in DataLoader(_UsualImages(run), batch_size=recipe.batch_size, shuffle=True):
        inputs, labels = inputs.to(device), labels.to(device)
        optimizer.zero_grad()
        logits = network(inputs)
        loss = criterion(logits, labels)
        loss.backward()
        optimizer.step()
        running_loss += loss.item()
        correct += (logits.argmax(1) == labels).sum().item()
        yield


def _products(run: Run, precision: Precision) -> Iterator[None]:
    """Matrix products of (rows, 1024) and (1024, 1024): a forward pass counts once, and its backward pass twice."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    rows = round(3 * run.cost.macs * run.recipe.batch_size / 1024**2)
    a, b = (torch.randn(size, 1024).to(dtype) for size in (rows, 1024))
    while True:
        torch.mm(a, b)
        yield


class AuthorsFormulation(nn.Module):
    """The mb1, tanh ThriftyNet written plainly after the authors' code, by single operations: (N, 3, H, W) to (N, 10).

    Its state_dict is that of :class:`thriftylib.papers.thriftynet_recursion.ThriftyNet`.
    """

    def __init__(self, filters: int, iterations: int, history: int, pool: int, classes: int = 10) -> None:
        super().__init__()
        self.filters, self.history, self.pool = filters, history, pool
        depthwise = nn.Conv2d(filters, filters, 3, padding=1, groups=filters, bias=False)
        self.convs = nn.ModuleList([nn.Sequential(depthwise, nn.Conv2d(filters, filters, 1, bias=False))])
        self.norms = nn.ModuleList(nn.BatchNorm2d(filters) for _ in range(iterations))
        self.alpha = nn.Parameter(torch.zeros(iterations, history + 1))
        self.activation = nn.Tanh()
        self.downsample = nn.MaxPool2d(2)
        self.head = nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Linear(filters, classes))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes)."""
        padded = torch.zeros(x.shape[0], self.filters - x.shape[1], *x.shape[2:], device=x.device)
        states: list[Tensor | None] = [None] * (self.history - 1) + [torch.cat([x, padded], dim=1)]
        for t, norm in enumerate(self.norms):
            a = self.alpha[t, 0] * self.activation(self.convs[0](states[-1]))
            for i, state in enumerate(states):
                if state is not None:
                    a = a + self.alpha[t, i + 1] * state
            states = [*states[1:], norm(a)]
            if t % self.pool == self.pool - 1:
                states = [None if state is None else self.downsample(state) for state in states]
        pooled = self.head[0](states[-1])
        return self.head[1](pooled.view(pooled.shape[0], -1))
