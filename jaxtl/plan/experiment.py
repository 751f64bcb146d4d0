"""What an experiment is: arms of stages, what they train on and what is measured."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np

from jaxtl.form import FILE_NAME, INT32, PRINTABLE, Name, Patterns, Size, checked
from jaxtl.plan.analysis import Analysis
from jaxtl.plan.batch import Side
from jaxtl.plan.episode import Episodes, Learner
from jaxtl.plan.method import Method
from jaxtl.plan.metric import Metric
from jaxtl.plan.reading import Data, Model, Weights
from jaxtl.plan.tempered import Tempered
from jaxtl.plan.update import PyTree


class Columns(NamedTuple):
    """The examples of one domain that a seed trains on.

    Attributes:
        inputs: pytree of [n, ...] NumPy arrays, or of `Streamed` rows where those would not fit in
            memory; images are uint8 until they reach the model.
        labels: {head: [n, ...]}; -1 or NaN where missing or hidden.
        weights: {head: [n, ...] float32}, label by label; 0 where it must not be used.
        present: [n] float32, the weights of the examples themselves, labels apart.
        role: of the domain in its stage.
    """

    inputs: PyTree
    labels: Mapping[str, np.ndarray]
    weights: Mapping[str, np.ndarray]
    present: np.ndarray
    role: Side = "source"


@dataclasses.dataclass(frozen=True)
@checked
class Domain:
    """A dataset playing a role in a stage.

    Attributes:
        dataset: a `jaxtl.data.Dataset`.
        heads: {head: label column of the dataset}; none where nothing is predicted.
        labelled: False hides every label: weight 0, label -1 (NaN for float labels).
        weight: lambda_d, the factor of this domain's terms in the objective.
        example_weights: {label column: array [n]} -> [n] float >= 0, the lambda_{d,i}, drawn from
            the labels of the seed's own examples (class weights, ...); None for all ones.
        augment: (rng, inputs [n, ...] float) -> inputs, applied on the device while training.
        role: "source" or "target".
        episodes: the form of the episodes that are drawn from it, in place of examples; the stage
            then has no other domain, and its batch size counts episodes.
        draw: in which proportions groups of its rows are drawn; None draws all rows alike, each
            once before any comes again.
    """

    dataset: Data
    heads: Mapping[str, str]
    labelled: bool = True
    weight: float = 1.0
    example_weights: Callable[[Mapping[str, np.ndarray]], np.ndarray] | None = None
    augment: Callable[[jax.Array, PyTree], PyTree] | None = None
    role: Side = "source"
    episodes: Episodes | None = None
    draw: Tempered | None = None


def labelled(
    dataset: Any,
    head: str | Sequence[str] | Mapping[str, str],
    *,
    weight: float = 1.0,
    example_weights: Callable | None = None,
    augment: Callable | None = None,
    role: Side = "source",
    draw: Tempered | None = None,
) -> Domain:
    """A domain whose labels train `head`, in the label column "label".

    Several heads are {head: label column}, or a list of heads that are called as their columns. A
    target with a few labels has the role "target".
    """
    columns = _columns(head)
    return Domain(dataset, columns, True, weight, example_weights, augment, role, draw=draw)


def unlabelled(
    dataset: Any,
    head: str | Sequence[str] | Mapping[str, str] = (),
    *,
    augment: Callable | None = None,
) -> Domain:
    """A target whose labels no method can see; `head` says where its predictions are read.

    Without a head nothing is predicted: examples to pretrain on. The model's heads then wait, as
    they were initialised, for a stage that names them.
    """
    return Domain(dataset, _columns(head), labelled=False, augment=augment, role="target")


def episodes(
    dataset: Any,
    head: str | Mapping[str, str],
    *,
    ways: int | tuple[int, int],
    shots: int | tuple[int, int],
    queries: int,
    groups: str = "label",
    augment: Callable | None = None,
) -> Domain:
    """A domain that is drawn in episodes, small tasks with a support and queries.

    Args:
        head: has at least as many classes as an episode, which are then its first ones; or one of
            values, as {head: label column}.
        ways, shots, queries, groups: as in `Episodes`. Regression has groups of examples of one
            function each, and `ways=1`.
    """
    heads = {head: groups} if isinstance(head, str) else head
    form = Episodes(ways, shots, queries, groups)
    return Domain(dataset, heads, augment=augment, episodes=form)


def _columns(head: str | Sequence[str] | Mapping[str, str]) -> Mapping[str, str]:
    if isinstance(head, str):
        return {head: "label"}
    return {name: name for name in head} if isinstance(head, list | tuple) else head


@dataclasses.dataclass(frozen=True)
@checked
class Stage:
    """One model trained by one method on some domains for some steps.

    Attributes:
        name: also the folder of its checkpoints; arms that share a stage share its name.
        model, method, domains: what trains, how, on what.
        batch_size: examples per domain and step, or episodes per step.
        num_steps: training steps; 0 if `method.prepare` does all.
        fresh: path patterns of the parameters (with their batch statistics) that are initialised
            instead of loaded from the stage before, or from `weights`. All of them in an arm's
            first stage without `weights`.
        weights: published weights that an arm's first stage starts from.
        trains: the evaluations whose task this stage teaches, for what is said of forgetting. One
            that alone reads its head belongs to an arm's last stage with labels for that head.
        data: {name: Domain}, what the method's `prepare` reads besides the domains, by name.
    """

    name: Annotated[str, FILE_NAME]
    model: Model
    method: Method
    _: dataclasses.KW_ONLY
    domains: Sequence[Domain]
    batch_size: Annotated[int, INT32]
    num_steps: Annotated[int, INT32]
    fresh: Patterns = ()
    weights: Weights | None = None
    trains: Sequence[str] = ()
    data: Mapping[Name, Domain] = dataclasses.field(default_factory=dict)

    @property
    def episodes(self) -> Episodes | None:
        """The form of what it draws in place of examples, if it does."""
        return next((domain.episodes for domain in self.domains if domain.episodes), None)


@dataclasses.dataclass(frozen=True)
@checked
class Evaluation:
    """A dataset that is only looked at, with what is measured on it.

    Attributes:
        dataset: a `jaxtl.data.Dataset`.
        head: the head that predicts.
        column: the label column of the dataset.
        sums: (outputs [n, size], labels [n, ...], weights [n, ...]) -> pytree of sums over the
            examples; pure and jitted. Padding and missing labels have weight 0.
        results: the summed pytree (NumPy) -> {metric: float}; NaN where undefined.
        directions: {metric: "max" or "min"}, which way each is better; of one that is not there and
            not the primary one no gain and no forgetting is said.
        episodes: the form of the episodes that are drawn from the dataset, the same for every arm
            of a seed; `sums` then reads the queries of one at a time. None for plain examples.
        tasks: how many of them.
        learner: answers the queries, for every arm; None for the one of the arm's last method.
    """

    dataset: Data
    head: str
    column: str
    sums: Callable[[jax.Array, jax.Array, jax.Array], PyTree]
    results: Callable[[PyTree], dict[str, float]]
    directions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    episodes: Episodes | None = None
    tasks: Size = 600
    learner: Learner | None = None


@dataclasses.dataclass(frozen=True)
@checked
class Criterion:
    """A score of a model, better when larger, that needs no labels of the target.

    Attributes:
        domains: what it looks at; labels of the unlabelled ones are hidden.
        score: (predict, *examples) -> [] float; pure and jitted. `predict` maps inputs [n, ...] to
            the model's output; there are as many `examples` as domains, each a dict of `inputs`
            (floats), the model's `features` and `logits` {head: [n, size]} for them, and `labels`
            {head: [n, ...]}, -1 or NaN where missing or hidden.
    """

    domains: Sequence[Domain]
    score: Callable[..., jax.Array]


@dataclasses.dataclass(frozen=True)
@checked
class Experiment:
    """Ways to reach a target task, compared.

    Attributes:
        arms: {name: stages in order}.
        baseline: the arm that gains are measured against.
        evals: {name: Evaluation}; the key of a metric is `<evaluation>/<metric>`.
        primary: the metric of the verdict, such as `maximize("target", "accuracy")`.
        derived: {key: {key of a metric: value} of one seed -> value}, such as a worst case over
            several evaluations; a `metrics.Derived`, or a plain function for the primary metric.
        select: a metric of an evaluation on validation data, or a criterion as in
            `maximize("snd")`. The last stage of an arm then ends with the parameters, per seed,
            that were best by it, and a sweep picks its point by it; None for those of the last
            step.
        select_every: steps between validations, of `select` and `criteria`.
        criteria: {name: Criterion}, measured while the last stage of an arm trains. The report says
            what the primary metric would be at the step that each of them picks. Measured, too,
            while a stage trains whose domains name no head.
        analyses: what is said of every arm besides its metrics, in the order of the report; None
            for `jaxtl.measure.analyses.default()`.
        held_out: the field of the config that names the domain which no stage trains on, "a", or
            two, "a+b". The evaluations of the domains have their names. Over the points of a sweep
            of it the report shows the mean, seed by seed, and by which rule other swept fields
            were picked.
    """

    arms: Mapping[Annotated[str, PRINTABLE], Sequence[Stage]]
    baseline: str
    evals: Mapping[Name, Evaluation]
    _: dataclasses.KW_ONLY
    primary: Metric
    derived: Mapping[Annotated[str, PRINTABLE], Callable[[Mapping[str, float]], float]] = (
        dataclasses.field(default_factory=dict)
    )
    select: Metric | None = None
    select_every: int = 100
    criteria: Mapping[Name, Criterion] = dataclasses.field(default_factory=dict)
    analyses: Sequence[Analysis] | None = None
    held_out: str = ""
