"""Losses: arrays in, arrays out; they know no model, configuration or loop."""

from jaxtl.losses.distillation import hint, softened_divergence
from jaxtl.losses.feature_maps import attended_distance
from jaxtl.losses.imbalance import focal, label_smoothed, logit_adjusted
from jaxtl.losses.objective import supervised
from jaxtl.losses.queue_contrast import queue_contrast
from jaxtl.losses.singular_values import smallest_singular_values

__all__ = [
    "attended_distance",
    "focal",
    "hint",
    "label_smoothed",
    "logit_adjusted",
    "queue_contrast",
    "smallest_singular_values",
    "softened_divergence",
    "supervised",
]
