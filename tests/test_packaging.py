"""What surrounds the code says the same thing everywhere and names nothing that is not there."""

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

import bids_sr

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SINGULARITY = (ROOT / "singularity.def").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()
TEXT_SUFFIXES = {
    "",
    ".bib",
    ".cff",
    ".cfg",
    ".config",
    ".css",
    ".def",
    ".html",
    ".j2",
    ".js",
    ".json",
    ".md",
    ".nf",
    ".py",
    ".sh",
    ".toml",
    ".txt",
    ".yaml",
    ".yml",
}
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|Users|root|work|tmp)/\w+|\bfile://")


def project_files() -> list[Path]:
    """Files that belong to the project, found by git or, in an unpacked archive, by the folders that hold them."""
    git = shutil.which("git")
    if git and (ROOT / ".git").exists():
        command = [git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
        return [ROOT / name for name in names if name and (ROOT / name).is_file()]
    folders = ("bids_sr", "tests", "benchmarks", "docs", "examples", ".ci", ".circleci")
    return [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]


def required_packages() -> set[str]:
    """Names of all packages that pyproject.toml asks for, extras included."""
    extras = [line for extra in PROJECT["optional-dependencies"].values() for line in extra]
    return {re.match(r"[\w.-]+", line)[0].lower() for line in PROJECT["dependencies"] + extras}


def test_the_version_is_the_same_everywhere():
    stated = {
        "CITATION.cff": yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"],
        "CHANGES.md": re.search(r"^## (\S+)", (ROOT / "CHANGES.md").read_text(), re.MULTILINE)[1],
        "Dockerfile": re.search(r"^ARG VERSION=(\S+)", DOCKERFILE, re.MULTILINE)[1],
        "singularity.def": re.search(r"image\.version (\S+)", SINGULARITY)[1],
        "boutiques.json": json.loads((ROOT / "boutiques.json").read_text())["tool-version"],
    }
    assert stated == dict.fromkeys(stated, bids_sr.__version__)
    assert PROJECT["dynamic"] == ["version"], "the version is written once, in bids_sr/__init__.py"


def test_the_licence_is_the_whole_apache_licence():
    text = (ROOT / "LICENSE").read_text()
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


@pytest.mark.parametrize("script", PROJECT["scripts"])
def test_every_script_has_its_function(script):
    module, function = PROJECT["scripts"][script].split(":")
    source = Path(find_spec(module).origin).read_text()
    assert f"def {function}(" in source


def test_torch_is_pinned_for_reproducing_and_loose_for_installing():
    constraints = (ROOT / "constraints.txt").read_text().splitlines()
    assert "torch==2.13.0" in constraints
    (requirement,) = (line for line in PROJECT["dependencies"] if line.startswith("torch"))
    assert "==" not in requirement


def test_everything_that_is_asked_for_is_constrained_to_one_version():
    pinned = {line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    assert {name for name in required_packages() if not name.startswith(("types-", "bids_sr"))} <= pinned


def imported_modules() -> set[str]:
    """Top-level modules that the package imports, also those inside functions."""
    nodes = [node for path in (ROOT / "bids_sr").rglob("*.py") for node in ast.walk(ast.parse(path.read_text()))]
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    members = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    return {name.split(".")[0] for name in plain | members}


def test_the_package_names_no_module_that_it_does_not_require():
    known_as = {"bids": "pybids", "yaml": "pyyaml", "PIL": "pillow", "skimage": "scikit-image"}
    required = {name.replace("_", "-") for name in required_packages()}
    foreign = imported_modules() - set(sys.stdlib_module_names) - {"bids_sr"}
    assert {known_as.get(name, name).lower().replace("_", "-") for name in foreign} <= required


def test_the_make_targets_that_others_call_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    callers = [ROOT / ".ci/run", ROOT / ".circleci/config.yml", ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    calls = re.compile(r"`make ([a-z-]+)`|^\s*(?:command: )?make ([a-z-]+)$", re.MULTILINE)
    called = {name for path in callers for pair in calls.findall(path.read_text()) for name in pair if name}
    assert {"demo", "docs", "lint", "test"} <= called <= targets


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name
)
def test_every_link_within_the_project_leads_somewhere(page):
    targets = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_ci_script_is_shell_and_may_be_executed():
    script = ROOT / ".ci/run"
    assert script.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", script], check=True)


def test_no_file_names_a_place_of_some_machine():
    texts = [path for path in project_files() if path.suffix in TEXT_SUFFIXES and path != Path(__file__)]
    named = {str(path.relative_to(ROOT)): MACHINE_PATH.findall(path.read_text(errors="ignore")) for path in texts}
    assert {name: found for name, found in named.items() if found} == {}


def test_no_real_image_and_no_large_file_is_in_the_project():
    files = project_files()
    assert [path for path in files if path.name.endswith((".nii", ".nii.gz", ".mif", ".dcm"))] == []
    assert [path for path in files if path.stat().st_size > 5_000_000] == []


def test_importing_the_package_is_light():
    heavy = "{'torch', 'numpy', 'nibabel', 'nipype', 'dipy', 'bids', 'matplotlib', 'pandas'}"
    code = f"import sys, bids_sr; sys.exit(bool({heavy} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_nipype_is_at_the_edge():
    """Training, evaluation and the core do without the workflow engine, which takes a second to import."""
    modules = "bids_sr.companions, bids_sr.cli.train, bids_sr.cli.evaluate, bids_sr.inference.upsampler"
    code = f"import sys, {modules}; sys.exit('nipype' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
