"""One training batch through ThriftyNet's recursion, tile by tile, and backward: :mod:`thriftylib.fast.recursion`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thriftylib.fast.maps import Conv, activation, aten, channel_sums, dot, leaves, rows, unpool
from thriftylib.fast.tiles import Buffers, cut, each
from thriftylib.papers.thriftynet_recursion import ThriftyNet

Sums = tuple[Tensor, Tensor]
Part = Callable[[slice, Tensor], Any]
"""Adds something to the gradient of one tile."""


@dataclass(eq=False)
class State:
    """One state at one resolution: its map and, in the backward pass, the loss's gradient with respect to it."""

    value: Tensor
    step: Step | None = None  # the step that made it; None for x_0 and for what a pool made
    needed: bool = True  # whether its gradient is
    gradient: Tensor | None = None
    parts: list[Part] = field(default_factory=list)


@dataclass(eq=False)
class Step:
    """What iteration t leaves for the backward pass."""

    t: int
    states: list[State]
    activated: Tensor
    result: State
    norm: nn.BatchNorm2d
    mean: Tensor  # (f,), of the batch
    var: Tensor
    normalised: Tensor | None  # kept only where the result does not tell it
    sums: Sums | None = None  # over pixels, of the result's gradient and of its product with the normalised map


class Forward:
    """One forward pass in training; what a network is made of is read when it begins."""

    def __init__(self, network: ThriftyNet, buffers: Buffers, dtype: torch.dtype) -> None:
        self.network, self.buffers, self.dtype = network, buffers, dtype
        self.exact = torch.promote_types(dtype, torch.float32)  # of all that is computed from the stored maps
        self.activation = activation(network.activation)
        uses = network.iterations  # what is beyond has no part in the result, and no gradient
        self.norms = list(network.norms)[:uses]
        self.convs = [[Conv.of(conv, dtype) for conv in leaves(convs)] for convs in list(network.convs)[:uses]]
        kernels = [conv.source for convs in self.convs for conv in convs]
        affine = [x for norm in self.norms for x in norm.parameters()]
        alpha = [] if network.alpha is None else [network.alpha]
        self.parameters = list(dict.fromkeys([*kernels, *affine, *alpha]))  # without the head's
        self.alpha = None if network.alpha is None else network.alpha.tolist()

    def run(self, images: Tensor, needed: bool) -> Tensor:
        """(N, C, H, W) to x_T (N, f, H', W') with channels last; ``needed``: whether the images' gradient will be."""
        network = self.network
        self.size, self.channels = images.shape[:2]
        self.tape: list[Step | list[tuple[State, State]]] = []  # steps, and pools as pairs (from, to)
        value = self.new(network.filters, *images.shape[2:]).zero_()
        value[: self.size, : self.channels] = images  # x_0 = PAD(image)
        self.first = State(value, needed=needed)
        states = [self.first]
        for t in range(network.iterations):
            states = [*states, self._step(t, states)][-network.kept_states :]
            if t == network.iterations - 1:
                states = states[-1:]
            if t in network.pools:
                states = self._pool(states)
        (self.last,) = states
        each(lambda tile: _read(self.last, tile), self.tiles(self.last))
        return self.last.value[: self.size].to(self.exact, copy=True)

    def convs_of(self, t: int) -> list[Conv]:
        """The convolutions of iteration ``t``."""
        return self.convs[t % len(self.convs)]

    def coefficients(self, t: int, states: list[State]) -> tuple[float, list[float]]:
        """The activation's and the states'."""
        return (1.0, [1.0]) if self.alpha is None else (self.alpha[t][0], self.alpha[t][-len(states) :])

    def new(self, *shape: int) -> Tensor:
        """A map for the batch; what it holds is left over."""
        return self.buffers.take((self.size, *shape), self.dtype)

    def tiles(self, state: State) -> list[slice]:
        """The tiles of the batch at the state's resolution."""
        return cut(self.size, state.value[0].numel())

    def like(self, state: State) -> Tensor:
        """A map of the state's shape; what it holds is left over."""
        return self.new(*state.value.shape[1:])

    def _step(self, t: int, states: list[State]) -> State:
        """x_{t+1}, not yet normalised."""
        newest = states[-1]
        own, others = self.coefficients(t, states)
        activated, result = self.like(newest), self.like(newest)
        stored = self.dtype == self.exact

        def mix(tile: slice) -> Sums:
            x = _read(newest, tile)
            for conv in self.convs_of(t):
                x = conv.forward(x)
            x = x.to(self.exact)
            a = self.activation.forward(x, activated[tile] if stored else torch.empty_like(x))
            mixed = torch.mul(a, own, out=result[tile] if stored else torch.empty_like(a))
            for state, coefficient in zip(states, others, strict=True):
                mixed.add_(state.value[tile], alpha=coefficient)
            if not stored:
                activated[tile], result[tile] = a, mixed
            return torch.batch_norm_update_stats(mixed, None, None, 0.0)

        tiles = self.tiles(newest)
        means, variances = (torch.stack(sums).double() for sums in zip(*each(mix, tiles), strict=True))
        pixels = torch.tensor([float(tile.stop - tile.start) for tile in tiles], dtype=torch.float64)
        pixels *= result.shape[2] * result.shape[3]
        count = pixels.sum()
        mean = pixels @ means / count
        var = pixels @ (variances + (means - mean).square()) / count
        norm = self.norms[t % len(self.norms)]
        norm.num_batches_tracked += 1
        norm.running_mean.lerp_(mean.to(norm.running_mean), norm.momentum)
        norm.running_var.lerp_((var * (count / (count - 1))).to(norm.running_var), norm.momentum)
        # Backward gets the normalised map back from gamma * normalised + beta, unless rounding has eaten it.
        eaten = norm.affine and bool((norm.weight.abs() <= norm.bias.abs() / 30).any())
        state, kept = State(result), self.like(newest) if eaten else None
        mean, var = mean.to(self.exact), var.to(self.exact)
        state.step = Step(t, states, activated, state, norm, mean, var, kept)
        self.tape.append(state.step)
        return state

    def _pool(self, states: list[State]) -> list[State]:
        """D_t of every state."""
        pairs = []
        for state in states:
            _, f, height, width = state.value.shape
            value = self.new(f, height // 2, width // 2)
            unread = state is states[-1]

            def pool(tile: slice, state: State = state, value: Tensor = value, unread: bool = unread) -> None:
                value[tile] = F.max_pool2d(_read(state, tile) if unread else state.value[tile], 2)

            each(pool, self.tiles(state))
            pairs.append((state, State(value, needed=state.needed)))
        self.tape.append(pairs)
        return [pooled for _, pooled in pairs]


class Backward:
    """The backward pass, once, from the gradient of x_T."""

    def __init__(self, forward: Forward, gradient: Tensor) -> None:
        self.forward = forward
        self.gradients = {p: torch.zeros_like(p, dtype=forward.exact) for p in forward.parameters}
        forward.last.parts.append(lambda tile, g: g.add_(gradient[tile]))

    def run(self) -> tuple[Tensor | None, dict[Tensor, Tensor]]:
        """The gradients of the images, if needed, and of every parameter."""
        forward, first = self.forward, self.forward.first
        used = [first.value]
        for entry in reversed(forward.tape):
            if isinstance(entry, Step):
                self._gather(entry.result)
                self._step(entry)
                # The buffers of this step serve the next one, whose gradients are still to be made.
                self._give(entry.activated, entry.result.value, entry.normalised)
                used.append(entry.result.gradient)
                continue
            for state, pooled in entry:
                used.append(pooled.value)
                if pooled.needed:
                    self._gather(pooled)
                    used.append(pooled.gradient)
                    state.parts.append(lambda c, g, s=state, p=pooled: g.add_(unpool(p.gradient[c], s.value[c])))
        images = None
        if first.needed:
            images = first.gradient[: forward.size, : forward.channels].to(forward.exact, copy=True)
        self._give(*used, first.gradient)
        return images, self.gradients

    def _give(self, *buffers: Tensor | None) -> None:
        for buffer in buffers:
            if buffer is not None:
                self.forward.buffers.give(buffer)

    def _gather(self, state: State) -> None:
        """The gradient of a state that no convolution reads, from its parts."""
        if state.gradient is not None:
            return
        state.gradient = self.forward.like(state)

        def add(tile: slice) -> Sums | None:
            return self._complete(state, tile, torch.zeros_like(state.value[tile], dtype=self.forward.exact))

        self._take_sums(state, each(add, self.forward.tiles(state)))

    def _complete(self, state: State, tile: slice, gradient: Tensor) -> Sums | None:
        """Adds the parts to a tile's gradient, stores it, and returns its sums for batch norm."""
        for part in state.parts:
            part(tile, gradient)
        state.gradient[tile].copy_(gradient)
        if state.step is None:
            return None
        x = state.value[tile] if state.step.normalised is None else state.step.normalised[tile]
        return channel_sums(gradient), channel_sums(gradient * x)

    def _take_sums(self, state: State, sums: list[Sums | None]) -> None:
        """The tiles' sums together; those of the whole batch are the gradients of batch norm's parameters."""
        if state.step is None:
            return
        plain, product = (torch.stack(parts).double().sum(0) for parts in zip(*sums, strict=True))
        norm = state.step.norm
        if norm.affine:
            if state.step.normalised is None:  # so far with gamma * normalised + beta
                product = (product - norm.bias * plain) / norm.weight
            self.gradients[norm.weight] += product
            self.gradients[norm.bias] += plain
        state.step.sums = plain, product

    def _step(self, step: Step) -> None:
        """From the gradient of x_{t+1} to the parameters' and, completed by its other readers, that of x_t."""
        forward, exact, newest, result = self.forward, self.forward.exact, step.states[-1], step.result
        own, others = forward.coefficients(step.t, step.states)
        convs = forward.convs_of(step.t)
        grad_factor, result_factor, constant = self._norm_factors(step)
        if newest.needed:
            newest.gradient = forward.like(newest)

        def propagate(tile: slice) -> tuple[Tensor | None, list[Tensor], Sums | None]:
            g = result.gradient[tile].to(exact)
            rows(g).mul_(grad_factor).addcmul_(rows(result.value[tile].to(exact)), result_factor).add_(constant)
            if g.dtype != forward.dtype:
                result.gradient[tile] = g
            a, grad_alpha = step.activated[tile].to(exact), None
            if forward.alpha is not None:
                mixed = [a, *(state.value[tile].to(exact) for state in step.states)]
                grad_alpha = torch.stack([dot(g, x) for x in mixed])
            gradient = forward.activation.backward(g * own, a).to(forward.dtype)
            inputs, grad_weights = [newest.value[tile]], []
            for conv in convs[:-1]:
                inputs.append(conv.forward(inputs[-1]))
            for i in reversed(range(len(convs))):
                gradient, grad_weight = convs[i].backward(inputs[i], gradient, newest.needed or i > 0)
                grad_weights.insert(0, grad_weight)
            if not newest.needed:
                return grad_alpha, grad_weights, None
            gradient = gradient.to(exact).add_(g, alpha=others[-1])
            return grad_alpha, grad_weights, self._complete(newest, tile, gradient)

        grad_alpha, grad_weights, sums = zip(*each(propagate, forward.tiles(result)), strict=True)
        if forward.alpha is not None:
            row, total = self.gradients[forward.network.alpha][step.t], torch.stack(grad_alpha).double().sum(0)
            row[0] += total[0]
            row[-len(others) :] += total[1:]
        for conv, parts in zip(convs, zip(*grad_weights, strict=True), strict=True):
            for part in parts:
                self.gradients[conv.source] += part
        if newest.needed:
            self._take_sums(newest, list(sums))
        for state, coefficient in zip(step.states[:-1], others[:-1], strict=True):
            if state.needed:
                state.parts.append(lambda c, g, by=coefficient: g.add_(result.gradient[c], alpha=by))

    def _norm_factors(self, step: Step) -> list[Tensor]:
        """gamma / sigma (g - mean(g) - normalised mean(g normalised)) as a linear function of g and of the result.

        Returns the factors of g and of the result and the constant, each repeated for one of :func:`rows`.
        """
        norm, (plain, product), value = step.norm, step.sums, step.result.value
        pixels = self.forward.size * value[0, 0].numel()
        invstd = (step.var.double() + norm.eps).rsqrt()
        grad_factor = invstd * norm.weight if norm.affine else invstd
        result_factor = -invstd * product / pixels
        constant = -grad_factor * plain / pixels
        if norm.affine:
            constant -= result_factor * norm.bias
        factors = grad_factor, result_factor, constant
        return [factor.to(self.forward.exact).repeat(value.shape[3]) for factor in factors]


def _read(state: State, tile: slice) -> Tensor:
    """A tile of a state, by its first reader: a step's result is normalised here, in place."""
    x, step = state.value[tile], state.step
    if step is not None:
        if step.normalised is not None:
            _normalise(x, step, None, None, step.normalised[tile])
        _normalise(x, step, step.norm.weight, step.norm.bias, x)
    return x


def _normalise(x: Tensor, step: Step, gamma: Tensor | None, beta: Tensor | None, out: Tensor) -> None:
    none = step.mean.new_empty(0)
    aten.native_batch_norm.out(
        x, gamma, beta, step.mean, step.var, False, 0.0, step.norm.eps, out=out, save_mean=none, save_invstd=none
    )
