"""Which volumes of a series are restored once more to show what the T1w changes in it."""

from __future__ import annotations

from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from bids_sr.dwi.gradients import Gradients, shells, spread_out

#: One in so many volumes is restored a second time: at most a quarter of what restoring takes, and 16 % of a run of the
#: small demo with a network of the size of "default" (`bids_sr ... --output-resolution 1.5`, times of its record).
ONE_IN = 4
#: More weighted volumes than these, or than so many per shell, say no more.
N_WEIGHTED, N_PER_SHELL, MOST_WEIGHTED = 12, 6, 24


def volumes_to_ablate(gradients: Gradients, b0_threshold: float) -> NDArray[np.int64]:
    """The volumes that are restored without the T1w too, in order: a b0 and a few of each shell, a quarter of all.

    The directions of each shell are as far apart as they come, and shells take turns, the lowest first. A b0 and one
    weighted volume where the series is short; 25 in all at most.
    """
    shell = shells(gradients.bvals, b0_threshold)
    axes = np.nan_to_num(gradients.bvecs)
    groups = [np.flatnonzero(shell == number) for number in range(1, int(shell.max()) + 1)]
    spread = [group[spread_out(axes[group])].tolist() for group in groups]
    in_turn = [volume for turn in zip_longest(*spread) for volume in turn if volume is not None]
    n_weighted = min(max(N_WEIGHTED, N_PER_SHELL * len(groups)), MOST_WEIGHTED, max(1, len(shell) // ONE_IN - 1))
    b0 = np.flatnonzero(shell == 0)[:1]
    return np.sort(np.concatenate([b0, np.array(in_turn[:n_weighted], dtype=np.int64)]))
