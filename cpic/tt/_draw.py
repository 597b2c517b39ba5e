"""Draw a train in plain characters: sizes above the sites, ranks between them."""

from collections.abc import Sequence

_WIDTH = 88


def draw(sizes: Sequence[int], ranks: Sequence[int]) -> str:
    """Lines with one node for each site; `...` marks the line break of a long train."""
    lines: list[tuple[str, str]] = []
    tops, nodes = "  ", "  "
    for site, size in enumerate(sizes):
        bond = f"--{ranks[site]}--" if site else ""
        top = str(size)
        width = max(len(top), 1)
        if len(nodes) + len(bond) + width > _WIDTH:
            lines.append((tops, nodes + " ..."))
            tops, nodes = "  ", "  "
        middle = (width - 1) // 2
        tops += " " * len(bond) + top
        nodes += bond + ("-" * middle if site else " " * middle) + "o"
        if site + 1 < len(sizes):
            nodes += "-" * (width - 1 - middle)
    lines.append((tops, nodes))
    drawn = []
    for tops, nodes in lines:
        legs = "".join("|" if letter == "o" else " " for letter in nodes)
        drawn += [tops.rstrip(), legs.rstrip(), nodes.rstrip()]
    return "\n".join(drawn)


def human(count: int) -> str:
    """Bytes in the largest unit that leaves at least one."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
