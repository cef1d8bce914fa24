"""What stands out does so by the stated rules, and the table holds the series' own numbers."""

import math

import numpy as np
import pytest

from bids_sr.evaluation.group import (
    column_name,
    group_columns,
    group_rows,
    judge,
    measures,
)
from bids_sr.evaluation.outliers import LEAST_NUMBERS
from bids_sr.results import Place, SeriesResult, cells_of
from tests.made_results import tensor_rows


def made(number, *, factor=1.0, resolution="1", model="light", **parts):
    """A result of an ordinary person."""
    place = Place(f"{number:02d}", "", f"sub-{number:02d}", resolution)
    about = {"departure": 0.02 + number / 1e4, "brain_ml": 1400.0 + number, "voxel_sizes": (2.0, 2.0, 2.5)}
    return SeriesResult(place, cells_of(tensor_rows(factor, seed=number)), model, **(about | parts))


def flags(results):
    return {one.result.place.subject: one.flags for one in judge(results).series if one.flags}


def crowd(n=30, **parts):
    return [made(number, **parts) for number in range(n)]


def test_nothing_stands_out_among_equals():
    alike = cells_of(tensor_rows(seed=1))
    results = [SeriesResult(Place(str(n), series=f"sub-{n}", resolution="1"), alike, "light") for n in range(20)]
    assert flags(results) == {}


@pytest.mark.parametrize("factor", [0.6, 1.5])
def test_a_head_of_other_diffusion_stands_out_and_says_in_what(factor):
    results = [*crowd(), made(77, factor=factor)]
    found = judge(results).series[-1]
    assert "outlier" in found.flags
    columns = {distance.measure.column for distance in found.outliers}
    assert {"FA_WM_orig_mean", "FA_WM_sr_mean", "MD_brain_orig_mean"} <= columns
    sizes = [abs(distance.z) for distance in found.outliers]
    assert sizes == sorted(sizes, reverse=True) and found.largest_z == sizes[0]
    assert all((distance.z > 0) == (factor > 1) for distance in found.outliers if "mean" in distance.measure.column)


def test_a_restoration_gone_wrong_stands_out_in_the_difference_alone():
    """The scan is ordinary and so is the restored mean; that it moved by a tenth is not."""
    rows = tensor_rows(seed=5)
    for row in rows:
        if (row["map"], row["tissue"], row["method"]) == ("FA", "WM", "sr"):
            row["bias"] = -0.05
    odd = SeriesResult(Place("99", series="sub-99", resolution="1"), cells_of(rows), "light")
    found = judge([*crowd(), odd]).series[-1].outliers
    assert found[0].measure.column == "FA_WM_sr_bias"


@pytest.mark.parametrize(
    ("parts", "flag"),
    [
        ({"self_check": "no"}, "self-check"),
        ({"self_check": "failed"}, "self-check"),
        ({"t1w_fits": False}, "T1w"),
        ({"warnings": ("Look.",)}, "warning"),
        ({"n_lost": 1}, "files"),
        ({"brain_ml": 3000.0}, "outlier"),
        ({"departure": 0.5}, "outlier"),
    ],
)
def test_each_flag(parts, flag):
    assert flag in flags([*crowd(), made(77, **parts)])["77"]


@pytest.mark.parametrize(("distance", "expected"), [(3.4, ()), (3.6, ("outlier",)), (-3.6, ("outlier",))])
def test_the_limit_is_the_one_stated(distance, expected):
    """Departures -1 to 1 around 5 in steps of 1/200: their median is 5 and their median absolute deviation a half."""
    alike = cells_of(tensor_rows(seed=1))
    departures = [*(5 + step / 200 for step in range(-200, 201)), 5 + distance * 1.4826 * 0.5]
    results = [
        SeriesResult(Place(str(n), series=f"sub-{n}", resolution="1"), alike, "light", departure=departure)
        for n, departure in enumerate(departures)
    ]
    found = judge(results).series[-1]
    assert found.flags == expected
    assert found.largest_z == pytest.approx(abs(distance), abs=0.03)


