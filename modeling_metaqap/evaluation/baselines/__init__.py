"""Methods of others to compare with."""

from .scorer import BASELINES, Baseline, BaselineScorer

__all__ = ["BASELINES", "Baseline", "BaselineScorer"]
