"""Guesses that a reader types on the page.

Below each admonition with the title "Predict first", the cell that assigns `my_guess` (or a
dictionary, `my_guesses`) becomes a form. `{guess}` holds what the text says of the guess where it
gives the answer, with # in place of the number; a reader who typed none does not see it.
"""

import ast
import html
import re
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxRole

TITLE = "Predict first"


def fields(code: str) -> list[tuple[str, str]]:
    """Labels and units of the guesses that a cell assigns.

    >>> fields("my_guess = None  # percent")
    [('Your guess', 'percent')]
    >>> fields('my_guesses = {"network": None, "ridge": None}')
    [('Your guess: network', ''), ('Your guess: ridge', '')]
    >>> fields("x = 1")
    []
    """
    found = []
    for node in ast.parse(code).body:
        match node:
            case ast.Assign(targets=[ast.Name(id="my_guess")]):
                unit = re.search(r"#\s*(.+)$", code.splitlines()[node.lineno - 1])
                found.append(("Your guess", unit[1] if unit else ""))
            case ast.Assign(targets=[ast.Name(id="my_guesses")], value=ast.Dict(keys=keys)):
                found += [(f"Your guess: {ast.literal_eval(k)}", "") for k in keys if k]
    return found


def form(page: str, asked: list[tuple[str, str]]) -> str:
    """The form, which its script shows."""
    inputs = "".join(
        f'<label><span>{html.escape(label)}</span> <input type="text" inputmode="decimal" '
        f'autocomplete="off" size="9" maxlength="20" aria-describedby="cpic-guess-note">'
        f"{' ' + html.escape(unit) if unit else ''}</label>"
        for label, unit in asked
    )
    note = "Stays on this page, in this browser: nothing is sent."
    return (
        f'<form class="cpic-guess" data-page="{html.escape(page)}" hidden>{inputs}'
        f'<p id="cpic-guess-note">{note}</p></form>'
    )


class Guess(SphinxRole):
    """What the text says of the guess; # stands for the number."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        if "#" not in self.text:
            message = self.inliner.reporter.error("{guess} needs # in place of the number")
            return [], [message]
        return [nodes.inline("", self.text, classes=["cpic-guessed"])], []


def add_forms(app: Any, document: nodes.document) -> None:
    """Put the form between the admonition and the cell, and glue the spans to their sentence."""
    for box in list(document.findall(nodes.admonition)):
        title = next(iter(box.findall(nodes.title)), None)
        if title is None or title.astext() != TITLE:
            continue
        cell = box.next_node(nodes.container, descend=False, siblings=True, ascend=True)
        code = next(iter(cell.findall(nodes.literal_block)), None) if cell is not None else None
        asked = fields(code.astext()) if code is not None else []
        if not asked or cell is None:
            continue
        cell["classes"].append("cpic-guess-cell")
        made = nodes.raw("", form(app.env.docname, asked), format="html")
        box.parent.insert(box.parent.index(box) + 1, made)
    for span in list(document.findall(lambda n: "cpic-guessed" in _classes(n))):
        # The space before it goes with it, when it is hidden.
        before = span.parent[span.parent.index(span) - 1] if span.parent.index(span) else None
        if isinstance(before, nodes.Text) and before.endswith((" ", "\n")):
            span.parent.replace(before, nodes.Text(before.rstrip()))
            span["classes"].append("cpic-after-space")


def _classes(node: nodes.Node) -> list[str]:
    return node.get("classes", []) if isinstance(node, nodes.inline) else []


def load_script(app: Any, pagename: str, templatename: str, context: dict, doctree: Any) -> None:
    """The script on pages that have a form."""
    if 'class="cpic-guess"' in context.get("body", ""):
        app.add_js_file("guess.js", loading_method="defer")


def setup(app):
    """Connect everything above to Sphinx."""
    app.add_role("guess", Guess())
    app.connect("doctree-read", add_forms)
    app.connect("html-page-context", load_script)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
