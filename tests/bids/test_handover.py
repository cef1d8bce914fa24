"""Which folder is made for QSIRecon, and which series may go there."""

import dataclasses
from pathlib import Path

import pytest

from bids_sr.bids.handover import check_layout, handover_folder
from bids_sr.bids.inputs import DwiSeries
from bids_sr.cli.app import parse_args
from bids_sr.config import Config, check
from bids_sr.errors import ConfigurationError, NotForQsireconError

CONFIG = Config(Path("in"), Path("out"), Path("work"), output_layout="qsirecon")


@pytest.mark.parametrize(
    ("grid", "name"),
    [
        ({"output_resolution": (1.25, 1.25, 1.25)}, "for_qsirecon_res-1p25"),
        ({"output_resolution": (1.5, 1.5, 2.0)}, "for_qsirecon_res-1p5x1p5x2"),
        ({"scale": (2.0, 2.0, 2.0)}, "for_qsirecon_scale-2"),
        ({"scale": (2.0, 2.0, 1.0)}, "for_qsirecon_scale-2x2x1"),
    ],
)
def test_each_grid_has_a_folder_of_its_own(grid, name):
    assert handover_folder(dataclasses.replace(CONFIG, **grid)) == Path("out/derivatives") / name


@pytest.mark.parametrize("space", ["ACPC", "T1w"])
def test_series_in_the_spaces_that_qsirecon_knows_may_go(space):
    series = DwiSeries(Path("dwi"), Path("bval"), Path("bvec"), entities={"sub": "01", "space": space})
    check_layout(series, CONFIG)


@pytest.mark.parametrize("entities", [{}, {"space": "MNI152NLin2009cAsym"}])
def test_others_may_not_unless_nothing_is_to_be_handed_over(entities):
    series = DwiSeries(Path("the_dwi"), Path("bval"), Path("bvec"), entities={"sub": "01"} | entities)
    with pytest.raises(NotForQsireconError, match="the_dwi is not in space ACPC or T1w"):
        check_layout(series, CONFIG)
    check_layout(series, dataclasses.replace(CONFIG, output_layout="bids_sr"))


def test_a_layout_that_does_not_exist_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    words = [str(tmp_path / "in"), str(tmp_path / "out"), "participant", "--scale", "2", "-w", str(tmp_path / "work")]
    with pytest.raises(ConfigurationError, match="output-layout"):
        parse_args([*words, "--output-layout", "fmriprep"])
    with pytest.raises(ConfigurationError, match="not one of bids_sr, qsirecon"):
        check(dataclasses.replace(parse_args(words), output_layout="fmriprep"))
