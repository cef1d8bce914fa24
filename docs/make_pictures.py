"""Compose the pictures of README and pages from the results of `make demo`: `python docs/make_pictures.py demo-out`."""

import io
import json
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
from PIL import Image

ROOT = Path(__file__).parents[1]
IMAGES = Path(__file__).parent / "images"
QUALITY = 88
METHODS = {
    "acquired": "acquired, {acquired} mm",
    "cubic": "cubic interpolation, {target} mm",
    "sr": "bids_sr, {target} mm",
}
CONTRASTS = {"dwi": "one direction", "fa": "FA", "colour_fa": "directions"}
#: Pictures of the report: the element of the page that they show, and how many pixels of it.
SHOTS = {"report": ("h1", 1150), "report_tensor": ("#series-1-tensor", 1130)}


def main(output: Path) -> None:
    """Make them all; those of the report where there is a browser."""
    record_file = next((output / "sub-01" / "figures").glob("*_desc-record.json"))
    record = json.loads(record_file.read_text())
    before_after(record, record_file.parent)
    outputs(record, record_file.parent)
    report(output / "sub-01.html")


def before_after(record: dict, folder: Path) -> None:
    """One row per contrast, one column per method, all enlarged at the same place."""
    sizes = {name: f"{grid['voxel_sizes'][0]:g}" for name, grid in record["grids"].items()}
    figure, axes = plt.subplots(len(CONTRASTS), len(METHODS), figsize=(9.6, 9.6), layout="constrained")
    for row, (contrast, name) in zip(axes, CONTRASTS.items(), strict=True):
        for axis, (method, title) in zip(row, METHODS.items(), strict=True):
            axis.imshow(Image.open(folder / record["figures"][contrast][method]["axial_zoom"]["file"]))
            axis.set(xticks=[], yticks=[])
            if contrast == "dwi":
                axis.set_title(title.format(**sizes))
        row[0].set_ylabel(name)
    save(figure, "before_after")


def outputs(record: dict, folder: Path) -> None:
    """A slice of each kind of image in `dwi/`, under the end of its name."""
    figures, uncertainty = record["figures"], (record.get("uncertainty") or {}).get("figures")
    departure = (record.get("departure") or {}).get("figures", {}).get("maps")
    res = next(part.removeprefix("res-") for part in figures["fa"]["sr"]["axial"]["file"].split("_") if "res-" in part)
    shown = {"the input dwi": figures["dwi"]["acquired"], f"res-{res}_desc-sr_dwi": figures["dwi"]["sr"]}
    for name, suffix in SUFFIXES.items():
        shown |= {f"desc-orig_{suffix}": figures[name]["acquired"], f"res-{res}_desc-sr_{suffix}": figures[name]["sr"]}
    if departure:
        shown["desc-departure_dwimap"] = departure["sr"]
    if uncertainty:
        shown[f"res-{res}_desc-uncertainty_FA"] = uncertainty["fa"]
    figure, axes = plt.subplots(2, (len(shown) + 1) // 2, figsize=(12, 6.2), layout="constrained")
    # Each acquired image above the restored one.
    for axis, name in zip(axes.T.ravel(), shown, strict=False):
        axis.imshow(Image.open(folder / shown[name]["axial"]["file"]), cmap="gray")
        axis.set_title(name, fontsize=8)
    for axis in axes.ravel():
        axis.axis("off")
    save(figure, "outputs")


SUFFIXES = {"fa": "FA", "md": "ADC", "colour_fa": "colFA"}


def report(page: Path) -> None:
    """Parts of the page as a browser shows them."""
    sys.path.insert(0, str(ROOT))
    from tests.browser import PROGRAM, Browser

    if PROGRAM is None:
        print("no browser: the pictures of the report are left as they are")
        return
    with tempfile.TemporaryDirectory() as profile:
        browser = Browser(profile)
        try:
            for name, (place, height) in SHOTS.items():
                browser.open(page, width=1100, height=height)
                browser.run("document.querySelector('.bar').style.display = 'none'")
                browser.run("document.documentElement.style.scrollPaddingTop = '1rem'")
                browser.run(f"document.querySelector({place!r}).scrollIntoView({{behavior: 'instant'}})")
                picture = Image.open(io.BytesIO(browser.picture()))
                write(picture.convert("RGB"), name)
        finally:
            browser.close()


def save(figure: plt.Figure, name: str) -> None:
    """Write a figure."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=100)
    write(Image.open(stream).convert("RGB"), name)


def write(picture: Image.Image, name: str) -> None:
    """Write a picture, small enough for a repository."""
    target = IMAGES / f"{name}.webp"
    picture.save(target, quality=QUALITY, method=6)
    print(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
