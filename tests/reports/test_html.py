"""The page is one file that says what was done, hides nothing and runs nothing that it was given."""

from html.parser import HTMLParser

import pytest

from bids_sr.reports.html import (
    duration,
    grey_level,
    render_subject_report,
    table_groups,
    verdict,
    write_subject_report,
)
from tests.reports.brains import FAILED, departure, record, rows, self_check, t1w_effect


class Page(HTMLParser):
    """Elements of a page with their attributes, and checks that each id is used once."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def test_nothing_is_loaded_from_elsewhere(made):
    folder, done = made
    text = render_subject_report("01", [done], folder)
    page = Page(text)
    sources = [
        e.get("src") or e.get("href") for tag, e in page.elements if tag in {"img", "script", "link", "image", "use"}
    ]
    assert all(source is None or source.startswith("data:") for source in sources)
    assert "url(" not in text and "@import" not in text
    assert {e["href"].split(":")[0] for e in page.all("a") if not e["href"].startswith("#")} <= {"https"}


def test_every_picture_says_what_it_shows(made):
    folder, done = made
    page = Page(render_subject_report("01", [done], folder))
    pictures = page.all("img")
    assert len(pictures) > 100
    assert all(picture["alt"].strip() for picture in pictures)
    assert all(drawing.get("aria-label") for drawing in page.all("svg") if drawing.get("role") == "img")


def test_ids_are_unique_and_links_arrive(made):
    folder, done = made
    page = Page(render_subject_report("01", [done, done, FAILED], folder))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [a["href"][1:] for a in page.all("a") if a["href"].startswith("#")]
    controls = [a[key] for _, a in page.elements for key in ("aria-controls", "aria-labelledby") if key in a]
    assert set(targets + controls) <= set(ids)


def test_what_a_dataset_says_of_itself_is_shown_as_text(made):
    folder, done = made
    evil = "<script>alert(1)</script>"
    spoilt = done | {
        "label": evil,
        "warnings": [evil],
        "command_line": evil,
        "version": evil,
        "outputs": [evil],
        "options": {evil: evil},
        "model": done["model"] | {"name": evil},
    }
    failed = FAILED | {"error": {"message": evil, "node": evil, "crash_file": evil}}
    text = render_subject_report(evil, [spoilt, failed], folder)
    assert evil not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 8


def test_names_in_any_script_and_long_paths_survive(made):
    folder, done = made
    path = "/data/" + "very-long-folder/" * 40
    text = render_subject_report("田中", [done | {"label": "sub-é ses-Ж", "command_line": path}], folder)
    assert "Subject 田中" in text and "sub-é ses-Ж" in text and path in text


def test_warnings_and_failures_come_first(made):
    folder, done = made
    text = render_subject_report("sub-01", [done | {"warnings": ["No T1w was found."]}, FAILED], folder)
    start = text.index("<h1>Subject 01</h1>")
    first_series = text.index('<article id="series-1"')
    for words in ("1 of 2 series failed", "No T1w was found.", "16 b-values for 17 volumes"):
        assert start < text.index(words) < first_series
    assert "logs/crash-1.txt" in text


@pytest.mark.parametrize(
    ("uses", "t1w", "words"),
    [
        (True, {"used": True, "reason": ""}, "same session; it guided the model"),
        (True, {"used": False, "reason": "it is blank"}, "the model was given zeros in its place: it is blank"),
        (False, {}, "this model does not use it"),
    ],
)
def test_it_says_whether_the_t1w_took_part(made, uses, t1w, words):
    folder, done = made
    shown = done | {"model": done["model"] | {"uses_t1w": uses}, "t1w": t1w}
    assert words in render_subject_report("01", [shown], folder)
    assert words not in render_subject_report("01", [done], folder)


def test_a_model_without_the_t1w_it_uses_is_told(made):
    folder, done = made
    alone = done | {"model": done["model"] | {"uses_t1w": True}, "inputs": done["inputs"] | {"t1w": None}}
    assert "none; the model was given zeros in its place" in render_subject_report("01", [alone], folder)


def test_the_numbers_are_those_of_the_table(made):
    folder, done = made
    text = render_subject_report("01", [done], folder)
    assert '<td class="start">−0.020</td>' in text
    assert '<td class=" better">0.030</td>' in text
    assert "74.5" not in text and "1 min 15 s" in text


def test_the_truth_has_its_own_table(made):
    folder, done = made
    truth = [row | {"method": "truth"} if row["method"] == "orig" else row for row in rows()]
    assert "Against the known truth" not in render_subject_report("01", [done], folder)
    assert "Against the known truth" in render_subject_report("01", [done | {"truth_table": truth}], folder)


@pytest.mark.parametrize("dropped", sorted(record()))
def test_a_record_may_lack_anything(made, dropped):
    folder, done = made
    partial = {key: value for key, value in done.items() if key != dropped}
    assert "</html>" in render_subject_report("01", [partial], folder)


def test_a_missing_picture_is_told_not_fatal(made, tmp_path):
    _, done = made
    assert "Picture missing: Acquired, FA" in render_subject_report("01", [done], tmp_path)


def test_no_record_at_all(tmp_path):
    assert "Nothing was processed" in render_subject_report("01", [], tmp_path)


def test_the_page_is_written_whole(made, tmp_path):
    folder, done = made
    page = tmp_path / "out" / "sub-01.html"
    write_subject_report("01", [done], page, folder)
    assert page.read_text(encoding="utf-8").endswith("</html>\n") or page.read_text(encoding="utf-8").endswith(
        "</html>"
    )
    assert [file.name for file in page.parent.iterdir()] == ["sub-01.html"]
    before = page.read_bytes()
    with pytest.raises(TypeError):
        write_subject_report("01", [done | {"grids": {"acquired": {"shape": 3, "voxel_sizes": 3}}}], page, folder)
    assert page.read_bytes() == before


def test_the_same_records_give_the_same_page(made):
    folder, done = made
    assert render_subject_report("01", [done], folder) == render_subject_report("01", [done], folder)


def test_verdicts():
    good = {"status": "done", "warnings": []}
    assert verdict([good])["level"] == "good"
    assert verdict([good | {"warnings": ["x"]}])["level"] == "warning"
    assert verdict([good, FAILED])["level"] == "bad"


def test_the_verdict_says_on_how_many_series_it_helped():
    checked = [{"status": "done", "self_check": {"done": True, "level": level}} for level in ("yes", "no", "yes")]
    undone = {"status": "done", "self_check": {"done": False, "reason": "too thin"}}
    assert verdict([*checked, undone])["detail"].startswith("By the self-check it helped on 2, did not help on 1 of 3.")
    assert verdict(checked[1:2])["detail"].startswith("By the self-check it did not help on this scan.")
    assert "self-check" not in verdict([undone])["detail"]


def test_the_sections_that_a_series_has_are_listed_and_no_other(made):
    folder, done = made
    page = Page(render_subject_report("01", [done, FAILED], folder))
    listed = [a["href"] for a in page.all("a") if a["href"].startswith("#series-1-")]
    sections = [f"#{e['id']}" for e in page.all("section") if e.get("id", "").startswith("series-1-")]
    assert listed == sections
    assert "#series-1-self-check" not in listed and "#series-1-tensor" in listed
    assert not [a for a in page.all("a") if a["href"].startswith("#series-2-")]


def test_better_is_said_only_where_it_is_so():
    (line, *_) = table_groups(rows())[0]["lines"]
    assert line["better"] == {"mae": "sr", "correlation": "sr", "v1_angle": "sr"}
    same = [row | {"mae": 0.05 if row["method"] != "orig" else None} for row in rows()]
    assert table_groups(same)[0]["lines"][0]["better"]["mae"] == ""
    assert table_groups([row for row in rows() if row["method"] != "cubic"])[0]["lines"][0]["better"]["mae"] == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.26, "4.3 s"), (59.4, "59 s"), (75, "1 min 15 s"), (3600, "1 h 0 min"), (7325, "2 h 2 min")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(("value", "text"), [(36481.2, "36,481"), (0.0123456, "0.01235"), (-2, "−2"), (0.0, "0")])
def test_grey_levels(value, text):
    assert grey_level(value) == text


def check_section(text, name="Self-check"):
    """The part of a page that tells of a check."""
    return text.split(f'aria-label="{name}"')[1].split("</section>")[0]


def test_the_self_check_says_whether_it_helped_and_where_not(tmp_path):
    picture = {"file": "missing.webp", "box": [0, 0, 1, 1]}
    contrast = {version: picture for version in ("acquired", "cubic", "sr", "gain")} | {"gain_range": [-0.2, 0.2]}
    plane = {"name": "axial", "size_mm": [40, 50], "letters": list("RLAP")}
    figures = {"plane": plane, "dwi": contrast | {"volume": 4, "b": 1000.0}, "fa": contrast}
    text = render_subject_report("01", [record() | {"self_check": self_check(figures)}], tmp_path)
    section = check_section(text)
    assert "Super-resolution helped &lt;here&gt;." in section and "told good" in section
    assert "4 × 4 × 3 mm" in section and "12 weighted volumes" in section
    assert section.count("Picture missing") == 8
    assert "volume 5, b = 1000" in section and "−0.200" in section
    page = Page(section)
    better = [attributes["class"] for attributes in page.all("td") if "better" in attributes.get("class", "")]
    assert len(better) == 6 and better.count("start better") == 1
    # MD in 10^-3 mm2/s
    assert "500.000" in section
    assert "super-resolution helped on this scan" in text.split('aria-label="Self-check"')[0]


def test_a_check_without_a_tensor_says_so(tmp_path):
    signals = self_check() | {"rows": [row for row in self_check()["rows"] if row["measure"] == "PSNR"]}
    text = render_subject_report("01", [record() | {"self_check": signals}], tmp_path)
    assert "signals alone" in check_section(text)


def test_a_check_that_was_not_done_says_why_and_one_not_asked_for_says_nothing(tmp_path):
    undone = {"done": False, "failed": False, "reason": "No axis <can> be degraded."}
    section = check_section(render_subject_report("01", [record() | {"self_check": undone}], tmp_path))
    assert "It was not done. No axis &lt;can&gt; be degraded." in section and "<table" not in section
    assert "Self-check" not in render_subject_report("01", [record()], tmp_path)


PICTURE = {"file": "missing.webp", "box": [0, 0, 1, 1]}
VIEWS = {plane: PICTURE for plane in ("sagittal", "coronal", "axial")}
PLANES = {plane: {"size_mm": [40, 50], "letters": list("RLAP"), "zoom_box": [0, 0, 1, 1]} for plane in VIEWS}


def test_where_the_result_departs_is_said_drawn_and_counted(tmp_path):
    worst = {"acquired": VIEWS, "sr": VIEWS, "departure": VIEWS, "planes": PLANES, "centre_mm": [4.0, -10.0, 22.0],
             "b": 1000.0, "window": [0.0, 900.0], "range": [-10.0, 10.0]}  # fmt: skip
    figures = {"maps": {"range": [-10.0, 10.0], "sr": VIEWS, "cubic": VIEWS}, "worst": worst}
    made = record({"planes": PLANES}) | {"departure": departure() | {"figures": figures}}
    text = render_subject_report("01", [made], tmp_path)
    section = check_section(text, "Departure")
    assert "It departs &lt;here&gt;." in section
    assert section.count("Picture missing") == 3 * 2 + 9
    assert "cuts through (4, −10, 22) mm: mean of the volumes at b = 1000" in section
    assert "−27.0 standard errors" in section and "42.1 %" in section and "1.059" in section
    assert "Detail finer than the acquired voxels averages away" in section
    assert "beyond its noise in 44.8% of the brain (cubic 44.8%)" in text.split('aria-label="Departure"')[0]


def test_interpolation_has_no_second_column(tmp_path):
    section = check_section(
        render_subject_report("01", [record() | {"departure": departure(("sr",))}], tmp_path), "Departure"
    )
    assert len(Page(section).all("td")) == 2 * 4


@pytest.mark.parametrize(("tensor", "n_columns"), [(True, 6), (False, 4)])
def test_what_the_t1w_changed_is_said_drawn_and_counted(tmp_path, tensor, n_columns):
    most = {"without": VIEWS, "sr": VIEWS, "change": VIEWS, "planes": PLANES, "centre_mm": [4.0, -10.0, 22.0],
            "contrast": "fa" if tensor else "dwi", "window": [0.0, 0.8], "range": [0.0, 2.0]}  # fmt: skip
    figures = {"maps": {"range": [0.0, 2.0], "sr": VIEWS}, "most": most}
    made = record() | {"t1w_effect": t1w_effect(tensor=tensor) | {"figures": figures}}
    text = render_subject_report("01", [made], tmp_path)
    section = check_section(text, "Effect of the T1w")
    assert "The T1w &lt;did&gt; it." in section and "8 volumes were restored without the T1w too" in section
    assert section.count("Picture missing") == 3 + 9
    assert len(Page(section).all("td")) == 2 * n_columns
    assert ("do not determine a tensor" in section) is not tensor
    assert ("0.030" in section) is tensor
    assert "changed the signal by 0.31 times the noise" in text.split('aria-label="Effect of the T1w"')[0]


@pytest.mark.parametrize(("part", "name"), [("departure", "Departure"), ("t1w_effect", "Effect of the T1w")])
def test_a_guard_that_broke_off_says_why_and_one_that_was_not_asked_for_says_nothing(tmp_path, part, name):
    undone = {"done": False, "failed": True, "reason": "Out of <memory>."}
    section = check_section(render_subject_report("01", [record() | {part: undone}], tmp_path), name)
    assert "This was not done. Out of &lt;memory&gt;." in section
    assert "<table" not in section and "<img" not in section
    assert f'aria-label="{name}"' not in render_subject_report("01", [record()], tmp_path)
