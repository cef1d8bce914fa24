"""The group level: what runs left of every series, gathered into one table and one page."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from bids_sr.bids.inputs import series_names
from bids_sr.bids.outputs import OutputLayout, save_table
from bids_sr.config import Config
from bids_sr.errors import InputError, NoResultsError
from bids_sr.evaluation.group import group_columns, group_rows, judge
from bids_sr.reports.group import write_group_report
from bids_sr.resources import lend_home
from bids_sr.results import Results, read_results

TABLE, PAGE = "group_tensor.tsv", "group_tensor.html"
logger = logging.getLogger("bids_sr")


def run_group(config: Config) -> int:
    """Gather all series of the output, or of the subjects and sessions asked for.

    Other runs may be writing: only whole files are read, and what is written appears whole. Needs neither the images
    nor the work folder.

    Parameters
    ----------
    config : Config

    Returns
    -------
    int
        0, or 1 where no series has numbers. Series without numbers among others are told, and change nothing.

    Raises
    ------
    NoResultsError
        If nothing was run yet.
    """
    lend_home()
    results = read_results(config.output_dir, config.participants, config.sessions)
    if not any(place.resolution for place in results.places):
        raise NoResultsError(output_dir=config.output_dir, chosen=_chosen(config))
    results, notes = _with_missing(results, config)
    for problem in results.problems:
        logger.error("%s: not in the table: %s", problem.place.label, problem.reason)
    group = judge(results.series)
    save_table(config.output_dir / TABLE, group_rows(group), group_columns())
    page = config.output_dir / PAGE
    write_group_report(page, group, results.problems, _reports(results, config.output_dir), notes)
    there, lost = len(results.series), len(results.problems)
    logger.info("Group: %d of %d series in %s", there, there + lost, config.output_dir / TABLE)
    logger.info("Group: %s", page)
    return 0 if results.series else 1


def _with_missing(results: Results, config: Config) -> tuple[Results, list[str]]:
    """The results with the series of the dataset that have none, and what a reader should know of that."""
    chosen = _chosen(config)
    notes = [f"Only series{chosen} were gathered, as asked."] if chosen else []
    try:
        names = series_names(config)
    except InputError as error:
        note = f"Whether series of the dataset are missing here could not be told. {error}"
        logger.warning("%s", note)
        return results, [*notes, note]
    there = {place.series for place in results.places}
    doubtful = [name for name, is_certain in names.items() if not is_certain and name not in there]
    if doubtful:
        notes.append(_doubt(doubtful))
        logger.warning("%s", notes[-1])
    return results.with_missing([name for name, is_certain in names.items() if is_certain]), notes


def _doubt(names: Sequence[str], most: int = 20) -> str:
    """That series without a record may be missing, or may be none."""
    shown = ", ".join(name.replace("_", " ") for name in names[:most])
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (
        f"Whether {len(names)} series without a record are missing here could not be told, because their b-values are "
        f"not here and they may be references of b0 volumes, which are left out: {shown}{more}."
    )


def _chosen(config: Config) -> str:
    """The subjects and sessions asked for, in words that follow ``series``; empty for all."""
    subjects = ", ".join(f"sub-{label}" for label in config.participants)
    sessions = ", ".join(f"ses-{label}" for label in config.sessions)
    return " of ".join(["", *filter(None, (subjects, sessions))])


def _reports(results: Results, output_dir: Path) -> dict[str, str]:
    """File names of the subjects' reports that are there."""
    layout = OutputLayout(output_dir)
    subjects = dict.fromkeys(place.subject for place in results.places)
    files = {subject: layout.report(subject) for subject in subjects}
    return {subject: file.name for subject, file in files.items() if file.is_file()}
