"""Says of each number where it comes from: built with the page, recorded before, or cited.

The badge beside a glued value leads to an entry at the end of the page, and shows it on hover and
focus. `[0.13]{.cited}` marks a number of a work that its paragraph, or head of the table, cites.
"""

import functools
import html
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cpic_records import Trace
from docutils import nodes
from myst_nb.ext.glue.directives import PasteFigureDirective
from myst_nb.ext.glue.roles import PasteTextRole
from sphinx.util import logging

logger = logging.getLogger(__name__)
SIGNS = {"built": "○", "recorded": "■", "cited": "§"}
SOURCES = "cpic_sources"  # attribute of a document: entries of its list, by their anchor
MOST = 3  # values of one kind that an entry names


class BadgedText(PasteTextRole):
    """The role for glued texts, which remembers the key."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        made, messages = super().run()
        for node in made:
            if isinstance(node, nodes.inline):
                node["glued"] = self.text.rsplit(":", 1)[0]
        return made, messages


class BadgedFigure(PasteFigureDirective):
    """The directive for glued figures, which remembers the key."""

    def run(self) -> list[nodes.Node]:
        made = super().run()
        for node in made:
            if isinstance(node, nodes.figure):
                node["glued"] = self.arguments[0]
        return made


def code_cells(path: Path) -> Iterator[tuple[int, str]]:
    """Number, as in the built page, and text of the code cells of a notebook."""
    if path.suffix == ".ipynb":
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    else:
        from myst_nb.core.read import read_myst_markdown_notebook

        cells = read_myst_markdown_notebook(path.read_text(encoding="utf-8")).cells
    for i, cell in enumerate(cells):
        if cell["cell_type"] == "code":
            yield i, "".join(cell["source"])


def facts(path: Path) -> list[str]:
    """What a record says of its making, in words."""
    record = json.loads(path.read_text(encoding="utf-8"))
    made = {**record, "versions": None} if isinstance(record, dict) else {}
    found: dict[str, dict[str, None]] = {}
    for one in [made, *(record.get("versions"),), *_provenances(record)]:
        for key in ("date", "made", "commit", "machine", "gpu", "torch", "cpic"):
            if isinstance(value := (one or {}).get(key), str):
                found.setdefault(key, {})[value[:7] if key == "commit" else value] = None
    seeds = sorted(_seeds(record))
    dates = [*found.get("date", {}), *found.get("made", {})] or _committed(path)
    parts = [("date", dates), ("commit", [*found.get("commit", {})])]
    parts += [("machine", [*found.get("machine", {}), *found.get("gpu", {})])]
    parts += [(name, [*found.get(name, {})]) for name in ("torch", "cpic")]
    said = [f"{name} {_some(values)}" for name, values in parts if values]
    if seeds:
        said.append(f"seed{'s' if len(seeds) > 1 else ''} {_some([str(s) for s in seeds])}")
    return said


def _provenances(value: Any) -> Iterator[dict]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key == "provenance" and isinstance(item, dict):
                yield item
            else:
                yield from _provenances(item)
    elif isinstance(value, list):
        for item in value:
            yield from _provenances(item)


def _seeds(value: Any) -> set[int]:
    if isinstance(value, dict):
        own = {v for k, v in value.items() if k == "seed" and type(v) is int}
        return own.union(*map(_seeds, value.values()))
    return set().union(*map(_seeds, value)) if isinstance(value, list) else set()


def _committed(path: Path) -> list[str]:
    """The day on which a file was last committed, if that is known."""
    command = ["git", "log", "-1", "--format=%cs", "--", path.name]
    try:
        done = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return []
    return [done.stdout.strip()] if done.returncode == 0 and done.stdout.strip() else []


def _some(values: list[str]) -> str:
    more = len(values) - MOST
    return ", ".join(values[:MOST]) + (f" and {more} more" if more > 0 else "")


@functools.cache
def entry(results: Path, records: frozenset[str]) -> tuple[str, str]:
    """Anchor and text of the entry for a set of records; many numbers share one."""
    names = sorted(records)
    paths = [next(results.rglob(f"{name}.json")) for name in names]
    files = _some([str(path.relative_to(results)) for path in paths])
    said = [facts(path) for path in paths]
    # Of many records, what is the same in all of them.
    shared = [part for part in said[0] if all(part in other for other in said)]
    return "from-" + re.sub(r"\W", "-", "-".join([*names[:MOST], str(len(names))])), "; ".join(
        [f"recorded in book/results: {files}", *shared]
    )


def badge(kind: str, anchor: str, text: str, *, first: bool = True) -> nodes.raw:
    """The sign beside a number; the first of a page that leads to an entry is a stop of Tab."""
    given = "" if first else ' tabindex="-1"'
    return nodes.raw(
        "",
        f'<a class="cpic-badge cpic-{kind}" href="{anchor}" data-tip="{html.escape(text)}"{given}>'
        f'<span aria-hidden="true">{SIGNS[kind]}</span>'
        f'<span class="cpic-hidden">{kind}</span></a>',
        format="html",
    )


def add_badges(app: Any, document: nodes.document) -> None:
    """Put a badge beside each glued value, glued figure, and output that uses a record."""
    path = Path(app.env.doc2path(app.env.docname))
    places = [n for n in document.findall(nodes.Element) if "glued" in n or "cell_index" in n]
    if not places:
        return
    results = Path(app.srcdir) / "book" / "results"
    trace = Trace(results)
    used = {number: trace.cell(code) for number, code in code_cells(path)}
    sources: dict[str, tuple[str, str]] = {}

    def made(records: frozenset[str]) -> nodes.raw:
        kind = "recorded" if records else "built"
        anchor, text = entry(results, records) if records else ("from-built", run_of(document))
        first = anchor not in sources
        sources[anchor] = kind, text
        for name in records:
            app.env.note_dependency(str(next(results.rglob(f"{name}.json"))))
        return badge(kind, f"#{anchor}", text, first=first)

    for node in places:
        if isinstance(node, nodes.figure):
            for caption in node.findall(nodes.caption):
                caption += made(trace.of(node["glued"], figure=True))
        elif "glued" in node:
            node.parent.insert(node.parent.index(node) + 1, made(trace.of(node["glued"])))
        elif records := used.get(node["cell_index"]):
            shown = [n for n in node.children if n.get("nb_element") == "cell_code_output"]
            if shown and shown[-1].children:
                line = nodes.paragraph("", "", made(records), classes=["cpic-origin"])
                line += nodes.Text(f" {_named(records)}")
                shown[-1] += line
    document[SOURCES] = sources


def _named(records: frozenset[str]) -> str:
    if len(records) > 1:
        return f"uses {len(records)} records"
    return f"uses the record {next(iter(records))}.json"


def run_of(document: nodes.document) -> str:
    """What the last cell of a chapter prints of its run."""
    for cell in document.findall(nodes.container):
        if "tag_provenance" in cell["classes"]:
            for block in cell.findall(nodes.literal_block):
                if block.parent.get("nb_element") == "cell_code_output":
                    return "computed when this page was built: " + "; ".join(
                        block.astext().strip().splitlines()
                    )
    return "computed when this page was built"


def add_citations(app: Any, document: nodes.document, docname: str) -> None:
    """Let marked numbers lead to the work that their paragraph cites, after them or else before.

    In a table that is the work that its head cites.
    """
    for span in list(document.findall(nodes.inline)):
        if "cited" in span["classes"]:
            at, around = span.parent.index(span), span.parent.children
            order = [*around[at + 1 :], *reversed(around[:at])]
            if (table := _table(span)) is not None:
                order += [
                    n for head in table.findall(nodes.thead) for n in head.findall(nodes.inline)
                ]
            found = next((r for node in order for r in _citations(node)), None)
            if found is None:
                logger.warning("a cited number in a paragraph that cites nothing", location=span)
                continue
            target = found.get("refuri") or f"#{found['refid']}"
            title = found.get("reftitle") or found.astext()
            span += badge("cited", target, f"cited: {title}", first=False)


def _table(node: nodes.Node) -> nodes.table | None:
    while node is not None and not isinstance(node, nodes.table):
        node = node.parent
    return node


def _citations(node: nodes.Node) -> Iterator[nodes.reference]:
    if isinstance(node, nodes.inline) and "bibtex-citation" in node["classes"]:
        yield from node.findall(nodes.reference)


def list_sources(app: Any, pagename: str, templatename: str, context: dict, doctree: Any) -> None:
    """End a page with what its badges lead to."""
    sources = doctree.get(SOURCES) if doctree is not None else None
    if not sources:
        return
    items = "".join(
        f'<div id="{anchor}"><dt><span class="cpic-badge cpic-{kind}" aria-hidden="true">'
        f"{SIGNS[kind]}</span> {kind}</dt><dd>{html.escape(text)}</dd></div>"
        for anchor, (kind, text) in sources.items()
    )
    context["body"] += (
        '<section class="cpic-sources" aria-label="Where the numbers come from">'
        f"<p>Where the numbers of this page come from</p><dl>{items}</dl></section>"
    )


def setup(app):
    """Connect everything above to Sphinx."""
    app.setup_extension("myst_nb")
    app.add_role_to_domain("glue", "text", BadgedText(), override=True)
    app.add_directive_to_domain("glue", "figure", BadgedFigure, override=True)
    app.connect("doctree-read", add_badges)
    app.connect("doctree-resolved", add_citations)
    app.connect("html-page-context", list_sources, priority=925)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
