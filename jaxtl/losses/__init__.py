"""Losses: arrays in, arrays out; they know no model, configuration or loop.

Values and gradients are finite for features and logits up to 1e6 of any offset, and beyond as long
as the value and what it is a sum of fit into float32 (3e38): logits up to 1e37; features up to 1e18
where distances, squares or bandwidths are taken, 1e9 in `coral` (fourth powers) and, in units of
`high - low`, 1e7 in `central_moment_discrepancy` (fifth powers). What is small beside the largest
input is rounding: distances below 1e-3 of the features' spread, singular values below 1e-3 of the
largest (`smallest_singular_values` of features whose mean is 1,000 times their spread is that).
"""

from jaxtl.losses.class_mmd import contrastive_domain_discrepancy, local_mmd
from jaxtl.losses.classifiers import classifier_discrepancy, margin_disparity
from jaxtl.losses.confusion import class_confusion, entropy, information_maximization
from jaxtl.losses.covariance import coral, covariance
from jaxtl.losses.distillation import hint, softened_divergence
from jaxtl.losses.feature_maps import attended_distance
from jaxtl.losses.feature_norms import adaptive_feature_norm
from jaxtl.losses.imbalance import focal, logit_adjusted
from jaxtl.losses.kernels import mean_bandwidths
from jaxtl.losses.lipschitz import gradient_penalty
from jaxtl.losses.mmd import joint_mmd, mmd
from jaxtl.losses.moments import central_moment_discrepancy
from jaxtl.losses.objective import Task, supervised, task_losses, weighted_losses
from jaxtl.losses.queue_contrast import queue_contrast, queue_places
from jaxtl.losses.reversal import reversal_schedule, reverse_gradient
from jaxtl.losses.singular_values import (
    batch_nuclear_norm,
    largest_singular_values,
    smallest_singular_values,
)
from jaxtl.losses.transport import sinkhorn, sliced_wasserstein, squared_distances
from jaxtl.losses.virtual_adversarial import virtual_adversarial
