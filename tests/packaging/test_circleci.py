"""Every name in CircleCI's configuration leads somewhere; its schema checks the form of names only."""

import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

import bids_sr
from tests.packaging.tools import ROOT, tool

FILE = ROOT / ".circleci" / "config.yml"
CONFIG = yaml.safe_load(FILE.read_text())
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
JOBS, COMMANDS, EXECUTORS = CONFIG["jobs"], CONFIG["commands"], CONFIG["executors"]
BUILT_IN_STEPS = {
    "attach_workspace",
    "checkout",
    "persist_to_workspace",
    "restore_cache",
    "run",
    "save_cache",
    "store_artifacts",
    "store_test_results",
}
#: What a workflow may say of a job besides the job's own parameters.
JOB_OPTIONS = {"requires", "filters", "matrix", "context", "name"}


def named(entries: list[Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and arguments of every entry."""
    for entry in entries:
        yield (entry, {}) if isinstance(entry, str) else next(iter(entry.items()))


def runs() -> list[tuple[str, str, dict[str, Any]]]:
    """Workflow, job and options of every job that is run."""
    return [(flow, *entry) for flow, content in CONFIG["workflows"].items() for entry in named(content["jobs"])]


def calls() -> list[tuple[str, dict[str, Any]]]:
    """Steps of all jobs and commands."""
    return [step for block in (*JOBS.values(), *COMMANDS.values()) for step in named(block["steps"])]


def shell_scripts() -> dict[str, str]:
    """What is run in shells, by a name for people."""
    steps = [(name, arguments) for name, arguments in calls() if name == "run"]
    return {str(arguments["name"]): arguments["command"] for _, arguments in steps}


def check_arguments(declared: dict[str, Any], given: dict[str, Any]) -> None:
    """What is given was declared, what has no default is given, and each value is one of those allowed."""
    assert set(given) <= set(declared)
    assert {name for name, content in declared.items() if "default" not in content} <= set(given)
    for name, value in given.items():
        assert value in declared[name].get("enum", [value])


def test_every_job_is_run_and_every_job_that_is_run_exists():
    assert {job for _, job, _ in runs()} == set(JOBS)


def test_every_job_waits_for_jobs_of_its_workflow():
    for flow, _, options in runs():
        assert set(options.get("requires", [])) <= {job for other, job, _ in runs() if other == flow}


def test_no_job_waits_for_itself():
    requires = {job: set(options.get("requires", [])) for _, job, options in runs()}
    while requires:
        free = {job for job, others in requires.items() if not others & set(requires)}
        assert free, f"in a circle: {sorted(requires)}"
        requires = {job: others for job, others in requires.items() if job not in free}


def test_what_a_release_waits_for_runs_on_tags_too():
    options = {job: given for _, job, given in runs()}
    for given in options.values():
        if "tags" in given.get("filters", {}):
            assert all("tags" in options[other].get("filters", {}) for other in given.get("requires", []))


def test_a_release_waits_for_everything_and_needs_a_version_tag():
    releases = {job: options for _, job, options in runs() if job.startswith("deploy")}
    others = {job for _, job, _ in runs()} - set(releases)
    assert set(releases) == {"deploy_wheel", "deploy_image"}
    for options in releases.values():
        assert set(options["requires"]) == others
        assert options["filters"]["branches"] == {"ignore": "/.*/"}
        pattern = options["filters"]["tags"]["only"].strip("/")
        assert re.fullmatch(pattern, f"v{bids_sr.__version__}")
        assert not re.fullmatch(pattern, "nightly")


def test_every_executor_is_defined_and_used():
    used = [job["executor"] for job in JOBS.values()]
    given = [{"name": one} if isinstance(one, str) else dict(one) for one in used]
    assert {one["name"] for one in given} == set(EXECUTORS)
    for one in given:
        check_arguments(EXECUTORS[one.pop("name")].get("parameters", {}), one)


def test_every_command_is_defined_and_used_with_its_parameters():
    used = {name for name, _ in calls()}
    assert used - BUILT_IN_STEPS == set(COMMANDS)
    for name, arguments in calls():
        if name in COMMANDS:
            check_arguments(COMMANDS[name].get("parameters", {}), arguments)


def test_every_job_gets_its_parameters():
    for _, job, options in runs():
        declared = JOBS[job].get("parameters", {})
        given = {name: value for name, value in options.items() if name not in JOB_OPTIONS}
        matrix = options.get("matrix", {}).get("parameters", {})
        check_arguments(declared, given | {name: values[0] for name, values in matrix.items()})
        for name, values in matrix.items():
            assert all(value in declared[name].get("enum", [value]) for value in values)


@pytest.mark.parametrize("kind", ["executors", "commands", "jobs"])
def test_every_parameter_that_is_asked_for_is_declared_and_the_other_way_round(kind):
    for name, block in CONFIG[kind].items():
        body = {key: value for key, value in block.items() if key != "parameters"}
        asked = set(re.findall(r"<<\s*parameters\.(\w+)\s*>>", json.dumps(body)))
        assert asked == set(block.get("parameters", {})), name


def test_the_extras_that_are_installed_exist():
    assert {arguments["extras"] for name, arguments in calls() if name == "install"} <= set(EXTRAS)


def test_a_workspace_that_is_attached_was_filled_before():
    persists = {job for job, block in JOBS.items() if "persist_to_workspace" in dict(named(block["steps"]))}
    for _, job, options in runs():
        if "attach_workspace" in dict(named(JOBS[job]["steps"])):
            assert persists & set(options["requires"])


def test_the_programs_of_the_project_that_it_calls_exist():
    text = "\n".join(shell_scripts().values())
    scripts = set(re.findall(r"\.ci/[\w-]+", text))
    assert ".ci/check-tag" in scripts
    assert all((ROOT / script).stat().st_mode & 0o111 for script in scripts)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {name for name in re.findall(r"^make ([a-z-]+)$", text, re.MULTILINE)} <= targets


@pytest.mark.parametrize("name", shell_scripts())
def test_its_shell_scripts_are_shell(name):
    # CircleCI starts bash with -eo pipefail.
    script = "set -eo pipefail\n" + re.sub(r"<<[^>]*>>", "PARAMETER", shell_scripts()[name])
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    words = [tool("shellcheck"), "--shell=bash", "--severity=warning", "-"]
    found = subprocess.run(words, input=script, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def test_python_is_tested_where_the_project_says_that_it_runs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    stated = {line.rpartition(" ")[2] for line in project["classifiers"] if re.search(r":: 3\.\d+$", line)}
    (tested,) = (options["matrix"]["parameters"]["version"] for _, job, options in runs() if job == "test")
    assert set(tested) == stated


def test_it_is_valid_for_its_schema():
    words = [tool("check-jsonschema"), "--builtin-schema", "vendor.circle-ci", str(FILE)]
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize(("tag", "code"), [(f"v{bids_sr.__version__}", 0), ("v99.0.0", 1), (bids_sr.__version__, 1)])
def test_only_the_tag_of_this_version_may_be_released(tag, code):
    found = subprocess.run([ROOT / ".ci/check-tag", tag], capture_output=True, text=True, check=False)
    assert found.returncode == code
