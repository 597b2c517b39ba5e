"""Lint of notebooks, and of words in pages and docstrings: prints place, rule and what to do.

python tests/book/lint.py [NOTEBOOKS...]      default: every notebook directly in book/, all pages
                                              and the docstrings of cpic; exits 1 on a finding
"""

import ast
import functools
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PARAMETERS = ("MODE", "SEED", "DEVICE", "DATA")
FOLDED = {"hide-input", "remove-input", "hide-cell", "remove-cell"}
MAX_VISIBLE = 110  # lines of code a chapter
MAX_LINES = 20
MIN_ALT = 15
TEXTS = ("*.md", "book/*.md", "cpic/**/*.py")
SECTIONS = (
    "Goals",
    "Where it fails",
    "Exercises",
    "Check yourself",
    "Summary",
    "Further reading",
)
# Functions of cpic.show that return a figure (explore brings its own texts), and of pyplot.
FIGURES = ("slices", "triplet", "positions", "spectra", "train_to_scale", "budget", "error_curve")
PYPLOT = ("subplots", "figure", "imshow", "plot")

# Words that are not the field's, and the terms to use; the glossary in book/notation.md has more.
WORDS = {
    "asked for": "requested",
    "by turns": "alternately",
    "dear(?:er|est|ly)?": "expensive",
    "in vain": "without success",
    "keep(?:s|ing)? the books": "count",
    "kept whole": "not split",
    "led astray": "misled",
    "looks? at everything": "inspects everything",
    "per cent": "percent",
    "regular (?:matrix|matrices|block|pivots?)": "invertible",
    "screw(?:s|ed|ing)?": "assemble",
    "smooth bells?": "Gaussian",
    "swallow(?:s|ed|ing)?": "absorb, or suppress for an exception",
    "to the letter": "with the same settings",
    "turn(?:s|ed|ing)? round": "reverse",
    "unturned": "not rotated",
    "what is (?:said|asked|missed)": "a noun: request, error",
    "worth while": "worthwhile",
}
AVOIDED = {
    re.compile(rf"\b(?:{word})\b".replace(" ", r"\s+"), re.IGNORECASE): use
    for word, use in WORDS.items()
}

DIRECTIVE = re.compile(r"^(`{3,}|:{3,})\{([a-z:_-]+)\}[ \t]*(\S.*)?$", re.MULTILINE)
IMAGE = re.compile(r"!\[([^\]]*)\]\(")
FORMULA = re.compile(
    r"```\{math\}\n(.*?)```|\$\$(.+?)\$\$|\{math\}`([^`]+)`|(?<![\\`$])\$([^$\n]+?)\$(?!\d)",
    re.DOTALL,
)
# No symbols: words and operators, upright letters, sets of numbers, names of norms, the order O.
UNSPOKEN = re.compile(
    r"^:label:.*$|\\(?:mathrm|text|operatorname\*?|mathsf|mathbb|begin|end)\s*(?:\{[^{}]*\}|[A-Z])"
    r"|\\rVert_[A-Z]|(?<![A-Za-z\\])O(?=\()",
    re.MULTILINE,
)
SYMBOL = re.compile(r"\\mathcal\{?([A-Z])\}?|\\([A-Za-z]+)|([A-Za-z])")
GREEK = re.compile(
    "ell|alpha|beta|gamma|delta|(var)?epsilon|zeta|eta|(var)?theta|kappa|lambda|mu|nu|xi|pi|rho|"
    "sigma|tau|(var)?phi|chi|psi|omega|Gamma|Delta|Theta|Lambda|Xi|Pi|Sigma|Phi|Psi|Omega"
)
# Terms of the glossary without another meaning in the text; a chapter links the first use of each.
LINKED = (
    *("unfolding", "multi-index", "index set", "fiber", "pivot", "maxvol", "half-sweep", "ledger"),
    *("oversampling", "cherry-picked gradient", "chooser", "coarse to fine", "index batching"),
    *("importance sampling", "condition number", "inverse gap", "second-order pooling", "quantics"),
    *("voxel", "encoder", "Hounsfield unit", "shard", "cohort", "semi-synthetic"),
    *("orthonormal frame", "reflector"),
)
# What is no running text: formulas, listings, options and heads of directives, headings, roles,
# code, links.
APART = re.compile(
    r"^(?:`{3,}|:{3,})\{math\}.*?^(?:`{3,}|:{3,}) *$|^```\w+\n.*?^``` *$"
    r"|^(?:`{3,}|:{3,})[^\n]*$|^:[a-z-]+:[^\n]*$|^#+ [^\n]*$|^    [^\n]*$"
    r"|\$\$.*?\$\$|\{[a-z:-]+\}`[^`]*`|`[^`\n]+`|\$[^$\n]+\$|\[[^\]\n]*\]\([^)\n]*\)",
    re.MULTILINE | re.DOTALL,
)
FENCE = re.compile(r"^(`{3,}|:{3,}|~{3,}).*?^\1\s*$", re.MULTILINE | re.DOTALL)


