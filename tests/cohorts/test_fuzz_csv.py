"""Damaged survival tables: a clear refusal, or what the text says row by row; nothing else."""

import csv
import io

import numpy as np
import pytest

from cpic._errors import CohortError
from cpic.cohorts import read_brats
from tests.cohorts.test_brats import digest, name

N_FILES = 250
N_PATIENTS = 6
HEADER = ["Brats20ID", "Age", "Survival_days", "Extent_of_Resection"]
CELLS = [
    "",
    " ",
    "NA",
    "nan",
    "-5",
    "-0",
    "0",
    "1e9",
    "1e999",
    "12.5",
    "12,5",
    "1_000",
    "١٢",
    "99999999999999999999",
    "ALIVE (361 days later)",
    "GTR",
    "str",
    '"',
    '"GTR"',
    '"a\nb"',
    "\0",
    "../..",
    "/etc",
    ".",
    "\ufeff",
    "é",
    name(1),
    name(2),
    "x" * 5000,
    "=1+1",
    "True",
]
NOISE = [
    b"\n",
    b"\r",
    b"\r\n",
    b",",
    b'"',
    b"'",
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b";",
    b"\t",
    b" ",
]


def rows():
    resections = ["GTR", "STR", "NA"]
    return [
        [name(k), f"{40 + k}.5", str(100 * k), resections[k % 3]] for k in range(1, N_PATIENTS + 1)
    ]


def as_bytes(table, end="\n", first=""):
    return (first + end.join(",".join(row) for row in table) + end).encode()


def hurt_cells(rng):
    table = [HEADER, *rows()]
    for _ in range(rng.integers(1, 5)):
        row = int(rng.integers(1 if rng.random() < 0.9 else 0, len(table)))
        table[row] = list(table[row])
        table[row][rng.integers(len(table[row]))] = CELLS[rng.integers(len(CELLS))]
    return as_bytes(table, ["\n", "\r\n", "\r"][rng.integers(3)], ["", "\ufeff"][rng.integers(2)])


def hurt_rows(rng):
    table = [HEADER, *rows()]
    for _ in range(rng.integers(1, 4)):
        if not table:
            break
        row, kind = int(rng.integers(len(table))), rng.integers(6)
        if kind == 0:
            table.insert(row, list(table[rng.integers(len(table))]))
        elif kind == 1:
            del table[row]
        elif kind == 2:
            table[row] = table[row][: rng.integers(5)]
        elif kind == 3:
            table[row] = [*table[row], CELLS[rng.integers(len(CELLS))]]
        elif kind == 4:
            column = rng.integers(4)
            table = [[*line[:column], *line[column + 1 :]] for line in table]
        else:
            order = rng.permutation(4)
            table = [[line[k] for k in order] if len(line) == 4 else line for line in table]
    return as_bytes(table)


def hurt_bytes(rng):
    raw = as_bytes([HEADER, *rows()])
    for _ in range(rng.integers(1, 6)):
        at, kind = int(rng.integers(len(raw) + 1)), rng.integers(4)
        if kind == 0:
            raw = raw[:at] + NOISE[rng.integers(len(NOISE))] + raw[at:]
        elif kind == 1:
            raw = raw[:at] + rng.bytes(1) + raw[at + 1 :]
        elif kind == 2:
            raw = raw[:at] + raw[at + int(rng.integers(1, 60)) :]
        else:
            raw = raw[:at] + raw[int(rng.integers(len(raw) + 1)) :]
    return raw


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    tree = tmp_path_factory.mktemp("data") / "MICCAI_BraTS2020_TrainingData"
    for k in range(1, N_PATIENTS + 1):
        (tree / name(k)).mkdir(parents=True)
        (tree / name(k) / f"{name(k)}_t1.nii").write_bytes(b"")
    return tree


def facts(raw):
    """Rows by patient as the plainest reader sees them: outer spaces gone, quotes undone."""
    lines = list(csv.reader(io.StringIO(raw.decode("utf-8-sig"), newline="")))
    lines = [[cell.strip() for cell in line] for line in lines if any(c.strip() for c in line)]
    columns = [lines[0].index(column) for column in HEADER if column in lines[0]]
    if len(columns) < 4:
        columns = [[c.lower() for c in lines[0]].index(column.lower()) for column in HEADER]
    seen = {}
    for line in lines[1:]:
        if len(line) == len(lines[0]):
            seen.setdefault(line[columns[0]], []).append([line[k] for k in columns[1:]])
    return seen


def check(tree, raw):
    """True if the table was read, and rightly."""
    (tree / "survival_info.csv").write_bytes(raw)
    before = digest(tree)
    try:
        cohort = read_brats(tree)
    except CohortError as error:
        refusal = str(error)
    else:
        refusal = ""
    assert digest(tree) == before
    if refusal:
        assert str(tree) in refusal
        return False
    truth = facts(raw)
    assert list(cohort.samples["patient"]) == list(cohort.patients)
    assert not set(cohort.patients) & set(cohort.skipped)
    assert all(cohort.skipped.values())
    for sample in cohort.samples.itertuples():
        assert sample.patient in {name(k) for k in range(1, N_PATIENTS + 1)}
        assert cohort.patients[sample.patient]["t1"].parent == tree / sample.patient
        ((age, days, resection),) = truth[sample.patient]
        assert (sample.days, sample.target) == (float(days), float(days) / 1825)
        assert 0 <= sample.days <= 36525
        assert (
            np.isnan(sample.age) if age.lower() in ("", "na", "nan") else sample.age == float(age)
        )
        assert sample.resection == (resection.upper() or "NA")
        assert sample.resection in ("GTR", "STR", "NA")
    return True


def test_the_intact_table_is_read(tree):
    assert check(tree, as_bytes([HEADER, *rows()]))
    assert len(read_brats(tree)) == N_PATIENTS


@pytest.mark.timeout(600)
@pytest.mark.parametrize("hurt", [hurt_cells, hurt_rows, hurt_bytes])
def test_a_damaged_table_is_refused_or_read_as_it_is(tree, hurt):
    read = sum(check(tree, hurt(np.random.default_rng(seed))) for seed in range(N_FILES))
    # Both happen, or the damage would prove nothing.
    assert 0.1 * N_FILES < read < 0.95 * N_FILES


@pytest.mark.parametrize(
    "raw", [b"", b"\xef\xbb\xbf", b"\0" * 99, b"\n" * 99, b'"', bytes(range(256))]
)
def test_what_is_no_table_is_refused(tree, raw):
    assert not check(tree, raw)
