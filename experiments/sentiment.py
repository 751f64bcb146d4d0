"""Reviews of books to reviews of kitchen things with 50 labels: what is the source worth?

    pip install 'jaxtl[pretrained]'
    python launch.py --prepare=multi_domain_sentiment
    python launch.py --experiment=sentiment --seeds=3

MiniLM is downloaded once, from the Hugging Face hub.

Result: kitchen/accuracy: no_source 0.740 [0.662, 0.818], books 0.777, probe 0.799 [0.768, 0.830],
full 0.800, lora 0.775, ia3 0.806 [0.786, 0.826], prompt 0.799; 3 seeds, 32 min on 2 busy cores.
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
    source_steps: int = 100
    target_steps: int = 40
    learning_rate: float = 3e-5


def build(config: Config) -> Experiment:
    reviews = data.tfds("multi_domain_sentiment", inputs="text")
    reviews = reviews.tokenize(pretrained.LazyFile(pretrained.MINILM_L6_TOKENIZER), length=64)
    books, books_test = reviews.books.split(0.8)
    kitchen, kitchen_test = reviews.kitchen.split(0.6)
    few = [labelled(kitchen.few(25), "sentiment")]
    model = models.bert("minilm-l6", {"sentiment": models.classes(2)}, "mean", dropout=0.0)
    weights = pretrained.weights(pretrained.MINILM_L6, pretrained.BERT)
    minilm = {"fresh": ("heads/.*",), "weights": weights}
    slow, fast = optax.adam(config.learning_rate), optax.adam(3e-3)
    full = transfer.grouped({"heads": (("heads/.*",), fast), "rest": ((".*",), slow)})

    def stage(name, method, model=model, domains=few, steps=config.target_steps, **start):
        return Stage(name, model, method, domains=domains, batch_size=16, num_steps=steps, **start)

    on_books = [labelled(books, "sentiment")]
    source = stage("books", full, domains=on_books, steps=config.source_steps, **minilm)

    def with_adapter(name, model):
        method = transfer.grouped({"all": ((f"({name}|heads)/.*",), fast)})
        return [source, stage(name, method, model, fresh=(f"{name}/.*",))]

    arms = {
        "no_source": [stage("no_source", full, **minilm)],
        "books": [source],
        "probe": [source, stage("probe", transfer.probe(fast))],
        "full": [source, stage("full", full)],
        "lora": with_adapter("lora", adapters.lora(model, [r".*/(query|value)/kernel"])),
        "ia3": with_adapter("ia3", adapters.ia3(model)),
        "prompt": with_adapter("prompt", adapters.prompt(model, 8)),
    }
    evals = {
        "kitchen": classification(kitchen_test, "sentiment"),
        "books": classification(books_test, "sentiment"),
    }
    return Experiment(
        arms=arms, baseline="no_source", evals=evals, primary=maximize("kitchen", "accuracy")
    )
