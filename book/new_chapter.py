"""Start a chapter from the skeleton that passes the lint.

python book/new_chapter.py 05_gradients
"""

import json
import re
import sys
from pathlib import Path

BOOK = Path(__file__).resolve().parent


def skeleton(template: str, name: str) -> str:
    """The template with the labels, the goals and the title of a new chapter.

    Labels are global in the book, so each starts with the chapter's own word.
    """
    word = name.split("_", 1)[1].replace("_", "-")
    title = name.split("_", 1)[1].replace("_", " ").capitalize()
    text = re.sub(r"\b(ch|fig|eq|thm|ex)-template", rf"\1-{word}", template)
    text = text.replace("template-hook", f"{word}-hook").replace("G0.", f"G{int(name[:2])}.")
    return text.replace("# Title of the chapter", f"# {title}")


def main(arguments: list[str]) -> int:
    """Write book/NAME.ipynb, and say what to do next."""
    name = arguments[0].removesuffix(".ipynb") if len(arguments) == 1 else ""
    if not re.fullmatch(r"\d\d_[a-z][a-z0-9_]*", name):
        print(f"new-chapter needs a name such as 05_gradients, got {name!r}.", file=sys.stderr)
        return 2
    path = BOOK / f"{name}.ipynb"
    if path.exists():
        print(f"{path.name} is there already; choose another name.", file=sys.stderr)
        return 2
    text = skeleton((BOOK / "_template.ipynb").read_text(encoding="utf-8"), name)
    json.loads(text)
    path.write_text(text, encoding="utf-8")
    print(f"Wrote book/{path.name}. Next: add `- file: book/{name}` to _toc.yml, fill the cells,")
    print(f"and look at it: python book/build.py --only {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
