"""The template passes the lint; each way of breaking it is reported under the right rule."""

import copy
import json
from collections.abc import Callable

import pytest

from tests.book.lint import ROOT, Notation, Notebook, check, main, read, symbols, words_of

TEMPLATE = ROOT / "book" / "_template.ipynb"


def cell_with(content: dict, text: str) -> dict:
    return next(c for c in content["cells"] if text in "".join(c["source"]))


def replace(old: str, new: str) -> Callable[[dict], None]:
    def change(content: dict) -> None:
        cell = cell_with(content, old)
        cell["source"] = "".join(cell["source"]).replace(old, new)

    return change


def append(kind: str, source: str, **metadata) -> Callable[[dict], None]:
    """Insert a cell before the last one, which stays the provenance cell."""
    cell = {"cell_type": kind, "source": source, "metadata": metadata}
    if kind == "code":
        cell |= {"outputs": [], "execution_count": None}
    return lambda content: content["cells"].insert(-1, cell)


def edit(text: str, **values) -> Callable[[dict], None]:
    return lambda content: cell_with(content, text).update(values)


def both(*changes: Callable[[dict], None]) -> Callable[[dict], None]:
    return lambda content: [change(content) for change in changes] and None


OUTPUT = [{"output_type": "stream", "name": "stdout", "text": "1\n"}]
PRINT = "# NBVAL_CHECK_OUTPUT"

