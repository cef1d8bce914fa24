"""The record of a series: what was asked, what was done and what came out, as one JSON file beside its pictures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bids_sr import __version__
from bids_sr.bids.outputs import write_json
from bids_sr.dwi.trust import FULL_COVERAGE, LARGEST_CONTRAST, LEAST_AGREEMENT, NO_T1W

SCHEMA = 1
#: Options that change the bytes of an output; others (processors, folders, verbosity) leave them as they are.
RELEVANT_OPTIONS = (
    "output_resolution",
    "scale",
    "model",
    "device",
    "b0_threshold",
    "use_t1w",
    "save_cubic",
    "save_tensor",
    "uncertainty",
    "self_check",
    "random_seed",
    "sloppy",
)
#: What became of a result that a later run with other input or options began to replace.
REPLACED = "A later run with other input or options began to replace this result and has not come to its end."
#: What became of files that no resolution has alone, once a run at another one began to make others of them.
OVERTAKEN = (
    "A later run with other input or options began to replace the files that this result shares with those at other "
    "resolutions (mask, maps and T1w on the acquired grid): they may no longer be those that it was made with. Run its "
    "command again to have them back, and give results that differ in more than the resolution a folder each."
)
#: Parts of the record that say what of the result the scan does not support, and what each tells.
GUARDS = {
    "departure": "Where the result departs from the acquired scan",
    "t1w_effect": "What the T1w image changed in the result",
}
#: A head seldom lies further off between two series of a session; T1w images of other heads were moved by 20 to 36 mm.
LARGE_ROTATION_DEGREES = 20.0
LARGE_TRANSLATION_MM = 15.0
#: Brains of infants to large adults, in ml.
PLAUSIBLE_BRAIN_ML = (400.0, 2200.0)


def fingerprint(inputs: Sequence[Path | None], options: Mapping[str, Any], weights_sha256: str) -> str:
    """SHA-256 over all that decides the result of a series.

    Parameters
    ----------
    inputs : sequence of Path or None
        Files in a fixed order; their content counts, not their place or time. None for a file that is not used.
    options : mapping
        Those of `RELEVANT_OPTIONS`.
    weights_sha256 : str
        Checksum of the model's weights.
    """
    contents = [None if file is None else _sha256(file) for file in inputs]
    parts = [__version__, SCHEMA, contents, dict(options), weights_sha256]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _sha256(file: Path) -> str:
    """Checksum of a file's content."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def complete_record(
    record: Mapping[str, Any], parts: Mapping[str, Any], seconds: Mapping[str, float], outputs: Sequence[str]
) -> dict[str, Any]:
    """The record of a series that is done.

    Parameters
    ----------
    record : mapping
        What was known before the run, with its warnings.
    parts : mapping
        What the stages found, by key of the record; what is empty is left out.
    seconds : mapping
        Wall-clock time of each group of stages.
    outputs : sequence of str
        Files written, relative to the output dataset.
    """
    found = {name: value for name, value in parts.items() if value}
    times = {stage: round(value, 1) for stage, value in seconds.items()}
    return {
        **record,
        **found,
        "status": "done",
        "seconds": {**times, "total": round(sum(seconds.values()), 1)},
        "warnings": [*record.get("warnings", []), *stage_warnings(found)],
        "outputs": list(outputs),
    }


def failed_record(record: Mapping[str, Any], message: str, node: str, crash_file: str | None) -> dict[str, Any]:
    """The record of a series that failed in the stage `node`."""
    return {**record, "status": "failed", "error": {"message": message, "node": node, "crash_file": crash_file}}


def stage_warnings(parts: Mapping[str, Any]) -> list[str]:
    """What a reader should know of the results of the stages, in plain sentences."""
    return [
        *_registration_warnings(parts.get("registration", {})),
        *_t1w_warnings(parts.get("t1w", {})),
        *_fit_warnings(parts.get("fit", {})),
        *_mask_warnings(parts.get("mask", {})),
        *_self_check_warnings(parts.get("self_check", {})),
        *_guard_warnings(parts),
    ]


