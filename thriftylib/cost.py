"""Parameters, multiply-accumulates and bytes of a network in closed form. No torch.

How we count (the book's page "How we count" shows the same with examples):

- a **parameter** is a trained number; one that is used at many places is counted once;
- a **kernel parameter** is one in a convolution's kernel or a linear layer (its bias included): what is left of the
  parameters without batch norms and the convolutions' biases, as the DACNN authors seem to count;
- a **MAC** is one multiplication with its addition in a convolution or linear layer, counted at *every* use, for one
  image; biases, activations, pooling layers, sums and batch norm count nothing;
- ``ptflops_macs`` is the count of the ptflops tool, which the ThriftyNet authors quote: the same plus 2 per element of
  each batch norm's output;
- **activation bytes** are the outputs of convolutions, batch norms and linear layers of one image: what training keeps
  for the backward pass at least.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Size = tuple[int, int]
"""(H, W) of a feature map."""


@dataclass(frozen=True)
class Term:
    """One layer's part of the cost, all of its uses together, for one image."""

    name: str
    parameters: int
    macs: int = 0
    norm_macs: int = 0
    activations: int = 0
    buffers: int = 0
    kernels: int = 0


@dataclass(frozen=True)
class Cost:
    """The cost of a network as the sum over its layers' terms."""

    terms: tuple[Term, ...]

    def _sum(self, *names: str) -> int:
        return sum(getattr(term, name) for term in self.terms for name in names)

    def part(self, prefix: str) -> Cost:
        """The cost of the layers whose names begin with ``prefix``."""
        return Cost(tuple(term for term in self.terms if term.name.startswith(prefix)))

    @property
    def parameters(self) -> int:
        """Trained numbers, shared ones once."""
        return self._sum("parameters")

    @property
    def kernel_parameters(self) -> int:
        """The parameters without those of batch norms and without the convolutions' biases."""
        return self._sum("kernels")

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image's forward pass."""
        return self._sum("macs")

    @property
    def ptflops_macs(self) -> int:
        """MACs as ptflops counts them: batch norm adds 2 per element."""
        return self._sum("macs", "norm_macs")

    def weight_bytes(self) -> int:
        """Bytes of the stored network: parameters and batch-norm statistics in fp32."""
        return 4 * self._sum("parameters", "buffers")

    def activation_bytes(self) -> int:
        """Bytes of one image's activations in fp32."""
        return 4 * self._sum("activations")


def conv(
    name: str,
    inputs: int,
    outputs: int,
    kernel: int,
    sizes: Sequence[Size],
    *,
    groups: int = 1,
    bias: bool = False,
) -> Term:
    """A convolution used once for each output size in ``sizes``; its weights are counted once."""
    weights = outputs * (inputs // groups) * kernel * kernel
    pixels = sum(height * width for height, width in sizes)
    return Term(name, weights + outputs * bias, weights * pixels, activations=outputs * pixels, kernels=weights)


def batch_norm(name: str, features: int, sizes: Sequence[Size], *, affine: bool = True, shared: bool = False) -> Term:
    """Batch norms over ``features`` channels, one per size (or a single shared one used at every size)."""
    numbers = 2 * features * (1 if shared else len(sizes))
    elements = features * sum(height * width for height, width in sizes)
    return Term(name, numbers * affine, norm_macs=2 * elements, activations=elements, buffers=numbers)


def linear(name: str, inputs: int, outputs: int, *, bias: bool = True) -> Term:
    """A linear layer used once."""
    parameters = outputs * inputs + outputs * bias
    return Term(name, parameters, macs=outputs * inputs, activations=outputs, kernels=parameters)


def free(name: str, parameters: int) -> Term:
    """Parameters outside any layer (mixing coefficients, say): they cost no MACs in our counting."""
    return Term(name, parameters)
