"""Kitchen reviews with 200 labels, MiniLM frozen: which adapter buys most with fewest parameters?

    pip install 'jaxtl[pretrained]'
    python launch.py --prepare=multi_domain_sentiment
    python launch.py --experiment=adapters --seeds=3

MiniLM is downloaded once, from the Hugging Face hub.

Result: kitchen/accuracy: probe 0.683 [0.632, 0.735], full 0.732 (1,347 MB a step), bitfit 0.677,
norms 0.716, lora 0.717 (504 MB), dora 0.704, pissa 0.723, adalora 0.683, vera 0.689, ia3 0.718,
houlsby 0.677, parallel 0.535, prompt 0.709, prefix 0.721; one rate for all, 3 seeds, 28 min busy.
"""

import dataclasses

import optax

from jaxtl import data, models, pretrained
from jaxtl.methods import transfer
from jaxtl.metrics import classification
from jaxtl.models import adapters
from jaxtl.plan import Experiment, Stage, labelled, maximize


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 40


def build(config: Config) -> Experiment:
    reviews = data.tfds("multi_domain_sentiment", "kitchen", inputs="text")
    tokenizer = pretrained.LazyFile(pretrained.MINILM_L6_TOKENIZER)
    pool, test = reviews.tokenize(tokenizer, length=32).split(0.7)
    few = [labelled(pool.few(100), "sentiment")]
    model = models.bert("minilm-l6", {"sentiment": models.classes(2)}, "mean", dropout=0.0)
    weights = pretrained.weights(pretrained.MINILM_L6, pretrained.BERT)
    adam, targets = optax.adam(3e-3), [r".*/(query|value)/kernel"]

    def tune(name, method, model=model, fresh=("heads/.*",)):
        return [
            Stage(
                name,
                model,
                method,
                domains=few,
                batch_size=16,
                num_steps=config.steps,
                fresh=fresh,
                weights=weights,
            )
        ]

    def attach(name, model, method=None):
        method = method or transfer.grouped({"all": ((f"{name}/.*", "heads/.*"), adam)})
        return tune(name, method, model, fresh=("heads/.*", f"{name}/.*"))

    adalora = transfer.adalora(adam, config.steps, cool_down=config.steps // 3)
    full = {"heads": (("heads/.*",), adam), "rest": ((".*",), optax.adam(3e-5))}
    others = [adapters.ia3, adapters.houlsby, adapters.parallel, adapters.prompt, adapters.prefix]
    arms = {
        "probe": tune("probe", transfer.probe(adam)),
        "full": tune("full", transfer.grouped(full)),
        "bitfit": tune("bitfit", transfer.bitfit(adam)),
        "norms": tune("norms", transfer.norm_tuning(adam)),
        "lora": attach("lora", adapters.lora(model, targets)),
        "dora": attach("dora", adapters.dora(model, targets)),
        "pissa": attach("pissa", adapters.pissa(model, targets)),
        "adalora": attach("adalora", adapters.adalora(model, targets), adalora),
        "vera": attach("vera", adapters.vera(model, targets)),
        **{other.__name__: attach(other.__name__, other(model)) for other in others},
    }
    evals = {"kitchen": classification(test, "sentiment")}
    return Experiment(
        arms=arms, baseline="probe", evals=evals, primary=maximize("kitchen", "accuracy")
    )
