"""The linen layers of our architectures; their parameters are those of `nn.Conv` and `nn.Dense`."""

from collections.abc import Callable

import flax.linen as nn
import jax

from jaxtl.models.convolution import convolve
from jaxtl.models.model import flatten


class Conv(nn.Conv):
    """A convolution in the formulation that is fast where it runs.

    Attributes:
        batch_norm: a BatchNorm called `norm` follows (and makes a bias useless).
        momentum: the share of the old statistics that a training step keeps.
        epsilon: added to the variance.
    """

    conv_general_dilated: Callable[..., jax.Array] = convolve
    batch_norm: bool = False
    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False) -> jax.Array:
        outputs = super().__call__(inputs)
        if self.batch_norm:
            norm = nn.BatchNorm(
                not train, momentum=self.momentum, epsilon=self.epsilon, name="norm"
            )
            outputs = norm(outputs)
        return outputs


class Dense(nn.Dense):
    """A dense layer on each example, flattened: [n, ...] -> [n, features].

    Attributes:
        dropout: the share of the outputs that is dropped in training. A ReLU may follow: whether
            zeros are put in before or after it is the same.
    """

    dropout: float = 0.0

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False) -> jax.Array:
        outputs = super().__call__(flatten(inputs))
        return nn.Dropout(self.dropout, deterministic=not train)(outputs)
