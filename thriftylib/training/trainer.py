"""One training as a state that moves by steps: what the engine drives, stops and resumes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thriftylib.datasets.load import Dataset, Split
from thriftylib.errors import CheckpointError, SpecError
from thriftylib.method import Method, Parent
from thriftylib.narrowing import different_shapes, fit
from thriftylib.options import MethodOptions, NetworkOptions, find
from thriftylib.schedules import learning_rate, steps_per_epoch
from thriftylib.spec import Recipe, Run
from thriftylib.training import fast_path
from thriftylib.training.augment import augment, mix
from thriftylib.training.counting import check_cost
from thriftylib.training.device import Precision, autocast, sent
from thriftylib.training.evaluation import as_input, evaluate, right
from thriftylib.training.execution import Execution, Executor
from thriftylib.training.hooks import as_network, as_numbers
from thriftylib.training.progress import Progress
from thriftylib.training.streams import seed_layers, stream, stream_seed

_COUNTERS = ("epoch", "batch", "train_seconds", "other_seconds", "diverged")


def build(run: Run, parent: Parent | None) -> tuple[Method, nn.Module]:
    """A run's method, and its network as the method prepares it: on the CPU, where a seed gives the same first weights.

    Raises:
        SpecError: the network costs something else than its closed form says.
    """
    method = find(MethodOptions, run.method.name).model_validate(run.method.options).start() if run.method else Method()
    torch.manual_seed(stream_seed(run.seed, "weights"))
    network = run.build()
    check_cost(run, network)
    return method, as_network("prepare", method.prepare(network, parent))


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """SGD as the recipe says, a group for each pair of weight decay and ``rate``, the factor to the learning rate."""
    kernels = {m.weight for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    biases = {m.bias for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in network.parameters():
        is_decayed = recipe.weight_decay_on == "all" or parameter in kernels
        groups.setdefault((not is_decayed, recipe.bias_rate != 1 and parameter in biases), []).append(parameter)
    return torch.optim.SGD(
        [
            {
                "params": parameters,
                "weight_decay": 0.0 if undecayed else recipe.weight_decay,
                "rate": recipe.bias_rate if is_bias else 1.0,
            }
            for (undecayed, is_bias), parameters in sorted(groups.items(), key=lambda item: item[0])
        ],
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
    )


class Trainer:
    """One training as a state that moves by steps; everything that a checkpoint must hold is in :meth:`state`."""

    def __init__(
        self,
        run: Run,
        dataset: Dataset,
        device: torch.device,
        precision: Precision,
        parent: Parent | None = None,
        execution: Execution = "eager",
    ) -> None:
        self.run, self.recipe, self.dataset, self.device, self.precision = run, run.recipe, dataset, device, precision
        self.asked_execution = execution
        self.generator = stream(device, run.seed, "augment")
        self.sums = torch.zeros(2, dtype=torch.float64, device=device)  # of loss and of correct answers
        self.method, network = build(run, parent)
        self._adopt(network)
        self.steps = steps_per_epoch(len(dataset.train), self.recipe.batch_size)
        self.fill = torch.tensor([round(255 * mean) for mean in dataset.info.mean], dtype=torch.uint8, device=device)
        self.epoch, self.batch = 0, 0
        self.series: dict[str, list[float]] = {}
        self.train_seconds, self.other_seconds = 0.0, 0.0
        self.diverged = False
        self._start_epoch()

    def _adopt(self, network: nn.Module) -> None:
        """Take a network into training: device, memory format, fast paths, optimiser, execution."""
        self.network = network.to(self.device, memory_format=torch.channels_last)
        asked = find(NetworkOptions, self.run.network.name).fast
        fast_path.accelerate(self.network, asked, self.precision)
        self.optimizer = make_optimizer(self.network, self.recipe)
        self._start_momentum()
        self.executor = Executor(self, self.asked_execution)

    def _start_momentum(self) -> None:
        """Zeros, which change no value, where there is no momentum yet.

        Left to SGD, a buffer would take its gradient's strides, but its parameter's after a checkpoint: with other
        strides come other instructions, and so perhaps other last bits.
        """
        for group in self.optimizer.param_groups:
            for parameter in group["params"] if group["momentum"] else ():
                self.optimizer.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))

    def _start_epoch(self) -> None:
        self.sums.zero_()
        shuffle = stream("cpu", self.run.seed, "order", self.epoch)
        self.order = sent(torch.randperm(len(self.dataset.train), generator=shuffle), self.device)

    @property
    def position(self) -> int:
        """Steps done since the first epoch's first."""
        return self.epoch * self.steps + self.batch

    @property
    def seconds(self) -> float:
        """Training and evaluation so far."""
        return self.train_seconds + self.other_seconds

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or the loss is not finite."""
        return self.diverged or self.epoch == self.recipe.epochs

    @property
    def images_per_second(self) -> float:
        """Training images per second of training time, evaluation left out."""
        images = self.epoch * len(self.dataset.train) + self.batch * self.recipe.batch_size
        return images / max(self.train_seconds, 1e-9)

    def step(self, progress: Progress) -> None:
        """One optimiser step, and the epoch's evaluation after its last."""
        started = time.monotonic()
        if self.batch == 0:
            self.method.epoch_starts(self.network, self.optimizer, self.epoch)
            self._start_momentum()
        monitored = self.series.get(getattr(self.recipe.schedule, "monitor", ""), [])
        lr = learning_rate(self.recipe, self.epoch, self.batch, self.steps, monitored)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("rate", 1.0)
        index = self.order[self.batch * self.recipe.batch_size :][: self.recipe.batch_size]
        with fast_path.sharing(self.network):
            self.executor.step(index, progress.say)
        self.method.after_step(self.network, self.optimizer, lr)
        self.batch += 1
        progress.step(self.position)
        if last := self.batch == self.steps:
            loss, correct = self.sums.tolist()  # synchronises with a GPU
        self.train_seconds += time.monotonic() - started
        if last:
            seen = min(self.batch * self.recipe.batch_size, len(self.order))
            numbers = {"train_loss": loss / seen, "train_accuracy": 100 * correct / seen, "learning_rate": lr}
            self._end_epoch(numbers, progress)

    def train_step(self, index: Tensor, network: Callable[[Tensor], Tensor]) -> None:
        """One optimiser step on these training images, through ``network``: the one that is trained, or as compiled."""
        self.seed(self.epoch, self.batch)
        self.find_gradients(index, network)
        self.optimizer.step()

    def seed(self, *names: str | int) -> None:
        """Start the random numbers of a step at this run's stream of that name: resuming needs no state of them."""
        self.generator.manual_seed(stream_seed(self.run.seed, "augment", *names))
        seed_layers(self.device, self.run.seed, "network", *names)

    def find_gradients(self, index: Tensor, network: Callable[[Tensor], Tensor]) -> None:
        """Gradients of these training images in place of the last ones, and the sums of the epoch."""
        loss, correct = self._loss(index, network)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.sums += torch.stack((loss.detach().double() * len(index), correct))

    def _loss(self, index: Tensor, network: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """The mean loss of these training images and how many answers are right."""
        labels = self.dataset.train.labels[index]
        pixels = self.dataset.train.images.index_select(0, index)  # copies whole images, where [index] goes by pixels
        pixels = augment(pixels, self.recipe.augment, self.generator, self.fill)
        images = as_input(pixels, self.dataset, self.precision)
        images, partners, lam = mix(images, labels, self.recipe.augment, self.generator)
        self.network.train()
        with autocast(self.device, self.precision):
            logits = network(images)
        logits = logits.float()

        def of(targets: Tensor) -> tuple[Tensor, Tensor]:
            loss = F.cross_entropy(logits, targets, label_smoothing=self.recipe.label_smoothing)
            return loss, right(logits.detach(), targets).sum().double()

        loss, correct = of(labels)
        if self.recipe.augment.mixup or self.recipe.augment.cutmix:
            other_loss, other_correct = of(partners)
            loss, correct = lam * loss + (1 - lam) * other_loss, lam * correct + (1 - lam) * other_correct
        return loss, correct

    def _sample(self, number: int) -> Tensor:
        buffers = [buffer.clone() for buffer in self.network.buffers()]
        names = ("sample", self.epoch, number)
        generator = stream("cpu", self.run.seed, *names)
        drawn = torch.randint(len(self.order), (self.recipe.batch_size,), generator=generator)
        self.seed(*names)
        loss, _ = self._loss(sent(drawn, self.device), self.network)
        for buffer, before in zip(self.network.buffers(), buffers, strict=True):
            buffer.data.copy_(before)  # unseen by autograd, whose backward pass needs no running statistics
        return loss

    def _end_epoch(self, numbers: dict[str, float], progress: Progress) -> None:
        started = time.monotonic()
        if self.dataset.validation is not None:
            numbers["validation_loss"], numbers["validation_accuracy"] = self.evaluate(self.dataset.validation)
        numbers["test_loss"], numbers["test_accuracy"] = self.evaluate(self.dataset.test)
        own = as_numbers("epoch_ends", self.method.epoch_ends(self.network, self.optimizer, self.epoch, self._sample))
        self.other_seconds += time.monotonic() - started
        numbers["seconds"] = self.seconds - sum(self.series.get("seconds", []))
        if taken := sorted(own.keys() & numbers.keys()):
            raise SpecError(f"epoch_ends: {taken[0]!r} is a series of the engine's own: give yours another name")
        if self.epoch and (odd := own.keys() ^ (self.series.keys() - numbers.keys())):
            raise SpecError(f"epoch_ends: {min(odd)!r} is not there in every epoch: each series needs a value in each")
        for name, value in (numbers | own).items():
            self.series.setdefault(name, []).append(value)
        self.diverged = not math.isfinite(numbers["train_loss"])
        self.epoch, self.batch = self.epoch + 1, 0
        progress.epoch(self.position, numbers, self.images_per_second)
        if not self.finished:
            self._start_epoch()

    def evaluate(self, split: Split) -> tuple[float, float]:
        """Mean cross-entropy and accuracy in percent."""
        return evaluate(self.network, split, self.dataset, self.device, self.precision)

    def state(self) -> tuple[dict[str, Tensor], dict[str, object]]:
        """What a checkpoint holds: weights, momentum and running sums; counters, series and the method's own values.

        Raises:
            SpecError: the method gave the optimiser a parameter that is not the network's.
        """
        tensors = {f"network/{name}": tensor for name, tensor in self.network.state_dict().items()}
        names = {parameter: name for name, parameter in self.network.named_parameters()}
        for parameter, name in names.items():
            momentum = self.optimizer.state.get(parameter, {}).get("momentum_buffer")
            if momentum is not None:
                tensors[f"momentum/{name}"] = momentum
        groups = self.optimizer.param_groups
        if any(parameter not in names for group in groups for parameter in group["params"]):
            raise SpecError("the optimiser has a parameter that is not the network's: register it in the network")
        method_tensors, method_values = self.method.state()
        tensors |= {f"method/{name}": tensor for name, tensor in method_tensors.items()} | {"sums": self.sums}
        values = {name: getattr(self, name) for name in _COUNTERS}
        values |= {"series": self.series, "method": method_values, "precision": self.precision}
        # A method may change how parameters are trained: freeze some, take decay from them, add a group.
        values["groups"] = [
            {**group, "params": [names[parameter] for parameter in group["params"]]} for group in groups
        ]
        values["frozen"] = [name for parameter, name in names.items() if not parameter.requires_grad]
        return tensors, values

    def restore(self, tensors: dict[str, Tensor], values: dict) -> None:
        """Undo :meth:`state`.

        Raises:
            CheckpointError: it was begun in another precision, or its layers are others.
        """
        if values["precision"] != self.precision:
            raise CheckpointError(
                f"run {self.run.id}: was begun in {values['precision']}, this call uses {self.precision}; a run has "
                f"one precision: go on with --precision {values['precision']}, or set its checkpoint aside by --anew"
            )

        def under(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}

        weights = under("network/")
        network = self.method.restore(self.network, under("method/"), values["method"])
        if (shapes := different_shapes(network, weights)) is None:
            raise CheckpointError(f"run {self.run.id}: its checkpoint has other layers than its network")
        fit(network, shapes)
        self._adopt(network)
        self.network.load_state_dict(weights)
        parameters = dict(self.network.named_parameters())
        self.optimizer.param_groups.clear()
        for group in values["groups"]:
            self.optimizer.add_param_group({**group, "params": [parameters[name] for name in group["params"]]})
        self._start_momentum()
        for name, momentum in under("momentum/").items():
            self.optimizer.state[parameters[name]]["momentum_buffer"].copy_(momentum)
        for name in values["frozen"]:
            parameters[name].requires_grad_(False)
        for name in _COUNTERS:
            setattr(self, name, values[name])
        self.series = values["series"]
        self._start_epoch()
        self.sums.copy_(tensors["sums"])
