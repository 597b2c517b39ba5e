"""What is missing, damaged or not as published in data sets of photographs."""

from pathlib import Path

from cpic._errors import ImageError
from cpic.images._trees import TREES

# Classes, and pictures of both parts, as published.
SIZES = {
    "imagenet": (1000, 1_281_167, 50_000),
    "cub": (200, 5994, 5794),
    "aircraft": (100, 6667, 3333),
    "aircraft-family": (70, 6667, 3333),
    "aircraft-manufacturer": (30, 6667, 3333),
    "cars": (196, 8144, 8041),
    "dogs": (120, 12_000, 8580),
    "flowers": (102, 2040, 6149),
}


def check_tree(name: str, root: Path) -> tuple[str, ...]:
    """A sentence for each fault of a data set: what is missing, damaged, or not as published."""
    faults: list[str] = []
    sizes = []
    for train in (True, False):
        try:
            found = TREES[name](root, train)
        except ImageError as error:
            faults.append(str(error))
            continue
        sizes.append((len(found.classes), len(set(found.paths))))
        for k in range(len(found)):
            try:
                found.read([k])
            except ImageError as error:
                faults.append(str(error))
    if len(sizes) == 2 and name in SIZES:
        got = (max(n for n, _ in sizes), *(n for _, n in sizes))
        if got != SIZES[name]:
            faults.append(
                f"{name} in {root} has {got[0]} classes, {got[1]} pictures to train with and "
                f"{got[2]} to test with; published are {SIZES[name]}."
            )
    return tuple(faults)
