"""The Boutiques descriptor says what the parser says, and its command lines are understood."""

import argparse
import importlib.util
import json
import shlex
import subprocess

import pytest

from bids_sr.cli.app import build_parser, parse_args
from tests.packaging.tools import ROOT, tool

DESCRIPTOR = ROOT / "boutiques.json"
CONTENT = json.loads(DESCRIPTOR.read_text())


@pytest.fixture(scope="module")
def maker():
    """The script that writes the descriptor."""
    spec = importlib.util.spec_from_file_location("make_boutiques", ROOT / ".ci" / "make_boutiques.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_descriptor_is_that_of_the_parser(maker):
    assert json.loads(json.dumps(maker.descriptor(build_parser()))) == CONTENT, "options have changed: make boutiques"


def test_an_option_more_changes_the_descriptor(maker):
    parser = build_parser()
    parser.add_argument("--new-option", type=int, help="new")
    before = maker.descriptor(build_parser())["inputs"]
    (entry,) = (entry for entry in maker.descriptor(parser)["inputs"] if entry not in before)
    assert entry == {
        "id": "new_option",
        "name": "new option",
        "description": "new",
        "value-key": "[NEW_OPTION]",
        "optional": True,
        "type": "Number",
        "integer": True,
        "command-line-flag": "--new-option",
    }


def test_nothing_in_it_depends_on_the_computer(maker):
    parser = build_parser()
    for action in parser._actions:
        if action.dest in ("nprocs", "memory_gb"):
            action.default = 987
    assert maker.descriptor(parser) == maker.descriptor(build_parser())


def test_every_option_of_the_parser_is_in_it():
    flags = {entry.get("command-line-flag") for entry in CONTENT["inputs"]}
    options = [action for action in build_parser()._actions if action.option_strings]
    kept = [action for action in options if not isinstance(action, argparse._HelpAction | argparse._VersionAction)]
    assert all(flags & set(action.option_strings) for action in kept)
    assert len(kept) == len(flags - {None})


def test_boutiques_accepts_it():
    found = subprocess.run([tool("bosh"), "validate", str(DESCRIPTOR)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


def test_a_command_line_that_boutiques_makes_is_understood(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "filter.json").write_text("{}")
    invocation = {
        "bids_dir": str(tmp_path / "data"),
        "output_dir": str(tmp_path / "out"),
        "analysis_levels": ["participant"],
        "participant_label": ["01", "02"],
        "output_resolution": [1.5, 1.5, 2],
        "bids_filter_file": str(tmp_path / "filter.json"),
        "b0_threshold": 60,
        "nprocs": 2,
        "mem": "3G",
        "no_t1w": True,
        "work_dir": str(tmp_path / "scratch"),
    }
    (tmp_path / "invocation.json").write_text(json.dumps(invocation))
    words = [tool("bosh"), "exec", "simulate", str(DESCRIPTOR), "-i", str(tmp_path / "invocation.json")]
    printed = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    (line,) = (line for line in printed.splitlines() if "bids_sr " in line)
    config = parse_args(shlex.split(line[line.index("bids_sr ") :])[1:])
    assert config.participants == ("01", "02")
    assert config.output_resolution == (1.5, 1.5, 2.0)
    assert config.nprocs == 2
    assert config.memory_gb == 3
    assert config.b0_threshold == 60
    assert not config.use_t1w
    assert config.work_dir == tmp_path / "scratch"


def test_boutiques_refuses_both_ways_to_name_a_grid(tmp_path):
    invocation = {"bids_dir": "data", "output_dir": "out", "analysis_levels": ["participant"]}
    (tmp_path / "both.json").write_text(json.dumps(invocation | {"scale": [2], "output_resolution": [1]}))
    words = [tool("bosh"), "exec", "simulate", str(DESCRIPTOR), "-i", str(tmp_path / "both.json")]
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    assert found.returncode != 0
