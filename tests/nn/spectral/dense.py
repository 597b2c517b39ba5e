"""An independent reading of the formulas: one layer, one reflection and one core at a time."""

import math
import string

import numpy as np


def factors(number):
    return next(([p, *factors(number // p)] for p in range(2, number + 1) if number % p == 0), [])


def householder(free, rows, columns, reduced):
    """A frame by multiplying full reflections."""
    below = free[: (rows - columns) * columns].reshape(rows - columns, columns)
    vectors = np.zeros((rows, columns))
    vectors[columns:] = below
    vectors[range(columns), range(columns)] = 1
    if not reduced:
        numbers = iter(free[(rows - columns) * columns :])
        for i in range(columns):
            for j in range(i):
                vectors[i, j] = next(numbers)
    frame = np.eye(rows, columns)
    for h in vectors.T[::-1]:
        frame -= np.outer(h, h @ frame) * 2 / (h @ h)
    return frame


def train_frames(rows, columns, kernel, rank, learned, kind):
    """Modes, ranks and frames (rows, columns, reduced) of all cores, and how many are left ones."""
    if kind == "svdp":
        left, right = [rows], [columns * math.prod(kernel)]
    else:
        left, right = factors(rows), factors(columns) + ([math.prod(kernel)] if kernel else [])
    modes, ranks = left + right, [1]
    for k in range(1, len(modes) + 1):
        ranks.append(min(math.prod(modes[:k]), math.prod(modes[k:]), rank))
    sizes = []
    for k, n in enumerate(modes):
        if k < len(left):
            reduced = k < len(left) - 1 or not learned
            sizes.append((ranks[k] * n, ranks[k + 1], reduced))
        else:
            sizes.append((n * ranks[k + 1], ranks[k], k > len(left)))
    return modes, ranks, sizes, len(left)


def free_of(rows, columns, reduced):
    return (rows - columns) * columns + (0 if reduced else columns * (columns - 1) // 2)


def weight(free, values, rows, columns, kernel, rank, learned, kind):
    """The matrix of a weight from its free numbers and its singular values, core by core."""
    modes, ranks, sizes, n_left = train_frames(rows, columns, kernel, rank, learned, kind)
    cores, begin = [], 0
    for k, (n, size) in enumerate(zip(modes, sizes, strict=True)):
        count = free_of(*size)
        frame = householder(free[begin : begin + count], *size)
        begin += count
        matrix = frame if k < n_left else frame.T
        cores.append(matrix.reshape(ranks[k], n, ranks[k + 1]))
    assert begin == len(free)
    letters = iter(string.ascii_letters)
    bonds = [next(letters) for _ in ranks]
    axes = [next(letters) for _ in modes]
    terms = [bonds[k] + axes[k] + bonds[k + 1] for k in range(len(modes))]
    expression = ",".join([*terms, bonds[n_left]]) + "->" + "".join(axes)
    dense = np.einsum(expression, *cores, np.asarray(values), optimize=True)
    return dense.reshape(rows, -1)
