"""The order of the levels; tests/scripts/test_calibrate_pseudo_mos.py has the whole way from distorted sets."""

import numpy as np

from modeling_metaqap.data.distorted.reference_population import level_order


def test_level_order_counts_photographs_and_neighbours() -> None:
    scores = np.array([[0.9, 0.7, 0.5, 0.3, 0.1], [0.9, 0.7, 0.7, 0.3, 0.1]])
    assert level_order(scores) == (0.5, 7 / 8)  # a tie is not in order
