"""What Jupyter Book 1 does not do by itself for this book."""

import hashlib
import importlib.metadata
import os
import re
from pathlib import Path

# A new version of one of these may change a number or a picture.
LIBRARIES = ("torch", "numpy", "matplotlib", "ipykernel", "myst-nb")
SOURCES = {"cpic": ("*.py", "*.js", "*.css", "*.yml", "*.json"), "book/results": ("*.json",)}

MATH = re.compile(r"\$(?=\S)([^$]+?)(?<=\S)\$")
ROLE = re.compile(r"\{([a-z:]+)\}(`[^`]+`)")
CODE = re.compile(r"(?<![`:\w])`([^`<>]+)`(?![`_])")
LITERAL = re.compile(r"(``.+?``|:math:`[^`]+`|(?<!\w)\*[^\s*](?:[^*]*[^\s*])?\*(?!\w)|\*\*)")

# Docstrings of attributes as they were before napoleon, by name.
PLAIN: dict[str, list[str]] = {}


def source_digest(root: Path) -> str:
    """A short name for the state of the package, of the recorded runs, and of what both run on."""
    digest = hashlib.sha256()
    for folder, patterns in SOURCES.items():
        for path in sorted(p for pattern in patterns for p in (root / folder).rglob(pattern)):
            digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    for name in ("constraints.txt", "pyproject.toml"):
        if (root / name).is_file():
            digest.update((root / name).read_bytes())
    for name in LIBRARIES:
        digest.update(f"{name}={importlib.metadata.version(name)}".encode())
    return digest.hexdigest()[:12]


def cache_folder(root: Path, build: Path) -> Path:
    """Where the outputs of chapters lie that were run with the package as it is now.

    jupyter-cache compares cells only: after a change in the package it would keep old numbers.
    """
    return build / ".jupyter_cache" / source_digest(root)


def prepare(app, config):
    """Set what the kernels of this build see, and where outputs are kept."""
    # Pages show the pre-rendered slider, also when the build was started inside a notebook.
    os.environ["CPIC_EXPLORE"] = "static"
    # A new path is a changed setting too, so that Sphinx reads every page again.
    if config.nb_execution_mode == "cache" and not config.nb_execution_cache_path:
        folder = cache_folder(Path(app.srcdir), Path(app.outdir).parent)
        config.nb_execution_cache_path = str(folder)


def dedupe_scripts(app, pagename, templatename, context, doctree):
    """Drop scripts that are registered twice (sphinx-thebe does: a console error a page)."""
    seen, kept = set(), []
    for script in context.get("script_files", []):
        body = getattr(script, "attributes", {}).get("body")
        if body is not None and body in seen:
            continue
        seen.add(body)
        kept.append(script)
    context["script_files"] = kept


def launch_in_colab(app, pagename, templatename, context, doctree):
    """Offer Colab on notebooks only; it cannot open a text page."""
    if str(app.env.doc2path(pagename, base=False) if doctree is not None else "").endswith(
        ".ipynb"
    ):
        return
    for group in context.get("header_buttons", []):
        if "buttons" in group:
            group["buttons"] = [b for b in group["buttons"] if "colab" not in str(b.get("url", ""))]


def list_citations(app, pagename, templatename, context, doctree):
    """Give sources the role that a list needs; `doc-biblioentry` is deprecated."""
    if "body" in context:
        context["body"] = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')


def to_rst(line: str) -> str:
    """Translate one line of a docstring, written as Markdown reads best, for Sphinx.

    >>> to_rst("`n` rows of $A$ {cite}`goreinov2010how`")
    '``n`` rows of :math:`A` :cite:`goreinov2010how`'
    >>> to_rst("shape (K, *sizes), `*b`, *much*, **more**")
    'shape (K, \\\\*sizes), ``*b``, *much*, **more**'
    >>> to_rst("at most |K| of `|x|`")
    'at most \\\\|K\\\\| of ``|x|``'
    """
    line = MATH.sub(r":math:`\1`", line)
    line = ROLE.sub(r":\1:\2", line)
    parts = LITERAL.split(CODE.sub(r"``\1``", line))
    # A lone star, as in (*sizes, c), would begin emphasis that never ends, and |x| a substitution.
    return "".join(
        part if i % 2 else re.sub(r"[*|]", r"\\\g<0>", part) for i, part in enumerate(parts)
    )


def translate_docstring(app, what, name, obj, options, lines):
    """Let docstrings use `code`, $math$ and {cite}`key`; examples stay as they are."""
    example = False
    for i, line in enumerate(lines):
        if line.lstrip().startswith(">>>"):
            example = True
        elif not line.strip():
            example = False
        if not example:
            lines[i] = to_rst(line)
    if what in ("attribute", "property"):
        PLAIN[name] = list(lines)


def restore_attribute(app, what, name, obj, options, lines):
    """Undo napoleon on attributes: it takes words before a colon in the first line for a type."""
    plain = PLAIN.pop(name, None)
    if plain is not None and not any(
        re.match(r"(Raises|Returns|Example):$", s.strip()) for s in plain
    ):
        lines[:] = plain


def skip_fields(app, what, name, obj, skip, options):
    """Leave out the fields of named tuples, whose own docstring says only their number."""
    return True if (getattr(obj, "__doc__", None) or "").startswith("Alias for field") else None


def setup(app):
    """Connect everything above to Sphinx."""
    app.connect("config-inited", prepare, priority=400)
    app.connect("html-page-context", dedupe_scripts, priority=900)
    app.connect("html-page-context", launch_in_colab, priority=910)
    app.connect("html-page-context", list_citations, priority=920)
    app.connect("autodoc-skip-member", skip_fields)
    # Before napoleon (500), which turns sections into fields.
    app.connect("autodoc-process-docstring", translate_docstring, priority=400)
    app.connect("autodoc-process-docstring", restore_attribute, priority=600)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
