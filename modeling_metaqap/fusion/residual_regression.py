"""What own ratings add to scores that exist already: a straight line, and Gaussians on what that leaves over.

The model is universal kriging: `rating = offset + slope * score + f(features) + noise`, with a Gaussian process f
whose kernel is the mean of one Gaussian kernel for each base learner. With few ratings f is hardly anything, with many
it is most of the answer. A fit is in closed form, and so is the prediction of each rating by the others.

Source: Rasmussen and Williams, "Gaussian processes for machine learning", MIT Press 2006, sections 2.7 (a line beside
the process), 5.4.2 (leaving out) and 8.3.2 (Nystroem's method, for more ratings than `CENTERS`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import linalg

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

#: Inverse square widths of the Gaussians to choose from, in units of the photographs' total variance.
GAMMAS = (0.15, 0.3, 0.6)
#: Variances of the noise to choose from, in units of that of f.
PENALTIES = (0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0)
#: Gamma and penalty that are kept unless others are better by more than chance: a few ratings cannot tell.
USUAL = (0.3, 1.0)
#: Principal components of each learner's features that distances are measured in, at most.
COMPONENTS = 256
#: Photographs that become centres of Gaussians, at most; of more ratings so many are drawn.
CENTERS = 2000

# Added to the variance of f before a root of the kernel is taken: photographs may be there twice.
_JITTER = 1e-6


@dataclass(frozen=True)
class Basis:
    """Where the Gaussians of one learner stand, in the numbers that a checkpoint stores.

    Attributes:
        components: `(F, P)`, principal components of the standardised features.
        centers: `(M, P)`.
        variance: total variance of the centres.
    """

    components: FloatArray
    centers: FloatArray
    variance: float

    def distances(self, features: FloatArray) -> FloatArray:
        """Standardised features `(n, F)` -> squared distances to the centres `(n, M)`, in units of the variance."""
        points = features @ self.components
        squares = np.square(points).sum(axis=1)[:, None] + np.square(self.centers).sum(axis=1)
        return np.maximum(squares - 2 * points @ self.centers.T, 0) / self.variance


def fit_basis(features: FloatArray, drawn: IntArray, *, components: int = COMPONENTS) -> Basis:
    """Principal components and centres of one learner; ratings have no say in them.

    Args:
        features: standardised, `(n, F)`.
        drawn: rows that become centres.
        components: at most so many.
    """
    rows = features[drawn]
    vt = linalg.svd(rows - rows.mean(axis=0), full_matrices=False)[2]
    # Rounded as they are stored, so that the fit makes up for it.
    axes = vt[:components].T.astype(np.float16).astype(np.float64)
    centers = (rows @ axes).astype(np.float16).astype(np.float64)
    return Basis(axes, centers, float(centers.var(axis=0).sum()) or 1.0)


def draw_centers(n: int, *, most: int = CENTERS, seed: int = 0) -> IntArray:
    """Which of n rated photographs become centres."""
    return np.sort(np.random.default_rng(seed).permutation(n)[:most])


@dataclass(frozen=True)
class Functions:
    """Orthonormal functions that span the Gaussians of one width, at n photographs.

    Attributes:
        values: `(n, M)`; the inner product of two rows is the kernel, or Nystroem's approximation of it.
        root: `(M, M)`, lower triangular root of the kernel among the centres.
    """

    values: FloatArray
    root: FloatArray

    def coefficients(self, weights: FloatArray) -> FloatArray:
        """Weights of the functions `(M,)` -> coefficients of the sum of Gaussians around each centre `(M,)`."""
        return linalg.solve_triangular(self.root, weights, lower=True, trans="T")


def functions_of(
    bases: Sequence[Basis], features: Sequence[FloatArray], *, gammas: Sequence[float] = GAMMAS
) -> dict[float, Functions]:
    """For each width the functions that span the mean of all learners' Gaussians.

    Args:
        bases: of all learners, with the same photographs as centres.
        features: of the n photographs by each learner, standardised, `(n, F)`.
        gammas: see `GAMMAS`.
    """
    apart = [basis.distances(rows) for basis, rows in zip(bases, features, strict=True)]
    among = [basis.distances(basis.centers @ np.linalg.pinv(basis.components)) for basis in bases]
    functions = {}
    for gamma in gammas:
        kernel = _mean_gaussian(among, gamma)
        kernel.flat[:: len(kernel) + 1] += _JITTER
        root = linalg.cholesky(kernel, lower=True)
        values = linalg.solve_triangular(root, _mean_gaussian(apart, gamma).T, lower=True).T
        functions[gamma] = Functions(values, root)
    return functions


@dataclass(frozen=True)
class Fit:
    """A fitted regression.

    Attributes:
        offset, slope: of the straight line.
        left_out: `(n,)`, each rating as predicted by those of the other groups.
        gamma, penalty: that were chosen; None for the straight line alone.
        weights: `(M,)` of the functions of that gamma; None for the straight line alone.
    """

    offset: float
    slope: float
    left_out: FloatArray = field(repr=False)
    gamma: float | None = None
    penalty: float | None = None
    weights: FloatArray | None = field(default=None, repr=False)

    def predict(self, scores: FloatArray, functions: dict[float, Functions], rows: IntArray) -> FloatArray:
        """Quality of the photographs in these rows of the functions, whose scores are given, `(m,)`."""
        line = self.offset + self.slope * scores
        if self.gamma is None or self.weights is None:
            return line
        return line + functions[self.gamma].values[rows] @ self.weights


def fit_line(scores: FloatArray, targets: FloatArray, *, groups: IntArray | None = None) -> Fit:
    """The straight line alone, by least squares.

    Args:
        scores: `(n,)`, not all the same.
        targets: `(n,)`, ratings.
        groups: `(n,)`, numbers of groups of photographs that are left out together; default each one alone.
    """
    line = _line(scores)
    axes = linalg.qr(line, mode="economic")[0]
    offset, slope = linalg.lstsq(line, targets)[0]
    return Fit(float(offset), float(slope), targets - _left_out_errors(1.0, axes, targets, groups))


def fit_residual(
    scores: FloatArray,
    targets: FloatArray,
    functions: dict[float, Functions],
    rows: IntArray,
    *,
    groups: IntArray | None = None,
    penalties: Sequence[float] = PENALTIES,
) -> Fit:
    """Straight line and Gaussians, whose width and penalty are chosen by squared errors of ratings that are left out.

    Args:
        scores: `(n,)`, not all the same.
        targets: `(n,)`, ratings.
        functions: by width.
        rows: `(n,)`, where the photographs stand in the functions.
        groups: see `fit_line`.
        penalties: see `PENALTIES`.
    """
    candidates = {}
    for gamma, one in functions.items():
        for fit in _ridge_path(scores, targets, one.values[rows], groups, gamma=gamma, penalties=penalties):
            candidates[gamma, fit.penalty] = fit
    losses = {setting: np.square(fit.left_out - targets) for setting, fit in candidates.items()}
    best = min(losses, key=lambda setting: losses[setting].mean())
    usual = USUAL if USUAL in candidates else best
    gain = losses[usual] - losses[best]
    return candidates[best if gain.mean() > gain.std() / np.sqrt(len(gain)) else usual]


def _ridge_path(
    scores: FloatArray,
    targets: FloatArray,
    values: FloatArray,
    groups: IntArray | None,
    *,
    gamma: float,
    penalties: Sequence[float],
) -> Iterator[Fit]:
    """Fits of all penalties with one width, by one eigenvalue decomposition."""
    line = _line(scores)
    # Whichever matrix is smaller has the same eigenvalues.
    wide = values.shape[1] > values.shape[0]
    eigenvalues, vectors = linalg.eigh(values @ values.T if wide else values.T @ values)
    kept = eigenvalues > 1e-12 * eigenvalues[-1]
    eigenvalues, vectors = eigenvalues[kept], vectors[:, kept]
    axes = vectors if wide else values @ vectors / np.sqrt(eigenvalues)
    across = np.column_stack([line, targets])
    along = axes.T @ across
    for penalty in penalties:
        shrink = eigenvalues / (eigenvalues + penalty)
        # The inverse covariance of the ratings, times the line and the ratings.
        solved = (across - axes @ (shrink[:, None] * along)) / penalty
        of_line, of_targets = solved[:, :2], solved[:, 2]
        precision = line.T @ of_line
        beta = linalg.solve(precision, line.T @ of_targets, assume_a="pos")
        root = linalg.solve_triangular(linalg.cholesky(precision, lower=True), of_line.T, lower=True).T
        removed = np.column_stack([axes * np.sqrt(shrink / penalty), root])
        errors = _left_out_errors(1 / penalty, removed, targets, groups)
        weights = values.T @ (of_targets - of_line @ beta)
        yield Fit(float(beta[0]), float(beta[1]), targets - errors, gamma, penalty, weights)


def _line(scores: FloatArray) -> FloatArray:
    return np.column_stack([np.ones(len(scores)), scores])


def _left_out_errors(diagonal: float, removed: FloatArray, targets: FloatArray, groups: IntArray | None) -> FloatArray:
    """Ratings less what the other groups' ratings predict, `(n,)`.

    Args:
        diagonal, removed: the inverse covariance of the ratings, with the line projected out, is
            `diagonal * identity - removed @ removed.T`.
        targets: `(n,)`.
        groups: see `fit_line`.
    """
    projected = diagonal * targets - removed @ (removed.T @ targets)
    own = diagonal - np.square(removed).sum(axis=1)
    errors = projected / np.maximum(own, 1e-12 * diagonal)
    if groups is None:
        return errors
    order = np.argsort(groups, kind="stable")
    for together in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        if len(together) > 1:
            block = diagonal * np.eye(len(together)) - removed[together] @ removed[together].T
            errors[together] = linalg.lstsq(block, projected[together])[0]
    return errors


def _mean_gaussian(distances: Sequence[FloatArray], gamma: float) -> FloatArray:
    total = np.exp(-gamma * distances[0])
    for one in distances[1:]:
        total += np.exp(-gamma * one)
    return total / len(distances)


__all__ = [
    "CENTERS",
    "COMPONENTS",
    "GAMMAS",
    "PENALTIES",
    "USUAL",
    "Basis",
    "Fit",
    "Functions",
    "draw_centers",
    "fit_basis",
    "fit_line",
    "fit_residual",
    "functions_of",
]
