"""YAML of untrusted files: what scalars are, and what is refused before anything is made of it."""

import math

import pytest

from cpic._trust import DEPTH, DoubtError
from cpic.options._yaml import VALUES, read

SCALARS = {
    "010": 10, "0": 0, "-7": -7, "+7": 7, "1e-4": 1e-4, "-1e-3": -1e-3, ".5": 0.5, "-.5": -0.5,
    "1.": 1.0, "1.10": 1.1, ".inf": math.inf, "-.inf": -math.inf, "true": True, "False": False,
    "null": None, "~": None, "": None, "'null'": "null", '"3"': "3", "!!str 001": "001",
    "on": "on", "no": "no", "y": "y", "None": "None", "1:30": "1:30", "1_000": "1_000",
    "0x10": "0x10", "0o7": "0o7", "2024-01-02": "2024-01-02", "1,000": "1,000", "nan": "nan",
    "inf": "inf", "−1": "−1", "(8, 8)": "(8, 8)", "=": "=", "[1, [2]]": [1, [2]], "{}": {},
}  # fmt: skip


@pytest.mark.parametrize("text", SCALARS)
def test_scalars_are_those_of_yaml_1_2(text):
    assert repr(read(f"a: {text}")) == repr({"a": SCALARS[text]})


def test_not_a_number():
    assert math.isnan(read("a: .nan")["a"])


def test_a_few_aliases_and_merges_are_fine():
    assert read("a: &a {b: 1, c: 2}\nd: {<<: *a, c: 3}") == {
        "a": {"b": 1, "c": 2},
        "d": {"b": 1, "c": 3},
    }
    assert read("- &a x\n- *a\n- *a") == ["x", "x", "x"]
    assert read("\ufeffa: 1") == {"a": 1}
    assert read("") is None


def bomb(first, repeat):
    """Ten times as many values a line as in the line before."""
    lines = [f"a: &a {first}"]
    lines += [f"{b}: &{b} {repeat(a)}" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
    return "\n".join(lines)


REFUSED = {
    "lists": (bomb("[x, x]", lambda a: f"[{', '.join([f'*{a}'] * 10)}]"), "more than 10000 values"),
    "merges": (
        bomb("{x: 1}", lambda a: f"{{<<: [{', '.join([f'*{a}'] * 10)}]}}"),
        "more than 10000 values",
    ),
    "long": ("- x\n" * (VALUES + 1), "more than 10000 values"),
    "deep lists": ("[" * 10_000, f"deeper than {DEPTH} levels in line 1"),
    "deep mappings": ("{a: " * 10_000, f"deeper than {DEPTH} levels in line 1"),
    "deep blocks": (
        "\n".join(f"{' ' * k}a:" for k in range(DEPTH + 2)),
        f"deeper than {DEPTH} levels in line {DEPTH + 1}",
    ),
    "in itself": ("a: &a [*a]", "has a part that contains itself in line 1"),
    "twice": ("a: 1\nb: 2\na: 3", "'a' twice, in lines 1 and 3"),
    "twice, quoted": ("a: 1\n'a': 3", "'a' twice, in lines 1 and 2"),
    "twice, below": ("b:\n  - a: 1\n    a: 1", "'a' twice, in lines 2 and 3"),
    "list as a key": ("[1]: 2", "list or mapping as a key in line 1"),
    "mapping as a key": ("? {a: 1}\n: 2", "list or mapping as a key in line 1"),
    "documents": ("--- 1\n--- 2", "another document in .*line 2"),
    "python": ("a: !!python/tuple [1]", "a custom tag, tag:yaml.org,2002:python/tuple"),
    "binary": ("a: !!binary aGk=", "a custom tag"),
    "own kind": ("a: !mine 1", "a custom tag, !mine, in line 1"),
    "no such alias": ("a: *b", "undefined alias 'b'"),
    "open": ("a: [\n", "cannot be read as YAML"),
    "tab": ("a:\n\tb: 1", r"found character '\\t'"),
    "zero byte": ("a: \0", "special characters are not allowed"),
    "digits": ("a: " + "9" * 5000, "cannot be read as YAML"),
    "no int": ("a: !!int x", "cannot be read as YAML"),
    "no bool": ("a: !!bool x", "cannot be read as YAML"),
    "no merge": ("<<: 3", "cannot be read as YAML"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_one_line(name):
    text, words = REFUSED[name]
    with pytest.raises(DoubtError, match=words) as caught:
        read(text)
    assert len(str(caught.value).splitlines()) == 1
