"""The methods text tells what was done, nothing else, and each reference it cites exists and resolves."""

import re

import pytest

from bids_sr.bids.citation import (
    _ARCHITECTURES,
    bibliography,
    cited_keys,
    methods_text,
    references,
    software_versions,
    write_citation,
)
from tests.reports.brains import record

TEXTS = {
    "full": [record({"agreement": {"fa": {}}, "colour_fa": {}})],
    "cubic": [record() | {"model": {"name": "cubic"}}],
    "given mask, no T1w": [record() | {"mask": {"source": "given"}, "registration": None, "inputs": {"t1w": None}}],
    "bare": [{"status": "done"}],
    "mixed": [record(), record() | {"inputs": {"t1w": None}, "mask": {"source": "given"}, "software": {}}],
    "failed": [{"status": "failed"}],
    "nothing": [],
}


@pytest.mark.parametrize("name", TEXTS)
def test_every_cited_key_is_in_the_bibliography(name):
    text = methods_text(TEXTS[name])
    assert [entry.key for entry in references(cited_keys(text))] == cited_keys(text)


@pytest.mark.parametrize("key", sorted(bibliography()))
def test_entries_are_complete_and_resolve(key):
    entry = bibliography()[key]
    assert {"author", "title", "year"} <= set(entry.fields)
    assert {"journal", "booktitle", "publisher"} & set(entry.fields)
    assert re.fullmatch(r"(19|20)\d\d", entry.fields["year"])
    assert "doi" in entry.fields or "eprint" in entry.fields
    assert re.fullmatch(r"10\.\d{4,9}/\S+", entry.fields.get("doi", "10.1234/x"))
    assert re.fullmatch(r"\d{4}\.\d{4,5}", entry.fields.get("eprint", "2404.03209"))
    assert entry.url.startswith(("https://doi.org/10.", "https://arxiv.org/abs/"))
    assert not re.search(r"[{}\\]", entry.text)


def test_every_entry_of_the_file_is_read():
    source = "\n".join(entry.bibtex for entry in bibliography().values())
    assert source.count("@") == len(bibliography()) >= 15


def test_every_entry_can_be_cited():
    everything = set().union(*(cited_keys(methods_text(records)) for records in TEXTS.values()))
    everything |= set(cited_keys(methods_text([record() | {"software": dict.fromkeys(software_versions(), "1")}])))
    for architecture in _ARCHITECTURES:
        everything |= set(cited_keys(methods_text([record() | {"model": {"architecture": architecture}}])))
    assert everything == set(bibliography())


def test_only_what_was_done_is_told():
    text = methods_text(TEXTS["full"])
    assert "registered rigidly" in text and "median Otsu" in text and "812,345 parameters" in text
    assert "2 × 2 × 3 mm became 1 × 1 × 1.5 mm" in text and "DIPY 1.12.0 [@dipy]" in text
    bare = methods_text(TEXTS["given mask, no T1w"])
    assert "registered" not in bare and "Otsu" not in bare and "no T1-weighted image" in bare
    cubic = methods_text(TEXTS["cubic"])
    assert "no network was used" in cubic and "csrdmri" not in cubic and "PyTorch [@pytorch] on" not in cubic
    assert "nothing to describe" in methods_text(TEXTS["failed"])


def guided(**t1w):
    """A record of a model that uses the T1w."""
    made = record()
    return made | {"model": made["model"] | {"uses_t1w": True}, "t1w": t1w}


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([guided(used=True, reason="")], "It was guided by the T1-weighted image."),
        ([guided(used=True), guided(used=False)], "guided by the T1-weighted image in 1 of 2 series and given zeros"),
        ([guided(used=False, reason="there is none")], "was given zeros in its place"),
        ([record() | {"model": record()["model"] | {"uses_t1w": False}}], "does not use the T1-weighted image"),
    ],
)
def test_it_says_whether_the_t1w_took_part(records, words):
    assert words in methods_text(records)


@pytest.mark.parametrize(
    ("card", "words"),
    [
        ({"normalization": "shell"}, "divided by the median of its shell's mean volume"),
        ({"normalization": "b0"}, "divided by the mean b0"),
        ({"architecture": "csr_dmri"}, "implicit decoder"),
        ({"architecture": "rescnn3d"}, "ResCNN3D"),
        ({"name": "trilinear"}, "interpolated trilinearly; no network was used"),
    ],
)
def test_it_says_what_the_model_is_and_how_signals_are_put_to_it(card, words):
    made = record()
    assert words in methods_text([made | {"model": made["model"] | card}])


def test_a_grid_network_is_not_called_an_implicit_decoder():
    made = record()
    assert "implicit" not in methods_text([made | {"model": made["model"] | {"architecture": "dcsrn"}}])


def test_nothing_is_said_of_the_t1w_where_it_is_not_known():
    assert "guided" not in methods_text([record()]) + methods_text(TEXTS["cubic"])


def test_the_files_hold_the_cited_entries_and_no_other(tmp_path):
    write_citation(tmp_path, TEXTS["full"])
    text, source = ((tmp_path / f"CITATION.{kind}").read_text() for kind in ("md", "bib"))
    assert set(re.findall(r"@\w+\{([\w-]+),", source)) == set(cited_keys(text))
    assert "https://arxiv.org/abs/2404.03209" in text
    assert sorted(file.name for file in tmp_path.iterdir()) == ["CITATION.bib", "CITATION.md"]


def test_the_self_check_is_told_with_its_outcome_where_it_was_done():
    done = [record() | {"self_check": {"done": True, "level": level}} for level in ("yes", "yes", "no")]
    text = methods_text([*done, record() | {"self_check": {"done": False, "reason": "too thin"}}])
    assert "degraded by the scale asked for" in text
    assert "of 3 series, it helped on 2 and it did not help on 1." in text
    assert "degraded by the scale" not in methods_text([record()])


def test_the_guards_are_told_where_they_were_done():
    undone = record() | {"t1w_effect": {"done": False, "reason": "Out of memory."}}
    text = methods_text([undone | {"departure": {"done": True}}])
    assert "sampled again with the acquired voxels" in text
    assert "without it too" not in text
    assert "without it too" in methods_text([record() | {"t1w_effect": {"done": True}}])
    assert "sampled again" not in methods_text([record()])


def test_the_uncertainty_is_told_where_it_was_asked_for():
    asked = [record() | {"uncertainty": {"sentence": "x", "calibration": {"scaled_to": ["sub-x"]}}}]
    assert "standard deviation of each restored intensity, which it had learned" in methods_text(asked)
    unknown = [record() | {"uncertainty": {"sentence": "x", "calibration": {}}}]
    assert "standard deviation of each restored intensity. These" in methods_text(unknown)
    assert "standard deviation of each" not in methods_text([record()])


def test_a_title_cannot_be_told_without_its_work_being_found():
    """What a page or the text links to is what the BibTeX entry says, so a reader who follows either arrives."""
    for entry in bibliography().values():
        assert entry.url.removeprefix("https://doi.org/").removeprefix("https://arxiv.org/abs/") in entry.bibtex