@pytest.mark.parametrize("parts", [{"self_check": "partly"}, {"self_check": "yes"}, {"t1w_agreement": 0.2}])
def test_what_is_no_flag(parts):
    ordinary = made(3, **parts)
    assert judge([*crowd(), ordinary]).series[-1].flags == judge([*crowd(), made(3)]).series[-1].flags


def test_a_warning_that_most_share_is_told_once():
    common = "No T1w image was found."
    results = [*crowd(20, warnings=(common,)), made(77), made(78, warnings=(common, "Own."))]
    group = judge(results)
    assert group.shared_warnings == {common: 21}
    assert [one.result.place.subject for one in group.series if "warning" in one.flags] == ["78"]
    assert group.series[-1].warnings == ("Own.",)
    few = judge([made(number, warnings=(common,)) for number in range(3)])
    assert not few.shared_warnings and all("warning" in one.flags for one in few.series)


def test_series_are_compared_with_their_like_only():
    """Another model shifts all of its series; by the same rule none of them is an outlier."""
    first, second = crowd(30), [made(100 + n, factor=1.4, model="default") for n in range(30)]
    mixed = judge([x for pair in zip(first, second, strict=True) for x in pair])
    assert [(stratum.model, len(stratum.series)) for stratum in mixed.strata] == [("light", 30), ("default", 30)]
    alone = {one.result.place.series: one.outliers for one in (*judge(first).series, *judge(second).series)}
    got = {one.result.place.series: one.outliers for one in mixed.series}
    assert {name: [d.z for d in found] for name, found in got.items()} == {
        name: [d.z for d in found] for name, found in alone.items()
    }
    # In the order given, whatever the strata.
    assert [one.result.place.series for one in mixed.series][:3] == ["sub-00", "sub-100", "sub-01"]


def test_few_series_have_no_outliers():
    results = [*crowd(LEAST_NUMBERS - 2), made(77, factor=9.0)]
    assert all(not one.outliers and math.isnan(one.largest_z) for one in judge(results).series)
    assert "outlier" in judge([*crowd(LEAST_NUMBERS - 1), made(77, factor=9.0)]).series[-1].flags


def test_every_number_of_the_series_tables_is_in_the_row_as_it_stands_there():
    result = made(1)
    (row,) = group_rows(judge([result]))
    assert set(row) == set(group_columns())
    seen = 0
    for key, cells in result.cells.items():
        for column, text in cells.items():
            name = column_name(key, column)
            if name in row:
                assert row[name] == text
                seen += 1
            else:
                # Counts stand once per tissue; what never exists has no column.
                assert column == "n_voxels" or text == "n/a"
    assert seen == len([name for name in row if name.startswith(("FA_", "MD_", "AD_", "RD_"))])
    assert row["WM_n_voxels"] == result.text(("FA", "WM", "orig"), "n_voxels")


def test_columns_are_the_same_whatever_the_series_hold():
    bare = SeriesResult(Place("1", "", "sub-1", "1"), {("FA", "WM", "sr"): {"mean": "0.4"}})
    (row,) = group_rows(judge([bare]))
    assert list(row) == list(group_columns())
    assert row["FA_WM_sr_mean"] == "0.4" and row["MD_WM_sr_mean"] == "n/a" and row["session_id"] is None


def test_columns_split_into_map_tissue_method_and_number():
    numbers = [name for name in group_columns() if name.count("_") >= 3 and name[:2] in ("FA", "MD", "AD", "RD")]
    assert len(numbers) == 4 * 4 * 3 * 3 + 4 * 4 * 2 * 3 + 2
    assert {tuple(name.split("_", 3))[2] for name in numbers} == {"orig", "cubic", "sr"}


def test_measures_are_columns_of_the_table():
    names = [measure.column for measure in measures()]
    assert set(names) <= set(group_columns()) and len(set(names)) == len(names)
    values = [measure.value(made(1)) for measure in measures()]
    assert np.isfinite(values).all()