class Finding(NamedTuple):
    """One broken rule: cell number from 0, or None for the whole notebook."""

    cell: int | None
    rule: str
    fix: str


class Notebook:
    """A notebook and what the rules ask about it."""

    def __init__(self, content: dict, name: str = "00_test.ipynb"):
        self.content = content
        self.name = name
        self.cells = content["cells"]

    @property
    def is_chapter(self) -> bool:
        return bool(re.match(r"\d\d_|_template", self.name))

    def of(self, kind: str) -> list[tuple[int, str, dict]]:
        """Number, text and cell of all cells of a kind."""
        return [(i, _text(c), c) for i, c in enumerate(self.cells) if c["cell_type"] == kind]

    def trees(self) -> Iterator[tuple[int, ast.Module, dict]]:
        """Number, syntax tree and cell of all code cells; shell and magic lines are left out."""
        for i, text, cell in self.of("code"):
            lines = [
                "" if line.lstrip().startswith(("%", "!")) else line for line in text.splitlines()
            ]
            try:
                yield i, ast.parse("\n".join(lines)), cell
            except SyntaxError:
                continue

    def headings(self) -> Iterator[tuple[int, int, str]]:
        """Cell, level and text of all headings."""
        for i, text, _ in self.of("markdown"):
            for match in re.finditer(r"^(#{1,6}) (.+)$", FENCE.sub("", text), re.MULTILINE):
                yield i, len(match[1]), match[2].strip()

    def section(self, title: str) -> str | None:
        """The Markdown between a heading that begins with `title` and the next one of level 2."""
        everything = "\n\n".join(text for _, text, _ in self.of("markdown"))
        match = re.search(rf"^## {re.escape(title)}.*?$(.*?)(?=^## |\Z)", everything, re.M | re.S)
        return match[1] if match else None


def _text(cell: dict) -> str:
    return "".join(cell["source"])


def _tags(cell: dict) -> list[str]:
    return cell.get("metadata", {}).get("tags", [])


def _alt(cell: dict) -> str:
    return str(cell.get("metadata", {}).get("mystnb", {}).get("image", {}).get("alt", ""))


def _call(node: ast.AST) -> str:
    """The dotted name of what a call calls."""
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""


