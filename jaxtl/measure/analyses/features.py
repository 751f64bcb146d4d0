"""A look at the features: all domains of an arm in the plane of two principal components."""

from collections.abc import Mapping

import numpy as np

from jaxtl.measure.analyses.domain_gap import source_evaluations
from jaxtl.measure.frozen import outputs_at_end
from jaxtl.measure.results import Comparison, TrainedArm
from jaxtl.plan import Analysis, Cloud, Panel, PyTree, Scatter

EXAMPLES = 400


def feature_map() -> Analysis:
    """The features of the first seed by class and, where domains are adapted, by domain."""
    return Analysis("features", measure, panels)


def measure(arm: TrainedArm) -> PyTree:
    """{"points", "classes" {evaluation: [n, 2], names [n]}, "variance": [2], "adapted": bool}.

    Of the examples whose features are finite; a label that is hidden has no name.
    """
    points, classes = {}, {}
    for name, features in first_features(arm).items():
        evaluation = arm.experiment.evals[name]
        dataset, column = evaluation.dataset, evaluation.column
        labels = dataset.table().labels[column][dataset.rows(0)[:EXAMPLES]]
        finite = np.isfinite(features).reshape(len(features), -1).all(axis=1)
        if finite.any():
            points[name] = features[finite]
            classes[name] = class_labels(labels[finite], dataset.class_names(column))
    if not points:
        return None
    plane, variance = principal_plane(np.concatenate(list(points.values())))
    ends = np.cumsum([len(features) for features in points.values()])
    points = dict(zip(points, np.split(plane, ends[:-1]), strict=True))
    adapted = np.array(bool(source_evaluations(arm.experiment)))
    return {"points": points, "classes": classes, "variance": variance, "adapted": adapted}


def first_features(arm: TrainedArm) -> dict[str, np.ndarray]:
    """{evaluation: features [n, ...]} of the first seed and the first examples, classes only."""
    model, features = arm.stages[-1].model, {}
    for name, evaluation in arm.experiment.evals.items():
        head = model.heads.get(evaluation.head)
        if head is None or not head.integer or head.label_shape or evaluation.episodes:
            continue
        rows = evaluation.dataset.rows(0)[:EXAMPLES]
        inputs = evaluation.dataset.table().inputs
        features[name] = outputs_at_end(arm, 0, inputs, rows, "features")
    return features


def class_labels(labels: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
    """[n], the name of each label's class: its number where it has none, empty where hidden."""
    names = dict(enumerate(classes))
    return np.array(["" if y < 0 else names.get(y, str(y)) for y in labels.tolist()], np.str_)


def principal_plane(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two largest principal components, in float64.

    Args:
        features: [n, ...] finite, flattened to [n, features].

    Returns:
        coordinates [n, 2], each axis pointing to where its largest loading is positive, and the
        fraction [2] of the variance along each; 0 where the data have fewer dimensions.
    """
    centred = np.asarray(features, np.float64).reshape(len(features), -1)
    centred = centred - centred.mean(axis=0)
    left, scale, axes = np.linalg.svd(centred, full_matrices=False)
    loadings = axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)]
    coordinates = (left * scale * np.sign(loadings))[:, :2]
    fraction = scale[:2] ** 2 / max(np.sum(scale**2), np.finfo(np.float64).tiny)
    missing = (0, 2 - len(fraction))
    return np.pad(coordinates, [(0, 0), missing]), np.pad(fraction, missing)


def panels(arms: Mapping[str, PyTree], comparison: Comparison) -> dict[str, Panel]:
    by_class, by_domain, axes = {}, {}, {}
    for arm, measured in arms.items():
        points, (first, second) = measured["points"], measured["variance"]
        by_class[arm] = [Cloud(name, x, measured["classes"][name]) for name, x in points.items()]
        by_domain[arm] = [Cloud(name, x) for name, x in points.items()]
        axes[arm] = (f"component 1 ({first:.0%} of variance)", f"component 2 ({second:.0%})")
    note = "Features of the first seed: their two largest principal components, by {}."
    title = "Source and target features"
    maps = {"features": Scatter(title, note.format("class"), by_class, axes, equal=True)}
    if any(measured["adapted"] for measured in arms.values()):
        title = "Domains in the features"
        maps["domains"] = Scatter(title, note.format("domain"), by_domain, axes, equal=True)
    return maps
