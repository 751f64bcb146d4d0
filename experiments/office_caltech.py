"""Ten classes of four cameras, SURF features: which alignment carries a source to a target?

    python launch.py --prepare=office_caltech10_surf
    python launch.py --experiment=office_caltech --seeds=1

The published protocol: all examples, those of the target without labels, and tested on them.
`meda`, `tca`, ... have their papers' defaults; nothing is drawn at random.

Result: target/accuracy, mean over the 12 pairs: nearest 0.314, svm 0.478, pca 0.436, subspaces
0.454, gfk 0.447, coral 0.451, tca 0.465, jda 0.468, jgsa 0.471, meda 0.524, kmm 0.466, ot 0.382;
gain over nearest, paired by pair: meda +0.210 [0.164, 0.256]; 19 min on 2 busy cores.
"""

import dataclasses

from jaxtl import data, models
from jaxtl.methods import adapt
from jaxtl.metrics import classification
from jaxtl.plan import Experiment, Stage, labelled, maximize, unlabelled

DOMAINS = ("caltech10", "amazon", "webcam", "dslr")
SWEEP = {"pair": tuple(f"{s}_{t}" for s in DOMAINS for t in DOMAINS if s != t)}


@dataclasses.dataclass(frozen=True)
class Config:
    pair: str = "caltech10_amazon"


def frequencies(table: data.Table) -> data.Table:
    """Histograms of visual words, each of sum 1."""
    return dataclasses.replace(table, inputs=table.inputs / table.inputs.sum(1, keepdims=True))


def build(config: Config) -> Experiment:
    surf = data.tfds("office_caltech10_surf", inputs="features").map(frequencies)
    source, target = (surf[name].standardize() for name in config.pair.split("_"))
    model = models.linear({"class": models.classes(10)})
    domains = [labelled(source, "class"), unlabelled(target, "class")]
    closed_forms = {
        "nearest": adapt.unaligned(),
        "svm": adapt.unaligned(adapt.linear_svm()),
        "pca": adapt.joint_pca(),
        "subspaces": adapt.subspace_alignment(),
        "gfk": adapt.gfk(),
        "coral": adapt.coral_map(adapt.linear_svm()),
        "tca": adapt.tca(),
        "jda": adapt.jda(),
        "jgsa": adapt.jgsa(),
        "meda": adapt.meda(),
        "kmm": adapt.kmm(),
        "ot": adapt.ot_map(),
    }
    arms = {
        name: [Stage(name, model, method, domains=domains, batch_size=64, num_steps=0)]
        for name, method in closed_forms.items()
    }
    return Experiment(
        arms=arms,
        baseline="nearest",
        evals={"target": classification(target, "class")},
        primary=maximize("target", "accuracy"),
    )
