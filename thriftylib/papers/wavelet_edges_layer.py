"""The layer before the network: wavelet transforms as pairs of matrices, and what they feed.

A separable transform with whatever is beyond the image's border is linear along each axis. So both methods are a few
maps ``L X R^T`` of an image X, whose matrices are made once, in fp64, from the filters. For the small images of this
book two matrix products a map are faster than convolutions with one channel, on a CPU by an order of magnitude.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thriftylib.options import ImageShape
from thriftylib.papers.wavelet_edges import Band, Filters, Mode, WaveletEdgesOptions, filters

Pair = tuple[np.ndarray, np.ndarray]
"""L (h, H) and R (w, W)."""
_BEYOND = {"symmetric": "symmetric", "reflect": "reflect", "periodic": "wrap", "constant": "edge", "zero": "constant"}
_LUMA = (0.299, 0.587, 0.114)  # BT.601
SOBEL = Filters((), (1.0, 0.0, -1.0), (), (), (0.25, 0.5, 0.25))  # a step of height h gives h


def _extended(size: int, before: int, after: int, mode: Mode) -> np.ndarray:
    return np.pad(np.eye(size), ((before, after), (0, 0)), _BEYOND[mode])


def _filtered(rows: np.ndarray, taps: Sequence[float], *, step: int = 1, dilation: int = 1) -> np.ndarray:
    """The convolution of each column of ``rows`` with ``taps`` where they overlap wholly, every ``step``-th place."""
    places = len(rows) - dilation * (len(taps) - 1)
    return sum(tap * rows[i * dilation :][:places:step] for i, tap in enumerate(reversed(taps)))


def approximations(size: int, bank: Filters, *, level: int, steps: int, mode: Mode) -> list[np.ndarray]:
    """Approximations of a signal, rebuilt without any details: matrices of levels ``level - steps`` to ``level``.

    All have the size of the first of those levels, which is ``size`` where ``steps`` is ``level``. The forward steps
    are ``pywt.dwt``'s, the inverse ones ``pywt.idwt``'s.
    """
    taps, forward, inverse = len(bank.low), [np.eye(size)], [np.eye(size)]
    for i in range(level):
        pixels = len(forward[-1])
        low = _filtered(_extended(pixels, taps - 2, taps - 2 + pixels % 2, mode), bank.low, step=2)
        forward.append(low @ forward[-1])
        if i < level - steps:
            inverse = [np.eye(len(low))]
            continue
        spread = np.zeros((2 * len(low) + taps - 2, len(low)))
        for place, tap in enumerate(bank.inverse_low):
            spread[place : place + 2 * len(low) : 2] += tap * np.eye(len(low))
        inverse.append(inverse[-1] @ spread[taps - 2 :][:pixels])
    return [back @ there for back, there in zip(inverse, forward[level - steps :], strict=True)]


def limited(
    size: Sequence[int], bank: Filters, *, level: int, steps: int, keep: Sequence[Band], mode: Mode
) -> list[Pair]:
    """Method 1: maps whose sum is an image of ``size`` (H, W), decomposed and rebuilt from the bands of ``keep``.

    It is ``pywt.waverec2`` of the coefficients of ``pywt.wavedec2``, with the other bands at zero.
    """
    rows, columns = (approximations(pixels, bank, level=level, steps=steps, mode=mode) for pixels in size)
    if {"H", "V", "D"} <= set(keep):  # what the finest approximation has and the coarsest has not
        return [(rows[0], columns[0]), *[(-rows[-1], columns[-1])] * ("A" not in keep)]
    pairs = [(rows[-1], columns[-1])] * ("A" in keep)
    for i in range(steps):
        down, across = rows[i] - rows[i + 1], columns[i] - columns[i + 1]  # details of one axis
        of = {"H": (down, columns[i + 1]), "V": (rows[i + 1], across), "D": (down, across)}
        pairs += [of[band] for band in keep if band != "A"]
    return pairs


def undecimated(size: Sequence[int], bank: Filters, *, level: int, mode: Mode) -> list[Pair]:
    """The maps to W_h and W_v, the details across and down an image of ``size`` (H, W) at a level of its transform.

    The image is extended once, by what all levels reach. Periodic, they are cV and cH of ``pywt.swt2``.
    """

    def along(pixels: int, last: Sequence[float]) -> np.ndarray:
        reach = (2**level - 1) * (len(last) - 1)
        left = (2**level - 1) * ((len(last) - 1) // 2)
        rows = _extended(pixels, left, reach - left, mode)
        for i in range(level - 1):
            rows = _filtered(rows, bank.low, dilation=2**i)
        return _filtered(rows, last, dilation=2 ** (level - 1))

    height, width = size
    across = along(height, bank.across), along(width, bank.high)
    return [across, (along(height, bank.high), along(width, bank.across))]


def random_filters(seed: int) -> Filters:
    """Two filters of three taps, as large as Sobel's: of numpy's ``RandomState``, whose numbers are frozen."""
    drawn = np.random.RandomState(seed).standard_normal((2, 3))
    like = (SOBEL.high, SOBEL.across)
    drawn = [each * np.linalg.norm(other) / np.linalg.norm(each) for each, other in zip(drawn, like, strict=True)]
    return Filters((), tuple(drawn[0]), (), (), tuple(drawn[1]))


def modulus(across: Tensor, down: Tensor) -> Tensor:
    """sqrt(across^2 + down^2), whose derivative is 0 where both are 0."""
    square = across.square() + down.square()
    return square.where(square > 0, 1).sqrt() * (square > 0)


def local_maxima(across: Tensor, down: Tensor, *, threshold: float = 0.0, mask: bool = False) -> Tensor:
    """Method 2: the modulus of a gradient (N, H, W) where it is a local maximum along it, above ``threshold``; else 0.

    The gradient's direction is rounded to one of four: across, down and the two diagonals. A maximum is no smaller than
    both neighbours there; beyond the image they are 0. ``mask``: 1 in place of the modulus.
    """
    size, (height, width) = modulus(across, down), across.shape[1:]
    around = F.pad(size, (1, 1, 1, 1))

    def neighbour(dy: int, dx: int) -> Tensor:
        """The larger of the two neighbours in a direction."""
        sides = (around[:, 1 + s * dy :, 1 + s * dx :][:, :height, :width] for s in (1, -1))
        return torch.maximum(*sides)

    slope = math.tan(math.pi / 8)
    diagonal = torch.where((across > 0) == (down > 0), neighbour(1, 1), neighbour(1, -1))
    larger = torch.where(across.abs() <= slope * down.abs(), neighbour(1, 0), diagonal)
    larger = torch.where(down.abs() <= slope * across.abs(), neighbour(0, 1), larger)
    is_maximum = (size >= larger) & (size > threshold)
    return is_maximum.to(size.dtype) if mask else size * is_maximum


def maps(x: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """``L X R^T`` of images (N, H, W), for K matrices ``left`` (K, h, H) and ``right`` (K, w, W): (N, K, h, w)."""
    (count, high, wide), (kinds, _, _), width = x.shape, left.shape, right.shape[1]
    x = (x.reshape(-1, wide) @ right.reshape(-1, wide).T).view(count, high, kinds, width)
    x = x.permute(2, 0, 3, 1).reshape(kinds, -1, high) @ left.transpose(1, 2)
    return x.view(kinds, count, width, -1).permute(1, 0, 3, 2)


class Edges(nn.Module):
    """The preprocessing layer: images (N, C, H, W) to what the network reads; see ``WaveletEdgesOptions``.

    It has no parameters, and its matrices are not stored. It computes in their precision, also under autocast.
    """

    def __init__(self, options: WaveletEdgesOptions, image_shape: ImageShape) -> None:
        super().__init__()
        self.options = options
        pairs = _pairs(options, image_shape[1:]) if options.feature != "image" else []
        for name, matrices in zip(("left", "right"), zip(*pairs, strict=True), strict=False):
            self.register_buffer(name, torch.tensor(np.stack(matrices), dtype=torch.float32), persistent=False)
        self.register_buffer("luma", torch.tensor(_LUMA)[:, None, None], persistent=False)
        channels = options.inner_shape(image_shape)[0]
        self.norm = nn.BatchNorm2d(channels, affine=False) if options.standardise else nn.Identity()

    def extra_repr(self) -> str:
        return f"{self.options.feature}, {self.options.combine}"

    def edges(self, x: Tensor) -> Tensor:
        """The edges alone of (N, C, H, W), of each channel or of the luma."""
        options, count = self.options, len(x)
        if not options.per_channel and x.shape[1] > 1:
            x = (x * self.luma).sum(1, keepdim=True)
        if options.feature == "image":
            return x
        planes = x.flatten(0, 1)
        found = maps(planes, self.left, self.right)
        if options.feature == "details":
            found = planes - found.squeeze(1) if options.is_complement else found.sum(1)
        elif options.feature == "maxima":
            found = local_maxima(*found.unbind(1), threshold=options.threshold, mask=options.mask)
        else:
            found = modulus(*found.unbind(1))
        return found.unflatten(0, (count, -1))

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.luma.dtype)
            found = self.edges(x)
            if self.options.combine == "add":
                found = x + self.options.gain * found
            elif self.options.combine == "concatenate":
                found = torch.cat((x, found), 1)
            return self.norm(found)


def _pairs(options: WaveletEdgesOptions, size: Sequence[int]) -> list[Pair]:
    how = {"level": options.level, "mode": options.mode}
    if options.feature == "details":
        keep = ("A",) if options.is_complement else options.keep
        return limited(size, filters(options.wavelet), steps=options.steps, keep=keep, **how)
    if options.feature == "maxima":
        return undecimated(size, filters(options.wavelet), **how)
    return undecimated(size, SOBEL if options.feature == "sobel" else random_filters(options.filter_seed), **how)


def behind_edges(options: WaveletEdgesOptions, image_shape: ImageShape, network: nn.Module) -> nn.Sequential:
    """``network`` behind the layer for images (C, H, W)."""
    return nn.Sequential(OrderedDict(edges=Edges(options, image_shape), network=network))