def _outside_functions(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes that run when the cell runs: bodies of functions are left out."""
    for child in ast.iter_child_nodes(tree):
        if not isinstance(child, ast.FunctionDef | ast.Lambda):
            yield child
            yield from _outside_functions(child)


def kernel(nb: Notebook) -> Iterator[Finding]:
    """papermill and nbval find the running interpreter under this name only."""
    name = nb.content.get("metadata", {}).get("kernelspec", {}).get("name")
    if name != "python3":
        yield Finding(None, "kernel", f"kernelspec name is {name!r}; set it to 'python3'")


def parameters(nb: Notebook) -> Iterator[Finding]:
    cells = [(i, cell) for i, _, cell in nb.of("code") if "parameters" in _tags(cell)]
    if len(cells) != 1:
        yield Finding(None, "parameters", f"{len(cells)} cells are tagged `parameters`; tag one")
        return
    number, cell = cells[0]
    names = []
    for node in ast.parse(_text(cell)).body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                names.append(name)
            case _:
                yield Finding(number, "parameters", "only `NAME = value` lines belong here")
    if missing := [name for name in PARAMETERS if name not in names]:
        yield Finding(number, "parameters", f"add {', '.join(missing)}")
    if len(names) > len(PARAMETERS) + 4:
        yield Finding(number, "parameters", f"{len(names) - 4} own parameters; at most 4")
    if not re.search(r"^MODE\b.*= *[\"']quick[\"']", _text(cell), re.MULTILINE):
        yield Finding(number, "parameters", 'the default is MODE = "quick"')


def stripped(nb: Notebook) -> Iterator[Finding]:
    for i, _, cell in nb.of("code"):
        if cell.get("outputs") and "keep_output" not in _tags(cell):
            yield Finding(i, "stripped", f"has outputs; run nbstripout --keep-count book/{nb.name}")
    for key in ("widgets", "papermill"):
        if key in nb.content.get("metadata", {}):
            yield Finding(None, "stripped", f"remove `{key}` from the notebook's metadata")


def compared(nb: Notebook) -> Iterator[Finding]:
    """A cell without stored output and count is compared with nothing, so it never fails."""
    marked = 0
    for i, text, cell in nb.of("code"):
        is_marked, is_kept = "# NBVAL_CHECK_OUTPUT" in text, "keep_output" in _tags(cell)
        marked += is_marked
        if is_marked != is_kept:
            yield Finding(i, "compared", "tag keep_output and # NBVAL_CHECK_OUTPUT go together")
        elif is_marked and not (cell.get("outputs") and cell.get("execution_count")):
            yield Finding(i, "compared", "no stored output or count; execute in place, then strip")
    if not marked:
        yield Finding(None, "compared", "mark a cell that prints numbers with # NBVAL_CHECK_OUTPUT")


def forbidden(nb: Notebook) -> Iterator[Finding]:
    for i, text, _ in nb.of("code"):
        if re.search(r"\bpip3? +install\b", text):
            yield Finding(i, "forbidden", "no `pip install`; add the package to pyproject.toml")
    for i, tree, _ in nb.trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                if re.match(r"(/[A-Za-z]|~/|[A-Za-z]:[\\/])", node.value):
                    yield Finding(i, "forbidden", f"absolute path {node.value!r}; use DATA")
                if "cuda" in node.value.lower():
                    yield Finding(i, "forbidden", "no device by name; use DEVICE")
            if _call(node) == "input":
                yield Finding(i, "forbidden", "no input(); take a parameter")
    for i, cell in enumerate(nb.cells):
        if re.search(r"\b(TODO|FIXME|XXX)\b", _text(cell)):
            yield Finding(i, "forbidden", "unfinished text: finish or remove it")


def cell_length(nb: Notebook) -> Iterator[Finding]:
    for i, text, _ in nb.of("code"):
        if (n := len(text.strip().splitlines())) > MAX_LINES:
            fix = f"{n} lines, at most {MAX_LINES}; split it or move code into cpic"
            yield Finding(i, "cell-length", fix)


def unfolded(nb: Notebook) -> Iterator[str]:
    """Text of the code cells that the page shows: not folded, and not inside a solution."""
    solution = False
    for cell in nb.cells:
        if cell["cell_type"] == "markdown":
            for match in DIRECTIVE.finditer(_text(cell)):
                if match[2] in ("solution-start", "solution-end"):
                    solution = match[2] == "solution-start"
        elif cell["cell_type"] == "code" and not solution and not FOLDED & set(_tags(cell)):
            yield _text(cell)


def visible_lines(nb: Notebook) -> Iterator[Finding]:
    """A reader sees the code that teaches; what only draws or keeps books is folded."""
    shown = sum(
        bool(line.strip()) and not line.lstrip().startswith("#")
        for text in unfolded(nb)
        for line in text.splitlines()
    )
    if shown > MAX_VISIBLE:
        fix = f"{shown} lines are visible, at most {MAX_VISIBLE}; tag cells that draw hide-input"
        yield Finding(None, "visible-lines", fix)


def headings(nb: Notebook) -> Iterator[Finding]:
    before, tops = 0, 0
    for i, level, text in nb.headings():
        tops += level == 1
        if level > before + 1:
            yield Finding(i, "headings", f"{text!r} jumps from level {before} to {level}")
        before = level
    if tops != 1:
        yield Finding(None, "headings", f"{tops} headings of level 1; have one, the title")


def alt_text(nb: Notebook) -> Iterator[Finding]:
    fix = f"give an alternative text of at least {MIN_ALT} characters that says what is seen"
    for i, text, _ in nb.of("markdown"):
        for match in IMAGE.finditer(text):
            if len(match[1].strip()) < MIN_ALT:
                yield Finding(i, "alt", fix)
        for match in DIRECTIVE.finditer(text):
            if match[2] in ("figure", "image", "glue:figure"):
                rest = text[match.end() :].split(match[1])[0]
                alt = re.search(r"^:alt:(.*)$", rest, re.MULTILINE)
                if not alt or len(alt[1].strip()) < MIN_ALT:
                    yield Finding(i, "alt", f"{{{match[2]}}} {match[3]}: {fix} (:alt:)")
    for i, tree, cell in nb.trees():
        calls = {_call(node).split(".")[-1] for node in _outside_functions(tree)}
        if calls & {*FIGURES, *PYPLOT} and "glue" not in calls and len(_alt(cell)) < MIN_ALT:
            yield Finding(i, "alt", f"{fix} (cell metadata mystnb.image.alt)")


def tables(nb: Notebook) -> Iterator[Finding]:
    """A screen reader reads the head of a column before each cell below it."""
    for i, text, _ in nb.of("markdown"):
        for head in re.findall(r"^(\|.*\|)[ \t]*\n\|[-:| ]+\|[ \t]*$", text, re.MULTILINE):
            if not all(name.strip() for name in head.strip("|").split("|")):
                yield Finding(i, "tables", f"a column of {head!r} has no name; name each column")


def hook(nb: Notebook) -> Iterator[Finding]:
    """A reader sees what it is about before the first line of code that matters."""
    before = []
    for cell in nb.cells:
        if cell["cell_type"] == "markdown":
            kinds = {match[2] for match in DIRECTIVE.finditer(_text(cell))}
            if kinds & {"figure", "glue:figure"}:
                return
        elif FOLDED & set(_tags(cell)):
            if _alt(cell) or "explore(" in _text(cell):
                return
        elif "parameters" not in _tags(cell) and "import" not in _text(cell):
            break
        before.append(cell)
    fix = "open with a figure: {glue:figure} of a later cell, or a drawing cell tagged hide-input"
    yield Finding(len(before), "hook", fix)


def sections(nb: Notebook) -> Iterator[Finding]:
    for title in SECTIONS:
        if nb.section(title) is None:
            yield Finding(None, "sections", f"add a section `## {title}`")


def goals(nb: Notebook) -> Iterator[Finding]:
    text = nb.section("Goals") or ""
    n_goals = len(re.findall(r"^(?:[-*]|\d+\.) \S", text, re.MULTILINE))
    if not 3 <= n_goals <= 5:
        yield Finding(
            None, "goals", f"{n_goals} goals listed; list 3 to 5, each begins with a verb"
        )
    goal = re.compile(r"G\d+\.\d")
    if len(named := set(goal.findall(text))) != n_goals:
        yield Finding(None, "goals", "number the goals of chapter 3 (G3.1), (G3.2), and so on")
    if (summary := nb.section("Summary")) is not None:
        for name in sorted(named - set(goal.findall(summary))):
            yield Finding(None, "goals", f"the summary says nothing of {name}")
    needed = text + (nb.section("Prerequisites") or "")
    if len(re.findall(r"^\|.+\|$", needed, re.MULTILINE)) < 3:
        yield Finding(None, "goals", "add a table of prerequisites: what, and where to read it")


def exercises(nb: Notebook) -> Iterator[Finding]:
    labels, solved = [], set()
    for i, text, _ in nb.of("markdown"):
        for match in DIRECTIVE.finditer(text):
            rest = text[match.end() :]
            if match[2] in ("exercise", "exercise-start"):
                label = re.match(r"(?:\n:[a-z]+:.*)*?\n:label: *(\S+)", rest)
                if label:
                    labels.append(label[1])
                else:
                    yield Finding(i, "exercises", "give the exercise a :label:")
            if match[2] in ("solution", "solution-start"):
                solved.add(match[3])
                if not re.match(r"(?:\n:[a-z]+:.*)*?\n:class:.*dropdown", rest):
                    yield Finding(i, "exercises", "fold the solution: `:class: dropdown`")
    if len(labels) < 4:
        yield Finding(None, "exercises", f"{len(labels)} labeled exercises; have at least 4")
    text = "\n".join(text for _, text, _ in nb.of("markdown"))
    for kind, least in (("Predict", 1), ("Code", 2), ("Explore", 1)):
        if (n_kind := text.count(f"**{kind}.**")) < least:
            yield Finding(None, "exercises", f"{n_kind} begin with **{kind}.**; have {least}")
    for label in labels:
        if label not in solved:
            yield Finding(None, "exercises", f"add a folded {{solution}} for {label}")


def asserts(nb: Notebook) -> Iterator[Finding]:
    n_asserts = sum(
        isinstance(node, ast.Assert) or _call(node).split(".")[-1].startswith("assert_")
        for _, tree, _ in nb.trees()
        for node in ast.walk(tree)
    )
    if n_asserts < 3:
        yield Finding(None, "asserts", f"{n_asserts} asserts; encode at least 3 claims of the text")


def slider(nb: Notebook) -> Iterator[Finding]:
    calls = {_call(n).split(".")[-1] for _, tree, _ in nb.trees() for n in ast.walk(tree)}
    if "explore" not in calls:
        yield Finding(None, "slider", "add a slider: cpic.show.explore(draw, alt=..., name=[...])")


def guess(nb: Notebook) -> Iterator[Finding]:
    """A page knows the guess of its reader; the kernel that built it knows none."""
    for i, tree, _ in nb.trees():
        uses = [
            n for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id.startswith("my_guess")
        ]
        if any(isinstance(n.ctx, ast.Load) for n in uses):
            yield Finding(
                i, "guess", "the page would tell everybody this guess; use {guess}`... #`"
            )
        for node in ast.walk(tree):
            match node:
                case ast.Assign(targets=[ast.Name(id="my_guess")], value=value):
                    given = [value]
                case ast.Assign(targets=[ast.Name(id="my_guesses")], value=ast.Dict(values=values)):
                    given = values
                case _:
                    continue
            if not all(isinstance(v, ast.Constant) and v.value is None for v in given):
                yield Finding(i, "guess", "begin with None; the reader types the guess")
    asks = any("{admonition} Predict first" in text for _, text, _ in nb.of("markdown"))
    if asks and not any("{guess}`" in text for _, text, _ in nb.of("markdown")):
        yield Finding(None, "guess", "say {guess}`(you guessed #)` where the text has the answer")


def provenance(nb: Notebook) -> Iterator[Finding]:
    code = nb.of("code")
    if not code or "provenance" not in _tags(code[-1][2]):
        fix = "end with a cell tagged `provenance` that prints cpic.run.provenance(...)"
        yield Finding(None, "provenance", fix)


def words_in(text: str) -> Iterator[tuple[int, str]]:
    """Line, from 0, of each word to avoid, and what to do."""
    for word, use in AVOIDED.items():
        for match in word.finditer(text):
            found = " ".join(match[0].split())
            yield text.count("\n", 0, match.start()), f"{found!r} is not a standard term; {use}"


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Line, from 1, and text of the docstrings of a module."""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, kinds) and (text := ast.get_docstring(node, clean=False)):
            yield node.body[0].lineno, text


