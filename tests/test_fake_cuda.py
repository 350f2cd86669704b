"""What a GPU would refuse or wait for, found without one: every network, method and recipe on fake CUDA tensors.

A tensor left on the CPU, a wait of the host within a step and a shape that depends on numbers fail here. What remains
for a real GPU: the backward pass, which fake tensors of CUDA have not, and every number.
"""

import json
import os
from collections import Counter
from importlib import import_module

import fake_cuda as fake
import pytest
import torch
from fake_cuda import CUDA, CudaGenerator, fake_cuda
from made_up import record
from stepping import advance
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes as disable_modes

from thriftylib import narrowing, papers
from thriftylib.datasets.load import Dataset, Split, load
from thriftylib.experiments import EXPERIMENTS, PRESETS
from thriftylib.method import Parent
from thriftylib.options import NetworkOptions
from thriftylib.papers import ucp_method
from thriftylib.spec import Augment, Data, Run
from thriftylib.training import evaluation, fast_path, trainer
from thriftylib.training.augment import augment, mix
from thriftylib.training.device import sent
from thriftylib.training.evaluation import as_input
from thriftylib.training.finishing import keep
from thriftylib.training.hooks import as_numbers
from thriftylib.training.trainer import Trainer, build

if "THRIFTY_FAKE_CUDA" not in os.environ:
    pytest.skip("torch's fake tensors crash its process now and then: make fakecuda", allow_module_level=True)

BATCH, IMAGES, STEPS = 4, 6, 2  # the last batch is short
EPOCH = {"Trainer.step": 1, "evaluate": 1}
"""The waits of an epoch: for its own sums, and for those of the test images. A method's ``epoch_ends`` may add one."""
AT_EACH_STEP = {"_soft_threshold": 10**6, "apply": 10**6, "apply_released": 10**6}
"""The known exceptions: PyTorch's ``eigh`` waits to learn whether it converged, and AutoAugment takes torchvision's
operations, which make small tables on the CPU, or PIL's, which compute there."""


for paper in papers.names():
    import_module(f"thriftylib.papers.{paper}")
OURS = {name for name, kind in NetworkOptions.known.items() if kind.__module__.startswith("thriftylib.papers")}


def by_configuration():
    """Runs of all experiments, those of the smallest preset first; of those that only measure, the ones on digits."""
    found = {}
    for preset in sorted(PRESETS, key=("smoke", "fast", "paper", "recorded").index):
        for shown in EXPERIMENTS.values():
            for configuration in shown.configurations(preset):
                if configuration.run.recipe or configuration.run.data.name == "digits":
                    found.setdefault(configuration.run.configuration, configuration.run)
    for name in sorted(OURS - {run.network.name for run in found.values()}):  # networks of no experiment
        run = Run(network={"name": name}, data={"name": "cifar10"}, recipe=next(iter(found.values())).recipe)
        found[run.configuration] = run
    return found


def ways(run):
    """What may take another way on the device: the network, the method, and options of theirs that are no sizes."""
    found = {(run.network.name, *item) for item in run.network.options.items() if isinstance(item[1], str | bool)}
    if run.recipe and run.method:
        switches = {key: value for key, value in run.method.options.items() if not isinstance(value, str | list)}
        found |= {(run.method.name, key, bool(value)) for key, value in switches.items()}
    elif run.method:
        found = {(run.method.name, *item) for item in run.method.options.items() if isinstance(item[1], str)}
    small = run.data.name == "digits"  # a large network stands once for all of its options
    return (found if small else set()) | {run.network.name, (run.method and run.method.name, run.recipe is None)}


def needed():
    """Runs that take every way."""
    left = {run: ways(run) for run in RUNS.values()}
    while left := {run: new for run, new in left.items() if new}:
        best = max(left, key=lambda run: len(left[run]))  # of equals the first: of the smallest preset
        yield best
        taken = left[best]
        left = {run: new - taken for run, new in left.items()}


RUNS = by_configuration()
CHOSEN = list(needed())


def dataset_of(data, images=IMAGES):
    """A few images on the device, of the shape that ``data`` has."""

    def split():
        shape = images, *data.info.image_shape
        return Split(torch.empty(shape, dtype=torch.uint8, device=CUDA), torch.empty(images, dtype=int, device=CUDA))

    validation = split() if data.validation_images else None
    return Dataset(data.info, split(), split(), validation, data.scaling)


def parent_of(run):
    """What a run starts from, as its record and its weight file would have it, with weights and scores of chance."""
    if run.parent is None:
        return None
    parent = RUNS[run.parent]
    network, measured = parent.build(), {}
    if run.method.name == "ucp":
        scores = {layer.name: layer.conv.out_channels for layer in ucp_method.layers_of(network)}
        measured = {ucp_method.PREFIX + name: torch.rand(count).tolist() for name, count in scores.items()}
    return Parent(record(parent, seconds=10.0 * parent.epochs, measured=measured), network.state_dict())


