"""What the pages tell people to type works, and the map of the package shows the package."""

import importlib
import re
import shlex
from importlib.util import module_from_spec, spec_from_file_location

import pytest

from bids_sr.cli.app import build_parser, main
from tests.packaging.tools import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(?:bash|console|shell)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
PROGRAMS = {"bids-sr-demo": "bids_sr.cli.demo", "bids-sr-train": "bids_sr.cli.train",
            "bids-sr-evaluate": "bids_sr.cli.evaluate"}  # fmt: skip
#: What stands on the pages for a dataset, and for a folder that results go to.
DATASETS, OUTPUTS = ("/data", "/path/to/bids", "/qsiprep", "demo-data"), ("/out", "/path/to/output", "demo-out")
#: Of a container and a job: what stands before the program's own words.
WRAPPED = re.compile(r"^(?:docker run|podman run|apptainer run|singularity run)\b.*? (?:bids_sr|\S+\.sif) (?=/)")


def lines_of(page):
    """Lines of the blocks of a page that people may type, continued ones joined."""
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [line.strip() for block in blocks for line in re.sub(r"\\\n\s*", "", block).splitlines()]


def commands(program):
    """Each use of a program on the pages, with the page's name and without what only wraps it."""
    found = []
    for page in PAGES:
        for line in lines_of(page):
            bare = WRAPPED.sub("bids_sr ", line).removeprefix(".venv/bin/")
            if bare.startswith(f"{program} "):
                found.append(pytest.param(bare, id=f"{page.name}-{len(found)}"))
    return found


@pytest.fixture
def here(dataset, tmp_path, monkeypatch):
    """A place to work in, with the files that the pages name; words of a page turned into those for it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-model").mkdir()
    for end in (".json", ".safetensors"):
        (tmp_path / "my-model" / f"mine{end}").symlink_to(ROOT / "bids_sr" / "data" / "weights" / f"default{end}")
    (tmp_path / "filters.json").write_text('{"dwi": {"direction": "AP"}}')
    places = dict.fromkeys(DATASETS, str(dataset)) | dict.fromkeys(OUTPUTS, str(tmp_path / "out"))
    return lambda line: [places.get(word, word) for word in shlex.split(line, comments=True)[1:]]


@pytest.mark.parametrize("line", commands("bids_sr"))
def test_a_command_of_the_pages_is_understood_and_would_run(here, line, capsys):
    words = here(line)
    if "group" in words and "participant" not in words:
        build_parser().parse_args(words)
        return
    if {"--reports-only", "--boilerplate-only", "--use-plugin"} & set(words):
        build_parser().parse_args(words)
        return
    # The made dataset has neither the person nor the session that an example names.
    for option in ("--session-label", "--bids-filter-file"):
        if option in words:
            del words[(place := words.index(option)) : place + 2]
    assert main([*words, "--dry-run"]) == 0
    assert "sub-01" in capsys.readouterr().out


@pytest.mark.parametrize(("program", "module"), PROGRAMS.items())
def test_commands_of_the_other_programs_are_understood(program, module):
    parser = importlib.import_module(module).build_parser()
    lines = [case.values[0] for case in commands(program)]
    assert lines
    for line in lines:
        parser.parse_args(shlex.split(line, comments=True)[1:])


def test_the_pages_name_no_option_that_is_not_there():
    known = set()
    for module in ("bids_sr.cli.app", *PROGRAMS.values()):
        parser = importlib.import_module(module).build_parser()
        parsers = [parser, *(p for a in parser._actions if isinstance(a.choices, dict) for p in a.choices.values())]
        known |= {name for one in parsers for action in one._actions for name in action.option_strings}
    pages = [ROOT / "docs" / f"{name}.md" for name in ("quickstart", "usage", "outputs", "report", "faq", "group")]
    named = {
        name for page in [ROOT / "README.md", *pages] for name in re.findall(r"`(--[a-z][\w-]+)", page.read_text())
    }
    foreign = {"--cleanenv", "--containall", "--gpus", "--nv", "--read-only", "--user"}
    assert named - known - foreign == set()


def test_the_files_and_tests_that_the_methods_name_are_there():
    page = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| .* \| .* \| (`.*`) \| (`.*`) \|$", page, re.MULTILINE)
    assert len(rows) > 15
    for files, tests in rows:
        assert all((ROOT / "bids_sr" / name).is_file() for name in re.findall("`(.+?)`", files)), files
        assert all((ROOT / "tests" / name).is_file() for name in re.findall("`(.+?)`", tests)), tests


@pytest.fixture(scope="module")
def package_map():
    """The module that draws the map."""
    spec = spec_from_file_location("make_map", ROOT / "docs" / "make_map.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_map_shows_the_package_as_it_is(package_map):
    assert {room for rooms in package_map.FLOORS.values() for room in rooms} == package_map.rooms()
    drawn = (ROOT / "docs" / "images" / "map.svg").read_text(encoding="utf-8")
    assert drawn == package_map.draw(), "modules came or went: python docs/make_map.py draws the map again"


def test_imports_go_down_as_the_map_says(package_map):
    floor = {room: number for number, rooms in enumerate(package_map.FLOORS.values()) for room in rooms}
    up = {(room, other) for room in floor for other in package_map.imports(room) if floor.get(other, 9) < floor[room]}
    assert up == set()
