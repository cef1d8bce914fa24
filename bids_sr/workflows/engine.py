"""Runs the app for one configuration, from the dataset to the exit status."""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import logging
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from bids_sr.config import Config
from bids_sr.errors import (
    BidsSrError,
    DiskFullError,
    NoRecordsError,
    OpenFilesError,
    ResourceMonitorError,
    is_disk_full,
    is_memory_error,
)
from bids_sr.interfaces.failure import Failure
from bids_sr.records import (
    failed_parts,
    failed_record,
    is_finished,
    overtake,
    read_record,
    reason_to_repeat,
    remove_replaced,
    supersede,
    write_record,
)
from bids_sr.resources import raise_file_limit
from bids_sr.workflows.environment import (
    cache_folder,
    crash_folder,
    execution_settings,
    isolated_environment,
    name_crash_folder,
    work_folder,
)

INTERRUPTED = 130
#: Files that a run has open besides a lock for each of its series: libraries, its log, pipes to workers.
FILES_AT_WORK = 256
logger = logging.getLogger("bids_sr")


def run(config: Config) -> int:
    """Do what a configuration asks, the participant level before the group level.

    Parameters
    ----------
    config : Config

    Returns
    -------
    int
        0 done, 1 a failed stage, 2 bad input, 130 interrupted, 137 out of memory.

    Raises
    ------
    BidsSrError
        Where nothing can be run at all.
    """
    from bids_sr.workflows.group import run_group

    if "participant" not in config.analysis_levels:
        return run_group(config)
    code = run_participant_level(config)
    if "group" not in config.analysis_levels or config.boilerplate_only or code == INTERRUPTED:
        return code
    try:
        group_code = run_group(config)
    except BidsSrError as error:
        logger.error("%s", error)
        group_code = error.exit_code
    return code or group_code


def run_participant_level(config: Config) -> int:
    """Restore the series that a configuration asks for; see `run`."""
    if config.resource_monitor and importlib.util.find_spec("psutil") is None:
        raise ResourceMonitorError()
    signals = Signals()
    with stopping_on(signals):
        try:
            return _run_level(config, signals)
        except (Exception, KeyboardInterrupt) as error:
            # Libraries turn an interrupt that reaches them into errors of their own, imports above all.
            if signals.received or isinstance(error, KeyboardInterrupt):
                logger.error("Interrupted. Run the same command again to go on where it stopped.")
                _forget_display()
                return INTERRUPTED
            if is_disk_full(error):
                raise DiskFullError(reason=error) from error
            if is_memory_error(error):
                raise MemoryError(str(error)) from error
            raise


def _forget_display() -> None:
    """Keep nipype from freeing a display as Python ends: it imports for that, and an import may have broken off."""
    free_display = getattr(sys.modules.get("nipype.utils.config"), "free_display", None)
    if free_display is not None:
        atexit.unregister(free_display)


def _run_level(config: Config, signals: Signals) -> int:
    """Do what a configuration asks at the participant level, in an environment of its own."""
    if config.boilerplate_only:
        return write_boilerplate(config)
    # nipype and what it imports read the environment once, so nothing of it may be imported before.
    with isolated_environment(config):
        from bids_sr.workflows.log import file_logger, log_file

        if config.reports_only:
            return write_reports(config, subjects_with_records(config))
        with log_file(config) as file:
            logger.info("Log: %s", file)
            try:
                return _run_participants(config, signals)
            except KeyboardInterrupt:
                file_logger.error("Interrupted.")
                raise
            except Exception:
                file_logger.error("%s", traceback.format_exc())
                raise


class Interruption(KeyboardInterrupt):
    """A request to stop.

    Of a class of its own: where a plain KeyboardInterrupt passes through code made from text (named tuples, parts of
    nipype), Python ends itself by SIGINT in the end, whatever status is returned.
    """


@dataclass
class Signals:
    """Whether this process was asked to stop."""

    received: bool = False

    def check(self) -> None:
        """Stop if asked to."""
        if self.received:
            raise Interruption


@dataclass(frozen=True)
class Work:
    """What is to be run (plans and opening records), what became of the other series already, and all subjects.

    `finished` are the plans of those that earlier runs have done; `replaced` are, for each plan, the files of an
    earlier result with other options.
    """

    plans: list[Any] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    outcomes: list[Any] = field(default_factory=list)
    subjects: set[str] = field(default_factory=set)
    finished: list[Any] = field(default_factory=list)
    replaced: list[list[str]] = field(default_factory=list)


