"""Kernel distance from the base model's images, unbiased for images that share their noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from results.metrics.interface import Features, Measurement, Metric, Refused, flat, register

PERMUTATIONS = 999
SMALLEST_SCALE = 0.05
"""Least mean of ``|x|^2 / width``. Far below 1 the kernel is linear: it compares means only, and
is blind to a collapse around the same mean."""


@register
class Kid(Metric):
    """Squared maximum mean discrepancy to the base model, kernel ``(x.y / width + 1)^3``.

    On features as the network gave them, not on unit vectors. All images enter, without subsets.
    Image i of the cell and of base start from the same noise, so the pair (i, i) is left out of
    the mixed term as well; with it, the estimate would be too low. This is the U-statistic

        KID = mean over i != j of k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(x_j, y_i)

    and can be negative where there is no difference. ``standard_error`` is the jackknife's over
    images; ``p_value`` is of swapping x_i and y_i at random, which no difference would notice.
    """

    name = "kid"
    version = "1"
    title = "KID to base"
    unit = "squared MMD"
    direction = "lower"
    needs_base = True
    minimum = 16
    source = (
        "Bińkowski et al., Demystifying MMD GANs, arXiv 1801.01401; paired U-statistic: "
        "Gretton et al., A Kernel Two-Sample Test, JMLR 13 (2012), eq. 4"
    )

    def compute(self, features: Features, base: Features | None) -> Measurement:
        assert base is not None
        x, y = flat(features), flat(base)
        scale = float((y**2).sum(axis=1).mean() / y.shape[1])
        if scale < SMALLEST_SCALE:
            raise Refused(
                f"{self.name} needs features as the network gave them: with a mean of |x|^2 / "
                f"width of {scale:.2g}, as of unit vectors, its kernel compares means only"
            )
        products = pair_products(x, y)
        return Measurement(
            paired_mmd(products),
            details={
                "images": float(len(x)),
                "standard_error": _jackknife(products),
                "p_value": _swap_p_value(products),
            },
        )


def polynomial_kernel(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """``(x.y / width + 1)^3`` of rows ``[n, width]`` and ``[m, width]``: ``[n, m]``."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def pair_products(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """h_ij ``[n, n]``, the inner product of phi(x_i) - phi(y_i) and phi(x_j) - phi(y_j); the
    diagonal, which no estimate uses, is set to zero."""
    mixed = polynomial_kernel(x, y)
    products = polynomial_kernel(x, x) + polynomial_kernel(y, y) - mixed - mixed.T
    np.fill_diagonal(products, 0)
    return products


def paired_mmd(products: NDArray[np.float64]) -> float:
    """Mean of ``pair_products`` off the diagonal."""
    n = len(products)
    return float(products.sum() / (n * (n - 1)))


def _jackknife(products: NDArray[np.float64]) -> float:
    n = len(products)
    without = (products.sum() - 2 * products.sum(axis=1)) / ((n - 1) * (n - 2))
    return float(np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum()))


def _swap_p_value(products: NDArray[np.float64]) -> float:
    """Share of random swaps, the observed order among them, with a KID at least as large."""
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(PERMUTATIONS, len(products)))
    swapped = ((signs @ products) * signs).sum(axis=1)
    # Swapping all pairs gives the observed value again, up to rounding.
    observed = products.sum() - 1e-9 * np.abs(products).sum()
    return float((1 + (swapped >= observed).sum()) / (1 + PERMUTATIONS))
