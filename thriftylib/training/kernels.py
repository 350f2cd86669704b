"""The fast path of ThriftyNet's recursion on a CPU: the plain module's numbers, several times sooner.

The plain recursion is bound by memory, not by arithmetic: each of its small operations walks over a feature map of the
whole batch (70 MB for 100 images of 32x32 and 172 filters), and each result is fresh memory that the operating system
must first map and clear. Here one iteration is one walk: the batch is cut into groups of images that fit the cache, and
convolution, activation, weighted sum and batch norm's sums are done on one group before the next is touched. The
normalisation itself waits until the next walk reads the group. Backward walks the same way and recomputes what is cheap
(the 3x3 convolution, the pools' arg max). Whole maps live in buffers that are kept from step to step: two per iteration,
where autograd keeps four.

Each thread takes whole groups, and the groups' sums are added in their own order: the result is the same to the last bit
from run to run, and on any number of threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from threading import Barrier
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from thriftylib.papers.thriftynet import ThriftyNet

aten = torch.ops.aten
GROUP_BYTES = int(os.environ.get("GB", 1 << 20))
MINUS_ONE = torch.tensor(-1.0)


def _tanh(x: Tensor, out: Tensor) -> Tensor:
    if x.dtype == torch.float64:
        return torch.tanh(x, out=out)
    # 2 sigmoid(2x) - 1, within 2e-7 of tanh: eight times faster in PyTorch's vector code.
    torch.sigmoid(x.mul_(2), out=out)
    return torch.add(MINUS_ONE, out, alpha=2, out=out)


@dataclass(frozen=True)
class _Activation:
    forward: Callable[[Tensor, Tensor], Tensor]  # (x, out) -> out; x is scratch
    backward: Callable[[Tensor, Tensor], Tensor]  # (gradient, result) -> the gradient, in place


def _activation(module: nn.Module) -> _Activation | None:
    """The activations whose gradient follows from their result alone."""
    match module:
        case nn.Tanh():
            return _Activation(_tanh, lambda g, a: aten.tanh_backward.grad_input(g, a, grad_input=g))
        case nn.ReLU():
            return _Activation(
                lambda x, out: torch.clamp_min(x, 0, out=out),
                lambda g, a: aten.threshold_backward.grad_input(g, a, 0, grad_input=g),
            )
        case nn.LeakyReLU(negative_slope=slope):
            return _Activation(
                lambda x, out: aten.leaky_relu.out(x, slope, out=out),
                lambda g, a: aten.leaky_relu_backward.grad_input(g, a, slope, True, grad_input=g),
            )
    return None


class Buffers:
    """Whole feature maps (N, f, H, W), channels last, kept from step to step."""

    def __init__(self) -> None:
        self._free: dict[tuple[Any, ...], list[Tensor]] = {}

    def take(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A map of at least ``shape[0]`` images; what it holds is left over."""
        free = self._free.setdefault((dtype, *shape[1:]), [])
        while free:
            buffer = free.pop()
            if len(buffer) >= shape[0]:
                return buffer
        return torch.empty(tuple(shape), dtype=dtype, memory_format=torch.channels_last)

    def give(self, buffer: Tensor) -> None:
        """Hand a map back."""
        self._free[(buffer.dtype, *buffer.shape[1:])].append(buffer)


@cache
def _workers(threads: int) -> ThreadPoolExecutor:
    """Threads on which PyTorch itself uses one thread, without gradients."""
    pool, all_there = ThreadPoolExecutor(threads), Barrier(threads)

    def start(_: int) -> None:
        torch.set_num_threads(1)
        torch.set_grad_enabled(False)
        all_there.wait()

    list(pool.map(start, range(threads)))
    torch.set_num_threads(threads)  # a worker's own setting is not to become the process's
    return pool


def _each(body: Callable[[slice], Any], groups: Sequence[slice]) -> list[Any]:
    """``body`` of every group, on as many threads as PyTorch may use; the results in the groups' order.

    One thread per group beats all threads on each operation: nobody waits for a thread that another process holds up.
    """
    threads = torch.get_num_threads()
    return list((map if threads == 1 else _workers(threads).map)(body, groups))


def _rows(x: Tensor) -> Tensor:
    """(N, f, H, W), channels last, as (N H, W f): long rows are what makes broadcasting over channels fast."""
    n, f, height, width = x.shape
    return x.permute(0, 2, 3, 1).reshape(n * height, width * f)


