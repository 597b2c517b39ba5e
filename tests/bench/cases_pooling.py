"""Cases of covariance pooling: roots, their gradients by condition and gap, covariances.

`seconds` are processor seconds of one thread, the least of some. `error` is relative to the exact
root, in the Frobenius norm, of matrices made from known eigenvalues. `share` is our time over that
of the root by eigenvalues; `share, 1e-4 beyond others` is the same for matrices of which neither
Newton-Schulz iterations nor a Padé approximant of high degree come within 1e-4. Trained networks
are recorded by `book/results/make_covariance.py`.
"""

import time
from collections.abc import Callable
from functools import cache, partial

import mpmath
import torch
from torch import Tensor

from cpic import linalg
from cpic.nn.pooling import CovariancePool
from tests.bench.harness import Case

WIDE = torch.float64
SIZES = (16, 64, 256)
CONDITIONS: dict[str, float | None] = {"1e1": 1e1, "1e3": 1e3, "1e6": 1e6, "rank n/2": None}
GAPS = tuple(10.0**-k for k in range(1, 17))
BATCH = 10
# Roots without eigenvalues that may come within `CLOSE`: where one does, ours has to be fast.
ITERATED = {"method": "newton_schulz", "steps": 15}
HIGH_PADE = {"method": "pade", "degree": 40, "scale": "bound"}
CLOSE = 1e-4


def least_time(call: Callable[[], object], runs: int) -> float:
    """Processor seconds of a call, the least of some."""
    spent = []
    for _ in range(runs):
        start = time.process_time()
        call()
        spent.append(time.process_time() - start)
    return min(spent)


def graded(root: Callable[[Tensor], Tensor], matrix: Tensor) -> Callable[[], object]:
    """Forward and backward pass."""
    leaf = matrix.clone().requires_grad_()
    given = torch.ones_like(matrix)
    return lambda: torch.autograd.grad(root(leaf), leaf, given)


