"""Figures that compute in the browser: `{explorable}` names one, and its content describes it."""

import base64
import html
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

SCRIPTS = {
    "maxvol": ("explorables.js", "matrix.js", "maxvol.js"),
    "spectrum": ("explorables.js", "matrix.js", "spectrum.js"),
}
MARK = 'data-explorable="{}"'


def brain_slice() -> tuple[int, int, str]:
    """Rows, columns and gray values of the slice of chapter 3, averaged over 4 x 4 pixels."""
    from torch.nn import functional as F

    from cpic import data

    image = data.mni152("t1").read()[40:160, 37:205, 80]
    coarse = F.avg_pool2d(image[None, None].float(), 4)[0, 0].clamp(0, 1)
    values = (255 * coarse).round().byte().flatten().tolist()
    return *coarse.shape, base64.b64encode(bytes(values)).decode()


class Explorable(SphinxDirective):
    """An empty figure that its script fills."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        if name not in SCRIPTS:
            raise self.error(f"there is no explorable {name!r}; there are {', '.join(SCRIPTS)}")
        if not self.content:
            raise self.error("describe the figure, for readers without scripts")
        given = MARK.format(name)
        if name == "maxvol":
            m, n, values = brain_slice()
            given += f' data-shape="{m} {n}" data-values="{values}"'
        text = html.escape(f"This figure needs scripts. It shows: {' '.join(self.content)}")
        inner = f'<p class="cpic-fallback">{text}</p>'  # its script removes it
        figure = f'<figure class="cpic-explorable" {given}>{inner}</figure>'
        return [nodes.raw("", figure, format="html")]


def load_scripts(app: Any, pagename: str, templatename: str, context: dict, doctree: Any) -> None:
    """Scripts on the pages that need them, and on no others."""
    body = context.get("body", "")
    used = [name for name in SCRIPTS if MARK.format(name) in body]
    for script in dict.fromkeys(script for name in used for script in SCRIPTS[name]):
        app.add_js_file(script, loading_method="defer")
    if used:
        app.add_css_file("explorables.css")


def setup(app):
    """Connect everything above to Sphinx."""
    app.add_directive("explorable", Explorable)
    app.connect("html-page-context", load_scripts)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
