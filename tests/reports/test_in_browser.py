"""A browser without a network opens the pages, drives them with keys and pointer, and has nothing to complain of."""

import re

import pytest

from bids_sr.reports.html import render_subject_report
from tests.browser import needs_browser
from tests.reports.brains import FAILED
from tests.reports.test_group import PROBLEM, crowd, render, result

pytestmark = needs_browser

EVIL = '<script>window.hacked = 1</script><img src="x" onerror="window.hacked = 2">'
LONG = "/data/" + "a-very-long-folder-name/" * 30 + "田中さん/naïve-Ж"
WIDE = "document.documentElement.scrollWidth <= innerWidth"
CUT = "document.querySelector('#series-1-signal [data-viewer]').style.getPropertyValue('--cut')"
#: Text of elements that cannot be told from their background well enough (WCAG 2.2, level AA: 4.5, of large text 3).
FAINT = """(() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const [r, g, b] = numbers(colour).map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const clear = (colour) => !colour.startsWith("rgb") || (numbers(colour)[3] ?? 1) === 0;
  const behind = (element) => {
    while (element && clear(getComputedStyle(element).backgroundColor)) element = element.parentElement;
    return element ? getComputedStyle(element).backgroundColor : "rgb(255, 255, 255)";
  };
  const faint = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || element.closest(".layer, script, style, option, .skip") || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const [a, b] = [light(style.color), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const size = parseFloat(style.fontSize);
    if (ratio < (size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5))
      faint.push(`${element.className} ${ratio.toFixed(2)} ${element.textContent.trim().slice(0, 30)}`);
  }
  return faint;
})()"""


@pytest.fixture(scope="module")
def page(made, tmp_path_factory):
    """The report of a series that is done and one that failed."""
    folder, done = made
    file = tmp_path_factory.mktemp("page") / "sub-01.html"
    file.write_text(render_subject_report("01", [done, FAILED], folder), encoding="utf-8")
    return file


def test_the_slider_follows_keys_pointer_and_choice(browser, page):
    browser.open(page)
    viewer = "document.querySelector('#series-1-signal [data-viewer]')"
    browser.run(f"{viewer}.querySelector('input[type=range]').focus()")
    browser.press("ArrowLeft", times=5)
    assert browser.run(CUT) == "45%"
    browser.press("Home")
    assert browser.run(CUT) == "0%"
    stage = f"{viewer}.querySelector('.stage')"
    x, y, width, height = browser.run(
        f"(() => {{ {stage}.scrollIntoView({{block: 'center', behavior: 'instant'}});"
        f"const box = {stage}.getBoundingClientRect(); return [box.x, box.y, box.width, box.height]; }})()"
    )
    middle = y + height / 2
    browser.drag((x + width / 2, middle), (x + 0.8 * width, middle))
    assert browser.run(CUT) == "80%"
    left = f"{stage}.querySelector('.is-left')"
    assert browser.run(f"getComputedStyle({left}).clipPath").replace(" ", "") in (
        "inset(0px20%0px0px)",
        "inset(0px20%0px0px)",
    )
    assert browser.run(f"{left}.dataset.method") == "acquired"
    browser.run(
        f"(() => {{ const side = {viewer}.querySelector('select'); side.value = 'cubic';"
        "side.dispatchEvent(new Event('input')); })()"
    )
    assert browser.run(f"{left}.dataset.method") == "cubic"
    assert browser.complaints == []


def test_tabs_and_theme_answer_to_keys(browser, page):
    browser.open(page)
    browser.run("document.querySelector('#series-1-tensor [role=tab]').focus()")
    browser.press("End")
    shown = "[...document.querySelectorAll('#series-1-tensor [role=tabpanel]')].map((panel) => panel.checkVisibility())"
    assert browser.run("document.activeElement.textContent") == "Colour FA"
    assert browser.run(shown) == [False, False, True]
    before = browser.run("getComputedStyle(document.body).backgroundColor")
    browser.run("document.querySelector('[data-theme-button]').focus()")
    browser.press("Enter", times=2)
    assert browser.run("document.documentElement.dataset.theme") == "dark"
    assert browser.run("getComputedStyle(document.body).backgroundColor") != before
    browser.press(" ")
    assert browser.complaints == []


def test_the_skip_link_is_the_first_stop_and_sections_can_be_reached(browser, page):
    browser.open(page)
    browser.press("Tab")
    assert browser.run("document.activeElement.getAttribute('href')") == "#main"
    links = browser.run(
        "[...document.querySelectorAll('.contents a')].map((a) => document.querySelector(a.hash).checkVisibility())"
    )
    assert len(links) >= 9 and all(links)
    assert len(browser.run("[...document.querySelectorAll('.contents a')].map((a) => a.hash)")) == len(links)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("phone", [False, True], ids=["desk", "phone"])
def test_it_fits_can_be_read_and_is_told_to_a_screen_reader(browser, page, dark, phone):
    browser.open(page, width=390 if phone else 1200, phone=phone, dark=dark)
    assert browser.run(WIDE)
    assert browser.run(FAINT) == []
    pictures = browser.named("image", "img")
    assert len(pictures) > 20 and all(pictures)
    assert all(browser.named("button", "slider", "combobox", "checkbox", "tab", "link", "navigation", "region"))
    assert browser.complaints == []


def test_on_paper_every_version_is_shown_and_no_control(browser, page):
    browser.open(page)
    browser.call("Emulation.setEmulatedMedia", media="print")
    visible = "[...document.querySelectorAll('{}')].filter((e) => e.checkVisibility()).length"
    assert browser.run(visible.format(".controls, .tablist, .bar, .contents")) == 0
    layers = ".viewer .layer"
    assert browser.run(visible.format(layers)) == browser.run(f"document.querySelectorAll('{layers}').length") > 0
    browser.call("Emulation.setEmulatedMedia", media="")
    assert len(re.findall(rb"/Type\s*/Page\b", browser.printed())) > 2


def test_what_a_dataset_says_runs_nothing_and_fits_a_telephone(browser, made, tmp_path):
    folder, done = made
    spoilt = done | {"label": EVIL, "warnings": [EVIL, LONG], "command_line": LONG, "outputs": [LONG]}
    spoilt |= {"model": done["model"] | {"name": EVIL}, "options": {EVIL: EVIL}, "inputs": {"dwi": LONG, "t1w": EVIL}}
    failed = FAILED | {"label": "sub-é 田中", "error": {"message": EVIL, "node": EVIL, "crash_file": LONG}}
    file = tmp_path / "evil.html"
    file.write_text(render_subject_report("田中Ж", [spoilt, failed], folder), encoding="utf-8")
    browser.open(file, width=390, phone=True)
    assert browser.run("window.hacked") is None
    assert browser.run("document.querySelector('h1').innerText") == "Subject 田中Ж"
    assert browser.run(f"document.body.innerText.includes({EVIL!r})")
    assert browser.run("document.body.innerText.includes('田中さん/naïve-Ж')")
    assert browser.run(WIDE)
    assert browser.complaints == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_group_s_page_fits_and_can_be_read(browser, tmp_path, dark):
    file = tmp_path / "group.html"
    file.write_text(render([*crowd(), result("sub-30", 30, factor=1.6)], [PROBLEM], [LONG]), encoding="utf-8")
    browser.open(file, width=390, phone=True, dark=dark)
    assert browser.run(WIDE)
    assert browser.run(FAINT) == []
    assert all(browser.named("image", "img", "button", "link", "textbox", "searchbox", "combobox"))
    assert browser.complaints == []
