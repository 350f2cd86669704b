"""One training batch through ThriftyNet's recursion, group by group, and its way back: see
:mod:`thriftylib.fast.recursion`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thriftylib.fast.tiles import (
    Activation,
    Buffers,
    Layer,
    aten,
    channel_sums,
    cut,
    each,
    flat,
    rows,
    unpool,
)
from thriftylib.papers.thriftynet_recursion import ThriftyNet

Sums = tuple[Tensor, Tensor]
Part = Callable[[slice, Tensor], Any]
"""Adds something to the gradient of one group."""


@dataclass(eq=False)
class _State:
    """One state at one resolution: its map and, while walking backward, the loss's gradient with respect to it."""

    value: Tensor
    step: _Step | None = None  # the step that made it; None for x_0 and for what a pool made
    wanted: bool = True  # whether its gradient is
    gradient: Tensor | None = None
    parts: list[Part] = field(default_factory=list)


@dataclass(eq=False)
class _Step:
    """What iteration t leaves for its way back."""

    t: int
    states: list[_State]
    activated: Tensor
    result: _State
    mean: Tensor  # (f,), of the batch
    var: Tensor
    normalised: Tensor | None  # kept only where it cannot be had from the result
    sums: Sums | None = None  # over pixels, of the result's gradient and of its product with the normalised map


