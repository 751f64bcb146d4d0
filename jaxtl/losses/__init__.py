"""Losses: arrays in, arrays out; they know no model, configuration or loop."""

from jaxtl.losses.imbalance import focal, label_smoothed, logit_adjusted
from jaxtl.losses.objective import supervised

__all__ = ["focal", "label_smoothed", "logit_adjusted", "supervised"]
