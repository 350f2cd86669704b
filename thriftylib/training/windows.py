"""Two ways to lay out what a convolution gives to a 2x2 max-pool: pixel after pixel, or window after window.

A convolution with 8 outputs leaves half of a processor's vectors empty, and a max-pool that notes where each maximum
was is slow. Where the four pixels of each window are outputs of their own, of one convolution with stride 2 whose four
kernels are the given one, shifted, vectors are full and the pool is two maxima of whole rows. It costs ((k + 1) / k)^2
times the MACs, and finding the images' gradient would cost more still: so it serves the first stage of a network.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from thriftylib.training.groups import aten

VECTOR = 16  # fp32 numbers of the widest vectors; with as many outputs there is nothing to fill
_POOL: tuple[Any, ...] = ([2, 2], [2, 2], [0, 0], [1, 1], False)


def layout(x: Tensor, weight: Tensor, padding: tuple[int, int], wanted: bool) -> type[Pixels]:
    """How the convolution of ``x`` (N, C, H, W) by ``weight`` (C', C, k, k) is laid out; ``wanted``: x's gradient."""
    sizes = output_size(x, weight, padding)
    return Pixels if wanted or len(weight) >= VECTOR or any(size % 2 for size in sizes) else Windows


def output_size(x: Tensor, weight: Tensor, padding: tuple[int, int]) -> tuple[int, int]:
    """(H', W') of a convolution with stride 1."""
    height, width = (x.shape[i] + 2 * padding[i - 2] - weight.shape[i] + 1 for i in (2, 3))
    return height, width


class Pixels:
    """(N, C', H', W') with the channels last."""

    stride = 1

    @staticmethod
    def weight(weight: Tensor) -> Tensor:
        """The kernel to convolve with."""
        return weight.contiguous(memory_format=torch.channels_last)

    @staticmethod
    def of_weight(gradient: Tensor) -> Tensor:
        """The gradient of the given kernel from that of :meth:`weight`."""
        return gradient

    @staticmethod
    def pool(y: Tensor) -> tuple[Tensor, Tensor]:
        """The maxima, (N, C', H' // 2, W' // 2), and what :meth:`unpool` needs of them."""
        return aten.max_pool2d_with_indices(y, *_POOL)

    @staticmethod
    def unpool(gradient: Tensor, y: Tensor, kept: Tensor) -> Tensor:
        """The gradient of ``y`` from that of its maxima; the first of equal pixels gets it."""
        return aten.max_pool2d_with_indices_backward(gradient, y, *_POOL, kept)


class Windows(Pixels):
    """(N, 4 C', H' / 2, W' / 2) with the channels last: of each window the upper left pixel, the upper right, ..."""

    stride = 2

    @staticmethod
    def weight(weight: Tensor) -> Tensor:
        outputs, inputs, height, width = weight.shape
        four = weight.new_zeros(2, 2, outputs, inputs, height + 1, width + 1)
        for i, j in _CORNERS:
            four[i, j, :, :, i : i + height, j : j + width] = weight
        return four.flatten(0, 2).contiguous(memory_format=torch.channels_last)

    @staticmethod
    def of_weight(gradient: Tensor) -> Tensor:
        four = gradient.unflatten(0, (2, 2, -1))
        height, width = (size - 1 for size in gradient.shape[2:])
        return sum(four[i, j, :, :, i : i + height, j : j + width] for i, j in _CORNERS)

    @staticmethod
    def pool(y: Tensor) -> tuple[Tensor, Tensor]:
        pixels = _windows(y)
        of_rows = torch.maximum(pixels[:, :, 0], pixels[:, :, 1])
        largest = torch.maximum(of_rows[:, 0], of_rows[:, 1])
        n, _, height, width = y.shape
        return largest.view(n, height, width, -1).permute(0, 3, 1, 2), of_rows

    @staticmethod
    def unpool(gradient: Tensor, y: Tensor, kept: Tensor) -> Tensor:
        pixels, result = _windows(y), torch.empty_like(y)
        found, of_rows = _windows(result), torch.empty_like(kept)
        gradient = gradient.permute(0, 2, 3, 1).reshape(len(kept), -1)
        zero = gradient.new_zeros(())
        torch.where(kept[:, 0] >= kept[:, 1], gradient, zero, out=of_rows[:, 0])
        torch.sub(gradient, of_rows[:, 0], out=of_rows[:, 1])
        torch.where(pixels[:, :, 0] >= pixels[:, :, 1], of_rows, zero, out=found[:, :, 0])
        torch.sub(of_rows, found[:, :, 0], out=found[:, :, 1])
        return result


_CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))


def _windows(y: Tensor) -> Tensor:
    """The same memory as (windows, row, column, C')."""
    return y.permute(0, 2, 3, 1).reshape(-1, 2, 2, y.shape[1] // 4)
