"""The made head is restored with and without the T1w and held against its truth."""

from benchmarks.phantom_truth import main
from tests.made_models import save_tiny_model


def rows(text):
    """The cells of the table's rows by model, T1w and tissue."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")][2:]
    return {tuple(cells[:3]): cells[3:] for cells in lines}


def test_one_command_makes_the_table(tmp_path, capsys):
    model = save_tiny_model(tmp_path, ("volume",), guided=True)
    assert main(["--models", model, "--output", str(tmp_path / "phantom.md")]) == 0
    text = (tmp_path / "phantom.md").read_text()
    assert capsys.readouterr().out == text
    found = rows(text)
    methods = [("tiny", "yes"), ("tiny", "no"), ("cubic", "no")]
    assert list(found) == [(*method, tissue) for method in methods for tissue in ("brain", "WM", "GM", "CSF")]
    assert found["cubic", "no", "brain"][1] == "1.00"
    assert 0.01 < float(found["cubic", "no", "brain"][0]) < 0.3
    assert found["tiny", "yes", "brain"] != found["tiny", "no", "brain"]
    part = found["tiny", "yes", "brain"][1]
    assert text.endswith(f" tiny with the T1w: {part}, not cleared.\n")


def test_a_model_that_is_not_there_is_one_line(tmp_path, capsys):
    assert main(["--models", "nobody", "--output", str(tmp_path / "x.md")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("benchmarks.phantom_truth: ")
    assert "no model named nobody" in error