class Pass:
    """One forward pass of a training batch and, once, its way back."""

    def __init__(self, network: ThriftyNet, activation: Activation, buffers: Buffers, dtype: torch.dtype) -> None:
        self.network, self.activation, self.buffers, self.dtype = network, activation, buffers, dtype
        self.exact = torch.promote_types(dtype, torch.float32)  # of all that is computed from the stored maps
        self.layers = [[Layer.of(conv, dtype) for conv in _parts(convs)] for convs in network.convs]
        alpha = [] if network.alpha is None else [network.alpha]
        kernels = [layer.source for layers in self.layers for layer in layers]
        self.parameters = [*kernels, *network.norms.parameters(), *alpha]  # without the head's
        self.alpha = None if network.alpha is None else network.alpha.tolist()
        self.tape: list[_Step | list[tuple[_State, _State]]] = []  # steps, and pools as pairs (from, to)

    def forward(self, images: Tensor, wanted: bool) -> Tensor:
        """(N, C, H, W) to x_T (N, f, H', W'), channels last."""
        network, self.size, self.channels = self.network, *images.shape[:2]
        value = self._take(network.filters, *images.shape[2:]).zero_()
        value[: self.size, : self.channels] = images  # x_0 = PAD(image)
        self.first = _State(value, wanted=wanted)
        states = [self.first]
        for t in range(network.iterations):
            states = [*states, self._step(t, states)][-network.kept_states :]
            if t == network.iterations - 1:
                states = states[-1:]
            if t in network.pools:
                states = self._pool(states)
        (self.last,) = states
        each(lambda c: self._read(self.last, c), self._groups(self.last))
        return self.last.value[: self.size].to(self.exact, copy=True)

    def _step(self, t: int, states: list[_State]) -> _State:
        """x_{t+1}, not yet normalised."""
        newest, (own, shares) = states[-1], self._coefficients(t, states)
        activated, result = self._like(newest), self._like(newest)
        layers, stored = self.layers[t % len(self.layers)], self.dtype == self.exact

        def walk(c: slice) -> Sums:
            x = self._read(newest, c)
            for layer in layers:
                x = layer.forward(x)
            x = x.to(self.exact)
            a = self.activation.forward(x, activated[c] if stored else torch.empty_like(x))
            if not stored:
                activated[c].copy_(a)
            mixed = torch.mul(a, own, out=result[c] if stored else a)
            for state, share in zip(states, shares, strict=True):
                mixed.add_(state.value[c], alpha=share)
            if not stored:
                result[c].copy_(mixed)
            return torch.batch_norm_update_stats(mixed, None, None, 0.0)

        groups = self._groups(newest)
        means, variances = (torch.stack(sums).double() for sums in zip(*each(walk, groups), strict=True))
        counts = torch.tensor([float(c.stop - c.start) for c in groups], dtype=torch.float64)
        counts *= result.shape[2] * result.shape[3]
        mean = counts @ means / counts.sum()
        var = counts @ (variances + (means - mean).square()) / counts.sum()
        norm = self._norm(t)
        norm.num_batches_tracked += 1
        norm.running_mean.lerp_(mean.to(norm.running_mean), norm.momentum)
        norm.running_var.lerp_((var * (counts.sum() / (counts.sum() - 1))).to(norm.running_var), norm.momentum)
        # Backward gets the normalised map back from gamma * normalised + beta, unless rounding has eaten it.
        eaten = norm.affine and bool((norm.weight.abs() <= norm.bias.abs() / 30).any())
        state = _State(result)
        kept = self._like(newest) if eaten else None
        state.step = _Step(t, states, activated, state, mean.to(self.exact), var.to(self.exact), kept)
        self.tape.append(state.step)
        return state

    def _read(self, state: _State, c: slice) -> Tensor:
        """A group of a state, by its first reader: a step's result is normalised here, in place."""
        x, step = state.value[c], state.step
        if step is not None:
            norm = self._norm(step.t)
            if step.normalised is not None:
                _normalise(x, step, None, None, norm.eps, step.normalised[c])
            _normalise(x, step, norm.weight, norm.bias, norm.eps, x)
        return x

    def _pool(self, states: list[_State]) -> list[_State]:
        """D_t of every state."""
        pairs = []
        for state in states:
            _, f, height, width = state.value.shape
            pooled = _State(self._take(f, height // 2, width // 2), wanted=state.wanted)
            unread = state is states[-1]

            def walk(c: slice, state: _State = state, pooled: _State = pooled, unread: bool = unread) -> None:
                pooled.value[c] = F.max_pool2d(self._read(state, c) if unread else state.value[c], 2)

            each(walk, self._groups(state))
            pairs.append((state, pooled))
        self.tape.append(pairs)
        return [pooled for _, pooled in pairs]

    def backward(self, gradient: Tensor) -> tuple[Tensor | None, dict[Tensor, Tensor]]:
        """The gradients of the images, if wanted, and of every parameter, from that of x_T."""
        self.gradients = {p: torch.zeros_like(p, dtype=self.exact) for p in self.parameters}
        self.last.parts.append(lambda c, g: g.add_(gradient[c]))
        used = [self.first.value]
        for entry in reversed(self.tape):
            if isinstance(entry, _Step):
                self._gather(entry.result)
                self._step_backward(entry)
                # The buffers of this step serve the next one, whose gradients are still to be made.
                for buffer in (entry.activated, entry.result.value, entry.normalised):
                    if buffer is not None:
                        self.buffers.give(buffer)
                used.append(entry.result.gradient)
                continue
            for state, pooled in entry:
                used.append(pooled.value)
                if pooled.wanted:
                    self._gather(pooled)
                    used.append(pooled.gradient)
                    state.parts.append(lambda c, g, s=state, p=pooled: g.add_(unpool(p.gradient[c], s.value[c])))
        images = None
        if self.first.wanted:
            used.append(self.first.gradient)
            images = self.first.gradient[: self.size, : self.channels].to(self.exact, copy=True)
        for buffer in used:
            self.buffers.give(buffer)
        return images, self.gradients

    def _gather(self, state: _State) -> None:
        """The gradient of a state that no convolution reads, from its parts."""
        if state.gradient is not None:
            return
        state.gradient = self._like(state)

        def walk(c: slice) -> Sums | None:
            return self._complete(state, c, torch.zeros_like(state.value[c], dtype=self.exact))

        self._take_sums(state, each(walk, self._groups(state)))

    def _complete(self, state: _State, c: slice, gradient: Tensor) -> Sums | None:
        """Adds the parts to a group's gradient, stores it, and returns its sums for batch norm."""
        for part in state.parts:
            part(c, gradient)
        state.gradient[c].copy_(gradient)
        if state.step is None:
            return None
        x = state.value[c] if state.step.normalised is None else state.step.normalised[c]
        return channel_sums(gradient), channel_sums(gradient * x)

    def _take_sums(self, state: _State, sums: list[Sums | None]) -> None:
        """The groups' sums together; those of the whole batch are the gradients of batch norm's parameters."""
        if state.step is None:
            return
        plain, product = (torch.stack(parts).double().sum(0) for parts in zip(*sums, strict=True))
        norm = self._norm(state.step.t)
        if norm.affine:
            if state.step.normalised is None:  # so far with gamma * normalised + beta
                product = (product - norm.bias * plain) / norm.weight
            self.gradients[norm.weight] += product
            self.gradients[norm.bias] += plain
        state.step.sums = plain, product

    def _step_backward(self, step: _Step) -> None:
        """From the gradient of x_{t+1} to the parameters' and, completed by its other readers, that of x_t."""
        newest, result = step.states[-1], step.result
        own, shares = self._coefficients(step.t, step.states)
        layers = self.layers[step.t % len(self.layers)]
        factors = self._norm_backward(step)
        if newest.wanted:
            newest.gradient = self._like(newest)

        def walk(c: slice) -> tuple[Tensor | None, list[Tensor], Sums | None]:
            g = result.gradient[c].to(self.exact)
            of_gradient, of_result, constant = factors
            rows(g).mul_(of_gradient).addcmul_(rows(result.value[c].to(self.exact)), of_result).add_(constant)
            if g.dtype != self.dtype:
                result.gradient[c] = g
            a, of_alpha = step.activated[c].to(self.exact), None
            if self.alpha is not None:
                mixed = [a, *(state.value[c].to(self.exact) for state in step.states)]
                of_alpha = torch.stack([torch.dot(flat(g), flat(x)) for x in mixed])
            gradient = self.activation.backward(g * own, a).to(self.dtype)
            inputs, of_weights = [newest.value[c]], []
            for layer in layers[:-1]:
                inputs.append(layer.forward(inputs[-1]))
            for i in reversed(range(len(layers))):
                gradient, of_weight = layers[i].backward(inputs[i], gradient, newest.wanted or i > 0)
                of_weights.insert(0, of_weight)
            if not newest.wanted:
                return of_alpha, of_weights, None
            gradient = gradient.to(self.exact).add_(g, alpha=shares[-1])
            return of_alpha, of_weights, self._complete(newest, c, gradient)

        of_alpha, of_weights, sums = zip(*each(walk, self._groups(result)), strict=True)
        if self.alpha is not None:
            row, total = self.gradients[self.network.alpha][step.t], torch.stack(of_alpha).double().sum(0)
            row[0] += total[0]
            row[-len(shares) :] += total[1:]
        for layer, parts in zip(layers, zip(*of_weights, strict=True), strict=True):
            for part in parts:
                self.gradients[layer.source] += part
        if newest.wanted:
            self._take_sums(newest, list(sums))
        for state, share in zip(step.states[:-1], shares[:-1], strict=True):
            if state.wanted:
                state.parts.append(lambda c, g, share=share: g.add_(result.gradient[c], alpha=share))

    def _norm_backward(self, step: _Step) -> list[Tensor]:
        """gamma / sigma (g - mean(g) - normalised mean(g normalised)) as a linear function of g and of the result.

        Returns the factors of g and of the result and the constant, each repeated for one of :func:`rows`.
        """
        norm, (plain, product) = self._norm(step.t), step.sums
        pixels = self.size * step.result.value[0, 0].numel()
        invstd = (step.var.double() + norm.eps).rsqrt()
        of_gradient = invstd * norm.weight if norm.affine else invstd
        of_result = -invstd * product / pixels
        constant = -of_gradient * plain / pixels
        if norm.affine:
            constant -= of_result * norm.bias
        return [v.to(self.exact).repeat(step.result.value.shape[3]) for v in (of_gradient, of_result, constant)]

    def _coefficients(self, t: int, states: list[_State]) -> tuple[float, list[float]]:
        """The activation's and the states'."""
        return (1.0, [1.0]) if self.alpha is None else (self.alpha[t][0], self.alpha[t][-len(states) :])

    def _norm(self, t: int) -> nn.BatchNorm2d:
        return self.network.norms[t % len(self.network.norms)]

    def _take(self, *shape: int) -> Tensor:
        return self.buffers.take((self.size, *shape), self.dtype)

    def _like(self, state: _State) -> Tensor:
        return self._take(*state.value.shape[1:])

    def _groups(self, state: _State) -> list[slice]:
        return cut(self.size, state.value[0].numel())


def _normalise(x: Tensor, step: _Step, gamma: Tensor | None, beta: Tensor | None, eps: float, out: Tensor) -> None:
    none = step.mean.new_empty(0)
    aten.native_batch_norm.out(
        x, gamma, beta, step.mean, step.var, False, 0.0, eps, out=out, save_mean=none, save_invstd=none
    )


def _parts(convs: nn.Module) -> list[nn.Module]:
    """The convolutions of one iteration, in their order; one that is trained as a chain counts as one."""
    return list(convs) if isinstance(convs, nn.Sequential) else [convs]
