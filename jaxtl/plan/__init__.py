"""The nouns: what a batch, a model, a method, a domain, a stage, an experiment, a panel are.

All of them are values. An experiment compares arms; an arm is a chain of stages; a stage trains
one model with one method on some domains. Nothing here computes anything.
"""

from jaxtl.plan.analysis import Analysis
from jaxtl.plan.batch import Batch, Role, Side, make_batch
from jaxtl.plan.episode import Episodes, Examples, Learner
from jaxtl.plan.experiment import (
    Columns,
    Criterion,
    Domain,
    Evaluation,
    Experiment,
    Stage,
    episodes,
    labelled,
    unlabelled,
)
from jaxtl.plan.method import Head, Method
from jaxtl.plan.metric import CRITERIA, Direction, Metric, key_parts, maximize, minimize
from jaxtl.plan.module import Module, StageShape
from jaxtl.plan.panel import (
    Cloud,
    Curve,
    Grid,
    Images,
    Line,
    Matrix,
    Panel,
    Scatter,
    Table,
    Texts,
)
from jaxtl.plan.reading import Data, Model, Wanted, Weights
from jaxtl.plan.tempered import Tempered
from jaxtl.plan.update import (
    Aggregate,
    Combine,
    LossFn,
    Metrics,
    Params,
    PyTree,
    State,
    Statistics,
    Update,
    Weigh,
    stateless,
)