def name_of(run):
    return "-".join([run.network.name, *([run.method.name] if run.method else []), run.id])


@pytest.mark.parametrize("run", [run for run in CHOSEN if run.recipe is None], ids=name_of)
def test_what_is_measured_waits_as_often_for_more_batches(run, monkeypatch):
    waits = []
    for batch in (IMAGES, BATCH):
        monkeypatch.setattr(evaluation, "BATCH", batch)
        method, network = build(run, parent_of(run))
        with fake_cuda() as watch:
            network = network.to(CUDA, memory_format=torch.channels_last).eval()
            assert as_numbers("measure", method.measure(network, dataset_of(run.data)), lists=True)
        waits.append(watch.waits)
    assert waits[0] == waits[1]


@pytest.fixture
def on_cuda(monkeypatch):
    """A function that makes a run's training on the device, in bf16, before its first step."""

    def make(run):
        run = run.model_copy(update={"recipe": run.recipe.model_copy(update={"batch_size": BATCH})})
        with disable_modes():  # built for real, on the CPU, as ever
            built = build(run, parent_of(run))
        monkeypatch.setattr(trainer, "build", lambda *_: built)
        made = Trainer(run, dataset_of(run.data), CUDA, "bf16")
        monkeypatch.setattr(Tensor, "backward", lambda loss: go_back(loss, made.network))
        return made

    return make


def go_back(loss, network):
    """In place of a backward pass: a gradient for each parameter, as it would be."""
    assert (loss.shape, loss.device, loss.dtype, loss.requires_grad) == ((), CUDA, torch.float32, True)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)


def check_layout(training):
    """What a step holds is on the device, channels last and in fp32."""
    network, state = training.network, training.optimizer.state
    for x in (*network.parameters(), *network.buffers()):
        assert x.device == CUDA
        assert x.dtype in (torch.float32, torch.int64)
    for parameter in network.parameters():
        assert parameter.dim() < 4 or parameter.is_contiguous(memory_format=torch.channels_last)
        momentum = state[parameter]["momentum_buffer"]
        assert (momentum.device, momentum.dtype, momentum.stride()) == (CUDA, torch.float32, parameter.stride())


def waits_of_an_epoch(made, watch):
    """Of the first epoch but its first step, for which constants go to the device.

    That step is in fp32: for bf16, PyTorch picks other convolutions where it finds no device, with other strides.
    """
    made.precision = "fp32"
    advance(made, 1)
    made.precision = "bf16"
    watch.waits.clear()
    advance(made, STEPS - 1)
    assert made.epoch == 1
    return watch.waits


@pytest.mark.parametrize("run", [run for run in CHOSEN if run.recipe], ids=name_of)
def test_an_epoch_waits_for_the_device_at_its_end(run, on_cuda):
    with fake_cuda() as watch:
        made = on_cuda(run)
        check_layout(made)
        hook(made.network, seen := set())
        waits = waits_of_an_epoch(made, watch)
    assert {dtype for dtype, _ in seen} == {torch.float32, torch.bfloat16}
    assert all(is_channels_last for dtype, is_channels_last in seen if dtype == torch.float32)
    assert watch.norms <= {torch.float32}
    own = {name for name in waits if name.endswith(".epoch_ends")}
    epoch = Counter(EPOCH) + Counter(evaluate=bool(run.data.validation_images))
    assert waits - Counter(own) - Counter(AT_EACH_STEP) == epoch


ONE_EACH = {run.method and run.method.name: run for run in reversed(CHOSEN) if run.recipe}


@pytest.mark.parametrize("run", ONE_EACH.values(), ids=name_of)
def test_what_a_checkpoint_and_a_record_keep_comes_from_the_device_and_back(run, on_cuda, monkeypatch):
    indices = narrowing._indices

    def all_of_them(module, axis, keep, width):  # a mask on the device has no numbers
        with disable_modes():
            return indices(module, axis, range(width) if keep.is_cuda else keep, width)

    monkeypatch.setattr(narrowing, "_indices", all_of_them)
    with fake_cuda():
        made = on_cuda(run)
        for epoch in range(run.epochs):  # one may narrow the network, with the optimiser
            made.method.epoch_starts(made.network, made.optimizer, epoch)
        check_layout(made)
        tensors, values = made.state()
        saved = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        again = on_cuda(run)
        again.restore(saved, json.loads(json.dumps(values)))
        check_layout(again)
        assert again.state()[0].keys() == tensors.keys()
        kept = again.method.finish(again.network.eval(), again.dataset)
        assert keep(again.run, kept, again.dataset, CUDA, "bf16").parameters
        as_numbers("measure", again.method.measure(kept.eval(), again.dataset), lists=True)


def hook(network, seen):
    """Note what each layer gives while training: its type, and whether it is channels last."""

    def note(module, inputs, output):
        if module.training:
            seen.add((output.dtype, output.dim() < 4 or output.is_contiguous(memory_format=torch.channels_last)))

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(note)