def words_of(path: Path) -> Iterator[tuple[int, str]]:
    """Line, from 1, of each word to avoid in a page or in the docstrings of a module."""
    text = path.read_text(encoding="utf-8")
    for first, part in docstrings(text) if path.suffix == ".py" else [(1, text)]:
        for line, fix in words_in(part):
            yield first + line, fix


def words(nb: Notebook) -> Iterator[Finding]:
    for i, text, _ in nb.of("markdown"):
        for _, fix in words_in(text):
            yield Finding(i, "words", fix)


def symbols_in(formula: str) -> set[str]:
    r"""The letters of a formula, without accents and indices.

    >>> found = symbols_in(r"\hat y_i = \operatorname{sin} \mathcal{A}(\omega)")
    >>> print(*sorted(found))
    \mathcal{A} \omega i y
    """
    found = set()
    for script, command, letter in SYMBOL.findall(UNSPOKEN.sub(" ", formula)):
        if GREEK.fullmatch(command):
            found.add(f"\\{command}")
        elif script or letter:
            found.add(rf"\mathcal{{{script}}}" if script else letter)
    return found


def formulas(text: str) -> Iterator[str]:
    for match in FORMULA.finditer(text):
        yield next(group for group in match.groups() if group)


class Notation:
    """Symbols with one meaning in all chapters, and those of single chapters, by chapter."""

    def __init__(self, page: str):
        self.shared: set[str] = set()
        self.local: dict[str, list[str]] = {}
        for row in re.findall(r"^\| (\$.+) \|$", page, re.MULTILINE):
            symbol, meaning, *rest = row.split(" | ")
            names = set().union(*map(symbols_in, formulas(symbol)))
            if rest:
                self.shared |= names
                continue
            for chapters in re.findall(r"(?:^|; )([\d, ]+): ", meaning):
                for chapter in chapters.split(", "):
                    self.local.setdefault(chapter.zfill(2), []).extend(names)

    def faults(self) -> Iterator[str]:
        """Symbols with two meanings."""
        for chapter, names in self.local.items():
            for name in sorted(set(names)):
                if name in self.shared:
                    yield f"{name} has a meaning in all chapters, and another in {chapter}"
                if names.count(name) > 1:
                    yield f"{name} has two meanings in chapter {chapter}"


