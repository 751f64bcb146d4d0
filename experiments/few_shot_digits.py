"""Digits 0 to 4 teach to tell 5 to 9 apart from one example each: does meta-learning help?

    python launch.py --experiment=few_shot_digits --seeds=3

Each digit in four positions is four classes, 20 to train on and 20 new ones; five of these an
episode. `prototypes` is the plain source, a classifier of the 20, whose features are compared.

Result: new_digits/accuracy, 5-way 1-shot: prototypes 0.700, simple_shot 0.701, baseline 0.667,
baseline_plus_plus 0.720, prototypical 0.718, matching 0.602, ridge 0.653, maml 0.612, anil 0.517.
None trained in episodes is shown to beat the plain source, three are worse; 3 seeds, 158 s.
"""

import dataclasses

import optax

from jaxtl import data, models
from jaxtl.methods import fewshot, transfer
from jaxtl.metrics import few_shot
from jaxtl.plan import Experiment, Stage, episodes, labelled, maximize


@dataclasses.dataclass(frozen=True)
class Config:
    ways: int = 5
    shots: int = 1
    tasks: int = 8  # episodes a step
    steps: int = 400
    learning_rate: float = 1e-3
    inner_rate: float = 0.1


def build(config: Config) -> Experiment:
    digits = data.digits().train
    training = digits.classes(range(5)).quarter_turns()
    test = digits.classes(range(5, 10)).quarter_turns()
    heads = {"character": models.classes(20), "way": models.classes(config.ways)}
    model = models.conv_net(heads)
    adam, inner = optax.adam(config.learning_rate), optax.sgd(config.inner_rate)
    form = {"ways": config.ways, "shots": config.shots}
    drawn = episodes(training, "way", queries=5, **form)

    def stage(name, method, domain=drawn, size=config.tasks, steps=config.steps):
        return Stage(name, model, method, domains=[domain], batch_size=size, num_steps=steps)

    source = stage("source", transfer.full(adam), labelled(training, "character"), size=64)

    def on_source(name, learner):
        return [source, stage(name, fewshot.untrained(learner), steps=0)]

    def meta(name, learner):
        return [stage(name, fewshot.episodic(learner, adam))]

    arms = {
        "prototypes": on_source("prototypes", fewshot.prototypical()),
        "simple_shot": on_source("simple_shot", fewshot.simple_shot()),
        "baseline": on_source("baseline", fewshot.baseline(optax.sgd(0.1))),
        "baseline_plus_plus": on_source("bpp", fewshot.baseline_plus_plus(optax.sgd(0.1))),
        "prototypical": meta("prototypical", fewshot.prototypical()),
        "matching": meta("matching", fewshot.matching(scale=10.0)),
        "ridge": meta("ridge", fewshot.ridge_head()),
        "maml": meta("maml", fewshot.maml(inner, num_steps=3)),
        "anil": meta("anil", fewshot.anil(inner, num_steps=3)),
    }
    return Experiment(
        arms=arms,
        baseline="prototypes",
        evals={"new_digits": few_shot(test, "way", queries=5, **form)},
        primary=maximize("new_digits", "accuracy"),
    )