AUGMENTS = {run.recipe.augment for run in RUNS.values() if run.recipe} | {
    Augment(crop=1, crop_padding="reflect"),
    Augment(flip=True),
    Augment(cutout=3),
    Augment(cutout=3, cutout_defect=True),
    Augment(mixup=0.5),
    Augment(cutmix=0.5),
    Augment(autoaugment=True),
    Augment(autoaugment=True, autoaugment_released=True),
}


@pytest.mark.parametrize("spec", sorted(AUGMENTS, key=str), ids=str)
def test_augmentation_stays_on_the_device(spec):
    images, labels = torch.empty(8, 3, 32, 32, dtype=torch.uint8, device="meta"), torch.empty(8, dtype=int)
    with fake_cuda() as watch:
        images, labels = torch.empty_like(images, device=CUDA), labels.to(CUDA)
        fill, generator = torch.zeros(3, dtype=torch.uint8, device=CUDA), CudaGenerator().manual_seed(0)
        watch.waits.clear()
        changed = augment(images, spec, generator, fill)
        assert (changed.shape, changed.dtype, changed.device) == (images.shape, torch.uint8, CUDA)
        mixed, partners, lam = mix(changed.to(torch.bfloat16), labels, spec, generator)
        assert (mixed.shape, mixed.dtype, mixed.device) == (images.shape, torch.bfloat16, CUDA)
        assert (partners.device, lam.device, lam.shape) == (CUDA, CUDA, ())
    assert watch.waits.keys() <= (AT_EACH_STEP.keys() if spec.autoaugment else set())


def test_data_sets_go_to_the_device():
    pixels = {"histogram": "equalised", "bits": 4, "shuffled": True}
    for scaling in ("normalised", "1/256", "minus mean image"):
        with fake_cuda() as watch:
            data = Data(name="digits", validation_images=50, label_noise=0.2, scaling=scaling, pixels=pixels)
            with disable_modes():
                real = load(data)
            splits = [Split(x.images.to(CUDA), x.labels.to(CUDA)) for x in (real.train, real.test, real.validation)]
            dataset = Dataset(real.info, *splits, data.scaling)
            x = as_input(splits[0].images.index_select(0, torch.arange(4, device=CUDA)), dataset, "bf16")
            assert (x.device, x.dtype) == (CUDA, torch.bfloat16)
            watch.waits.clear()
            as_input(splits[1].images, dataset, "bf16")
        assert not watch.waits, scaling


FAULTS = {
    "a tensor left on the CPU": lambda x: x + torch.ones(3),
    "a generator of the CPU": lambda x: torch.rand(3, generator=torch.Generator(), device=x.device),
    "a mask as an index": lambda x: x[x > 0],
    "its non-zero elements": lambda x: x.nonzero(),
}
WAITS = {
    "item": lambda x: x[0].item(),
    "bool": lambda x: bool(x.sum() > 0),
    "tolist": lambda x: x.tolist(),
    "to the CPU": lambda x: x.cpu(),
    "from the CPU": lambda x: torch.tensor([1.0], device=x.device),
    "a copy that says that it does not wait, and does": lambda x: torch.ones(3).to(x.device, non_blocking=True),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_what_the_device_refuses_is_refused(fault):
    with fake_cuda(), pytest.raises((AssertionError, RuntimeError)):
        fault(torch.empty(3, device=CUDA))


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_a_wait_is_counted(wait, monkeypatch):
    monkeypatch.setattr(fake, "OURS", __file__)
    with fake_cuda() as watch:
        x = torch.empty(3, device=CUDA)
        wait(x)
    assert watch.waits.total() == 1


def test_what_is_pinned_is_sent_without_a_wait():
    with fake_cuda() as watch:
        assert sent(torch.ones(3), CUDA).device == CUDA
    assert not watch.waits


@pytest.mark.parametrize("name", sorted(name for name in OURS if NetworkOptions.known[name].fast))
def test_fast_paths_stand_aside_elsewhere_than_on_a_cpu(name):
    """The device "meta" stands for any: no mode is active, which alone would turn them off."""
    shape, fast = (3, 32, 32), NetworkOptions.known[name].fast
    network, images = NetworkOptions.known[name]().resolve(shape, 10).build(shape, 10), torch.empty(2, *shape)
    fast_path.accelerate(network, fast)
    network.to("meta")
    assert fast_path.describe(network) is None
    assert network(images.to("meta")).device.type == "meta"
    plain = fast_path.restore(network)
    assert fast_path.describe(fast_path.accelerate(plain, fast)) is None


def test_proximal_steps_in_c_are_left_for_a_cpu():
    weight, bias = torch.ones(4, 3, 3, 3, device="meta"), torch.ones(4, device="meta")
    for name in ("group_sparsity", "low_rank"):
        assert not fast_path.function("proximal", name)(weight, bias, 0.1, (None, None))