@functools.cache
def notation() -> Notation:
    """The symbols of the notation page."""
    return Notation((ROOT / "book" / "notation.md").read_text(encoding="utf-8"))


def symbols(nb: Notebook) -> Iterator[Finding]:
    """A reader finds each symbol on the notation page, with one meaning for each chapter."""
    known = notation()
    chapter = nb.name[:2] if nb.name[:2] in known.local else None
    local = [known.local[chapter]] if chapter else known.local.values()
    allowed = known.shared.union(*local)
    seen = set()
    for i, text, _ in nb.of("markdown"):
        for formula in formulas(text):
            for name in sorted(symbols_in(formula) - allowed - seen):
                seen.add(name)
                yield Finding(i, "symbols", f"{name} is not on the notation page; add its meaning")
            seen |= symbols_in(formula)
    if chapter:
        for name in sorted(set(known.local[chapter]) - seen):
            yield Finding(
                None, "symbols", f"{name} is on the notation page and not used; remove it"
            )


def terms(nb: Notebook) -> Iterator[Finding]:
    """A reader who begins with this chapter finds what its terms mean."""
    known: set[str] = set()
    for i, text, _ in nb.of("markdown"):
        plain = APART.sub(lambda match: " " * len(match[0]), text)
        for term in set(LINKED) - known:
            word = rf"(?<![\w-]){term}(?:es|s)?(?![\w-])".replace(" ", r"\s+")
            used = re.search(word, plain, re.IGNORECASE)
            link = re.search(rf"\{{term\}}`(?:[^`<]*<)?{term}>?`", text, re.IGNORECASE)
            if used and not (link and link.start() < used.start()):
                yield Finding(i, "terms", f"link the first {used[0]!r}: {{term}}`{term}`")
            if used or link:
                known.add(term)


