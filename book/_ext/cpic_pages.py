"""Pages and links that follow from the chapters: sliders, timings, and what uses which function."""

import ast
import importlib
import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective, SphinxRole

OWN = {"alt", "caption", "labels", "start", "dark"}  # arguments of `explore` that no slider moves
# Figures that compute in the browser, and what moves in them.
EXPLORABLE = re.compile(r"^```\{explorable\} (\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
MOVES = {"maxvol": ("rank", "pivots"), "spectrum": ("power", "gap")}
MODULE = re.compile(r"^\.\. automodule:: (cpic\S*)", re.MULTILINE)


class Slider(NamedTuple):
    """One slider: the section it stands in, what moves, and its caption."""

    section: str
    moves: tuple[str, ...]
    caption: str


def chapters(root: Path) -> list[Path]:
    """The notebooks that are pages, in the order of their names: the landing page first."""
    found = [p for p in (root / "book").glob("*.ipynb") if re.match(r"intro|\d\d_", p.name)]
    return sorted(found, key=lambda p: (p.stem != "intro", p.name))


def _cells(path: Path) -> Iterator[tuple[str, str]]:
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        yield cell["cell_type"], "".join(cell["source"])


def _trees(path: Path) -> Iterator[tuple[str, ast.Module]]:
    """The section and the syntax tree of each code cell."""
    section = ""
    for kind, text in _cells(path):
        if kind == "markdown":
            section = (re.findall(r"^#{1,3} (.+)$", text, re.MULTILINE) or [section])[-1]
        elif kind == "code":
            lines = ("" if s.lstrip().startswith(("%", "!")) else s for s in text.splitlines())
            try:
                yield section, ast.parse("\n".join(lines))
            except SyntaxError:
                continue


def title(path: Path) -> str:
    """The heading of level 1 of a notebook."""
    for kind, text in _cells(path):
        if kind == "markdown" and (match := re.search(r"^# (.+)$", text, re.MULTILINE)):
            return match[1]
    return path.stem


def explorables(path: Path) -> list[Slider]:
    """All figures of a notebook that compute in the browser."""
    found, section = [], ""
    for kind, text in _cells(path):
        for match in EXPLORABLE.finditer(text if kind == "markdown" else ""):
            before = re.findall(r"^#{1,3} (.+)$", text[: match.start()], re.MULTILINE)
            moves = MOVES[match[1]]
            found.append(Slider((before or [section])[-1], moves, match[2].strip()))
        if kind == "markdown":
            section = (re.findall(r"^#{1,3} (.+)$", text, re.MULTILINE) or [section])[-1]
    return found


def sliders(path: Path) -> list[Slider]:
    """All sliders of a notebook that its code makes."""
    found = []
    for section, tree in _trees(path):
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or ast.unparse(node.func).split(".")[-1] != "explore":
                continue
            given = {k.arg: k.value for k in node.keywords if k.arg}
            labels = given.get("labels")
            shown = ast.literal_eval(labels) if isinstance(labels, ast.Dict) else {}
            caption = given.get("caption")
            found.append(
                Slider(
                    section,
                    tuple(shown.get(name, name) for name in given if name not in OWN),
                    caption.value if isinstance(caption, ast.Constant) else "",
                )
            )
    return found


def uses(path: Path) -> set[str]:
    """Dotted names of the package that the code of a notebook mentions, such as `cpic.tt.cross`."""
    known: dict[str, str] = {}
    found: set[str] = set()
    for _, tree in _trees(path):
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "cpic":
                for alias in node.names:
                    name = f"{node.module}.{alias.name}"
                    known[alias.asname or alias.name] = name
                    found.add(name)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.split(".")[0] == "cpic":
                        known[alias.asname or "cpic"] = alias.name if alias.asname else "cpic"
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                first, _, rest = ast.unparse(node).partition(".")
                if first in known and re.fullmatch(r"[\w.]+", rest):
                    found.add(f"{known[first]}.{rest}")
    return found


def modules(root: Path) -> dict[str, str]:
    """The page of each sub-package that has one."""
    return {
        match[1]: f"book/api/{path.stem}"
        for path in sorted((root / "book/api").glob("*.md"))
        for match in MODULE.finditer(path.read_text(encoding="utf-8"))
    }


class Links(NamedTuple):
    """Chapters by the public name that their code uses, and the other way round."""

    chapters: dict[str, list[str]]
    names: dict[str, list[str]]


def links(root: Path) -> Links:
    """Which chapter uses which public function or class."""
    public = {
        f"{module}.{name}"
        for module in modules(root)
        for name in getattr(importlib.import_module(module), "__all__", ())
        if callable(getattr(importlib.import_module(module), name))
    }
    found = Links({}, {})
    for path in chapters(root):
        page, seen = f"book/{path.stem}", uses(path)
        # `cpic.tt.TensorTrain.full` is a use of the class.
        used = {name for name in public if name in seen or _within(name, seen)}
        found.names[page] = sorted(used)
        for name in used:
            found.chapters.setdefault(name, []).append(page)
    return found


def _within(name: str, used: set[str]) -> bool:
    return any(each.startswith(name + ".") for each in used)


def run_cost(root: Path, path: Path) -> dict[str, Any] | None:
    """Seconds and memory of the run that a page shows; None if it has not been run."""
    spec = importlib.util.spec_from_file_location("book_executed", root / "book/executed.py")
    assert spec is not None
    assert spec.loader is not None
    executed = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(executed)
    try:
        return executed.read(path)[1]
    except KeyError:
        return None


class RunCost(SphinxRole):
    """What running the chapter has cost, so that its badge and its outputs are of one run."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        cost = run_cost(Path(self.env.srcdir), Path(self.env.doc2path(self.env.docname)))
        text = f"{self.text} not measured"
        if cost is not None:
            gigabytes = cost["peak_mib"] * 2**20 / 1e9
            text = f"{self.text} {cost['execution_seconds']:.0f} s on one CPU core, "
            text += f"{gigabytes:.1f} GB of memory"
        return [nodes.inline(self.rawtext, text, classes=["cpic-run-cost"])], []


class Table(SphinxDirective):
    """A table that is written as Markdown rows."""

    def rows(self, root: Path) -> Iterator[str]:
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        root = Path(self.env.srcdir)
        for path in chapters(root):
            self.env.note_dependency(str(path))
        lines = StringList(list(self.rows(root)), source="chapters")
        node = nodes.Element()
        self.state.nested_parse(lines, self.content_offset, node)
        return node.children


class SliderTable(Table):
    """All sliders of the book, from the code of the chapters."""

    def rows(self, root: Path) -> Iterator[str]:
        yield from ("| Chapter | Section | What moves | What it shows |", "|---|---|---|---|")
        for path in chapters(root):
            for one in [*sliders(path), *explorables(path)]:
                moves = " and ".join(one.moves).replace("|", "\\|")
                caption = one.caption.replace("|", "\\|")
                yield f"| {{doc}}`/book/{path.stem}` | {one.section} | {moves} | {caption} |"


class TimingTable(Table):
    """Seconds and memory of the runs from which the pages were made."""

    def rows(self, root: Path) -> Iterator[str]:
        yield from ("| Chapter | Seconds | Peak memory (MiB) |", "|---|--:|--:|")
        total = 0.0
        for path in chapters(root):
            cost = run_cost(root, path)
            seconds = (cost or {}).get("execution_seconds")
            memory = (cost or {}).get("peak_mib")
            total += seconds or 0
            shown = "not run" if seconds is None else f"{seconds:.0f}"
            yield f"| {{doc}}`/book/{path.stem}` | {shown} | {memory or 0:.0f} |"
        yield f"| all of them | {total:.0f} | |"


def name_chapters(app, what, name, obj, options, lines):
    """Say below a docstring which chapters use the function."""
    pages = app.cpic_links.chapters.get(name, []) if what in ("function", "class") else []
    pages = [page for page in pages if page in app.env.found_docs]
    if pages:
        lines += ["", "Used in: " + ", ".join(f":doc:`/{page}`" for page in pages) + ".", ""]


def list_names(app, pagename, templatename, context, doctree):
    """List at the end of a chapter what it uses of the package."""
    pages = modules(Path(app.srcdir))
    names = app.cpic_links.names.get(pagename, [])
    items = [
        f'<a href="{context["pathto"](pages[module])}#{name}"><code>{name}</code></a>'
        for name in names
        for module in [name.rpartition(".")[0]]
        if module in pages and pages[module] in app.env.found_docs
    ]
    if items and "body" in context:
        text = ", ".join(items)
        context["body"] += f'<p class="cpic-uses">In the API reference: {text}.</p>'


def read_links(app):
    """Once a build, before any page is read."""
    app.cpic_links = links(Path(app.srcdir))


def setup(app):
    """Connect everything above to Sphinx."""
    app.add_role("run-cost", RunCost())
    app.add_directive("cpic-sliders", SliderTable)
    app.add_directive("cpic-timings", TimingTable)
    app.connect("builder-inited", read_links)
    # After napoleon (500), which turns sections into fields.
    app.connect("autodoc-process-docstring", name_chapters, priority=700)
    app.connect("html-page-context", list_names, priority=930)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