def _run_participants(config: Config, signals: Signals) -> int:
    """Run every series that is not finished, then write what belongs to subjects and dataset."""
    from bids_sr.workflows.outcome import exit_code, summary
    from bids_sr.workflows.plan import card_of_run

    card = card_of_run(config)
    with ExitStack() as locks:
        work = plan_work(config, card, locks)
        outcomes = [*work.outcomes, *run_workflow(config, work, signals)]
    code = exit_code(outcomes)
    summary_code = write_summaries(config, card, work)
    for outcome in outcomes:
        if outcome.exit_code:
            logger.error("%s: %s", outcome.label, outcome.message)
    logger.info("%s", summary(outcomes))
    if config.clean_workdir and code == 0:
        clean(config, work)
    return code or summary_code


def write_summaries(config: Config, card: Any, work: Work) -> int:
    """Write what is made from the records of several series: reports, methods, descriptions of the dataset.

    Another run on the same output waits, so that what is written last knows all records.

    Returns
    -------
    int
        0; 1 where a report could not be written, 2 where the disk is full.
    """
    from bids_sr.bids.locks import locked
    from bids_sr.workflows.handover import hand_over_finished
    from bids_sr.workflows.unfinished import GRACE, remove_unfinished_texts

    busy = partial(logger.info, "Another run writes reports into this output; waiting for it.")
    try:
        with locked(config.output_dir / "logs" / "dataset.lock", busy) as keeps_out:
            remove_unfinished_texts(config.output_dir, 0.0 if keeps_out else GRACE)
            code = write_reports(config, _subjects_to_report(config, work))
            _write_dataset(config, card)
            handover_code = hand_over_finished(config, card, [*work.finished, *work.plans])
            return code or handover_code
    except OSError as error:
        if not is_disk_full(error):
            raise
        full = DiskFullError(reason=error)
        logger.error("Reports and descriptions of the dataset are not complete: %s", full)
        return full.exit_code


def _subjects_to_report(config: Config, work: Work) -> list[str]:
    """Subjects of which something was run, or whose report does not know all records."""
    from bids_sr.bids.outputs import OutputLayout

    ran = {plan.series.entities["sub"] for plan in work.plans}
    layout = OutputLayout(config.output_dir)
    return sorted(
        ran | {subject for subject in work.subjects if _is_behind(layout.report(subject), config.output_dir, subject)}
    )


def _is_behind(report: Path, output_dir: Path, subject: str) -> bool:
    """Whether a report lacks a record: there is none, or an earlier run ended before it could write it anew."""
    written = [file.stat().st_mtime_ns for file in (output_dir / f"sub-{subject}/figures").glob("*_desc-record.json")]
    return bool(written) and not (report.is_file() and report.stat().st_mtime_ns >= max(written))