def badge(nb: Notebook) -> Iterator[Finding]:
    """Seconds and memory come from the run whose outputs the page shows."""
    _, text, _ = nb.of("markdown")[0]
    form = (
        r"\*\*\d+ minutes to read and do · \{run-cost\}`quick run` · .*download · .*GPU needed\*\*"
    )
    if not re.search(form, text):
        fix = "say below the title: **40 minutes to read and do · {run-cost}`quick run` · no "
        yield Finding(0, "badge", fix + "download · no GPU needed**")


def ending(nb: Notebook) -> Iterator[Finding]:
    """Questions with answers, what was learned, where to read more, and why to go on."""
    if (text := nb.section("Check yourself")) is not None and text.count("dropdown") < 3:
        yield Finding(None, "ending", "Check yourself: ask at least 3 questions, answers folded")
    if (text := nb.section("Summary")) is not None:
        if not 3 <= len(re.findall(r"^- ", text, re.MULTILINE)) <= 5:
            yield Finding(None, "ending", "the summary has 3 to 5 bullets, one for each goal")
        if not re.search(r"^\|[-: |]+\|$", text, re.MULTILINE):
            yield Finding(None, "ending", "end the summary with a table of what the method costs")
    if (text := nb.section("Further reading")) is not None:
        items = re.findall(r"^- .*?(?=^- |\Z)", text, re.MULTILINE | re.DOTALL)
        if not (3 <= len(items) <= 6 and all("{cite" in item for item in items)):
            yield Finding(None, "ending", "further reading: 3 to 6 items, each with a {cite} key")
        if text.strip().split("\n\n")[-1].startswith("- "):
            yield Finding(None, "ending", "say in a last sentence why to read the next chapter")


