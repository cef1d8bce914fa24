"""What is restored a second time stands for all shells and costs a quarter of the first time at most."""

import numpy as np
import pytest

from bids_sr.dwi.ablation import determine_tensor
from bids_sr.dwi.gradients import Gradients, shells
from bids_sr.evaluation.ablation import ONE_IN, volumes_to_ablate
from tests.dwi.made_series import directions


def scheme(n_b0, *shell_sizes):
    """b0 volumes first, then shells whose directions come sorted by their height."""
    bvals = np.concatenate([np.zeros(n_b0), *[np.full(n, 1000.0 * (i + 1)) for i, n in enumerate(shell_sizes)]])
    return Gradients(bvals, np.vstack([np.zeros((n_b0, 3)), *[directions(n) for n in shell_sizes]]))


@pytest.mark.parametrize(
    ("sizes", "n_weighted"),
    [((1, 6), 1), ((2, 14), 3), ((1, 30), 6), ((1, 64), 12), ((6, 30, 30), 12), ((18, 90, 90, 90), 18)],
)
def test_there_are_a_b0_and_a_quarter_in_all(sizes, n_weighted):
    table = scheme(*sizes)
    volumes = volumes_to_ablate(table, 50.0)
    chosen = shells(table.bvals, 50.0)[volumes]
    assert (chosen == 0).sum() == 1
    assert len(volumes) == n_weighted + 1 <= max(2, len(table) // ONE_IN)
    assert (np.diff(volumes) > 0).all()
    counts = np.bincount(chosen)[1:]
    assert counts.max() - counts.min() <= 1


def test_thirty_directions_determine_a_tensor_and_fourteen_do_not():
    for n, expected in ((30, True), (14, False)):
        table = scheme(1, n)
        assert determine_tensor(table.subset(volumes_to_ablate(table, 50.0)), 50.0) is expected


def test_b0_vectors_may_be_no_numbers():
    table = scheme(2, 30)
    table.bvecs[:2] = np.nan
    assert len(volumes_to_ablate(table, 50.0)) == 8
