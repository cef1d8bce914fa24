"""A model that uses the T1w is shown it where it can be trusted, and it is told whether it was."""

import nibabel as nib
import numpy as np
import pytest

from bids_sr.dwi.trust import BLANK_T1W, NO_T1W, distrust
from bids_sr.geometry import Grid
from bids_sr.images import save_working
from bids_sr.interfaces.super_resolution import Restore
from tests.made_models import save_tiny_model

GRID = Grid((10, 9, 8), np.diag([-2.0, 2.0, 2.5, 1.0]))
TARGET = GRID.scaled(np.full(3, 1.5))
GUIDED = ("volume", "b0", "t1w")


@pytest.fixture
def stage(tmp_path):
    """The stage with all its inputs but the T1w."""
    random = np.random.default_rng(0)
    data = random.uniform(50, 150, (*GRID.shape, 3)).astype(np.float32)
    mask = np.zeros(GRID.shape, bool)
    mask[3:7, 3:7, 2:6] = True
    np.savetxt(tmp_path / "bval", [[0, 1000, 1000]])

    def run(inputs=GUIDED, t1w=None, guided=False, **options):
        (tmp_path / "run").mkdir(exist_ok=True)
        interface = Restore(
            dwi_file=save_working(data, GRID.affine, tmp_path, "dwi"),
            bval_file=tmp_path / "bval",
            mask_file=save_working(mask, GRID.affine, tmp_path, "mask"),
            target_shape=list(TARGET.shape),
            target_affine=TARGET.affine.tolist(),
            model=save_tiny_model(tmp_path, inputs, guided=guided),
            b0_threshold=50.0,
            label="sub-01",
            **options,
        )
        if t1w is not None:
            interface.inputs.t1w_file = save_working(t1w, np.diag([-1.0, 1.0, 1.0, 1.0]), tmp_path, "t1w")
        outputs = interface.run(cwd=tmp_path / "run").outputs
        return np.asarray(nib.load(outputs.dwi_file).dataobj).copy(), outputs.t1w

    return run


@pytest.fixture
def t1w():
    """Voxels of 1 mm, the same corner as the series."""
    return np.random.default_rng(1).uniform(100, 900, (22, 20, 22)).astype(np.float32)


def test_the_t1w_guides_the_model(stage, t1w, capsys):
    guided, part = stage(t1w=t1w, registration={"agreement": 0.15})
    assert part == {"used": True, "reason": ""}
    without, _ = stage()
    assert not np.allclose(guided, without)
    other, _ = stage(t1w=np.flip(t1w, 0).copy())
    assert not np.allclose(guided, other)
    assert "zeros" not in capsys.readouterr().err


def test_the_t1w_guides_a_model_at_its_own_resolution(stage, t1w):
    """Within one acquired voxel the T1w may differ though its mean over the voxel does not."""
    plain = ("volume", "b0", "shell")
    guided, part = stage(plain, t1w=t1w, guided=True)
    assert part == {"used": True, "reason": ""}
    without, part = stage(plain, guided=True)
    assert part == {"used": False, "reason": NO_T1W}
    assert not np.allclose(guided, without)
    blank, part = stage(plain, t1w=np.zeros_like(t1w), guided=True)
    assert part == {"used": False, "reason": BLANK_T1W}
    np.testing.assert_array_equal(blank, without)


def test_a_t1w_that_was_given_aligned_needs_no_registration(stage, t1w):
    _, part = stage(t1w=t1w)
    assert part["used"]


def test_without_a_t1w_the_model_sees_zeros(stage, capsys):
    _, part = stage()
    assert part == {"used": False, "reason": NO_T1W}
    # Said once, before the run.
    assert "zeros" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("agreement", "value", "reason"),
    [(0.05, None, distrust({"agreement": 0.05})), (0.15, 0.0, BLANK_T1W), (0.15, np.nan, BLANK_T1W)],
)
def test_a_t1w_that_cannot_be_trusted_or_shows_nothing_is_not_shown(stage, t1w, capsys, agreement, value, reason):
    image = t1w if value is None else np.full_like(t1w, value)
    result, part = stage(t1w=image, registration={"agreement": agreement})
    assert part == {"used": False, "reason": reason}
    np.testing.assert_array_equal(result, stage()[0])
    lines = [line for line in capsys.readouterr().err.splitlines() if "zeros" in line]
    assert lines == [f"sub-01: The T1w image did not guide the model, which was given zeros in its place: {reason}."]


def test_a_model_that_does_not_use_the_t1w_says_nothing_of_it(stage, t1w):
    plain = ("volume", "b0", "shell")
    result, part = stage(plain, t1w=t1w)
    assert part == {}
    np.testing.assert_array_equal(result, stage(plain)[0])
