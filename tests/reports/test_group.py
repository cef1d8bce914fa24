"""The group's page shows the numbers of the tables, names what stands out, and runs nothing that it was given."""

import re
import subprocess

import pytest

from bids_sr.evaluation.group import judge
from bids_sr.reports.charts import number
from bids_sr.reports.group import render_group_report, verdict
from bids_sr.results import Place, Problem, SeriesResult, cells_of
from tests.browser import PROGRAM, needs_browser
from tests.made_results import tensor_rows
from tests.reports.test_html import Page

EVIL = "<script>alert(1)</script>"
PROBLEM = Problem(Place("09", "", "sub-09", "1"), "it failed in restore: no memory")


def result(name, seed=0, **parts):
    factor = parts.pop("factor", 1.0)
    place = parts.pop("place", Place(name.removeprefix("sub-"), "", name, "1"))
    about = {"model": "light", "version": "0.1.0", "started": "2024-05-01", "voxel_sizes": (2.0, 2.0, 2.0)}
    about |= {"brain_ml": 1400.0 + seed, "departure": 0.02, "self_check": "yes", "t1w_agreement": 0.15}
    return SeriesResult(place, cells_of(tensor_rows(factor, seed=seed)), **(about | parts))


def crowd(n=22):
    return [result(f"sub-{number:02d}", number) for number in range(1, n + 1)]


def render(results, problems=(), notes=()):
    reports = {f"{number:02d}": f"sub-{number:02d}.html" for number in range(1, 40)}
    return render_group_report(judge(results), problems, reports, notes)


def rows_of(text):
    """Text of the table's cells, by the name of the series."""
    body = text.split("data-sortable")[1].split("<tbody>")[1].split("</tbody>")[0]
    plain = [re.sub(r"<(?!/t[hd]>)[^>]+>", "", row) for row in body.split("</tr>") if "<tr" in row]
    cells = [[cell.strip() for cell in re.split(r"</t[hd]>", row)][:-1] for row in plain]
    return {row[0]: row[1:] for row in cells}


def test_numbers_of_the_table_are_those_of_the_series():
    results = crowd()
    rows = rows_of(render(results))
    assert list(rows) == [f"sub-{number:02d}" for number in range(1, 23)]
    for one in results:
        cells = rows[one.place.series]
        expected = [
            number(one.number((name, "WM", method), "mean"), name)
            for name in ("FA", "MD")
            for method in ("orig", "cubic", "sr")
        ]
        assert cells[2:8] == expected
        assert cells[8] == number(one.number(("FA", "WM", "sr"), "mae"), "FA")
        assert cells[10:] == ["helped", "0.150", "2.0\N{NO-BREAK SPACE}%", f"{one.brain_ml:.0f}", "2", "light"]


def test_headings_and_cells_are_as_many():
    text = render(crowd())
    heading = text.split("data-sortable")[1].split("</thead>")[0]
    assert {len(cells) for cells in rows_of(text).values()} == {heading.count("<th ") - 1}


def test_what_stands_out_is_named_with_its_reason_and_linked():
    text = render([*crowd(), result("sub-30", 30, factor=1.6, self_check="no", warnings=("It did not help.",))])
    look = text.split('id="look"')[1].split("</section>")[0]
    assert look.index("sub-30") < 700
    assert '<a href="sub-30.html">sub-30</a>' in look and 'href="#r22"' in look
    assert re.search(r"Mean (FA|MD) in [^:]+: [\d.]+[^,]*, [\d.]+ robust SD above the median of [\d.]+", look)
    assert "It did not help." in look
    assert 'id="r22" data-flags="outlier self-check warning"' in text


def test_charts_have_a_dot_per_series_and_words_for_those_who_cannot_see_them():
    text = render(crowd())
    charts = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    assert len(charts) == 16
    for chart in charts:
        label = re.search(r'aria-label="([^"]+)"', chart)[1]
        assert label.count("22 series, median") == 3
        assert chart.count("h0") == 66


def test_series_without_numbers_are_told():
    text = render(crowd(), [PROBLEM])
    part = text.split('id="without"')[1].split("</section>")[0]
    assert "sub-09 res-1" in part and PROBLEM.reason in part and 'href="sub-09.html"' in part
    assert verdict(judge(crowd()), [PROBLEM])["headline"] == "22 of 23 series are in the table"
    nothing = render([], [PROBLEM])
    assert "No series has numbers" in nothing and 'id="table"' not in nothing


def test_a_report_that_is_not_there_is_not_linked():
    assert 'href="sub-77.html"' not in render([*crowd(), result("sub-77")])


