"""The mean of the volumes without diffusion weighting."""

import numpy as np

from bids_sr.dwi.b0 import mean_b0


class Recorder:
    """A series that remembers which volumes were read."""

    def __init__(self, data):
        self.data, self.shape, self.read = data, data.shape, []

    def __getitem__(self, index):
        self.read.append(index[-1])
        return self.data[index]


def test_only_b0_volumes_are_read_and_averaged():
    series = Recorder(np.arange(2 * 3 * 4 * 5, dtype=np.int16).reshape(2, 3, 4, 5))
    mean = mean_b0(series, np.array([0, 1000, 50, 51, 2000]), 50)
    np.testing.assert_allclose(mean, series.data[..., [0, 2]].mean(axis=-1))
    assert mean.dtype == np.float32
    assert series.read == [0, 2]


def test_what_is_not_finite_takes_no_part():
    data = np.array([[1.0, 3.0], [np.nan, 5.0], [np.inf, np.nan], [-np.inf, 7.0]]).reshape(4, 1, 1, 2)
    np.testing.assert_array_equal(mean_b0(data, np.zeros(2), 50).ravel(), [2, 5, 0, 7])
