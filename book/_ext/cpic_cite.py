"""Says on each page which version it belongs to, and at the end of a chapter how to cite it."""

import html
from pathlib import Path
from typing import Any

import yaml
from cpic_pages import chapters, title


def citation(source: dict[str, Any], book: str, chapter: str, address: str) -> str:
    """How to cite a chapter, as HTML.

    >>> source = {"authors": [{"name": "A. One"}], "version": "1.2", "date-released": "2026-01-02"}
    >>> citation(source, "A Book", "On <", "https://a.b/c.html")
    'A. One: On &lt;. In: <em>A Book</em>, version 1.2, 2026. https://a.b/c.html'
    """
    names = ", ".join(one["name"] for one in source["authors"])
    year = str(source["date-released"])[:4]
    where = f"<em>{html.escape(book)}</em>, version {source['version']}, {year}. {address}"
    return f"{html.escape(names)}: {html.escape(chapter)}. In: {where}"


def say_version(app, pagename, templatename, context, doctree):
    """Add the version to the footer, and the citation to a chapter."""
    root = Path(app.srcdir)
    source = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    version = f"<p>Version {source['version']} of the book and of the package.</p>"
    context["theme_extra_footer"] = context.get("theme_extra_footer", "") + version
    path = root / f"{pagename}.ipynb"
    if path in chapters(root)[1:] and "body" in context:
        address = f"{app.config.html_baseurl}{pagename}.html"
        text = citation(source, app.config.html_title, title(path), address)
        context["body"] += f'<p class="cpic-cite">Cite this chapter as {text}</p>'


def setup(app):
    """Connect everything above to Sphinx."""
    app.connect("html-page-context", say_version, priority=928)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
