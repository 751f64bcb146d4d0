"""Losses: arrays in, arrays out; they know no model, configuration or loop."""

from jaxtl.losses.class_mmd import contrastive_domain_discrepancy, local_mmd
from jaxtl.losses.classifiers import classifier_discrepancy, margin_disparity
from jaxtl.losses.confusion import class_confusion, entropy, information_maximization
from jaxtl.losses.covariance import coral, covariance
from jaxtl.losses.distillation import hint, softened_divergence
from jaxtl.losses.feature_maps import attended_distance
from jaxtl.losses.feature_norms import adaptive_feature_norm
from jaxtl.losses.imbalance import focal, label_smoothed, logit_adjusted
from jaxtl.losses.kernels import mean_bandwidths, median_bandwidths
from jaxtl.losses.lipschitz import gradient_penalty
from jaxtl.losses.mmd import joint_mmd, linear_mmd, mmd
from jaxtl.losses.moments import central_moment_discrepancy
from jaxtl.losses.objective import supervised, weighted_losses
from jaxtl.losses.queue_contrast import queue_contrast
from jaxtl.losses.reversal import reversal_schedule, reverse_gradient
from jaxtl.losses.singular_values import (
    batch_nuclear_norm,
    largest_singular_values,
    smallest_singular_values,
)
from jaxtl.losses.transport import sinkhorn, sliced_wasserstein, squared_distances, wasserstein
from jaxtl.losses.virtual_adversarial import virtual_adversarial

__all__ = [
    "adaptive_feature_norm",
    "attended_distance",
    "batch_nuclear_norm",
    "central_moment_discrepancy",
    "class_confusion",
    "classifier_discrepancy",
    "contrastive_domain_discrepancy",
    "coral",
    "covariance",
    "entropy",
    "focal",
    "gradient_penalty",
    "hint",
    "information_maximization",
    "joint_mmd",
    "label_smoothed",
    "largest_singular_values",
    "linear_mmd",
    "local_mmd",
    "logit_adjusted",
    "margin_disparity",
    "mean_bandwidths",
    "median_bandwidths",
    "mmd",
    "queue_contrast",
    "reversal_schedule",
    "reverse_gradient",
    "sinkhorn",
    "sliced_wasserstein",
    "smallest_singular_values",
    "softened_divergence",
    "squared_distances",
    "supervised",
    "virtual_adversarial",
    "wasserstein",
    "weighted_losses",
]
