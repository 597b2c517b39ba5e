"""What an EPUB needs beyond the pages: formulas as MathML, and links where a page moves.

A slider is its first picture, a figure that computes is its description, and both lead to the
page. Nothing here has an effect on another builder.
"""

import html
import re
from typing import Any

from docutils import nodes
from docutils.utils.math import latex2mathml
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number

logger = logging.getLogger(__name__)
SLIDER, FORM = 'class="cpic-explore"', 'class="cpic-guess"'
NEEDS = "This figure needs scripts. It shows: "
DESCRIPTION = re.compile(rf'<p class="cpic-fallback">{NEEDS}(.*?)</p>', re.DOTALL)
UNREAD = "cpic-unread"  # class of a formula that is shown as its source
SCRIPT = re.compile(r"<script.*?</script>", re.DOTALL)


def to_mathml(tex: str, *, block: bool = False) -> str:
    r"""A formula as MathML; what docutils does not know is written with what it knows.

    >>> to_mathml(r"1, \dots, n").count("<mi>n</mi>")
    1
    """
    tex = re.sub(r"^(?=[_^])", "{}", tex.strip()).replace(r"\dots", r"\ldots")
    tex = re.sub(r"\\([bB]ig)(?![A-Za-z])", r"\\\1l", tex)
    if block and r"\\" in tex and r"\begin" not in tex:  # lines, which MathJax splits by itself
        tex = rf"\begin{{aligned}}{tex}\end{{aligned}}"
    # Entities of HTML are none of XML.
    return latex2mathml.tex2mathml(tex, as_block=block).replace("&ApplyFunction;", "\u2061")


def formula(node: nodes.Node, *, block: bool = False) -> str:
    """The MathML of a node; its source, with a warning, if docutils cannot read it."""
    try:
        return to_mathml(node.astext(), block=block)
    except Exception as error:  # of several kinds, and not all on purpose
        logger.warning("no MathML of %r: %s", node.astext(), error, location=node)
        return f'<code class="{UNREAD}">{html.escape(node.astext())}</code>'


def visit_math(self: Any, node: nodes.math) -> None:
    self.body.append(formula(node))
    raise nodes.SkipNode


def visit_displaymath(self: Any, node: nodes.math_block) -> None:
    self.body.append(self.starttag(node, "div", CLASS="math"))
    if node["number"]:
        self.body.append(f'<span class="eqno">({get_node_equation_number(self, node)})</span>')
    self.body.append(formula(node, block=True) + "</div>\n")
    raise nodes.SkipNode


class StandStill(SphinxPostTransform):
    """Replace what needs scripts, before myst-nb selects among the forms of an output (4)."""

    default_priority = 3
    builders = ("epub",)

    def run(self, **kwargs: Any) -> None:
        for raw in [n for n in self.document.findall(nodes.raw) if n.get("format") == "html"]:
            text = raw.astext()
            if FORM in text:
                raw.parent.remove(raw)
            elif description := DESCRIPTION.search(text):
                raw.replace_self(self.link(html.unescape(description[1])))
            elif SLIDER in text:
                forms = raw.parent.parent  # of one output
                after = forms.parent.index(forms) + 1
                forms.parent.insert(after, self.link("The slider is fixed in this format."))

    def link(self, text: str) -> nodes.paragraph:
        """A sentence, and where the figure moves."""
        address = f"{self.app.config.html_baseurl}{self.env.docname}.html"
        page = nodes.reference("", "Use it on the page.", refuri=address)
        return nodes.paragraph("", f"{text} ", page)


def without_scripts(app: Any, pagename: str, templatename: str, context: dict, doctree: Any):
    """Readers of EPUB run none, and refuse pages whose scripts the index does not declare."""
    if app.builder.name == "epub":
        context["script_files"] = []
        context["body"] = SCRIPT.sub("", context.get("body", ""))


def setup(app: Any) -> dict[str, Any]:
    """Connect everything above to Sphinx."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_displaymath, None))
    app.add_post_transform(StandStill)
    app.connect("html-page-context", without_scripts, priority=990)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