@cache
def spectrum(n: int, condition: str, seed: int, dtype: torch.dtype = WIDE) -> tuple[Tensor, Tensor]:
    """Ten matrices with eigenvalues equally spaced on a logarithmic scale, and their roots."""
    generator = torch.Generator().manual_seed(seed)
    number = CONDITIONS[condition]
    values = (torch.arange(n) < n // 2).to(WIDE)
    if number is not None:
        values = torch.logspace(0, -torch.tensor(number).log10().item(), n, dtype=WIDE)
    basis = torch.linalg.qr(torch.randn(BATCH, n, n, generator=generator, dtype=WIDE)).Q
    matrix, root = basis * values @ basis.mT, basis * values.sqrt() @ basis.mT
    return ((matrix + matrix.mT) / 2).to(dtype), root


def error_of(root: Tensor, exact: Tensor) -> float:
    """The largest relative error in the Frobenius norm."""
    return float(((root - exact).norm(dim=(-2, -1)) / exact.norm(dim=(-2, -1))).max())


@cache
def within_reach(n: int, condition: str) -> bool:
    """Whether a root without eigenvalues comes within `CLOSE` of the exact one."""
    matrix, exact = spectrum(n, condition, 0)
    roots = (linalg.sqrtm(matrix, check=False, **how) for how in (ITERATED, HIGH_PADE))
    return any(error_of(root, exact) <= CLOSE for root in roots)


def rooted(options: dict, n: int, condition: str, seed: int, *, check: bool = True, runs: int = 5):
    """Error and time of a root, and our time over that of the root by eigenvalues."""
    matrix, exact = spectrum(n, condition, seed)

    def call() -> Tensor:
        return linalg.sqrtm(matrix, check=False, **options)

    def by_eigenvalues() -> Tensor:
        return linalg.sqrtm(matrix, check=False)

    runs = runs if check else 1
    call(), by_eigenvalues()
    figures = {"seconds": least_time(call, runs)}
    if check:
        unit = "share" if within_reach(n, condition) else "share, 1e-4 beyond others"
        figures[unit] = figures["seconds"] / least_time(by_eigenvalues, runs)
        figures["error"] = error_of(call(), exact)
    return figures


def differentiated(
    options: dict, n: int, seed: int, *, check: bool = True, runs: int = 5
) -> dict[str, float]:
    """Forward and backward pass, beside the forward pass of `torch.linalg.eigh` alone."""
    matrix, _ = spectrum(n, "1e3", seed)
    call = graded(lambda a: linalg.sqrtm(a, check=False, **options), matrix)
    runs = runs if check else 1
    call()
    figures = {"seconds": least_time(call, runs)}
    if check:
        forward = least_time(lambda: torch.linalg.eigh(matrix), runs)
        figures["of eigh forward"] = figures["seconds"] / forward
    return figures


def by_torch(n: int, seed: int, *, check: bool = True, runs: int = 5) -> dict[str, float]:
    """`torch.linalg.eigh` and autograd; its gradient is not finite for repeated eigenvalues."""
    matrix, _ = spectrum(n, "1e3", seed)

    def root(a: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh(a)
        return vectors * values.sqrt().unsqueeze(-2) @ vectors.mT

    call = graded(root, matrix)
    call()
    return {"seconds": least_time(call, runs if check else 1)}


def iterated_by_autograd(n: int, seed: int, *, check: bool = True, runs: int = 5):
    """Ten Newton-Schulz steps and autograd."""
    matrix, _ = spectrum(n, "1e3", seed)
    identity = torch.eye(n, dtype=WIDE)

    def root(a: Tensor) -> Tensor:
        scale = a.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None]
        y, z = a / scale, identity.expand_as(a)
        for _ in range(10):
            turn = (3 * identity - z @ y) / 2
            y, z = y @ turn, turn @ z
        return y * scale.sqrt()

    call = graded(root, matrix)
    call()
    return {"seconds": least_time(call, runs if check else 1)}


def gap_errors(options: dict, dtype: torch.dtype, seed: int, *, check: bool = True):
    """Largest relative error of the gradient over gaps from 1e-1 to 1e-16, against 60 digits."""
    generator = torch.Generator().manual_seed(seed)
    figures, worst, finite = {}, 0.0, True
    for gap in GAPS if check else GAPS[:2]:
        values = torch.tensor([1.0, 1.0 - gap, 0.4, 0.1], dtype=WIDE)
        basis = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=WIDE)).Q
        matrix = basis * values @ basis.T
        matrix = ((matrix + matrix.T) / 2).to(dtype)
        given = torch.randn(4, 4, generator=generator, dtype=WIDE)
        given = ((given + given.T) / 2).to(dtype)
        leaf = matrix.clone().requires_grad_()
        (found,) = torch.autograd.grad(linalg.sqrtm(leaf, **options), leaf, given)
        exact = exact_gradient(matrix, given)
        worst = max(worst, float((found.to(WIDE) - exact).norm() / exact.norm()))
        finite = finite and bool(found.isfinite().all())
    figures["gradient error"] = worst if finite else float("inf")
    return figures


def exact_gradient(matrix: Tensor, given: Tensor) -> Tensor:
    """The gradient of the root of the matrix as it is stored, in 60 digits."""
    with mpmath.workdps(60):
        values, vectors = mpmath.eigsy(mpmath.matrix(matrix.double().tolist()))
        roots = [mpmath.sqrt(x) for x in values]
        inner = vectors.T * mpmath.matrix(given.double().tolist()) * vectors
        for i in range(len(matrix)):
            for j in range(len(matrix)):
                inner[i, j] /= roots[i] + roots[j]
        return torch.tensor((vectors * inner * vectors.T).tolist(), dtype=WIDE)


def degenerate(options: dict, seed: int, *, check: bool = True) -> dict[str, float]:
    """Gradients that are not finite, among 10 000 random degenerate matrices of 8 rows."""
    generator = torch.Generator().manual_seed(seed)
    n = 10_000 if check else 10
    rank = torch.randint(0, 8, (n, 1), generator=generator)
    values = torch.randint(0, 4, (n, 8), generator=generator).double() * (torch.arange(8) < rank)
    values = values * 10.0 ** torch.randint(-150, 150, (n, 1), generator=generator).double()
    basis = torch.linalg.qr(torch.randn(n, 8, 8, generator=generator, dtype=WIDE)).Q
    matrix = basis * values.unsqueeze(-2) @ basis.mT
    given = torch.randn(n, 8, 8, generator=generator, dtype=WIDE)
    leaf = ((matrix + matrix.mT) / 2).requires_grad_()
    (found,) = torch.autograd.grad(linalg.sqrtm(leaf, **options), leaf, given)
    return {"not finite": float((~found.isfinite()).flatten(1).any(1).sum())}