def plan_work(config: Config, card: Any, locks: ExitStack) -> Work:
    """Find the series, and those among them that are finished or cannot be run; those to be run are locked.

    Raises
    ------
    InputError
        Where there is nothing to run, or more series than files may be open.
    """
    from bids_sr.bids.handover import check_layout
    from bids_sr.bids.inputs import scan_series
    from bids_sr.inference.device import resolve_device
    from bids_sr.workflows.outcome import Outcome, failed_before
    from bids_sr.workflows.plan import opening_record, plan_series

    device, file_limit = str(resolve_device(config.device)), raise_file_limit()
    found, problems = scan_series(config)
    subjects = {series.entities["sub"] for series in found}
    work = Work(outcomes=[failed_before("input", problem) for problem in problems], subjects=subjects)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    for series in found:
        try:
            check_layout(series, config)
            plan = plan_series(series, config, card, device)
        except BidsSrError as error:
            work.outcomes.append(failed_before(series.label, error))
            continue
        if len(work.plans) >= max(file_limit - FILES_AT_WORK, file_limit // 2):
            raise OpenFilesError(limit=file_limit)
        lock = locks.enter_context(ExitStack())
        lock.enter_context(_alone(plan))
        found_record = read_record(plan.record_file) or {}
        done = is_finished(found_record, plan.fingerprint, config.output_dir)
        reason = reason_to_repeat(found_record, can_check_itself=plan.checks_itself) if done else ""
        if done and not reason:
            lock.close()
            work.outcomes.append(Outcome(series.label, "skipped", _already_done(plan, found_record)))
            work.finished.append(plan)
            continue
        record = opening_record(plan, started)
        if reason:
            logger.info("%s: done before, and restored again: %s.", series.label, reason)
            record["repeated"] = bool(failed_parts(found_record))
        for warning in record["warnings"]:
            logger.warning("%s: %s", series.label, warning)
        work.plans.append(plan)
        work.records.append(record)
    # Not before: a run that ends while it plans leaves good results as they are.
    work.replaced.extend(supersede(plan.record_file) for plan in work.plans)
    _mark_overtaken(work)
    return work


def _mark_overtaken(work: Work) -> None:
    """Mark earlier results at other resolutions whose files on the acquired grid this run makes from something else."""
    told = (
        "%s: the files on the acquired grid are made anew, from other input or options than those of %s, which lists "
        "them too. Give results that differ in more than the resolution a folder each."
    )
    for plan in work.plans:
        for name in overtake(plan.record_file, plan.series.stem, plan.shared):
            logger.warning(told, plan.series.label, name)


def _already_done(plan: Any, record: Mapping[str, Any]) -> str:
    """Why a series is left alone, and how to try once more what broke off in it twice."""
    told = "already done with the same input and options"
    if failed := failed_parts(record):
        told += f"; a check broke off twice ({', '.join(failed)}): to try once more, remove {plan.record_file}"
    return told


@contextmanager
def _alone(plan: Any) -> Iterator[None]:
    """Keep other runs from the files of a series.

    One lock does for output and work: work of other outputs has other names. A run holds it for every series, and the
    system allows only so many.
    """
    from bids_sr.bids.locks import locked
    from bids_sr.workflows.unfinished import GRACE, remove_unfinished

    busy = partial(logger.info, "%s: another run works on it; waiting for that to end.", plan.series.label)
    subject = plan.layout.figures(plan.series).parent
    with locked(plan.layout.logs / f"{plan.series.stem}.lock", busy) as keeps_out:
        tidy_up = partial(remove_unfinished, subject, plan.series.entities, 0.0 if keeps_out else GRACE)
        tidy_up()
        try:
            yield
        finally:
            # Workers that are ended have no time to tidy up, so it is done after them too.
            tidy_up()


def run_workflow(config: Config, work: Work, signals: Signals) -> list[Any]:
    """Run the graph of all series and tell what became of each; write the records of those that failed."""
    if not work.plans:
        return []
    from nipype import config as nipype_config

    from bids_sr.workflows.log import StageMonitor
    from bids_sr.workflows.participant import init_participant_wf
    from bids_sr.workflows.plugin import make_plugin

    nipype_config.update_config({"execution": execution_settings(config)})
    if config.resource_monitor:
        nipype_config.enable_resource_monitor()
    workflow = init_participant_wf(work.plans, work.records)
    workflow.base_dir = str(work_folder(config))
    name_crash_folder(workflow, config)
    if config.write_graph:
        draw_graph(workflow, config)
    labels = {plan.workflow_name: plan.series.label for plan in work.plans}
    monitor = StageMonitor(labels, signals.check)
    plugin = make_plugin(config, monitor, uses_gpu=any(plan.device != "cpu" for plan in work.plans))
    error: Exception | None = None
    with ending_workers(plugin):
        try:
            workflow.run(plugin=plugin)
        except Exception as raised:
            # nipype raises at the end what it has noted for each node already; anything else is a bug.
            if signals.received or not (monitor.failed or is_disk_full(raised)):
                raise
            error = raised
    outcomes = collect(config, work, monitor.failed, error)
    _keep_resources(config)
    with contextlib.suppress(OSError):
        # Empty where every failure was one that the user can mend.
        crash_folder(config).rmdir()
    return outcomes


def _keep_resources(config: Config) -> None:
    """Copy what the resource monitor measured into the log folder."""
    from bids_sr.workflows.participant import NAME

    measured = work_folder(config) / NAME / "resource_monitor.json"
    if config.resource_monitor and measured.is_file():
        shutil.copyfile(measured, config.output_dir / "logs" / f"{config.run_id}_resources.json")


def collect(config: Config, work: Work, failed: Sequence[Any], error: Exception | None = None) -> list[Any]:
    """Tell what became of each series that was run; `error` is what ended the run before its time."""
    from bids_sr.workflows.outcome import Outcome, failed_node, first_failures

    failures = first_failures(failed)
    stopped = BidsSrError(message="stopped before")
    if error is not None and is_disk_full(error):
        stopped = DiskFullError(reason=error)
    outcomes = []
    for plan, record, replaced in zip(work.plans, work.records, work.replaced, strict=True):
        label, node = plan.series.label, failures.get(plan.workflow_name)
        if node is None:
            written = read_record(plan.record_file)
            done = is_finished(written, plan.fingerprint, config.output_dir)
            if done:
                _tell_found(label, record, written or {})
                remove_replaced(plan.record_file.parent, config.output_dir, replaced)
            outcomes.append(
                Outcome(label, "done") if done else Outcome(label, "not run", str(stopped), stopped.exit_code)
            )
            continue
        outcome = failed_node(label, node, crash_folder(config))
        crash_file = str(outcome.crash_file.relative_to(config.output_dir)) if outcome.crash_file else None
        try:
            write_record(
                plan.record_file,
                failed_record({**record, "outputs": replaced}, outcome.message, outcome.node, crash_file),
            )
        except OSError as problem:
            logger.error("%s: that it failed could not be recorded: %s", label, problem)
        outcomes.append(outcome)
    return outcomes


def _tell_found(label: str, opening: Mapping[str, Any], written: Mapping[str, Any]) -> None:
    """Log what the stages of a series found a reader should know; what was known before they ran was told then."""
    for warning in written.get("warnings", ()):
        if warning not in opening["warnings"]:
            logger.warning("%s: %s", label, warning)


@contextmanager
def stopping_on(signals: Signals) -> Iterator[None]:
    """Turn SIGTERM and SIGINT into KeyboardInterrupt, and note them, because not every library lets that pass."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        signals.received = True
        raise Interruption

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def ending_workers(plugin: Any) -> Iterator[None]:
    """Leave no worker process behind, however the run ends."""
    try:
        yield
    finally:
        if hasattr(plugin, "terminate"):
            plugin.terminate()


def draw_graph(workflow: Any, config: Config) -> None:
    """Write the graph of the run into the log folder: as text for Graphviz, and drawn where Graphviz is installed."""
    file = config.output_dir / "logs" / f"{config.run_id}_graph.dot"
    workflow.write_hierarchical_dotfile(dotfilename=str(file), colored=True)
    if shutil.which("dot"):
        workflow.write_graph(dotfilename=str(file), graph2use="colored", format="svg")
    logger.info("Graph: %s", file)


def clean(config: Config, work: Work) -> None:
    """Remove the intermediate files of the series that were run, and what is then empty; other runs' files stay."""
    from bids_sr.workflows.participant import NAME

    folder = work_folder(config) / NAME
    for plan in work.plans:
        shutil.rmtree(folder / plan.workflow_name, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.rmdir()
        shutil.rmtree(cache_folder(config), ignore_errors=True)


def write_reports(config: Config, subjects: Sequence[str]) -> int:
    """Assemble the reports of subjects from their records.

    Returns
    -------
    int
        0, or what the failure asks for where a report could not be written.
    """
    from bids_sr.bids.outputs import OutputLayout
    from bids_sr.reports.html import write_subject_report

    layout, code = OutputLayout(config.output_dir), 0
    for subject in subjects:
        records = read_records(config, [subject])
        figures_dir = config.output_dir / f"sub-{subject}" / "figures"
        try:
            write_subject_report(subject, records, layout.report(subject), figures_dir)
            logger.info("Report: %s", layout.report(subject))
        except Exception as error:
            failure = Failure.of(error)
            code = max(code, failure.exit_code)
            told = "sub-%s: the report could not be written; its results are not affected: %s"
            logger.error(told, subject, failure.message)
            logger.debug("%s", traceback.format_exc())
    return code


def write_boilerplate(config: Config) -> int:
    """Write the methods text of the series that are done."""
    from bids_sr.bids.citation import write_citation

    write_citation(config.output_dir, read_records(config, subjects_with_records(config)))
    return 0


def _write_dataset(config: Config, card: Any) -> None:
    """Write the files that describe the output dataset as a whole."""
    from bids_sr.bids.citation import write_citation
    from bids_sr.bids.outputs import write_dataset_files

    write_dataset_files(config, card)
    subjects = [folder.parent.name.removeprefix("sub-") for folder in config.output_dir.glob("sub-*/figures")]
    write_citation(config.output_dir, read_records(config, sorted(subjects)))


def subjects_with_records(config: Config) -> list[str]:
    """Subjects of the output that were run before, and are asked for.

    Raises
    ------
    NoRecordsError
        If there is none.
    """
    folders = config.output_dir.glob("sub-*/figures/*_desc-record.json")
    subjects = sorted({file.parts[-3].removeprefix("sub-") for file in folders})
    chosen = [subject for subject in subjects if not config.participants or subject in config.participants]
    if not chosen:
        raise NoRecordsError(output_dir=config.output_dir)
    return chosen


def read_records(config: Config, subjects: Sequence[str]) -> list[dict[str, Any]]:
    """Read the records of all series of subjects, in the order of their names."""
    folders = (config.output_dir / f"sub-{subject}" / "figures" for subject in subjects)
    records = [read_record(file) for folder in folders for file in sorted(folder.glob("*_desc-record.json"))]
    return [record for record in records if record is not None]
