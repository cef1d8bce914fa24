"""Writes the Boutiques descriptor, boutiques.json, from the parser of the command line: `make boutiques`."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from bids_sr import __version__
from bids_sr.cli.app import build_parser
from bids_sr.errors import BidsSrError

DESCRIPTOR = Path(__file__).parents[1] / "boutiques.json"
LEVELS = ("participant", "group")
#: Files and folders that must exist; other paths are made by the run.
READ = ("bids_dir", "filters", "plugin_file", "config_file")
#: Arguments that print something and stop.
TEXT_ONLY = (argparse._HelpAction, argparse._VersionAction)
ERROR_CODES = {
    1: "A step failed; its crash file is named in the log.",
    2: "Bad arguments or bad input; one line says what, where, and what to do.",
    130: "Interrupted.",
    137: "Memory ran out.",
}


def descriptor(parser: argparse.ArgumentParser) -> dict[str, Any]:
    """The command line that a parser understands, as Boutiques describes it."""
    actions = [
        action for action in parser._actions if not isinstance(action, argparse._HelpAction | argparse._VersionAction)
    ]
    inputs = [input_of(action) for action in actions]
    return {
        "name": parser.prog,
        "description": parser.description,
        "author": "The bids_sr developers",
        "tool-version": __version__,
        "schema-version": "0.5",
        "command-line": " ".join([parser.prog, *(entry["value-key"] for entry in inputs)]),
        "container-image": {"type": "docker", "image": f"{parser.prog}:{__version__}"},
        "inputs": inputs,
        "groups": [group_of(group) for group in parser._mutually_exclusive_groups],
        "output-files": [
            {"id": "results", "name": "BIDS derivative dataset", "path-template": "[OUTPUT_DIR]", "optional": False}
        ],
        "error-codes": [{"code": code, "description": text} for code, text in ERROR_CODES.items()],
        "suggested-resources": {"cpu-cores": 4, "ram": 8},
        "tags": {"domain": ["neuroinformatics", "mri"]},
    }


def input_of(action: argparse.Action) -> dict[str, Any]:
    """One argument."""
    name = identifier(action)
    entry = {
        "id": name,
        "name": name.replace("_", " "),
        "description": help_of(action),
        "value-key": f"[{name.upper()}]",
        "optional": bool(action.option_strings),
        **type_of(action),
    }
    if action.option_strings:
        entry["command-line-flag"] = long_option(action)
    if action.nargs == "+":
        entry["list"] = True
    if choices := levels_of(action):
        entry["value-choices"] = choices
    return entry


def type_of(action: argparse.Action) -> dict[str, Any]:
    """What an argument takes."""
    if action.nargs == 0:
        return {"type": "Flag"}
    if action.type in (int, float):
        return {"type": "Number"} | ({"integer": True} if action.type is int else {})
    return {"type": "File" if action.dest in READ else "String"}


def levels_of(action: argparse.Action) -> list[str]:
    """Analysis levels that the parser accepts; none for other arguments."""
    return [level for level in LEVELS if action.dest == "analysis_levels" and accepts(action, level)]


def accepts(action: argparse.Action, word: str) -> bool:
    """Whether an argument may have a value."""
    try:
        return action.type is None or action.type(word) is not None
    except (argparse.ArgumentTypeError, BidsSrError):
        return False


def identifier(action: argparse.Action) -> str:
    """Name of an argument in the descriptor: that of its option."""
    return long_option(action).removeprefix("--").replace("-", "_") if action.option_strings else action.dest


def long_option(action: argparse.Action) -> str:
    """The first spelling with two hyphens."""
    return next(name for name in action.option_strings if name.startswith("--"))


def help_of(action: argparse.Action) -> str:
    """Help of an argument, without the defaults that are taken from the computer."""
    text = re.sub(r"%\(default\)[^ ,]*, (?=what )", "", action.help or "")
    return text % {**vars(action), "prog": "bids_sr"}


def group_of(group: argparse._MutuallyExclusiveGroup) -> dict[str, Any]:
    """Options of which only one may be given."""
    members = [identifier(action) for action in group._group_actions]
    return {"id": "_or_".join(members), "name": " or ".join(members), "members": members, "mutually-exclusive": True}


def as_text(content: dict[str, Any]) -> str:
    """The descriptor as it is stored."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    DESCRIPTOR.write_text(as_text(descriptor(build_parser())), encoding="utf-8")
