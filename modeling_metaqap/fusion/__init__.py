"""From base learners to one checkpoint: stepwise regression, conformal interval, fusing."""
