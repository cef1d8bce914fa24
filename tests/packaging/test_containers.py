"""Dockerfile and singularity.def agree with each other and the project; building them is another command's work."""

import re
import subprocess

import pytest

import bids_sr
from tests.packaging.tools import ROOT, tool

DOCKERFILE = (ROOT / "Dockerfile").read_text()
SINGULARITY = (ROOT / "singularity.def").read_text()
VARIABLES = ("PYTHONDONTWRITEBYTECODE", "PYTHONNOUSERSITE", "PYTHONUNBUFFERED", "BIDS_SR_CONTAINER_TAG")


def sections() -> dict[str, str]:
    """Sections of the definition file, without their leading per cent sign."""
    parts = re.split(r"^%(\w+)[ \t]*$", SINGULARITY, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def copied() -> set[str]:
    """What the Dockerfile takes from its context."""
    lines = [line.split() for line in DOCKERFILE.splitlines() if line.startswith("COPY ") and "--from" not in line]
    return {name for line in lines for name in line[1:-1]}


def test_the_recipe_has_its_header_and_sections():
    assert SINGULARITY.startswith("Bootstrap: docker\nFrom: python:3.11-slim-bookworm\n")
    assert set(sections()) == {"help", "labels", "files", "post", "environment", "runscript", "test"}


def test_both_start_from_the_same_image():
    (base,) = set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE))
    assert f"From: {base}\n" in SINGULARITY
    assert f'image.base.name="docker.io/library/{base}"' in DOCKERFILE


def test_the_runscript_runs_the_program_with_all_arguments():
    assert sections()["runscript"].strip() == 'exec /opt/bids_sr/bin/bids_sr "$@"'


def test_the_recipe_tests_version_import_and_a_made_run():
    script = sections()["test"]
    assert all(
        word in script for word in ("bids_sr --version", "import bids_sr", "bids-sr-demo --small", "participant")
    )


def test_the_help_explains_what_isolates_and_what_lets_a_gpu_in():
    assert all(word in sections()["help"] for word in ("--nv", "--cleanenv", "--containall"))


def test_both_copy_the_same_files_which_exist():
    sources = {line.split()[0] for line in sections()["files"].splitlines() if line.strip()}
    assert sources == copied()
    assert [name for name in sources if not (ROOT / name).exists()] == []


def test_the_context_holds_what_is_copied_and_little_else():
    held = set(re.findall(r"^!(\S+)", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    assert copied() == held


def test_both_set_the_same_variables():
    for name in VARIABLES:
        in_docker = re.search(rf"\b{name}=(\S+)", DOCKERFILE)[1].strip('"').replace("${VERSION}", bids_sr.__version__)
        in_singularity = re.search(rf"^\s+export {name}=(\S+)", SINGULARITY, re.MULTILINE)[1].strip('"')
        assert in_docker == in_singularity


def test_there_is_a_home_where_the_user_brings_none():
    assert re.search(r"^    HOME=/tmp ", DOCKERFILE, re.MULTILINE)
    script = f'{sections()["environment"]}\necho "$HOME"'
    for given, expected in (({}, "/tmp"), ({"HOME": "/mine"}, "/mine")):  # noqa: S108
        words = ["sh", "-c", script]
        found = subprocess.run(words, env={"PATH": "/bin", **given}, capture_output=True, text=True, check=True)
        assert found.stdout.strip() == expected


@pytest.mark.parametrize("section", ["post", "environment", "runscript", "test"])
def test_the_scripts_of_the_recipe_are_shell(section):
    subprocess.run(["sh", "-n"], input=sections()[section], text=True, check=True)
    words = [tool("shellcheck"), "--shell=sh", "-"]
    found = subprocess.run(words, input=sections()[section], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def test_the_dockerfile_ends_as_an_unprivileged_user_with_an_absolute_entry_point():
    last = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", last, re.MULTILINE)
    assert 'ENTRYPOINT ["/opt/bids_sr/bin/bids_sr"]' in last
    assert "WORKDIR /tmp\n" in last


def test_the_version_of_torch_stands_in_the_constraints_alone():
    assert not re.search(r"torch==\d", DOCKERFILE + SINGULARITY)


@pytest.mark.parametrize(
    ("build", "pin", "index"),
    [("cuda", "", None), ("cpu", "+cpu", "/whl/cpu"), ("cu126", "+cu126", "/whl/cu126")],
)
def test_one_argument_chooses_the_build_of_torch(tmp_path, build, pin, index):
    (step,) = (part for part in re.split(r"^(?=[A-Z]+ )", DOCKERFILE, flags=re.MULTILINE) if 'build="' in part)
    script = step.removeprefix("RUN ").replace("python -m venv", ": ").replace("/opt/bids_sr/bin/pip", "echo")
    (tmp_path / "constraints.txt").write_text("torch==9.8.7\ntorchvision==1.2\n")
    words = ["sh", "-c", script]
    found = subprocess.run(
        words, cwd=tmp_path, env={"TORCH": build, "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=True
    )
    assert (tmp_path / "constraints.txt").read_text() == f"torch==9.8.7{pin}\ntorchvision==1.2\n"
    assert ("--extra-index-url" in found.stdout) == (index is not None)
    assert index is None or f"{index} torch\n" in found.stdout


def test_hadolint_finds_nothing():
    found = subprocess.run([tool("hadolint"), str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout
