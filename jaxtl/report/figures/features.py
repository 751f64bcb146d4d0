"""A look at the features: all domains of an arm in the plane of two principal components."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxtl.measure.results import ArmResult
from jaxtl.report.figures.canvas import ARMS, CLASSES, INK, canvas, legend_labels, saved, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

MARKERS = "o^sDvPX*"
HIDDEN = "#bbbbbb"
MOST_POINTS = 400  # per domain; more are thinned out evenly
MOST_NAMES = 20


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


@saved
def feature_view(arms: Mapping[str, ArmResult]) -> Figure:
    """A panel an arm; colour by class (by value where labels are floats), marker by domain."""
    shown = {name: arm for name, arm in arms.items() if finite_features(arm)}
    domains = list(dict.fromkeys(domain for arm in shown.values() for domain in arm.features))
    classes = _class_colours(shown.values())

    def colour(arm: ArmResult, domain: str, labels: np.ndarray):
        return _colours(arm, domain, labels, classes)

    title = "Features of the first seed: their two largest principal components, by class"
    return _views(shown, domains, colour, _handles(domains, classes), title)


@saved
def domain_view(arms: Mapping[str, ArmResult]) -> Figure:
    """A panel an arm; colour and marker by domain."""
    shown = {name: arm for name, arm in arms.items() if finite_features(arm)}
    domains = list(dict.fromkeys(domain for arm in shown.values() for domain in arm.features))
    palette = {domain: ARMS[i % len(ARMS)] for i, domain in enumerate(domains)}

    def colour(arm: ArmResult, domain: str, labels: np.ndarray):
        return [palette[domain]] * len(labels)

    title = "Features of the first seed: their two largest principal components, by domain"
    return _views(shown, domains, colour, _domain_handles(palette), title)


def _views(
    shown: Mapping[str, ArmResult],
    domains: Sequence[str],
    colour: Callable[..., Any],
    handles: Sequence[Any],
    title: str,
) -> Figure:
    columns = min(3, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure, axes = canvas(rows, columns, 3.1 * columns + 1.4, 3.0 * rows + 0.5, title)
    titles = shortened(shown, 24)
    for index, ax in enumerate(axes.flat):
        if index < len(shown):
            _scatter(ax, list(shown.values())[index], domains, colour)
            ax.set_title(titles[index])
        else:
            ax.axis("off")
    figure.legend(handles=handles, loc="outside right center", fontsize=8)
    return figure


def _scatter(ax: Axes, arm: ArmResult, domains: Sequence[str], colour: Callable[..., Any]) -> None:
    clouds = finite_features(arm)
    places, fraction = principal_plane(np.concatenate([x for x, _ in clouds.values()]))
    start = 0
    for domain, (_, labels) in clouds.items():
        index, here = domains.index(domain), places[start : start + len(labels)]
        colours = colour(arm, domain, labels)
        face = {"facecolors": "none", "edgecolors": colours} if index == 0 else {"color": colours}
        marker = MARKERS[index % len(MARKERS)]
        ax.scatter(*here.T, s=14, marker=marker, linewidths=0.8, alpha=0.75, **face)
        start += len(labels)
    ax.set_xlabel(f"component 1 ({fraction[0]:.0%} of variance)")
    ax.set_ylabel(f"component 2 ({fraction[1]:.0%})")
    ax.tick_params(labelbottom=False, labelleft=False, length=0)
    ax.set_aspect("equal", "datalim")
    ax.grid(False)


def finite_features(arm: ArmResult) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{domain: (features [n, features] float64, labels [n])} of finite examples, thinned out."""
    clouds = {}
    for domain, (features, labels) in arm.features.items():
        features = np.asarray(features, np.float64).reshape(len(features), -1)
        finite = np.flatnonzero(np.isfinite(features).all(axis=1))
        rows = finite[np.linspace(0, len(finite) - 1, min(len(finite), MOST_POINTS)).astype(int)]
        if len(rows):
            clouds[domain] = features[rows], np.asarray(labels)[rows]
    return clouds


def _is_float(labels: np.ndarray) -> bool:
    return np.issubdtype(np.asarray(labels).dtype, np.floating)


def _names(arm: ArmResult, domain: str, labels: np.ndarray) -> list[str | None]:
    """The name of each example's class; None where the label is hidden."""
    names = arm.class_names.get(domain, ())
    return [
        None if label < 0 else names[label] if label < len(names) else str(label)
        for label in np.asarray(labels).tolist()
    ]


def _class_colours(arms: Iterable[ArmResult]) -> dict[str | None, Any]:
    """{class: colour}; classes of one name share it across domains, numbers in their order."""
    import matplotlib

    classes = {
        name
        for arm in arms
        for domain, (_, labels) in arm.features.items()
        if not _is_float(labels)
        for name in _names(arm, domain, np.unique(labels))
    }
    names = sorted(classes - {None}, key=lambda name: (not name.isdigit(), len(name), name))
    if len(names) > len(CLASSES):
        palette = matplotlib.colormaps["turbo"](np.linspace(0, 1, len(names)))
    else:
        palette = CLASSES
    colours = dict(zip(names, palette, strict=False))
    return colours | ({None: HIDDEN} if None in classes else {})


def _colours(arm: ArmResult, domain: str, labels: np.ndarray, classes: Mapping[str | None, Any]):
    import matplotlib

    if not _is_float(labels):
        return [classes[name] for name in _names(arm, domain, labels)]
    low, high = np.nanmin(labels), np.nanmax(labels)
    return matplotlib.colormaps["viridis"]((labels - low) / (high - low if high > low else 1.0))


def _dot(label: str, marker: str, colour: Any, face: Any) -> Line2D:
    from matplotlib.lines import Line2D

    look = {"marker": marker, "color": colour, "markerfacecolor": face, "linestyle": ""}
    return Line2D([], [], label=label, markersize=5, **look)


def _domain_handles(palette: Mapping[str, Any]) -> list[Any]:
    labels = legend_labels(palette, 20)
    return [
        _dot(label, MARKERS[i % len(MARKERS)], colour, colour if i else "none")
        for i, (label, colour) in enumerate(zip(labels, palette.values(), strict=True))
    ]


def _handles(domains: Sequence[str], classes: Mapping[str | None, Any]) -> list[Any]:
    marks = [
        _dot(label, MARKERS[i % len(MARKERS)], INK, INK if i else "none")
        for i, label in enumerate(legend_labels(domains, 20))
    ]
    if len(classes) > MOST_NAMES:
        return [*marks, _dot(f"{len(classes.keys() - {None})} classes", "", INK, INK)]
    labels = legend_labels(("hidden" if name is None else name for name in classes), 20)
    shown = [_dot(label, "s", c, c) for label, c in zip(labels, classes.values(), strict=True)]
    return [*marks, _dot("", "", INK, INK)] + (
        shown or [_dot("dark to light:\nlow to high label", "", INK, INK)]
    )