BREAKS = [
    ("kernel", lambda c: c["metadata"]["kernelspec"].update(name="my-env")),
    ("parameters", replace("SEED = 0", "")),
    ("parameters", replace("SEED = 0", "SEED = 0\nprint(SEED)")),
    ("parameters", replace("SEED = 0", "SEED = 0\nA = 1\nB = 1\nC = 1\nD = 1\nE = 1")),
    ("parameters", replace('MODE = "quick"', 'MODE = "full"')),
    ("parameters", edit("SEED = 0", metadata={})),
    ("parameters", append("code", "MODE = 1", tags=["parameters"])),
    ("stripped", edit("my_guess = None", outputs=OUTPUT)),
    ("stripped", lambda c: c["metadata"].update(widgets={})),
    ("stripped", lambda c: c["metadata"].update(papermill={})),
    ("compared", edit(PRINT, outputs=[])),
    ("compared", edit(PRINT, execution_count=None)),
    ("compared", edit(PRINT, metadata={}, outputs=[])),
    ("compared", replace(PRINT, "")),
    ("forbidden", append("code", "%pip install cpic")),
    ("forbidden", append("code", 'path = "/home/me/scan.nii"')),
    ("forbidden", append("code", 'path = "~/scan.nii"')),
    ("forbidden", append("code", 'path = "C:\\\\scan.nii"')),
    ("forbidden", append("code", 'device = "cuda:0"')),
    ("forbidden", append("code", 'rank = input("rank?")')),
    ("forbidden", append("markdown", "TODO: say more")),
    ("visible-lines", both(*[append("code", "x = 1\n" * 19)] * 10)),
    ("cell-length", append("code", "\n".join(f"x{i} = {i}" for i in range(21)))),
    ("headings", append("markdown", "#### Too deep")),
    ("headings", append("markdown", "# A second title")),
    ("headings", replace("# Title of the chapter", "## Title of the chapter")),
    ("alt", append("markdown", "![brain](brain.png)")),
    ("alt", append("markdown", "```{figure} brain.png\n:name: fig-brain\nA brain.\n```")),
    ("alt", append("markdown", "```{glue:figure} brain\n:alt: figure\n```")),
    ("alt", append("code", "show.slices(volume)")),
    ("alt", append("code", "figure, ax = plt.subplots()")),
    ("alt", edit("ax.semilogy", metadata={"mystnb": {"image": {"alt": "image"}}})),
    ("guess", replace("my_guess = None", "my_guess = 1")),
    ("guess", append("code", 'glue("guess", str(my_guess))')),
    ("guess", append("code", 'my_guesses = {"one": None, "two": 3}')),
    ("guess", replace("{guess}`(you guessed #)`", "")),
    ("tables", append("markdown", "| | error |\n|---|---|\n| TT | 0.1 |")),
    ("words", append("markdown", "The solve is what is said to be\nasked for.")),
    ("words", append("markdown", "A dense solve is dear.")),
    ("terms", append("markdown", "Half-sweeps are short.")),
    ("terms", append("markdown", "An index\nset is given, an {term}`index set` selected.")),
    ("symbols", append("markdown", r"Let $\mathcal{Q}_\xi$ be a set.")),
    ("slider", replace("show.explore(", "print(")),
    ("provenance", edit("run.provenance(", metadata={})),
    ("provenance", lambda c: c["cells"].append(copy.deepcopy(cell_with(c, "my_guess = None")))),
    ("badge", replace("{run-cost}`quick run`", "quick run 10 s")),
    ("badge", replace(" · no GPU needed", "")),
    ("ending", replace("{dropdown} The first two", "{note} The first two")),
    ("ending", replace("| Cost, rank $r$ | Numbers | Operations |\n|---|---|---|\n", "")),
    ("ending", replace("- {cite:t}`halko2011finding`: how", "- How")),
    ("ending", replace("\n\nOne sentence on the next chapter", "\n  One sentence on the next")),
    ("hook", replace("{glue:figure} template-hook", "{note}")),
    ("sections", replace("## Where it fails", "## Limits")),
    ("sections", replace("## Check yourself", "## Questions")),
    ("sections", replace("## Summary", "## The end")),
    ("sections", replace("## Further reading", "## More")),
    ("goals", replace("- implement it from scratch in a few lines (G0.2);\n", "")),
    ("goals", replace(" (G0.2)", "")),
    ("goals", replace("- G0.3: when", "- When")),
    ("goals", replace("|---|---|\n| The terms", "The terms")),
    ("exercises", replace(":label: ex-template-code\n", "")),
    ("exercises", replace("{solution} ex-template-explore", "{note}")),
    ("exercises", replace("**Explore.**", "**Code.**")),
    (
        "exercises",
        replace(
            "```{solution-start} ex-template-code\n:class: dropdown",
            "```{solution-start} ex-template-code",
        ),
    ),
    (
        "exercises",
        both(
            replace("{exercise}\n:label: ex-template-explore", "{note}"),
            replace("{solution} ex-template-explore", "{note}"),
        ),
    ),
    (
        "asserts",
        both(
            replace("assert 0 < error", "ok = 0 < error"),
            replace("assert noise", "ok = noise"),
            replace("assert rank", "ok = rank"),
            replace("torch.testing.assert_close", "print"),
        ),
    ),
]


@pytest.fixture
def template() -> dict:
    return json.loads(TEMPLATE.read_text(encoding="utf-8"))


def test_template_passes():
    assert check(read(TEMPLATE)) == []


@pytest.mark.parametrize(
    ("rule", "change"), BREAKS, ids=[f"{r}-{i}" for i, (r, _) in enumerate(BREAKS)]
)
def test_broken_notebook_is_reported(template, rule, change):
    before = copy.deepcopy(template)
    change(template)
    assert template != before, "the change changed nothing"
    findings = check(Notebook(template))
    assert {finding.rule for finding in findings} == {rule}
    assert all(finding.fix for finding in findings)


def test_every_rule_has_a_break():
    from tests.book import lint

    names = {"cell_length": "cell-length", "visible_lines": "visible-lines", "alt_text": "alt"}
    rules = {names.get(r.__name__, r.__name__) for r in lint.EVERYWHERE + lint.CHAPTERS}
    assert rules == {rule for rule, _ in BREAKS}