def _flat(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).reshape(-1)


def _sum(x: Tensor) -> Tensor:
    """(N, f, H, W) to its channels' sums (f,)."""
    return _rows(x).sum(0).view(x.shape[3], x.shape[1]).sum(0)


def _pointwise_view(x: Tensor) -> Tensor:
    """Each row of pixels as an image of its own, (N H, f, 1, W): with many images PyTorch asks oneDNN, which is faster."""
    n, f, height, width = x.shape
    return x.permute(0, 2, 3, 1).reshape(n * height, 1, width, f).permute(0, 3, 1, 2)


def _as_images(x: Tensor, height: int) -> Tensor:
    rows, f, _, width = x.shape
    return x.permute(0, 2, 3, 1).reshape(rows // height, height, width, f).permute(0, 3, 1, 2)


@dataclass(eq=False)
class _State:
    """One state in one resolution: its map, and in backward the gradient with respect to it."""

    value: Tensor
    step: _Step | None = None  # the step that made it; None for x_0 and for what a pool made
    trained: bool = True  # whether anything wants its gradient
    gradient: Tensor | None = None
    parts: list[Callable[[slice, Tensor], Any]] = field(
        default_factory=list
    )  # each adds its share of a group's gradient


@dataclass(eq=False)
class _Step:
    """What iteration t leaves for its backward."""

    t: int
    states: list[_State]
    activated: Tensor
    result: _State
    mean: Tensor  # (f,), of the batch
    var: Tensor
    normalised: Tensor | None  # kept only where gamma is too small to get it back from the result
    sums: tuple[Tensor, Tensor] | None = None  # of the result's gradient, plain and times the normalised map


class _Pass:
    """One forward pass of a training batch and, once, its backward pass."""

    def __init__(self, network: ThriftyNet, activation: _Activation, buffers: Buffers, dtype: torch.dtype) -> None:
        self.network, self.activation, self.buffers, self.dtype = network, activation, buffers, dtype
        self.work = torch.float64 if dtype == torch.float64 else torch.float32  # sums and statistics are never bf16
        self.weights = [
            [(layer.weight.to(dtype), layer.groups) for layer in ([conv] if isinstance(conv, nn.Conv2d) else conv)]
            for conv in network.convs
        ]
        self.alpha = None if network.alpha is None else network.alpha.tolist()
        self.tape: list[_Step | list[tuple[_State, _State]]] = []

    # Forward

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to x_T (N, f, H', W'), channels last."""
        network = self.network
        self.size = len(images)
        first = _State(self.take(network.filters, *images.shape[2:]), trained=images.requires_grad)
        first.value.zero_()
        first.value[: self.size, : images.shape[1]] = images
        self.first, states = first, [first]
        for t in range(network.iterations):
            states = [*states, self.step(t, states)][-network.kept_states :]
            if t == network.iterations - 1:
                states = states[-1:]
            if t in network.pools:
                states = self.pool(states)
        self.last = states[-1]
        if self.last.step is not None:
            _each(lambda c: self.read(self.last, c), self.groups(self.last.value))
        return self.last.value[: self.size].to(self.work, copy=True)

    def step(self, t: int, states: list[_State]) -> _State:
        """x_{t+1}, not yet normalised."""
        newest, (own, shares) = states[-1], self.coefficients(t, len(states))
        activated, result = self.like(newest.value), self.like(newest.value)
        weights = self.weights[t % len(self.weights)]

        def walk(c: slice) -> tuple[Tensor, Tensor]:
            x = self.read(newest, c)
            for weight, groups in weights:
                x = _convolve(x, weight, groups)
            a, z = (activated[c], result[c]) if self.dtype == self.work else (torch.empty_like(x, dtype=self.work),) * 2
            a = self.activation.forward(x.to(self.work), a)
            if a is z:
                activated[c].copy_(a)
            torch.mul(a, own, out=z)
            for state, share in zip(states, shares, strict=True):
                z.add_(state.value[c], alpha=share)
            if a is z:
                result[c].copy_(z)
            return torch.batch_norm_update_stats(z, None, None, 0.0)

        groups = self.groups(result)
        means, variances = (torch.stack(s).double() for s in zip(*_each(walk, groups), strict=True))
        pixels = result.shape[2] * result.shape[3]
        counts = torch.tensor([float(c.stop - c.start) * pixels for c in groups], dtype=torch.float64)
        mean = counts @ means / counts.sum()
        var = counts @ (variances + (means - mean).square()) / counts.sum()
        norm = self.norm(t)
        norm.num_batches_tracked += 1
        norm.running_mean.lerp_(mean.to(norm.running_mean), norm.momentum)
        norm.running_var.lerp_((var * (counts.sum() / (counts.sum() - 1))).to(norm.running_var), norm.momentum)
        normalised = None
        if norm.affine:
            lost = (
                torch.finfo(self.dtype).eps * norm.bias.abs()
                > (0.01 if self.dtype == self.work else 0.1) * norm.weight.abs()
            )
            if bool(((norm.weight == 0) | lost).any()):
                normalised = self.like(result)
        state = _State(result)
        state.step = _Step(t, states, activated, state, mean.to(self.work), var.to(self.work), normalised)
        self.tape.append(state.step)
        return state

    def read(self, state: _State, c: slice) -> Tensor:
        """A group of a state; a step's result is normalised here, in place, when its first reader comes."""
        x, step = state.value[c], state.step
        if step is not None:
            norm = self.norm(step.t)
            if step.normalised is not None:
                _normalise(x, step, None, None, norm.eps, step.normalised[c])
            _normalise(x, step, norm.weight, norm.bias, norm.eps, x)
        return x

    def pool(self, states: list[_State]) -> list[_State]:
        """D_t of every state."""
        pairs = []
        for state in states:
            n, f, height, width = state.value.shape
            half = _State(self.take(f, height // 2, width // 2), trained=state.trained)
            read = self.read if state is states[-1] else lambda s, c: s.value[c]
            _each(
                lambda c, s=state, h=half, r=read: h.value[c].copy_(F.max_pool2d(r(s, c), 2)), self.groups(state.value)
            )
            pairs.append((state, half))
        self.tape.append(pairs)
        return [half for _, half in pairs]

    # Backward

    def backward(self, gradient: Tensor) -> tuple[Tensor | None, dict[nn.Parameter, Tensor]]:
        """The gradients of the images and of every parameter, from that of x_T."""
        self.gradients = {p: torch.zeros_like(p, dtype=self.work) for p in _parameters(self.network)}
        self.last.gradient = self.like(self.last.value)
        self.last.parts.append(lambda c, g: g.add_(gradient[c]))
        self.gather(self.last)
        given = [self.first.value]
        for entry in reversed(self.tape):
            if isinstance(entry, _Step):
                if entry.result.gradient is None:
                    self.gather(entry.result)
                self.step_backward(entry)
                given += [entry.result.gradient]
                self.buffers.give(entry.activated)
                self.buffers.give(entry.result.value)
                if entry.normalised is not None:
                    self.buffers.give(entry.normalised)
                continue
            for state, half in entry:
                if not half.trained:
                    continue
                if half.gradient is None:
                    self.gather(half)
                state.parts.append(_unpool(state, half))
                given += [half.value, half.gradient]
        images = None
        if self.first.trained:
            images = self.first.gradient[: self.size].to(self.work, copy=True)
        for buffer in given:
            self.buffers.give(buffer)
        return images, self.gradients

    def gather(self, state: _State) -> None:
        """The gradient of a state that no convolution reads."""
        state.gradient = self.like(state.value)

        def walk(c: slice) -> tuple[Tensor, Tensor] | None:
            return self.complete(state, c, torch.zeros_like(state.value[c], dtype=self.work))

        self.add_sums(state, _each(walk, self.groups(state.value)))

    def complete(self, state: _State, c: slice, gradient: Tensor) -> tuple[Tensor, Tensor] | None:
        """Adds the other parts to a group's gradient, keeps it, and returns its sums for batch norm."""
        for part in state.parts:
            part(c, gradient)
        state.gradient[c].copy_(gradient)
        if state.step is None:
            return None
        x = state.value[c] if state.step.normalised is None else state.step.normalised[c]
        return _sum(gradient), _sum(gradient * x)

    def add_sums(self, state: _State, sums: list[tuple[Tensor, Tensor] | None]) -> None:
        if state.step is not None:
            plain, product = (torch.stack(s).double().sum(0) for s in zip(*sums, strict=True))
            norm = self.norm(state.step.t)
            if norm.affine:
                if state.step.normalised is None:  # the product was with gamma * normalised + beta
                    product = (product - norm.bias * plain) / norm.weight
                self.gradients[norm.weight] += product
                self.gradients[norm.bias] += plain
            state.step.sums = plain, product

    def step_backward(self, step: _Step) -> None:
        """From the gradient of x_{t+1} to the parameters' and, added to by its other readers, that of x_t."""
        newest, result, norm = step.states[-1], step.result, self.norm(step.t)
        own, shares = self.coefficients(step.t, len(step.states))
        weights = self.weights[step.t % len(self.weights)]
        size = self.size * result.value.shape[2] * result.value.shape[3]
        plain, product = step.sums
        gamma, beta = (norm.weight, norm.bias) if norm.affine else (torch.ones_like(plain), torch.zeros_like(plain))
        # gamma/sigma (g - mean(g) - normalised mean(g normalised)), as a linear function of g and of the result
        invstd = (step.var.double() + norm.eps).rsqrt()
        of_gradient = gamma * invstd
        of_result = -invstd * product / size
        constant = -of_gradient * plain / size - of_result * beta
        width = result.value.shape[3]
        of_gradient, of_result, constant = (v.to(self.work).repeat(width) for v in (of_gradient, of_result, constant))
        if newest.trained:
            newest.gradient = self.like(newest.value)

        def walk(c: slice) -> tuple[Any, ...]:
            g = result.gradient[c].to(self.work)
            y = result.value[c].to(self.work)
            _rows(g).mul_(of_gradient).addcmul_(_rows(y), of_result).add_(constant)
            if g.dtype != self.dtype:
                result.gradient[c].copy_(g)
            a = step.activated[c].to(self.work)
            dots = None
            if self.alpha is not None:
                flat = _flat(g)
                dots = torch.stack(
                    [torch.dot(flat, _flat(x)) for x in (a, *(s.value[c].to(self.work) for s in step.states))]
                )
            inner = self.activation.backward(g * own, a).to(self.dtype)
            gradient, *of_weights = _convolve_backward(newest.value[c], weights, inner, newest.trained)
            sums = None
            if newest.trained:
                gradient = gradient.to(self.work).add_(g, alpha=shares[-1])
                sums = self.complete(newest, c, gradient)
            return dots, of_weights, sums

        dots, of_weights, sums = zip(*_each(walk, self.groups(result.value)), strict=True)
        if self.alpha is not None:
            row = self.gradients[self.network.alpha][step.t]
            total = torch.stack(dots).double().sum(0)
            row[0] += total[0]
            row[len(row) - len(shares) :] += total[1:]
        conv = self.network.convs[step.t % len(self.weights)]
        for layer, parts in zip(
            [conv] if isinstance(conv, nn.Conv2d) else conv, zip(*of_weights, strict=True), strict=True
        ):
            total = self.gradients[layer.weight]
            for part in parts:
                total += part
        if newest.trained:
            self.add_sums(newest, list(sums))
        for state, share in zip(step.states[:-1], shares[:-1], strict=True):
            if state.trained:
                state.parts.append(lambda c, g, share=share: g.add_(result.gradient[c], alpha=share))

    # Both

    def coefficients(self, t: int, states: int) -> tuple[float, list[float]]:
        """The activation's and the states'."""
        return (1.0, [1.0]) if self.alpha is None else (self.alpha[t][0], self.alpha[t][-states:])

    def norm(self, t: int) -> nn.BatchNorm2d:
        return self.network.norms[t % len(self.network.norms)]

    def take(self, *shape: int) -> Tensor:
        return self.buffers.take((self.size, *shape), self.dtype)

    def like(self, value: Tensor) -> Tensor:
        return self.take(*value.shape[1:])

    def groups(self, value: Tensor) -> list[slice]:
        """The batch in groups of images that fit the cache; the cut depends on nothing but the shape."""
        return _groups(self.size, value[0].numel())


def _groups(images: int, numbers: int) -> list[slice]:
    size = max(1, GROUP_BYTES // (4 * numbers))
    return [slice(i, min(i + size, images)) for i in range(0, images, size)]


def _convolve(x: Tensor, weight: Tensor, groups: int) -> Tensor:
    if weight.shape[2] == 1:
        return _as_images(F.conv2d(_pointwise_view(x), weight), x.shape[2])
    return F.conv2d(x, weight, padding=1, groups=groups)


def _convolve_backward(x: Tensor, weights: Sequence[tuple[Tensor, int]], gradient: Tensor, wanted: bool) -> list[Any]:
    """The gradient with respect to ``x`` (if wanted), and those of the weights."""
    inputs = [x]
    for weight, groups in weights[:-1]:
        inputs.append(_convolve(inputs[-1], weight, groups))
    of_weights = []
    for i in reversed(range(len(weights))):
        weight, groups = weights[i]
        pointwise, mask = weight.shape[2] == 1, [wanted or i > 0, True, False]
        args = [gradient, inputs[i]]
        if pointwise:
            args = [_pointwise_view(a) for a in args]
        padding = [0, 0] if pointwise else [1, 1]
        gradient, of_weight, _ = aten.convolution_backward(
            *args, weight, None, [1, 1], padding, [1, 1], False, [0, 0], groups, mask
        )
        if pointwise and mask[0]:
            gradient = _as_images(gradient, x.shape[2])
        of_weights.insert(0, of_weight)
    return [gradient, *of_weights]


def _normalise(x: Tensor, step: _Step, gamma: Tensor | None, beta: Tensor | None, eps: float, out: Tensor) -> None:
    none = x.new_empty(0, dtype=step.mean.dtype)
    aten.native_batch_norm.out(
        x, gamma, beta, step.mean, step.var, False, 0.0, eps, out=out, save_mean=none, save_invstd=none
    )


def _unpool(state: _State, half: _State) -> Callable[[slice, Tensor], Any]:
    def part(c: slice, gradient: Tensor) -> None:
        x = state.value[c]
        _, places = F.max_pool2d(x, 2, return_indices=True)
        gradient.add_(
            aten.max_pool2d_with_indices_backward(half.gradient[c], x, [2, 2], [2, 2], [0, 0], [1, 1], False, places)
        )

    return part


def _parameters(network: ThriftyNet) -> list[nn.Parameter]:
    """Those of the recursion, without the head."""
    alpha = [] if network.alpha is None else [network.alpha]
    return [*network.convs.parameters(), *network.norms.parameters(), *alpha]


class _Recursion(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, walk: _Pass, images: Tensor, *parameters: Tensor) -> Tensor:
        ctx.walk = walk
        ctx.save_for_backward(*parameters)
        return walk.forward(images)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        parameters = ctx.saved_tensors  # raises if a parameter has changed since the forward pass
        walk, ctx.walk = ctx.walk, None
        images, gradients = walk.backward(gradient)
        return None, images, *(gradients[p] for p in parameters)


class _Fast:
    """The forward of an accelerated ThriftyNet, in place of its own."""

    def __init__(self, network: ThriftyNet, activation: _Activation, dtype: torch.dtype) -> None:
        self.network, self.activation, self.dtype, self.buffers = network, activation, dtype, Buffers()

    def __call__(self, images: Tensor) -> Tensor:
        network = self.network
        if len(images) < 2 or network.training != torch.is_grad_enabled():
            return type(network).forward(network, images)
        if not network.training:
            return self.evaluate(images)
        with torch.autocast("cpu", enabled=False):  # the precision is chosen here, operation by operation
            walk = _Pass(network, self.activation, self.buffers, self.dtype)
            result = _Recursion.apply(walk, images, *_parameters(network))
        return network.head(result)

    def evaluate(self, images: Tensor) -> Tensor:
        """The plain forward, group by group."""
        network, bf16 = self.network, torch.is_autocast_enabled("cpu")

        def walk(c: slice) -> Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                return type(network).forward(network, images[c].contiguous(memory_format=torch.channels_last))

        return torch.cat(_each(walk, _groups(len(images), network.filters * images[0, 0].numel())))


def accelerate(network: nn.Module, precision: Literal["fp32", "bf16"] = "fp32") -> nn.Module:
    """Swap in the fast path wherever ``network`` holds a ThriftyNet that it serves; returns ``network`` itself.

    Parameters, buffers and ``state_dict`` stay as they are. Whatever it does not serve keeps its plain forward: other
    networks, GPUs, activations whose gradient needs their input, batches of one image, training mode without gradients.

    Args:
        precision: of the stored maps and of the convolutions' operands. Weights, sums, statistics and gradients of
            parameters are fp32 (float64 in a float64 network).
    """
    for module in network.modules():
        if not isinstance(module, ThriftyNet) or next(module.parameters()).device.type != "cpu":
            continue
        if (activation := _activation(module.activation)) is not None:
            dtype = torch.bfloat16 if precision == "bf16" else next(module.parameters()).dtype
            object.__setattr__(module, "forward", _Fast(module, activation, dtype))
    return network
