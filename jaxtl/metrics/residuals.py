"""Regression: squared and absolute errors and the coefficient of determination."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtl.metrics.sums import per_output, weighted_sum
from jaxtl.plan import Evaluation

DIRECTIONS = dict.fromkeys(("loss", "mse", "rmse", "mae"), "min") | {"r2": "max"}


def regression(
    dataset: Any, head: str, *, column: str = "label", centre: float = 0.0
) -> Evaluation:
    """Metrics of a head that predicts numbers.

    `mse` (also called `loss`) and `mae`, means over the known labels of all examples and outputs;
    `rmse`, the root of `mse`; `r2`, the mean over outputs of 1 - squared error / variance, NaN if
    the labels of an output do not vary.

    Args:
        dataset: a `jaxtl.data.Dataset`.
        head: the head that predicts, of size `size`.
        column: the label column: [n] floats for a head of size 1, otherwise [n, size].
        centre: where the sums that `r2` needs are taken. They are float32, so 1 - r2 has a
            relative error of about 1e-7 * (1 + (mean - centre)^2 / variance) of the labels: give
            their rough mean when it is a hundred standard deviations away from 0.
    """

    def sums(outputs: jax.Array, labels: jax.Array, weights: jax.Array) -> dict[str, jax.Array]:
        weights = per_output(weights, outputs)
        labelled = weights > 0
        outputs = jnp.where(labelled, outputs, 0).astype(jnp.float32)
        labels = jnp.where(labelled, labels.reshape(outputs.shape).astype(jnp.float32), 0)
        errors, centred = outputs - labels, jnp.where(labelled, labels - centre, 0)
        columns = {
            "squared_error": errors**2,
            "absolute_error": jnp.abs(errors),
            "label": centred,
            "label_squared": centred**2,
            "count": jnp.ones_like(outputs),
        }
        return {name: weighted_sum(weights, values) for name, values in columns.items()}

    return Evaluation(dataset, head, column, sums, _results, DIRECTIONS)


def _results(sums: dict[str, np.ndarray]) -> dict[str, float]:
    sums = {name: np.asarray(values, np.float64) for name, values in sums.items()}
    count = sums["count"]
    with np.errstate(invalid="ignore", divide="ignore"):
        mse, mae = (sums[f"{kind}_error"].sum() / count.sum() for kind in ("squared", "absolute"))
        spread = sums["label_squared"] - sums["label"] ** 2 / count
        # Rounding leaves a constant label a spread of about 1e-7 of its square.
        varies = spread > 1e-6 * sums["label_squared"]
        r2 = np.where(varies, 1 - sums["squared_error"] / spread, np.nan).mean()
    means = {"loss": mse, "mse": mse, "rmse": np.sqrt(mse), "mae": mae, "r2": r2}
    return {name: float(each) for name, each in means.items()}