def covariances(published: bool, seed: int, *, check: bool = True, runs: int = 5):
    """Covariances of 64 channels at 28 x 28 positions, with their gradient."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(BATCH, 64, 28, 28, generator=generator, dtype=WIDE)
    pool = CovariancePool(check=False)

    def centering(x: Tensor) -> Tensor:
        flat = x.flatten(2)
        m = flat.shape[-1]
        matrix = -torch.ones(m, m, dtype=WIDE) / m / m + torch.eye(m, dtype=WIDE) / m
        return flat @ matrix.expand(len(x), m, m) @ flat.mT

    def call(form: Callable[[Tensor], Tensor]) -> Callable[[], object]:
        leaf = maps.clone().requires_grad_()
        return lambda: torch.autograd.grad(form(leaf).square().sum(), leaf)

    ours = call(centering if published else pool)
    ours()
    figures = {"seconds": least_time(ours, runs if check else 1)}
    if check and not published:
        figures["difference"] = float((pool(maps) - centering(maps)).abs().max())
    return figures


def pooling_cases() -> list[Case]:
    """The cases of this file."""
    ways = {
        "pade gradient": {"gradient": "pade"},
        "lyapunov": {},
        "newton_schulz": {"method": "newton_schulz"},
        "MPA-Lya [5/5]": {"method": "pade"},
        "MTP-Lya 10": {"method": "taylor"},
    }
    peers = {
        "torch eigh, autograd": by_torch,
        "Newton-Schulz, autograd": iterated_by_autograd,
    }
    cases = [
        Case(
            name=f"root, forward and backward, {BATCH} of 256 rows, {name}",
            ours=partial(differentiated, options, 256),
            peers={peer: partial(call, 256) for peer, call in peers.items()},
            goals={"of eigh forward": 1.2} if name == "pade gradient" else {},
            peak="none",
        )
        for name, options in ways.items()
    ]
    others = {
        "eigh": {},
        "minimax": {"method": "minimax"},
        "newton_schulz 15": ITERATED,
        "pade 5": {"method": "pade"},
        "pade 40, bound": HIGH_PADE,
        "taylor 10": {"method": "taylor"},
    }
    for n in SIZES:
        if n == SIZES[-1]:
            del others["pade 40, bound"]  # ten times as slow as eigenvalues there
        for condition in CONDITIONS:
            cases.append(
                Case(
                    name=f"root without eigenvalues, auto, {BATCH} of {n} rows, {condition}",
                    ours=partial(rooted, {"method": "auto"}, n, condition),
                    peers={name: partial(rooted, o, n, condition) for name, o in others.items()},
                    # With one thread eigenvalues take as long as 20 products of single precision at
                    # 256 rows, or 8 of double; the latter are needed beyond 1e3 and for low ranks,
                    # and more of them. Ten matrices of 16 rows take as long as 50 calls of any
                    # function.
                    goals={"error": CLOSE, "share": 0.5},
                    repeats=3,
                    peak="none",
                )
            )
    gradients = {
        "lyapunov": {},
        **{name: {"gradient": name} for name in ("original", "trunc", "topn", "taylor", "pade")},
        "power": {"gradient": "power"},
        "newton": {"gradient": "newton"},
        "iterative": {"gradient": "iterative"},
        "pade 5": {"method": "pade"},
        "minimax": {"method": "minimax"},
    }
    for dtype in (torch.float32, WIDE):
        ours, *rest = gradients
        cases.append(
            Case(
                name=f"gradient of a root, worst of gaps 1e-1 to 1e-16, {str(dtype)[6:]}",
                ours=partial(gap_errors, gradients[ours], dtype),
                peers={name: partial(gap_errors, gradients[name], dtype) for name in rest},
                goals={"gradient error": 100 * torch.finfo(dtype).eps},
                repeats=1,
                peak="none",
            )
        )
    cases.append(
        Case(
            name="gradients of 10 000 degenerate matrices, scales 1e-150 to 1e150",
            ours=partial(degenerate, {}),
            peers={n: partial(degenerate, gradients[n]) for n in ("trunc", "pade", "taylor")},
            goals={"not finite": 0},
            repeats=1,
            peak="none",
        )
    )
    cases.append(
        Case(
            name="covariance and gradient, 10 x 64 x 28 x 28",
            ours=partial(covariances, False),
            peers={"centering matrix": partial(covariances, True)},
            goals={"difference": 1e-12},
            shares={("seconds", "centering matrix"): 1 / 5},
            peak="none",
        )
    )
    return cases