def sidecar_fields(parts: Mapping[str, Any]) -> dict[str, Any]:
    """What the sidecar of a restored series tells of the stages before it was saved.

    Parameters
    ----------
    parts : mapping
        Parts of the record: t1w, fit, mask, registration, as far as there are.

    Returns
    -------
    dict
        "T1wUsed" and "T1wNotUsedBecause" of models that use a T1w, and "Warnings", where there are any.
    """
    t1w, warnings = parts.get("t1w", {}), stage_warnings(parts)
    fields: dict[str, Any] = {"T1wUsed": t1w["used"]} if t1w else {}
    if t1w and not t1w["used"]:
        fields["T1wNotUsedBecause"] = t1w["reason"]
    return fields | ({"Warnings": warnings} if warnings else {})


def undone_check(reason: str, *, failed: bool = False) -> dict[str, Any]:
    """The record's part on a self-check or guard that was not done: why, and whether that is a failure."""
    return {"done": False, "failed": failed, "reason": reason}


def _fit_warnings(fit: Mapping[str, Any]) -> Iterable[str]:
    """That a model which learns from the scan found nothing to learn."""
    if fit and not fit["learned"]:
        yield str(fit["sentence"])


def _t1w_warnings(t1w: Mapping[str, Any]) -> Iterable[str]:
    """A T1w that the model could not use; that there is none was said before the run."""
    if t1w and not t1w["used"] and t1w["reason"] != NO_T1W:
        yield f"The T1w image did not guide the model, which was given zeros in its place: {t1w['reason']}."


def _registration_warnings(registration: Mapping[str, Any]) -> Iterable[str]:
    """A T1w that shares little with the series, or a motion that is larger than heads move."""
    if not registration:
        return
    if registration.get("contrast", -1.0) > LARGEST_CONTRAST:
        yield (
            f"The T1w is bright where the b0 is (rank correlation {registration['contrast']:.2f}): its contrast is not "
            "that of a T1w. Check which image it is."
        )
    elif not registration.get("agreement", 1.0) >= LEAST_AGREEMENT:  # so that NaN is told too
        yield (
            f"T1w and b0 share little (agreement {registration['agreement']:.2f} of 1): the registration may be wrong, "
            "or the T1w of somebody else. Check the registration in the report."
        )
    if registration.get("coverage", 1.0) < FULL_COVERAGE:
        yield (
            f"The T1w image shows only {registration['coverage']:.0%} of the brain. Check whether it is cropped, and "
            "the registration in the report."
        )
    rotation, translation = abs(registration["rotation_degrees"]), abs(registration["translation_mm"])
    if rotation > LARGE_ROTATION_DEGREES or translation > LARGE_TRANSLATION_MM:
        yield (
            f"The T1w image was moved by {translation:.0f} mm and turned by {rotation:.0f} degrees to fit the series. "
            "Check the registration in the report."
        )


def _mask_warnings(mask: Mapping[str, Any]) -> Iterable[str]:
    """A brain of implausible size, and volumes that stand out in it."""
    low, high = PLAUSIBLE_BRAIN_ML
    if mask and not low <= mask["volume_ml"] <= high:
        volume = f"{mask['volume_ml']:.0f} ml"
        yield f"The brain mask holds {volume}, unlikely for a human brain. Check the mask in the report."
    if odd := mask.get("odd_volumes", []):
        shown = ", ".join(f"{one['volume']} (b = {one['b']:.0f} s/mm², {one['times']:.3g} times)" for one in odd[:5])
        more = f" and {len(odd) - 5} more" if len(odd) > 5 else ""
        yield (
            f"Some volumes (counted from 0) are far brighter or darker in the brain than the others of their shell: "
            f"{shown}{more}. They spoil the tensor; leave them out of the series, or mend their scaling."
        )


def _self_check_warnings(check: Mapping[str, Any]) -> Iterable[str]:
    """A check that broke off, or that says that the result is no better than an interpolation."""
    if check.get("failed"):
        yield f"The self-check could not be done: {check['reason']} The results do not depend on it."
    elif check.get("level") == "no":
        yield check["sentence"]


def _guard_warnings(parts: Mapping[str, Any]) -> Iterable[str]:
    """Guards against invention that broke off."""
    for part, what in GUARDS.items():
        if parts.get(part, {}).get("failed"):
            yield f"{what} could not be told: {parts[part]['reason']} The results do not depend on it."


