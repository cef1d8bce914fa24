"""Compose the picture of the README from the results of `make demo`: `python docs/make_picture.py demo-out`."""

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
from PIL import Image

METHODS = {
    "acquired": "acquired, {acquired} mm",
    "cubic": "cubic interpolation, {target} mm",
    "sr": "bids_sr, {target} mm",
}
CONTRASTS = {"dwi": "one direction", "fa": "FA", "colour_fa": "directions"}


def main(output: Path) -> None:
    """One row per contrast, one column per method, all enlarged at the same place."""
    record_file = next((output / "sub-01" / "figures").glob("*_desc-record.json"))
    record = json.loads(record_file.read_text())
    sizes = {name: f"{grid['voxel_sizes'][0]:g}" for name, grid in record["grids"].items()}
    figure, axes = plt.subplots(len(CONTRASTS), len(METHODS), figsize=(9.6, 9.6), layout="constrained")
    for row, (contrast, name) in zip(axes, CONTRASTS.items(), strict=True):
        for axis, (method, title) in zip(row, METHODS.items(), strict=True):
            axis.imshow(Image.open(record_file.parent / record["figures"][contrast][method]["axial_zoom"]["file"]))
            axis.set(xticks=[], yticks=[])
            if contrast == "dwi":
                axis.set_title(title.format(**sizes))
        row[0].set_ylabel(name)
    target = Path(__file__).parent / "images" / "before_after.webp"
    figure.savefig(target, dpi=100, pil_kwargs={"quality": 88})
    print(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
