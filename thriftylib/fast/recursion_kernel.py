"""One batch through ``native/recursion.c``: the states of a recursion, their maps, and the order of its calls."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from thriftylib.fast.compiled import library
from thriftylib.fast.recursion_states import Fields, Kernels, Normalised, Part, State, Step
from thriftylib.fast.tiles import share
from thriftylib.papers.thriftynet_recursion import ThriftyNet

TILES = 16  # a batch's shares, whose sums are added in their order: enough for some threads to end together
ACTIVATIONS = {nn.Tanh: 0, nn.ReLU: 1, nn.LeakyReLU: 2}  # ``enum activation``


class Plan:
    """All maps for batches of one shape, and the calls that take a batch through a network and back.

    Args:
        network: its parameters are read at each batch, its structure now.
        shape: of the batch, (N, C, H, W).
        dtype: of the maps; bf16 has its sums in fp32.
        training: whether batch norm takes the batch's statistics, and a backward pass follows.
        needed: whether the images' gradient will be.
    """

    def __init__(
        self, network: ThriftyNet, shape: Sequence[int], dtype: torch.dtype, *, training: bool, needed: bool
    ) -> None:
        self.library, self.dtype, self.training = library("recursion", dtype), dtype, training
        self.real = torch.promote_types(dtype, torch.float32)
        self.images, self.inputs, height, width = shape
        self.filters, self.iterations, multiple = network.filters, network.iterations, self.library.recursion_multiple()
        grouped, *others = leaves(network.convs[0])
        self.group = self.filters // grouped.groups if others else 1
        self.narrow = -(-self.filters // self.group // multiple) * multiple
        self.channels, self.depth = self.group * self.narrow, self.narrow if others else 9 * self.narrow
        self.tiles = min(self.images, TILES)
        self.weights: list[list[Tensor]] = []  # of each convolution of each iteration's W, or of the one W
        self.pool: list[Plan] = []  # of plans like this that nobody uses
        self.kernels = [
            Kernels(self.channels, self.depth, self.real, dtype) for _ in network.convs[: network.iterations]
        ]
        self.norms, self.alpha_given = len(network.norms[: network.iterations]), network.alpha is not None
        columns = network.alpha.shape[1] if self.alpha_given else 1  # of ones, for the one state that is kept then
        self.alpha = torch.ones(self.iterations, columns, dtype=self.real)
        self.grad_alpha = torch.zeros_like(self.alpha, dtype=torch.float64)
        self.grad_norms = torch.zeros(self.norms, 2, self.filters, dtype=torch.float64)
        self.sums = torch.empty(self.tiles, self.channels, 2, dtype=torch.float64)
        self.free: list[Tensor] = []
        self.first = State(self._map(height, width).zero_(), needed)
        self._lay_out(network)
        if training:
            self._lay_out_backward()

    # --- before the first batch

    def _map(self, height: int, width: int) -> Tensor:
        for number, free in enumerate(self.free):
            if free.shape[1:3] == (height, width):
                return self.free.pop(number)
        fresh = torch.empty(self.images, height, width, self.channels, dtype=self.dtype)
        self.library.recursion_large_pages(ctypes.c_void_p(fresh.data_ptr()), ctypes.c_int64(fresh.nbytes))
        return fresh

    def _lay_out(self, network: ThriftyNet) -> None:
        """The iterations and pools in their order."""
        self.states, self.forward_calls = [self.first], []
        live = [self.first]
        for t in range(self.iterations):
            size = live[-1].map.shape[1:3]
            made = Normalised(t, self.channels, self.filters, self.real)
            step = Step(t, live, State(self._map(*size), made=made), self._map(*size) if self.training else None)
            for i, state in enumerate(live, start=self.alpha.shape[1] - len(live)):
                state.mixed.append((step, i))
            live[-1].reader = step
            self.states.append(step.result)
            self.forward_calls.append(("forward", self._forward_fields(step), made))
            before, live = [*live, step.result], [*live, step.result][-network.kept_states :]
            if t == self.iterations - 1:
                live = live[-1:]
            if t in network.pools:
                live = [self._pool(state) for state in live]
            if not self.training:
                self.free += [state.map for state in before if state not in live and state is not self.first]
        (self.last,) = live

    def _pool(self, state: State) -> State:
        _, height, width, _ = state.map.shape
        state.pooled = State(self._map(height // 2, width // 2), state.needed)
        fields = self._fields(state)
        fields.point(pooled=state.pooled.map)
        self.forward_calls.append(("pool", fields, None))
        self.states.append(state.pooled)
        return state.pooled

    def _fields(self, state: State) -> Fields:
        _, height, width, _ = state.map.shape
        classic = self.depth != self.narrow
        sizes = self.channels, self.narrow, self.group, self.filters, classic, self.tiles
        fields = Fields(self.images, height, width, *sizes)
        fields.point(map=state.map)
        if state.made:
            fields.point(scale=state.made.scale, shift=state.made.shift, mean=state.made.mean)
        return fields

    def _forward_fields(self, step: Step) -> Fields:
        fields, kernels, made = self._fields(step.states[-1]), self._kernels_of(step), step.result.made
        parts = [
            self._part(state.map, self.alpha, (step.t, i), made=state.made)
            for i, state in enumerate(step.states, start=self.alpha.shape[1] - len(step.states))
        ]
        self._give_parts(fields, parts)
        fields.own = self._place(self.alpha, step.t, 0)
        fields.point(activated=step.activated, result=step.result.map, sums=self.sums if self.training else None)
        fields.point(kernel=kernels.kernel, depthwise=kernels.depthwise)
        fields.point(result_mean=made.mean, result_scale=made.scale, result_shift=made.shift, invstd=made.invstd)
        return fields

    def _kernels_of(self, step: Step) -> Kernels:
        return self.kernels[step.t % len(self.kernels)]

    @staticmethod
    def _place(table: Tensor, row: int, column: int) -> int:
        return table[row, column].data_ptr()

    def _part(self, map_: Tensor, coefficients: Tensor, at: tuple[int, int], made: Normalised | None = None) -> Part:
        scale, shift = (made.scale.data_ptr(), made.shift.data_ptr()) if made else (None, None)
        grad = self._place(self.grad_alpha, *at) if self.alpha_given and coefficients is self.alpha else None
        return Part(map_.data_ptr(), scale, shift, self._place(coefficients, *at), grad)

    @staticmethod
    def _give_parts(fields: Fields, parts: list[Part]) -> None:
        fields.kept = (Part * len(parts))(*parts)  # lives as long as the fields
        fields.parts, fields.count = ctypes.addressof(fields.kept), len(parts)

    def _lay_out_backward(self) -> None:
        """The states from the last to the first: who reads one comes after it, and has its gradient by then."""
        self.outer, self.one = torch.zeros_like(self.last.map), torch.ones(1, 1, dtype=self.real)
        most = max((len(state.mixed) for state in self.states), default=0) + 1
        self.dots = torch.empty(self.tiles, most + 1, dtype=torch.float64)
        self.grad_kernel = torch.empty(self.tiles, self.channels * self.depth, dtype=self.real)
        self.grad_depthwise = torch.empty(self.tiles, 9 * self.channels, dtype=self.real)
        self.backward_calls = []
        for state in reversed(self.states):
            if state.needed:
                state.gradient = state.reader.activated if state.reader else torch.empty_like(state.map)
            if state.needed or state.reader or (state.mixed and self.alpha_given):
                self.backward_calls.append((self._backward_fields(state), state.made))

    def _backward_fields(self, state: State) -> Fields:
        fields, step = self._fields(state), state.reader
        parts = [self._part(reader.result.gradient, self.alpha, (reader.t, i)) for reader, i in state.mixed]
        if state is self.last:
            parts.append(self._part(self.outer, self.one, (0, 0)))
        self._give_parts(fields, parts)
        pooled = state.pooled.gradient if state.pooled else None
        fields.point(pooled=pooled, gradient=state.gradient, sums=self.sums, dots=self.dots)
        if state.made:
            fields.point(invstd=state.made.invstd)
            names = "made_factor", "made_result_factor", "made_constant"
            fields.point(**dict(zip(names, state.made.factors, strict=True)))
        if step:
            kernels, result = self._kernels_of(step), step.result
            fields.own, fields.grad_own = self._place(self.alpha, step.t, 0), self._place(self.grad_alpha, step.t, 0)
            fields.point(activated=step.activated, result=result.map, result_gradient=result.gradient)
            fields.point(back=kernels.back, depthwise=kernels.depthwise)
            fields.point(**dict(zip(("factor", "result_factor", "constant"), result.made.factors, strict=True)))
            fields.point(grad_kernel=self.grad_kernel, grad_depthwise=self.grad_depthwise)
            fields.point(sum_kernel=kernels.sum_kernel, sum_depthwise=kernels.sum_depthwise)
        return fields

    # --- a batch

    def give_back(self) -> None:
        """The batch is done."""
        self.weights = []
        self.pool.append(self)

    def forward(self, network: ThriftyNet, images: Tensor) -> Tensor:
        """(N, C, H, W) to x_T, (N, f, H', W')."""
        self.first.map[..., self._places(self.inputs)] = images.permute(0, 2, 3, 1).to(self.dtype)
        if self.alpha_given:
            self.alpha.copy_(network.alpha[: self.iterations])
        self._pack()
        for name, fields, made in self.forward_calls:
            self._share(name, fields, network.activation)
            if made is None:
                continue
            norm = network.norms[made.t % self.norms]
            fields.momentum, fields.eps = norm.momentum, norm.eps
            fields.point(gamma=norm.weight, beta=norm.bias)
            fields.point(running_mean=norm.running_mean, running_var=norm.running_var)
            self._call("statistics", fields)
            if self.training:
                norm.num_batches_tracked += 1
        value = self.last.map.to(self.real, copy=True)
        if self.last.made:
            value.mul_(self.last.made.scale).add_(self.last.made.shift)
        return value[..., self._places(self.filters)].permute(0, 3, 1, 2)

    def backward(self, network: ThriftyNet, gradient: Tensor) -> tuple[Tensor | None, dict[Tensor, Tensor]]:
        """The gradients of the images, if needed, and of every parameter, from that of x_T; once after each forward."""
        self.outer[..., self._places(self.filters)] = gradient.permute(0, 2, 3, 1).to(self.dtype)
        self.grad_alpha.zero_(), self.grad_norms.zero_()
        for kernels in self.kernels:
            kernels.sum_kernel.zero_(), kernels.sum_depthwise.zero_()
        for fields, made in self.backward_calls:
            if made is not None and network.norms[made.t % self.norms].affine:
                grad_gamma, grad_beta = self.grad_norms[made.t % self.norms]
                fields.point(grad_gamma=grad_gamma, grad_beta=grad_beta)
            self._share("backward", fields, network.activation)
            self._call("sum", fields)
        return self._gradient_of_images(), self._gradients(network)

    def _gradient_of_images(self) -> Tensor | None:
        if not self.first.needed:
            return None
        return self.first.gradient[..., self._places(self.inputs)].permute(0, 3, 1, 2).to(self.real)

    def _gradients(self, network: ThriftyNet) -> dict[Tensor, Tensor]:
        found: dict[Tensor, Tensor] = {}

        def add(parameters: Sequence[Tensor], gradients: Iterable[Tensor]) -> None:
            for parameter, gradient in zip(parameters, gradients, strict=True):  # one may be used at two places
                found[parameter] = found[parameter] + gradient if parameter in found else gradient

        if network.alpha is not None:
            gradient = torch.zeros_like(network.alpha)
            gradient[: self.iterations] = self.grad_alpha
            add([network.alpha], [gradient])
        for norm, gradients in zip(network.norms[: self.norms], self.grad_norms, strict=True):
            if norm.affine:
                add([norm.weight, norm.bias], gradients.to(self.real))
        for kernels, weights in zip(self.kernels, self.weights, strict=True):
            gradients = [torch.zeros(weight.shape, dtype=self.real) for weight in weights]  # whatever its strides are
            fields = self._fields_of(kernels)
            fields.point(**dict(zip(("grad_grouped", "grad_weight")[-len(gradients) :], gradients, strict=True)))
            self._call("unpack", fields)
            add(weights, gradients)
        return found

    def _pack(self) -> None:
        """Give the C code its kernels."""
        for kernels, weights in zip(self.kernels, self.weights, strict=True):
            exact = [weight.detach().to(self.real).contiguous() for weight in weights]
            fields = self._fields_of(kernels)
            fields.point(**dict(zip(("grouped", "weight")[-len(exact) :], exact, strict=True)))
            self._call("pack", fields)

    def _fields_of(self, kernels: Kernels) -> Fields:
        fields = self._fields(self.first)
        fields.point(kernel=kernels.kernel, back=kernels.back, depthwise=kernels.depthwise)
        fields.point(sum_kernel=kernels.sum_kernel, sum_depthwise=kernels.sum_depthwise)
        return fields

    def _places(self, count: int) -> slice | list[int]:
        """Where a map has the network's first channels."""
        if self.group == 1:
            return slice(count)
        return [channel % self.group * self.narrow + channel // self.group for channel in range(count)]

    def _call(self, name: str, fields: Fields) -> int:
        return getattr(self.library, f"recursion_{name}")(ctypes.byref(fields))

    def _share(self, name: str, fields: Fields, activation: nn.Module) -> None:
        fields.activation, fields.slope = ACTIVATIONS[type(activation)], getattr(activation, "negative_slope", 0.0)
        macs = self.images * fields.height * fields.width * self.channels * self.depth
        what = f"a recursion of {self.filters} filters"
        share(getattr(self.library, f"recursion_{name}"), fields, self.tiles, macs, what)


def leaves(convs: nn.Module) -> list[nn.Module]:
    """The convolutions of one iteration, in their order; an over-parameterised block counts as one."""
    return list(convs) if isinstance(convs, nn.Sequential) else [convs]
