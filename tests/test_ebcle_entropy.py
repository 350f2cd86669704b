import math

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from thriftylib.papers.ebcle_entropy import histogram_entropy, row_counts


@given(hnp.arrays(np.int64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 6)))
def test_row_counts_are_numpys(values):
    expected = np.stack([np.bincount(row, minlength=7) for row in values])
    assert np.array_equal(row_counts(torch.from_numpy(values), 7).numpy(), expected)


def test_entropies_of_known_histograms():
    counts = torch.tensor([[4, 0, 0, 0], [1, 1, 1, 1], [3, 0, 3, 0], [0, 0, 0, 0]])
    assert histogram_entropy(counts).tolist() == [0, math.log(4), math.log(2), 0]
    assert histogram_entropy(counts[None, :, None]).shape == (1, 4, 1)
