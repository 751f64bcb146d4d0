"""Pictures in rows and columns: an images panel as a PNG."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jaxtl.plan.panel import Images
from jaxtl.report.figures.canvas import LETTER, canvas, saved, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE = 1.0  # inches of a picture with its gap
NAME = 20  # letters of a row's name


@saved
def images(panel: Images) -> Figure:
    """A row a name, its columns below their headings; what is absent stays empty."""
    columns = list(dict.fromkeys(column for row in panel.images.values() for column in row))
    rows = shortened(panel.images, NAME)
    width = SIDE * len(columns) + LETTER * max(map(len, rows), default=0)
    figure, axes = canvas(len(rows), len(columns), SIDE * len(rows) + 0.3, panel.title, width)
    headings = shortened(columns, 14)
    for across, label, pictures in zip(axes, rows, panel.images.values(), strict=True):
        across[0].set_ylabel(label, rotation=0, ha="right", va="center")
        for ax, column in zip(across, columns, strict=True):
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            if column in pictures:
                ax.imshow(np.clip(pictures[column], 0, 1), cmap="gray", vmin=0, vmax=1)
    for ax, heading in zip(axes[0], headings, strict=True):
        ax.set_title(heading, loc="center", fontsize=9)
    return figure