def write_record(file: Path, record: Mapping[str, Any]) -> None:
    """Write a record; it appears whole or not at all."""
    write_json(file, record)


def read_record(file: Path) -> dict[str, Any] | None:
    """The record in a file; None where there is none that can be read."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return None
    return record if isinstance(record, dict) and record.get("schema") == SCHEMA else None


def is_finished(record: Mapping[str, Any] | None, expected_fingerprint: str, output_dir: Path) -> bool:
    """Tell whether a series need not run again: same fingerprint, and every output is there."""
    if record is None or record.get("status") != "done" or record.get("fingerprint") != expected_fingerprint:
        return False
    return all((output_dir / name).is_file() for name in record["outputs"])


def failed_parts(record: Mapping[str, Any]) -> list[str]:
    """The checks of a finished series that broke off, in words."""
    names = {"self_check": "self-check", "departure": "departure from the scan", "t1w_effect": "effect of the T1w"}
    return [words for part, words in names.items() if record.get(part, {}).get("failed")]


def reason_to_repeat(record: Mapping[str, Any], *, can_check_itself: bool) -> str:
    """Tell why a series that is finished should run again nevertheless, in words; empty where it should not.

    A check that broke off is tried once more and no oftener: what fails each time would cost a restoration each time.

    Parameters
    ----------
    record : mapping
        Of a series that `is_finished`.
    can_check_itself : bool
        Whether the self-check would be done now.
    """
    check = record.get("self_check", {})
    if record.get("overtaken"):
        return "a later run with other input or options replaced files on the acquired grid that it lists"
    if can_check_itself and not (check.get("done") or check.get("failed")):
        return "its self-check was left out for want of memory, and there is enough now"
    if (failed := failed_parts(record)) and not record.get("repeated"):
        return f"a check broke off ({', '.join(failed)}) and is tried once more"
    return ""


def overtake(file: Path, stem: str, shared: Mapping[str, str]) -> list[str]:
    """Mark results of a series whose files on the acquired grid a run is about to make from something else.

    Parameters
    ----------
    file : Path
        Record of the run's own result, which lies beside the others.
    stem : str
        Of the series.
    shared : mapping
        Checksums of what decides those files, as the record keeps them.

    Returns
    -------
    list of str
        Names of the records that were marked.
    """
    marked = []
    for other in sorted(file.parent.glob("*_desc-record.json")):
        record = read_record(other) or {}
        is_result = record.get("status") == "done" and not record.get("overtaken")
        if other == file or record.get("stem") != stem or not is_result:
            continue
        # Earlier versions kept no checksums; they made other files.
        theirs = record.get("shared", {"series": ""})
        if any(theirs[name] != shared[name] for name in theirs.keys() & shared.keys()):
            write_record(other, {**record, "overtaken": True, "warnings": [*record.get("warnings", []), OVERTAKEN]})
            marked.append(other.name)
    return marked


def supersede(file: Path) -> list[str]:
    """Mark the result that a record tells of as about to be replaced, by a run that may not come to its end.

    Returns
    -------
    list of str
        Files of that result, relative to the output dataset; none where there is no record.
    """
    record = read_record(file)
    if record is None:
        return []
    write_record(file, failed_record(record, REPLACED, "", None))
    return [str(name) for name in record.get("outputs", [])]


def remove_replaced(records: Path, output_dir: Path, names: Iterable[str]) -> None:
    """Remove files of an earlier result that no record lists any more: they would be taken for part of the new one.

    Parameters
    ----------
    records : Path
        Folder with the records of the subject.
    output_dir : Path
    names : iterable of str
        Relative to `output_dir`; what lies outside of it is left alone.
    """
    known = [read_record(file) or {} for file in records.glob("*_desc-record.json")]
    kept = {name for record in known for name in record.get("outputs", [])}
    for name in set(names) - kept:
        file = output_dir / name
        if file.resolve().is_relative_to(output_dir.resolve()):
            file.unlink(missing_ok=True)
            if name.endswith(".nii.gz"):
                file.with_name(file.name.removesuffix(".nii.gz") + ".json").unlink(missing_ok=True)
