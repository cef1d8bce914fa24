"""Sphinx configuration, and the directive that takes the list of options from the program itself."""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(Path(__file__).parents[1]))

from bids_sr import __version__

project = "bids_sr"
author = "The bids_sr developers"
copyright = author
release = version = __version__

extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"bids_sr {__version__}"


def option_names(action: argparse.Action) -> str:
    """An option as it is typed, with what it takes."""
    formatter = argparse.HelpFormatter("")
    if not action.option_strings:
        return formatter._format_args(action, formatter._get_default_metavar_for_positional(action))
    # Every option has one spelling with hyphens; the spelling with underscores works too and is not repeated here.
    names = [name for name in action.option_strings if "_" not in name] or action.option_strings
    taken = "" if action.nargs == 0 else " " + formatter._format_args(action, action.dest.upper())
    return ", ".join(names) + taken


def option_help(action: argparse.Action, program: str) -> str:
    """The help of an option with its defaults filled in, as the program prints it."""
    text = (action.help or "") % {**vars(action), "prog": program}
    # Processors and memory default to those of the computer, here the one that builds these pages.
    return re.sub(r"\([\d.]+, what this process may use\)", "(what the process may use)", text)


def option_list(actions: list[argparse.Action], program: str) -> nodes.definition_list:
    """Options with their help as a definition list."""
    entries = nodes.definition_list()
    for action in actions:
        name = nodes.term("", "", nodes.literal(text=option_names(action)))
        text = nodes.definition("", nodes.paragraph(text=option_help(action, program)))
        entries += nodes.definition_list_item("", name, text)
    return entries


def subparsers(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """The parsers of a program's subcommands."""
    choices = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return [subparser for named in choices for subparser in named.values()]


def parser_nodes(parser: argparse.ArgumentParser) -> list[nodes.Node]:
    """Usage of a program or subcommand, and its groups of options, each under its title."""
    parser.formatter_class = lambda prog: argparse.HelpFormatter(prog, width=100)
    found: list[nodes.Node] = [nodes.literal_block(text=parser.format_usage().removeprefix("usage: ").rstrip())]
    for group in parser._action_groups:
        shown = [action for action in group._group_actions if action.help != argparse.SUPPRESS]
        actions = [action for action in shown if not isinstance(action, argparse._SubParsersAction)]
        if actions:
            found += [nodes.rubric(text=(group.title or "").capitalize()), option_list(actions, parser.prog)]
    return found


class CommandLine(SphinxDirective):
    """Document the parser that `module:function` builds, and those of its subcommands."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        module, function = self.arguments[0].split(":")
        parser: argparse.ArgumentParser = getattr(importlib.import_module(module), function)()
        return [node for part in [parser, *subparsers(parser)] for node in parser_nodes(part)]


def setup(app: Sphinx) -> dict[str, Any]:
    """Make the directive known."""
    app.add_directive("command-line", CommandLine)
    return {"version": release, "parallel_read_safe": True, "parallel_write_safe": True}
