"""Draw the map of the package for the developers' page from the package itself: `python docs/make_map.py`."""

import ast
from html import escape
from pathlib import Path

HERE = Path(__file__).parent
PACKAGE = HERE.parent / "bids_sr"
TARGET = HERE / "images" / "map.svg"

#: Floors of the house, from the door down; imports go down or stay on the floor. Each room with what it is for.
FLOORS = {
    "words into settings": {"__main__": "", "cli": "command lines", "__init__": "", "api": ""},
    "graphs": {"workflows": "nipype graphs, the run, its log and exit code"},
    "files to files": {"interfaces": "one stage each: read, call one function of the core, write"},
    "what others build on": {
        "training": "make a model",
        "evaluation": "compare models and series",
        "reports": "pictures and pages",
        "companions": "",
        "demo": "a made head with known truth",
        "results": "",
        "records": "",
        "bids": "all that knows BIDS names",
        "config": "",
    },
    "core: arrays and tensors": {
        "inference": "restore a volume",
        "models": "values at points",
        "dwi": "gradients, mask, T1w, tensor, guards",
        "degradation": "",
        "headers": "",
        "images": "",
        "geometry": "",
        "splines": "",
        "resources": "",
        "errors": "",
    },
}
WIDTH, MARGIN, GAP, LINE, LETTER = 1000, 24, 12, 17, 6.9
STYLE = """
    .sheet { fill: #ffffff; } .floor { fill: #f2f5f8; } .room { fill: #e4ecf4; stroke: #4a6a8a; }
    text { fill: #1c2733; } .soft { fill: #4d5d6c; font-size: 12px; } .name { font-weight: 600; }
    .way { stroke: #4a6a8a; stroke-width: 2; fill: none; } .tip { fill: #4a6a8a; }
    @media (prefers-color-scheme: dark) {
      .sheet { fill: #171b20; } .floor { fill: #1d232a; } .room { fill: #22303f; stroke: #7ea3c8; }
      text { fill: #e6ebf0; } .soft { fill: #aab6c2; } .way { stroke: #7ea3c8; } .tip { fill: #7ea3c8; }
    }"""


def modules(room):
    """Names of a room's modules; none where it is a module itself."""
    folder = PACKAGE / room
    return sorted(file.stem for file in folder.glob("*.py") if file.stem != "__init__") if folder.is_dir() else []


def rooms():
    """Every package and module at the top of the package."""
    found = {path.stem for path in PACKAGE.glob("*.py")}
    return found | {path.parent.name for path in PACKAGE.glob("*/__init__.py")}


def imports(room):
    """Rooms that a room imports from, at the top of its files or inside functions."""
    folder = PACKAGE / room
    files = folder.rglob("*.py") if folder.is_dir() else [folder.with_suffix(".py")]
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    named = [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return {name.split(".")[1] for name in named if name.startswith("bids_sr.")} - {room}


def wrapped(words, width):
    """Words as lines of at most `width` letters."""
    lines = [""]
    for word in words:
        longer = f"{lines[-1]} {word}".strip()
        if len(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def room_box(name, purpose, x, y, width):
    """One room as SVG lines, and its height."""
    letters = int((width - 20) / LETTER)
    inside = wrapped(modules(name), letters) if modules(name) else []
    told = wrapped(purpose.split(), letters) if purpose else []
    height = 14 + LINE * (1 + len(told) + len(inside))
    title = f"{name}/" if inside else f"{name}.py"
    lines = [(f'class="name" x="{x + 10}"', title)]
    lines += [(f'x="{x + 10}"', text) for text in told]
    lines += [(f'class="soft" x="{x + 10}"', text) for text in inside]
    drawn = [f'<rect class="room" x="{x}" y="{y}" width="{width}" height="{height}" rx="6"/>']
    for number, (attributes, text) in enumerate(lines):
        drawn.append(f'<text {attributes} y="{y + 19 + LINE * number}">{escape(text)}</text>')
    return drawn, height


def floor_box(title, names, y):
    """One floor with its rooms: packages beside each other, modules in the last column below each other."""
    large = [name for name in names if modules(name)]
    small = [name for name in names if not modules(name)]
    per_row = min(len(large), 3)
    column = 150 if small else 0
    width = (WIDTH - 2 * MARGIN - 2 * GAP - column - (GAP if small else 0) - GAP * (per_row - 1)) / per_row
    drawn, top, left = [], y + 30, MARGIN + GAP
    bottom = top
    for start in range(0, len(large), per_row):
        heights = []
        for place, name in enumerate(large[start : start + per_row]):
            lines, height = room_box(name, names[name], round(left + place * (width + GAP)), bottom, round(width))
            drawn += lines
            heights.append(height)
        bottom += max(heights) + GAP
    beside = top
    for name in small:
        lines, height = room_box(name, "", WIDTH - MARGIN - GAP - column, beside, column)
        drawn += lines
        beside += height + 6
    height = max(bottom, beside) - y
    frame = f'<rect class="floor" x="{MARGIN}" y="{y}" width="{WIDTH - 2 * MARGIN}" height="{height}" rx="10"/>'
    heading = f'<text class="soft" x="{MARGIN + GAP}" y="{y + 20}">{escape(title)}</text>'
    return [frame, heading, *drawn], height


def draw():
    """The map as the text of an SVG file."""
    parts, y = [], MARGIN
    for number, (title, names) in enumerate(FLOORS.items()):
        if number:
            middle = WIDTH / 2
            parts.append(f'<path class="way" d="M{middle} {y - 22}V{y - 7}"/>')
            parts.append(f'<path class="tip" d="M{middle - 6} {y - 10}h12l-6 8z"/>')
        lines, height = floor_box(title, names, y)
        parts += lines
        y += height + MARGIN
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" font-size="14" role="img" '
        'font-family="system-ui, \'Segoe UI\', Helvetica, Arial, sans-serif" aria-labelledby="title description">'
    )
    about = "Floors from the command line down to the core; each room lists its modules. Imports go down."
    title = f'<title id="title">Map of bids_sr</title>\n<desc id="description">{about}</desc>'
    sheet = f'<rect class="sheet" width="{WIDTH}" height="{y}" rx="12"/>'
    return "\n".join([head, title, f"<style>{STYLE}\n</style>", sheet, *parts, "</svg>"]) + "\n"


def main():
    """Write the map."""
    TARGET.write_text(draw(), encoding="utf-8")
    print(TARGET)


if __name__ == "__main__":
    main()
