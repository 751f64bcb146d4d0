"""The nouns: what a batch, a model, a method, a domain, a stage and an experiment are.

All of them are values. An experiment compares arms; an arm is a chain of stages; a stage trains
one model with one method on some domains. Nothing here computes anything.
"""

from jaxtl.plan.batch import Batch, Role, make_batch
from jaxtl.plan.experiment import (
    Columns,
    Criterion,
    Domain,
    Evaluation,
    Experiment,
    Stage,
    labelled,
    unlabelled,
)
from jaxtl.plan.method import Head, Method, Module, StageShape
from jaxtl.plan.metric import CRITERIA, Direction, Metric, key_parts, maximize, minimize
from jaxtl.plan.reading import Data, Model, Wanted, Weights
from jaxtl.plan.update import (
    Aggregate,
    Combine,
    LossFn,
    Params,
    PyTree,
    State,
    Statistics,
    Update,
    Weigh,
    stateless,
)

__all__ = [
    "CRITERIA",
    "Aggregate",
    "Batch",
    "Columns",
    "Combine",
    "Criterion",
    "Data",
    "Direction",
    "Domain",
    "Evaluation",
    "Experiment",
    "Head",
    "LossFn",
    "Method",
    "Metric",
    "Model",
    "Module",
    "Params",
    "PyTree",
    "Role",
    "Stage",
    "StageShape",
    "State",
    "Statistics",
    "Update",
    "Wanted",
    "Weigh",
    "Weights",
    "key_parts",
    "labelled",
    "make_batch",
    "maximize",
    "minimize",
    "stateless",
    "unlabelled",
]
