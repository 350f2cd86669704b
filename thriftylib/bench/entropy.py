"""Speed of the entropy of a data set's images, beside scikit-image's one image at a time, on the CPU."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from thriftylib.bench.record import BenchRecord, Variant, record_of
from thriftylib.datasets.load import load
from thriftylib.errors import ThriftyError
from thriftylib.papers.ebcle_entropy import image_entropies
from thriftylib.spec import Data
from thriftylib.training.device import keep_freed_memory

ONE_BY_ONE = 2000  # images of a round: one takes about half a millisecond
SAME = 1e-12  # nats


def bench_entropy(
    *,
    data: str = "cifar10",
    rounds: int = 5,
    threads: int | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> BenchRecord:
    """Entropies of the training images of ``data``, each by its own histogram of all channels.

    After a warm-up round the two take turns: scikit-image on the first ``ONE_BY_ONE`` images, ours on all.

    Raises:
        DataError: the data set is not there.
        ThriftyError: scikit-image is not installed, or the entropies differ.
    """
    try:
        from skimage.measure import shannon_entropy
    except ImportError:
        raise ThriftyError("bench entropy needs scikit-image: pip install scikit-image") from None
    dataset = load(Data(name=data))
    images, native = dataset.train.images, dataset.info.image_shape[1:]
    some, speeds = images[:ONE_BY_ONE].numpy(), {"scikit-image": [], "batched": []}
    before = torch.get_num_threads()
    threads = threads or before
    keep_freed_memory()  # as in every run of ours
    try:
        torch.set_num_threads(threads)
        for number in range(rounds + 1):
            started = time.perf_counter()
            theirs = [shannon_entropy(image, base=np.e) for image in some]
            between = time.perf_counter()
            ours = image_entropies(images, native=native)
            seconds = between - started, time.perf_counter() - between
            difference = np.abs(ours[: len(some)].numpy() - theirs).max()
            if not difference <= SAME:
                raise ThriftyError(f"batched: an entropy differs from scikit-image's by {difference:.1e} nats")
            for speed, count, took in zip(speeds.values(), (len(some), len(images)), seconds, strict=True):
                speed += [round(count / took, 1)] * (number > 0)
            if number:
                report(
                    f"round {number}/{rounds}, images/s: " + ", ".join(f"{k} {v[-1]:.0f}" for k, v in speeds.items())
                )
    finally:
        torch.set_num_threads(before)
    what = {"scikit-image": "scikit-image, one image at a time", "batched": "histograms of many images at once"}
    variants = {
        name: Variant(what=what[name], precision="fp64", after=after, images_per_second=speeds[name])
        for name, after in (("scikit-image", None), ("batched", "scikit-image"))
    }
    shape = "x".join(map(str, dataset.info.image_shape))
    return record_of(
        "entropy", f"entropies of the {len(images):,} training images of {data}, {shape}", variants, threads
    )
