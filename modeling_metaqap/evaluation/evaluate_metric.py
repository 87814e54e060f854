"""The figures of `metrics` as a module of the `evaluate` library.

In a file of its own: a program in a folder with another `evaluate.py` can import `metrics`, but not this.
"""

import datasets
import evaluate
import numpy.typing as npt

from .metrics import METRICS


class IQAMetric(evaluate.Metric):
    """The figures of [`METRICS`] as an `evaluate.Metric`, for use without the Hub.

    ```python
    >>> metric = IQAMetric()
    >>> metric.add_batch(predictions=[0.1, 0.5, 0.8], references=[0.2, 0.4, 0.9])
    >>> metric.compute()["srocc"]
    1.0
    ```
    """

    def _info(self) -> evaluate.MetricInfo:
        value = datasets.Value("float64")
        return evaluate.MetricInfo(
            description="Agreement of predicted image quality with opinion scores.",
            citation="",
            inputs_description="predictions and references: quality scores, one per image",
            features=datasets.Features({"predictions": value, "references": value}),
        )

    def _compute(self, *, predictions: npt.ArrayLike, references: npt.ArrayLike) -> dict[str, float]:
        return {name: statistic(predictions, references) for name, statistic in METRICS.items()}


__all__ = ["IQAMetric"]
