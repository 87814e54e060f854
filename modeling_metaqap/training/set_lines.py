"""The scale of each of several sets: an increasing line on the quality that they share.

Raters of different sets use their scales differently, so one photograph has another mean opinion in each. A learner
has one score for it, the shared quality, and each set has a line that turns this into a rating as its raters would
give it. The line of the first set is fixed: quality is a rating on its scale. Lines belong to the training, not to the
checkpoint.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

#: Slopes that a line can start with; beyond them a set's ratings, or the scores of its photographs, hardly differ.
_SLOPES = (1 / 8, 8.0)


class SetLines:
    """Lines `offset + exp(log_slope) * quality` of all sets but the first, learned by Adam beside a model.

    Each process has all of them, and the same ones. The moving average of the model is validated by rank and linear
    correlation within each set, which an increasing line does not change; so lines have no average.

    Args:
        names: of the sets, 2 or more.
        learning_rate: peak rate; the schedule is that of the model's own rates.
        device: of the model.

    Attributes:
        parameters: `log_slopes` and `offsets`, `(number of sets - 1,)` each.
    """

    def __init__(self, names: Sequence[str], *, learning_rate: float, device: torch.device | None = None):
        self.names = list(names)
        self.parameters = [torch.zeros(len(names) - 1, device=device, requires_grad=True) for _ in range(2)]
        self.learning_rate = learning_rate
        self._optimizer = torch.optim.Adam(self.parameters, lr=learning_rate)

    def _of_rows(self, sets: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Slope and offset of each row's set, where and as precise as another tensor is."""
        log_slopes, offsets = (torch.cat([one.new_zeros(1), one]).to(like)[sets] for one in self.parameters)
        return log_slopes.exp(), offsets

    def ratings(self, quality: Tensor, sets: Tensor) -> Tensor:
        """Quality as ratings in [0, 1] on the scale of each row's set; all `(n,)`."""
        slopes, offsets = self._of_rows(sets, quality)
        return offsets + slopes * quality

    @torch.no_grad()
    def quality(self, ratings: Tensor, sets: Tensor) -> Tensor:
        """Ratings in [0, 1] on the scale of each row's set as quality, `(n,)`; the other way round than `ratings`."""
        slopes, offsets = self._of_rows(sets, ratings)
        return (ratings - offsets) / slopes

    @torch.no_grad()
    def slopes(self, sets: Tensor) -> Tensor:
        """Slope of each row's set, `(n,)`, in float64 on the CPU."""
        return self._of_rows(sets, torch.zeros((), dtype=torch.float64))[0]

    @torch.no_grad()
    def start(self, scores: Tensor, ratings: Tensor, sets: Tensor) -> None:
        """Begin with lines that give the scores of each set the mean and the spread of its ratings.

        Scores of photographs that a head was not fitted to spread less than ratings, and so do those of the first set,
        whose line is known to be the identity; so each spread is compared with that of the first set.

        Args:
            scores: `(n,)`, by a head that was fitted to the first set alone.
            ratings: `(n,)`, quality on the scale of each row's set.
            sets: `(n,)`, its numbers.

        Source: mean-sigma linking, as in Kolen and Brennan, "Test equating, scaling, and linking", 2014.
        """
        ratios, means = [], []
        for number in range(len(self.names)):
            rows = sets == number
            spread = scores[rows].std(correction=0)
            ratios.append((ratings[rows].std(correction=0) / spread).item() if spread > 0 else 1.0)
            means.append((ratings[rows].mean(), scores[rows].mean()))
        log_slopes, offsets = self.parameters
        for number, ratio in enumerate(ratios[1:], start=1):
            slope = min(max(ratio / ratios[0] if ratios[0] > 0 else 1.0, _SLOPES[0]), _SLOPES[1])
            log_slopes[number - 1] = torch.tensor(slope).log()
            offsets[number - 1] = means[number][0] - slope * means[number][1]

    def step(self, gradients: Sequence[Tensor], *, factor: float) -> None:
        """Learn.

        Args:
            gradients: with respect to `parameters`.
            factor: of the learning rate, in [0, 1].
        """
        self._optimizer.param_groups[0]["lr"] = self.learning_rate * factor
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        self._optimizer.step()
        self._optimizer.zero_grad()

    def figures(self) -> dict[str, float]:
        """Slope and offset of each line for the log, but of the first one."""
        figures: dict[str, float] = {}
        log_slopes, offsets = self.parameters
        for name, slope, offset in zip(self.names[1:], log_slopes.exp().tolist(), offsets.tolist(), strict=True):
            figures |= {f"line_slope_{name}": slope, f"line_offset_{name}": offset}
        return figures

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on, as JSON values."""
        moments = [
            {key: value.tolist() for key, value in self._optimizer.state[one].items()} for one in self.parameters
        ]
        return {"parameters": [one.tolist() for one in self.parameters], "moments": moments}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        for parameter, values, moments in zip(self.parameters, state["parameters"], state["moments"], strict=True):
            parameter.copy_(torch.tensor(values))
            own = {key: torch.tensor(value) for key, value in moments.items()}
            # Adam counts its steps on the CPU.
            self._optimizer.state[parameter] = {
                key: value if key == "step" else value.to(parameter) for key, value in own.items()
            }


__all__ = ["SetLines"]
