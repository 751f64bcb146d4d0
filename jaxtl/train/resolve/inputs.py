"""What a stage's model reads, and that its domains agree on it."""

import jax
import jax.numpy as jnp

from jaxtl.models import to_float
from jaxtl.plan import Domain, PyTree, Stage
from jaxtl.train.resolve.contract import with_place


def example_inputs(stage: Stage) -> PyTree:
    """Abstract inputs [1, ...] of the stage's model.

    Raises:
        ValueError: the domains' examples differ in shape or type, or are texts.
    """
    domains = [*stage.domains, *stage.data.values()]
    shapes = [_model_inputs(domain) for domain in domains]
    for domain, shape in zip(domains, shapes, strict=True):
        if shape != shapes[0]:
            raise ValueError(
                f"its domains' inputs differ: {domains[0].dataset.name} has "
                f"{_describe(shapes[0])}, {domain.dataset.name} has {_describe(shape)}; "
                "use resize, pad, rgb or grayscale on one of the datasets"
            )
    return shapes[0]


def _model_inputs(domain: Domain) -> PyTree:
    """Abstract inputs [1, ...], after the domain's augmentation.

    Raises:
        ValueError: they are texts, or the augmentation leaves out examples, or makes whole numbers
            of others.
    """
    inputs = jax.tree.map(lambda leaf: leaf[:1], domain.dataset.table().inputs)
    if any(leaf.dtype.kind in "OUS" for leaf in jax.tree.leaves(inputs)):
        raise ValueError(
            f"{domain.dataset.name} holds text; turn it into token ids with `Dataset.tokenize`"
        )
    inputs = jax.eval_shape(to_float, inputs)
    if domain.augment is None:
        return inputs
    given = _rows(3, inputs)
    made = jax.eval_shape(domain.augment, jax.random.key(0), given)
    floats = all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(given))
    for leaf in jax.tree.leaves(made) or [jax.ShapeDtypeStruct((), bool)]:
        if leaf.shape[:1] != (3,) or (floats and not jnp.issubdtype(leaf.dtype, jnp.floating)):
            raise ValueError(
                f"dataset {domain.dataset.name}: {with_place('augment', domain.augment)} must "
                "return as many examples as it is given, as floats where they were; of "
                f"{_describe(given, 0)} it makes {_describe(made, 0)}"
            )
    return _rows(1, made)


def _rows(count: int, inputs: PyTree) -> PyTree:
    """So many abstract examples like these."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((count, *x.shape[1:]), x.dtype), inputs)


def _describe(inputs: PyTree, skipped: int = 1) -> str:
    leaves = (f"{x.dtype}{list(x.shape[skipped:])}" for x in jax.tree.leaves(inputs))
    return ", ".join(leaves) or "nothing"