Rule = Callable[[Notebook], Iterator[Finding]]
EVERYWHERE: tuple[Rule, ...] = (
    kernel,
    parameters,
    stripped,
    compared,
    forbidden,
    cell_length,
    visible_lines,
    headings,
    alt_text,
    tables,
    words,
    symbols,
    slider,
    guess,
    provenance,
)
CHAPTERS: tuple[Rule, ...] = (badge, hook, sections, goals, terms, exercises, asserts, ending)


def check(nb: Notebook) -> list[Finding]:
    """All findings in one notebook."""
    rules = EVERYWHERE + CHAPTERS * nb.is_chapter
    return [finding for rule in rules for finding in rule(nb)]


def read(path: Path) -> Notebook:
    """A notebook from its file."""
    return Notebook(json.loads(path.read_text(encoding="utf-8")), path.name)


def main(arguments: list[str]) -> int:
    """Check the named notebooks, or all of the book, its pages and the docstrings."""
    paths = [Path(a) for a in arguments] or sorted((ROOT / "book").glob("*.ipynb"))
    found = [
        f"{path}: {'notebook' if cell is None else f'cell {cell}'}: {rule}: {fix}"
        for path in paths
        for cell, rule, fix in check(read(path))
    ]
    texts = [] if arguments else [p for kind in TEXTS for p in sorted(ROOT.glob(kind))]
    found += [f"{path}:{line}: words: {fix}" for path in texts for line, fix in words_of(path)]
    found += (
        [] if arguments else [f"notation.md: symbols: {fault}" for fault in notation().faults()]
    )
    print("\n".join([*found, f"{len(paths)} notebooks, {len(found)} findings"]))
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
