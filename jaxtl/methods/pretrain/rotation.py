"""RotNet: which way up is the image?"""

import jax
import jax.numpy as jnp
import optax

from jaxtl.methods.pretrain.views import encode, on_features, unlabelled_rows
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import mlp_head
from jaxtl.plan import Method, PyTree

TURNS = "turns"


def rotation(tx: optax.GradientTransformation | Groups) -> Method:
    """Cross-entropy of telling by how many quarters an image was turned; each is shown in all four.

    The classifier, linear on the features, is a network of the method, `turns`.

    Gidaris, Singh & Komodakis, "Unsupervised Representation Learning by Predicting Image
    Rotations", ICLR 2018. arXiv:1803.07728.
    """
    classifier = on_features(mlp_head((), 4))

    def loss_fn(model, params, state, batch, rng, step):
        images = quarter_turns(unlabelled_rows(batch))
        features, state = encode(model, params, state, images, rng)
        logits = classifier.apply(params[TURNS], features)
        labels = jnp.arange(4).repeat(len(logits) // 4)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return loss, (state, {"rotation_accuracy": jnp.mean(logits.argmax(-1) == labels)})

    return one_update(
        as_groups(tx),
        loss_fn,
        per_example=True,
        modules={TURNS: classifier},
        unweighted=True,
    )


def quarter_turns(images: PyTree) -> jax.Array:
    """[4 n, size, size, channels]: all images upright, then all turned by one quarter, ...

    Raises:
        ValueError: they are no square images.
    """
    shapes = [leaf.shape[1:] for leaf in jax.tree.leaves(images)]
    if len(shapes) != 1 or len(shapes[0]) != 3 or shapes[0][0] != shapes[0][1]:
        raise ValueError(
            "rotation turns square images [height, width, channels], got "
            f"{', '.join(str(list(shape)) for shape in shapes)}; use resize, crop or pad"
        )
    (images,) = jax.tree.leaves(images)
    return jnp.concatenate([jnp.rot90(images, turns, (1, 2)) for turns in range(4)])
