"""What the book states about itself agrees: versions, environments, contents, sources."""

import re
import tomllib
from importlib.metadata import version

import pytest
import yaml

import cpic
from tests.book.conftest import ROOT, load_build

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINS = dict(
    line.split("==")
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    if "==" in line and not line.startswith("#")
)


def load(name: str):
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_one_version_everywhere():
    assert cpic.__version__ == PROJECT["version"] == load("CITATION.cff")["version"]
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## (\S+)", changes, re.MULTILINE)[1] == PROJECT["version"]


def test_conda_environment_installs_what_pip_does():
    environment = load("environment.yml")
    assert environment["channels"] == ["conda-forge"]
    *conda, pip = environment["dependencies"]
    assert [str(entry).split("=")[0] for entry in conda] == ["python", "pip"]
    python = re.search(r"python=([\d.]+)", " ".join(conda))[1]
    assert PROJECT["requires-python"] == f">={python}"
    assert pip == {"pip": ["-c constraints.txt", "-e .[all]"]}
    assert "all" in PROJECT["optional-dependencies"]


def test_every_requirement_is_pinned():
    wanted = [*PROJECT["dependencies"]]
    for name, extra in PROJECT["optional-dependencies"].items():
        if name != "bench":
            wanted += [requirement for requirement in extra if not requirement.startswith("cpic[")]
    pins = {normal(name) for name in PINS}
    names = {normal(re.split(r"[\[<>=!~ ]", requirement)[0]) for requirement in wanted}
    assert names - pins == set()


@pytest.mark.parametrize(
    "name", ["torch", "jupyter-book", "sphinx", "myst-nb", "sphinx-book-theme"]
)
def test_installed_versions_are_the_pinned_ones(name):
    pins = {normal(k): v for k, v in PINS.items()}
    assert version(name).split("+")[0] == pins[name].split("+")[0]


def test_book_builder_is_below_2():
    assert int(version("jupyter-book").split(".")[0]) == 1


def test_citation_has_what_its_format_asks_for():
    citation = load("CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["cff-version"] == "1.2.0"
    assert citation["license"] == PROJECT["license"]
    assert all("name" in author or "family-names" in author for author in citation["authors"])


def test_every_page_of_the_contents_has_a_source():
    build = load_build()
    pages = build.toc_pages(build.read_toc())
    assert len(pages) == len(set(pages)) > 8
    assert [p for p in pages if not [*ROOT.glob(f"{p}.ipynb"), *ROOT.glob(f"{p}.md")]] == []


def test_every_notebook_is_in_the_contents():
    build = load_build()
    pages = build.toc_pages(build.read_toc())
    notebooks = {f"book/{path.stem}" for path in (ROOT / "book").glob("[!_]*.ipynb")}
    assert notebooks <= set(pages)


def test_sources_are_unique_and_complete():
    text = (ROOT / "book" / "references.bib").read_text(encoding="utf-8")
    entries = re.findall(r"^@(\w+)\{(\S+),$(.*?)^\}", text, re.MULTILINE | re.DOTALL)
    keys = [key for _, key, _ in entries]
    assert len(keys) == len(set(keys)) == text.count("\n@")
    for _, key, fields in entries:
        assert all(f"  {field} = " in fields for field in ("author", "title", "year")), key


def test_a_changed_source_makes_the_site_stale(tmp_path, monkeypatch):
    build = load_build()
    monkeypatch.setattr(build, "ROOT", tmp_path)
    monkeypatch.setattr(build, "STAMP", tmp_path / "built")
    for name in ("_config.yml", "_toc.yml", "CHANGELOG.md", "constraints.txt"):
        (tmp_path / name).write_text("x")
    (tmp_path / "cpic").mkdir()
    (tmp_path / "cpic" / "a.py").write_text("1")
    assert not build.is_fresh()
    build.STAMP.write_text(build.source_state())
    assert build.is_fresh()
    (tmp_path / "cpic" / "a.py").write_text("2")
    assert not build.is_fresh()


def test_each_chapter_has_a_card_with_its_minutes():
    intro = (ROOT / "book" / "intro.ipynb").read_text(encoding="utf-8")
    cards = re.findall(r":link: (\d\d_\w+).*?(\d+) minutes", intro, re.DOTALL)
    stated = {
        path.stem: re.search(r"\*\*(\d+) minutes", path.read_text(encoding="utf-8"))[1]
        for path in (ROOT / "book").glob("[0-9]*.ipynb")
    }
    assert dict(cards) == stated
    total = sum(map(int, stated.values()))
    assert float(re.search(r"all chapters in order.*\| (\d+) \|", intro)[1]) == pytest.approx(
        total, rel=0.1
    )