def test_words_to_avoid_are_found_in_pages_and_docstrings(tmp_path):
    page, module = tmp_path / "a.md", tmp_path / "a.py"
    page.write_text(
        "# Title\n\nThe sides are chosen by\nturns. Regular matrices are Dear; dearth.\n"
    )
    module.write_text('x = 1  # dear\n\n\ndef f():\n    """Do.\n\n    Swallows it.\n    """\n')
    assert sorted(line for line, _ in words_of(page)) == [3, 4, 4]
    assert [line for line, _ in words_of(module)] == [7]
    assert all("standard term" in fix for path in (page, module) for _, fix in words_of(path))


PAGE = r"""
| $A$, $v_i$ | a matrix, its eigenvectors | | `matrix` |
| $\ell$ | a loss | number | `loss` |

| $a$ | 3: an entry; 4, 15: a base |
| $v$ | 4: a direction |
| $a$ | 15: a score |
"""


def test_symbols_have_one_meaning():
    found = Notation(PAGE)
    assert found.shared == {"A", "v", "i", r"\ell"}
    assert found.local == {"03": ["a"], "04": ["a", "v"], "15": ["a", "a"]}
    faults = sorted(found.faults())
    assert faults[0].startswith("a has two meanings in chapter 15")
    assert faults[1].startswith("v has a meaning in all chapters")
    assert len(faults) == 2


def test_symbols_of_a_chapter_are_those_that_the_page_lists(template, monkeypatch):
    nb = Notebook(template, "03_test.ipynb")
    monkeypatch.setattr("tests.book.lint.notation", lambda: Notation(PAGE))
    found = {finding.fix.split(" ")[0] for finding in symbols(nb)}
    assert {"r", "u", r"\sigma", "a"} <= found  # unknown, and listed but not used
    assert not {"A", "v"} & found


def test_hook_may_be_a_folded_drawing_cell(template):
    replace("{glue:figure} template-hook", "{note}")(template)
    draw = {
        "cell_type": "code",
        "source": "plt.plot([1, 2])",
        "metadata": {
            "tags": ["hide-input"],
            "mystnb": {"image": {"alt": "A line that rises from one to two"}},
        },
        "outputs": [],
        "execution_count": None,
    }
    template["cells"].insert(4, draw)
    assert check(Notebook(template)) == []


def test_only_code_that_the_page_shows_counts_as_visible(template):
    def long_cell(**metadata) -> dict:
        source = "y = 1\n" * 19
        return {
            "cell_type": "code", "source": source, "metadata": metadata,
            "outputs": [], "execution_count": None,
        }  # fmt: skip

    def visible() -> bool:
        return "visible-lines" in {finding.rule for finding in check(Notebook(template))}

    cells = template["cells"]
    start = cells.index(cell_with(template, "{solution-start} ex-template-code"))
    cells[start + 1 : start + 1] = [long_cell() for _ in range(9)]
    cells[-1:-1] = [long_cell(tags=["hide-input"]) for _ in range(9)]
    assert not visible()
    end = cells.index(cell_with(template, "{solution-end}"))
    cells[end + 1 : end + 1] = [long_cell() for _ in range(9)]
    assert visible()


def test_a_page_that_is_no_chapter_needs_no_exercises(template):
    template["cells"] = [c for c in template["cells"] if "ex-template" not in "".join(c["source"])]
    assert check(Notebook(template, "intro.ipynb")) == []
    assert "exercises" in {f.rule for f in check(Notebook(template))}


def test_output_names_file_cell_rule_and_fix(template, tmp_path, capsys):
    append("code", "%pip install cpic")(template)
    path = tmp_path / "01_broken.ipynb"
    path.write_text(json.dumps(template), encoding="utf-8")
    assert main([str(path)]) == 1
    line = capsys.readouterr().out.splitlines()[0]
    number = len(template["cells"]) - 2
    assert line.startswith(f"{path}: cell {number}: forbidden: ")
    assert "pyproject.toml" in line
    assert main([str(TEMPLATE)]) == 0
