"""Imports between the sub-packages point one way, and every sub-package declares itself."""

import ast
from pathlib import Path

import pytest

import cpic

ROOT = Path(cpic.__file__).parent
# What every part may import; these import nothing of the package.
GROUND = {"_errors", "_files", "_outgoing", "_renamed", "_trust", "_vision"}
# What each part may import besides itself; None: anything.
MAY_IMPORT = {
    "__init__": None,
    **{name: set() for name in GROUND},
    "linalg": GROUND,
    "tt": GROUND | {"linalg"},
    "bottleneck": GROUND | {"linalg", "tt"},
    "project": GROUND | {"linalg", "tt"},
    "nn": GROUND | {"linalg", "tt", "bottleneck", "project", "data", "choose", "images"},
    "data": GROUND,
    "choose": GROUND | {"linalg", "tt", "data"},
    "cohorts": GROUND | {"data"},
    "images": GROUND | {"data"},
    "options": GROUND,
    "train": GROUND
    | {"linalg", "tt", "bottleneck", "project", "nn", "data", "cohorts", "options", "choose"}
    | {"images"},
    "show": GROUND
    | {"linalg", "tt", "bottleneck", "project", "data", "cohorts", "choose"}
    | {"images"},
    "check": set(),
    "_execute": GROUND,
    "_notebooks": GROUND,
    "_peak": set(),
    "run": None,
    "cli": None,
}
# What each room of a part may import of the other rooms of that part; None: any.
ROOMS = {
    "train": {
        "__init__": None,
        "results": set(),
        "loop": {"results"},
        "tasks": {"results", "loop"},
        "prediction": {"results", "loop", "tasks"},
        "pretrain": {"results", "loop"},
    }
}


def part_of(path):
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imported_parts(path):
    return {name.split(".")[1] for name in imported_names(path)}


def imported_names(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        yield from (name for name in names if name.startswith("cpic."))


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.name))
def test_imports_point_one_way(path):
    allowed = MAY_IMPORT[part_of(path)]
    if allowed is not None:
        assert imported_parts(path) <= allowed | {part_of(path)}


@pytest.mark.parametrize("part", ROOMS)
def test_rooms_of_a_part_import_one_way(part):
    for path in sorted((ROOT / part).rglob("*.py")):
        room = path.relative_to(ROOT / part).with_suffix("").parts[0]
        names = (name.split(".") for name in imported_names(path))
        rooms = {name[2] for name in names if name[1] == part and len(name) > 2}
        allowed = ROOMS[part][room]
        if allowed is not None:
            assert rooms <= allowed | {room}, path


def test_every_part_is_declared():
    parts = {part_of(path) for path in ROOT.rglob("*.py")}
    assert parts <= set(MAY_IMPORT)
    assert {"linalg", "tt", "data", "show"} <= parts


def test_a_backward_import_is_seen(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("from cpic import tt\nimport cpic.show._train\nfrom cpic.data import x\n")
    assert imported_parts(bad) == {"tt", "show", "data"}


def test_no_file_is_long():
    lengths = {path: len(path.read_text("utf-8").splitlines()) for path in ROOT.rglob("*.py")}
    assert {str(path): n for path, n in lengths.items() if n > 300} == {}
