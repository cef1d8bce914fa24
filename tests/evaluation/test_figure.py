"""Where the points of the figure lie, and that it is drawn the same every time."""

import math

from PIL import Image

from bids_sr.evaluation.figure import points, positions, save_figure
from bids_sr.evaluation.tables import groups
from tests.evaluation.made import result, volume


def found():
    scales = ("4", "1x1x2", "2", "2.4", "2x2x1")
    return groups([result(subject, scale=scale) for scale in scales for subject in ("sub-01", "sub-02")])


def test_isotropic_scales_lie_at_their_value_and_the_others_beyond():
    places = positions(found())
    assert list(places) == ["2", "2.4", "4", "1x1x2", "2x2x1"]
    assert [places[scale] for scale in ("2", "2.4", "4")] == [2, 2.4, 4]
    assert 4 < places["1x1x2"] < places["2x2x1"]


def test_points_go_from_left_to_right_and_infinite_ones_are_left_out():
    perfect = result(scale="1", volumes=(volume(0, weighted=False), volume(1, psnr_mask=math.inf)))
    both = [*found(), *groups([perfect])]
    assert [point.scale for point in points(both, "light", "psnr_mask")] == ["2", "2.4", "4", "1x1x2", "2x2x1"]
    assert points(both, "light", "fa_error")[0].scale == "1"
    assert points(both, "cubic", "psnr_mask") == []


def test_the_same_figures_give_the_same_bytes(tmp_path):
    files = [[tmp_path / f"{name}.{kind}" for kind in ("svg", "png")] for name in ("first", "second")]
    for pair in files:
        save_figure(found(), pair)
    assert [file.read_bytes() for file in files[0]] == [file.read_bytes() for file in files[1]]
    with Image.open(files[0][1]) as image:
        assert len(image.convert("RGB").getcolors(2**24)) > 100, "the picture is empty"


def test_a_perfect_restoration_alone_can_be_drawn(tmp_path):
    perfect = result(volumes=(volume(0, weighted=False), volume(1, psnr_mask=math.inf)))
    save_figure(groups([perfect]), [tmp_path / "figure.svg"])
    assert "<svg" in (tmp_path / "figure.svg").read_text()
