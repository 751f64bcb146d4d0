"""Points in the plane: a scatter panel as a PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxtl.plan.panel import Cloud, Scatter
from jaxtl.report.figures.canvas import (
    ARMS,
    DASHES,
    INK,
    MARKERS,
    WIDTH,
    colours,
    legend,
    saved,
    shortened,
    tiles,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

HIDDEN = "#bbbbbb"
MOST_NAMES = 20  # of labels in the legend
SIDE = 3.2  # inches of axes with what stands around them


@saved
def scatter(panel: Scatter) -> Figure:
    """Axes a name; marker by cloud, colour by label, or by cloud where there are no labels."""
    from matplotlib.lines import Line2D

    clouds = [cloud for each in panel.clouds.values() for cloud in each]
    names = list(dict.fromkeys(cloud.name for cloud in clouds if not cloud.joined))
    lines = list(dict.fromkeys(cloud.name for cloud in clouds if cloud.joined))
    shades = _shades(clouds)
    figure, axes = tiles(
        len(panel.clouds), min(len(panel.clouds), int(WIDTH / SIDE)), (SIDE, SIDE), panel.title
    )
    titles = shortened(panel.clouds, 24) if len(panel.clouds) > 1 else [""]
    for ax, title, (name, each) in zip(axes, titles, panel.clouds.items(), strict=True):
        for cloud in each:
            if cloud.joined:
                ax.plot(*np.asarray(cloud.points, float).T, **_dashes(lines, cloud.name))
                continue
            index = names.index(cloud.name)
            colour = _colours(cloud, index, shades)
            look = {"color": colour} if index else {"facecolors": "none", "edgecolors": colour}
            look |= {"marker": MARKERS[index % len(MARKERS)], "linewidths": 0.8, "alpha": 0.75}
            ax.scatter(*np.asarray(cloud.points, float).T, s=14, **look)
        x_label, y_label = panel.axes[name]
        ax.set(title=title, xlabel=x_label, ylabel=y_label)
        if panel.equal:
            ax.set(xticks=[], yticks=[])
            ax.set_aspect("equal", "datalim")
    handles = {name: Line2D([], [], **_dashes(lines, name)) for name in lines}
    legend(figure, handles | _handles(clouds, names, shades), 20)
    return figure


def _dashes(lines: Sequence[str], name: str) -> dict[str, Any]:
    """The look of a line among those of all axes."""
    return {"color": INK, "linestyle": DASHES[lines.index(name) % len(DASHES)], "linewidth": 1.0}


def _is_scale(cloud: Cloud) -> bool:
    """Whether its labels are numbers."""
    return cloud.labels is not None and np.issubdtype(np.asarray(cloud.labels).dtype, np.floating)


def _shades(clouds: Sequence[Cloud]) -> dict[str, Any]:
    """{label: colour} of labels that are names; numbers are in their order."""
    named = [cloud.labels for cloud in clouds if cloud.labels is not None and not _is_scale(cloud)]
    labels = {str(label) for each in named for label in each}
    order = sorted(labels - {""}, key=lambda name: (not name.isdigit(), len(name), name))
    return colours(order) | ({"": HIDDEN} if "" in labels else {})


def _colours(cloud: Cloud, index: int, shades: Mapping[str, Any]) -> Any:
    import matplotlib
    from matplotlib.colors import to_rgba_array

    if cloud.labels is None:
        return ARMS[index % len(ARMS)]
    if not _is_scale(cloud):
        names, places = np.unique(np.asarray(cloud.labels).astype(str), return_inverse=True)
        return to_rgba_array([shades[name] for name in names])[places]
    low, high = np.nanmin(cloud.labels), np.nanmax(cloud.labels)
    return matplotlib.colormaps["viridis"]((cloud.labels - low) / (high - low or 1.0))


def _handles(
    clouds: Sequence[Cloud], names: Sequence[str], shades: Mapping[str, Any]
) -> dict[str, Line2D]:
    """What the legend shows: a marker a cloud, a square a label."""
    plain = all(cloud.labels is None for cloud in clouds)
    handles = {}
    for index, name in enumerate(names):
        colour = ARMS[index % len(ARMS)] if plain else INK
        handles[name] = _mark(MARKERS[index % len(MARKERS)], colour, colour if index else "none")
    if any(map(_is_scale, clouds)):
        handles["dark to light: low to high label"] = _mark("", INK, INK)
    if len(shades) > MOST_NAMES:
        return handles | {f"{len(shades)} classes": _mark("", INK, INK)}
    return handles | {
        name or "hidden": _mark("s", colour, colour) for name, colour in shades.items()
    }


def _mark(marker: str, colour: Any, face: Any) -> Line2D:
    from matplotlib.lines import Line2D

    look = {"marker": marker, "color": colour, "markerfacecolor": face, "linestyle": ""}
    return Line2D([], [], markersize=5, **look)
