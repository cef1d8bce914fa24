"""Means over volumes, series and subjects, in that order, as CSV, Markdown and JSON."""

import csv
import io
import math

import numpy as np
import pytest

from bids_sr.evaluation.perception import PerceptualFigures
from bids_sr.evaluation.process import Cost
from bids_sr.evaluation.tables import (
    FIGURES,
    as_csv,
    dump,
    groups,
    headline,
    load,
    mean_and_spread,
    scan_rows,
    subject_rows,
    summary,
    volume_rows,
)
from tests.evaluation.made import result, volume


def test_the_figures_of_a_scan_are_those_of_its_weighted_volumes():
    figures = result().figures
    assert set(figures) == set(FIGURES)
    assert figures["psnr_mask"] == 22
    assert figures["psnr_b0"] == 30
    assert figures["seconds_per_volume"] == 2


def test_figures_by_vgg_are_there_where_they_were_asked_for():
    scans = [result(perception=PerceptualFigures(0.25, 3.0)), result("sub-02", perception=PerceptualFigures(0.75, 5.0))]
    (group,) = groups(scans)
    assert (group.mean("vgg"), group.mean("fid")) == (0.5, 4)
    assert [(row["vgg"], row["fid"]) for row in scan_rows(scans)] == [(0.25, 3), (0.75, 5)]
    text = summary(scans, "")
    assert "| 0.5000 ± 0.3536 | 4.000 ± 1.414 |" in text
    assert "FID with these features" in text
    assert load(dump(scans[0], "key"), "key") == scans[0]
    without = summary([result()], "")
    assert "VGG" not in without
    assert "vgg" not in scan_rows([result()])[0]


def test_series_count_within_their_subject_and_subjects_alike():
    """Two series of 10 and 20 dB and a subject of one with 30 dB: (15 + 30) / 2, not 20."""

    def scan(subject, series, psnr):
        return result(subject, series, volumes=(volume(0, weighted=False), volume(1, psnr_mask=psnr)))

    scans = [scan("sub-01", "sub-01_dir-AP", 10.0), scan("sub-01", "sub-01_dir-PA", 20.0), scan("sub-02", "", 30.0)]
    (group,) = groups(scans)
    assert group.mean("psnr_mask") == 22.5
    assert group.spread("psnr_mask") == pytest.approx(15 / math.sqrt(2))
    rows = subject_rows(scans)
    assert [(row["subject"], row["n_series"], row["psnr_mask"]) for row in rows] == [
        ("sub-01", 2, 15),
        ("sub-02", 1, 30),
    ]
    assert len(scan_rows(scans)) == 3
    assert len(volume_rows(scans)) == 6


def test_it_is_told_of_which_subjects_the_model_was_given_the_t1w():
    """A subject counts if each of its series came with one."""
    given = [("sub-01", 1, True), ("sub-01", 2, True), ("sub-02", 1, True), ("sub-02", 2, False)]
    scans = [result(subject, f"{subject}_run-{run}", t1w=t1w) for subject, run, t1w in given]
    assert [(row["n_series"], row["n_t1w"]) for row in subject_rows(scans)] == [(2, 2), (2, 1)]
    (group,) = groups(scans)
    assert group.with_t1w == ("sub-01",)
    assert "| 2 | light | 2 | 1 | 22.00" in summary(scans, "")


def test_models_and_scales_are_not_mixed():
    found = groups([result(), result(model="cubic"), result(scale="3"), result("sub-02")])
    assert [(group.scale, group.model, len(group.subjects)) for group in found] == [
        ("2", "light", 2),
        ("2", "cubic", 1),
        ("3", "light", 1),
    ]


def test_tables_are_read_back_as_they_are():
    rows = scan_rows([result(), result("sub-02", noise=0.05)])
    read = list(csv.DictReader(io.StringIO(as_csv(rows))))
    assert [row["subject"] for row in read] == ["sub-01", "sub-02"]
    assert float(read[0]["md_error"]) == 1e-4
    assert float(read[1]["noise"]) == 0.05
    assert read[0]["true_scale"] == "2x2x2"


def test_what_is_no_number_is_not_available():
    text = as_csv(volume_rows([result(volumes=(volume(0, psnr_volume=math.nan, psnr_mask=math.inf),))]))
    (row,) = csv.DictReader(io.StringIO(text))
    assert row["psnr_volume"] == "n/a"
    assert float(row["psnr_mask"]) == math.inf


def test_an_empty_table_is_empty():
    assert as_csv([]).strip() == ""


@pytest.mark.parametrize("cost", [Cost(6.0, 0.5, 0.0), Cost(6.0, math.inf, 2.0)])
def test_a_result_survives_its_file(cost):
    made = result(cost=cost, t1w=True)
    assert load(dump(made, "key"), "key") == made


@pytest.mark.parametrize("text", ["", "{}", '{"key": "key", "result": {}}', "[1]", '{"key": "key", "result": 3}'])
def test_a_file_of_something_else_is_no_result(text):
    assert load(text, "key") is None
    assert load(dump(result(), "key"), "other") is None


def test_numbers_are_written_with_their_spread():
    assert mean_and_spread(31.4159, 0.0512, 2) == "31.42 ± 0.05"
    assert mean_and_spread(31.4159, math.nan, 2) == "31.42"
    assert mean_and_spread(math.inf, math.nan, 2) == "inf"
    assert mean_and_spread(math.nan, math.nan, 2) == "–"


def test_the_summary_holds_every_model_and_scale():
    results = [result(), result("sub-02"), result(model="cubic")]
    text = summary(results, "# Title")
    assert text.startswith("# Title\n")
    assert "| 2 | light | 2 | 0 | 22.00 ± 0.00 |" in text
    assert "| 2 | cubic | 1 | 0 | 22.00 |" in text
    assert "GPU" not in text
    assert "not made for" not in text


def test_the_summary_marks_scales_that_a_model_was_not_made_for_and_tells_the_gpu():
    text = summary([result(within_range=False, cost=Cost(6.0, 0.5, 2.5))], "")
    assert "| 2\\* | light |" in text
    assert "not made for" in text
    assert "GPU memory (GB) |" in text
    assert "| 2.50 |" in text


def test_perfect_restorations_do_not_break_the_summary():
    perfect = [
        result(s, volumes=(volume(0, weighted=False), volume(1, psnr_mask=np.inf))) for s in ("sub-01", "sub-02")
    ]
    assert "| inf |" in summary(perfect, "")


def test_the_headline_is_one_line():
    assert headline(result()).startswith("PSNR 22.00 dB")
    assert "\n" not in headline(result())
