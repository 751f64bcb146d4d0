"""Digits without a label, then two labels a class of turned ones: what does each pretext give?

    python launch.py --experiment=self_supervised

All learn from the same source images; `supervised` sees their labels too, `random` learns nothing.

Result: target/accuracy of a probe | all fine-tuned: scratch 0.774 [0.734, 0.815], random 0.553 | -,
supervised 0.919 | 0.821, simclr 0.848 [0.831, 0.865] | 0.807, vicreg 0.818 | 0.789, autoencoder
0.747 | 0.782, rotation 0.495 | 0.757: two views help a probe, no pretext helps where all is tuned,
source labels help more; telling rotations hurts; 5 seeds, 268 CPU seconds.

With --config.source=mnist --config.target=usps --config.source_steps=600, two undecided seeds:
scratch 0.727, random 0.585, supervised 0.889 | 0.815, simclr 0.797 | 0.766, vicreg 0.808.
"""

import dataclasses

import optax

from jaxtl import data, models
from jaxtl.methods import pretrain, transfer
from jaxtl.metrics import classification
from jaxtl.plan import Experiment, Stage, labelled, maximize, unlabelled
from jaxtl.transferability import feature_rank, linear_probe, nearest_neighbours


@dataclasses.dataclass(frozen=True)
class Config:
    source: str = "digits"  # embedded; or a TFDS dataset, such as mnist or fashion_mnist
    target: str = "turned"  # the same by 20 degrees; or likewise, such as usps or notmnist_part
    labels_per_class: int = 2
    batch_size: int = 64
    source_steps: int = 400
    target_steps: int = 200
    learning_rate: float = 1e-3


def read(name: str) -> data.Splits:
    if name == "turned":
        return data.rotated(data.digits(), 20.0)
    return data.digits() if name == "digits" else data.tfds(name, holdout=0.2).resize((16, 16))


def build(config: Config) -> Experiment:
    source, target = read(config.source), read(config.target)
    images, validation = source.train.split(0.5)[0].split(0.9)
    few = target.train.split(0.5)[1].few(config.labels_per_class)  # of no image of the source
    model = models.conv_net({"s": models.classes(10), "t": models.classes(10)}, batch_norm=True)
    adam, probing = optax.adam(config.learning_rate), transfer.logistic()
    affine = data.random_affine(scale=(0.8, 1.2), degrees=15, shear=0.2, translate=0.1)
    views = data.chain(affine, data.gaussian_noise(0.1))

    def stage(name, method, domain, steps=config.source_steps, fresh=()):
        size, domains = config.batch_size, [domain]
        return Stage(
            name, model, method, domains=domains, batch_size=size, num_steps=steps, fresh=fresh
        )

    def full(name):
        domain, steps = labelled(few, "t"), config.target_steps
        return stage(name, transfer.full(adam), domain, steps=steps, fresh=("heads/.*",))

    def probe(name, method=probing):
        return stage(name, method, labelled(few, "t"), steps=0, fresh=("heads/.*",))

    on_labels = stage("supervised", transfer.full(adam), labelled(images, "s", augment=views))
    pretexts = {
        "autoencoder": pretrain.autoencoder(adam, corrupt=data.gaussian_noise(0.2)),
        "rotation": pretrain.rotation(adam),
        "simclr": pretrain.simclr(adam, augment=views),
        "vicreg": pretrain.vicreg(adam, augment=views),
    }
    blind = {name: stage(name, method, unlabelled(images)) for name, method in pretexts.items()}
    random = dataclasses.replace(probing, fresh_frozen=True)  # of features that nothing trained
    arms = {"scratch": [full("scratch")], "random_probe": [probe("random_probe", random)]}
    for name, first in {"supervised": on_labels, **blind}.items():
        arms[f"{name}_full"] = [first, full(f"{name}_full")]
        arms[f"{name}_probe"] = [first, probe(f"{name}_probe")]
    asked = {"target": classification(target.test, "t"), "source": classification(source.test, "s")}
    return Experiment(
        arms=arms,
        baseline="scratch",
        evals=asked,
        primary=maximize("target", "accuracy"),
        criteria={
            "linear": linear_probe(validation, "s"),
            "neighbours": nearest_neighbours(validation, "s"),
            "rank": feature_rank(validation),
        },
    )