def test_nothing_that_a_record_holds_becomes_markup():
    place = Place(EVIL, "", f"sub-{EVIL}", EVIL)
    evil = result("sub-x", place=place, model=EVIL, version=EVIL, started=EVIL, self_check=EVIL, warnings=(EVIL,))
    text = render_group_report(judge([evil]), [Problem(place, EVIL)], {EVIL: 'x" onclick="alert(1).html'}, [EVIL])
    assert EVIL not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 10
    page = Page(text)
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert len(page.all("script")) == 2


@pytest.mark.parametrize("name", ["Ана-Мария", "被験者七", "مريض", "x" * 3000])
def test_names_in_any_script_are_shown_as_they_are(name):
    text = render([result("sub-1", place=Place("1", "", f"sub-{name}", "1"), warnings=(name,), model=name)])
    assert text.count(name) >= 3


def test_nothing_is_loaded_from_elsewhere_and_ids_are_unique():
    text = render([*crowd(), result("sub-30", 30, factor=1.6)], [PROBLEM], ["A note."])
    page = Page(text)
    addresses = [e.get("src") or e.get("href") for tag, e in page.elements if tag in {"img", "script", "link", "image"}]
    assert [address for address in addresses if address] == ["data:,"]
    ids = [e["id"] for _, e in page.elements if "id" in e]
    assert len(ids) == len(set(ids))
    targets = {e["href"][1:] for e in page.all("a") if e.get("href", "").startswith("#")}
    assert targets <= set(ids)
    assert "A note." in text


def test_series_of_two_resolutions_are_told_apart():
    other = [result(f"sub-{n:02d}", n, place=Place(f"{n:02d}", "", f"sub-{n:02d}", "1p5x1p5x2")) for n in range(3)]
    text = render([*crowd(), *other])
    assert "Model light, voxels of 1 mm: 22 series" in text
    assert "Model light, voxels of 1.5 × 1.5 × 2 mm: 3 series" in text
    assert "sub-01 res-1p5x1p5x2" in rows_of(text) and "sub-01 res-1" in rows_of(text)
    assert "Fewer than 20 series" in text


def test_the_same_results_give_the_same_page():
    assert render(crowd()) == render(crowd())


def test_five_hundred_series_stay_small():
    text = render([result(f"sub-{n:04d}", n) for n in range(500)])
    assert len(text.encode()) < 3_000_000


DRIVE = """<script>
const said = [];
const rows = () => [...document.querySelectorAll("[data-sortable] tbody tr")];
const shown = () => rows().filter((row) => !row.hidden).map((row) => row.cells[0].textContent.trim());
const heading = [...document.querySelectorAll("[data-sortable] thead button")];
heading[2].click();
said.push("largest " + shown()[0], heading[2].parentElement.getAttribute("aria-sort"));
heading[2].click();
said.push("last " + shown().pop());
heading[0].click();
said.push("first " + shown()[0]);
const find = document.querySelector("[data-find]");
find.value = "SUB-3";
find.dispatchEvent(new Event("input"));
said.push(shown().join("+"), document.querySelector("[data-shown]").textContent);
const kind = document.querySelector("[data-kind]");
find.value = ""; kind.value = "outlier";
kind.dispatchEvent(new Event("change"));
said.push(shown().join("+"));
kind.value = "*"; find.value = "nobody"; find.dispatchEvent(new Event("input"));
document.querySelector("[data-row=r22]").dispatchEvent(new MouseEvent("click"));
said.push("found " + document.querySelector("tr.found").id + " of " + shown().length);
said.push(document.documentElement.scrollWidth <= innerWidth ? "fits" : "too wide");
document.title = "drove " + said.join("|");
</script>"""


@pytest.mark.slow
@needs_browser
def test_a_browser_sorts_and_filters_the_table_with_no_complaint(tmp_path):
    page = tmp_path / "group.html"
    text = render([*crowd(), result("sub-30", 30, factor=1.6), result("sub-31", 31, t1w_agreement=float("nan"))])
    page.write_text(text.replace("</body>", DRIVE + "</body>"), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    command = [PROGRAM, *flags, "--enable-logging=stderr", f"--user-data-dir={tmp_path}/profile"]
    run = subprocess.run(
        [*command, "--window-size=500,900", "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=180
    )
    said = re.search(r"<title>drove (.*?)</title>", run.stdout)[1].split("|")
    assert said[:2] == ["largest sub-30", "descending"]
    assert said[2] == "last sub-30"
    assert said[3] == "first sub-01"
    assert said[4:6] == ["sub-30+sub-31", "2 of 24 series"]
    assert "sub-30" in said[6].split("+") and "sub-02" not in said[6].split("+")
    assert said[7:] == ["found r22 of 24", "fits"]
    assert ":CONSOLE" not in run.stderr
