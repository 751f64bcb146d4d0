"""Datasets: lazy handles, where they come from, and what is done to them."""

from jaxtl.data.arrays import arrays
from jaxtl.data.checks import overlap, validate
from jaxtl.data.dataset import Dataset
from jaxtl.data.prepared.preparation import prepare
from jaxtl.data.prepared.tfds_source import tfds
from jaxtl.data.sources.csv_files import csv
from jaxtl.data.sources.embedded import breast_cancer, diabetes, digits, iris, wine
from jaxtl.data.sources.folders import image_folder
from jaxtl.data.sources.frames import frame
from jaxtl.data.sources.hugging_face.hub import hub
from jaxtl.data.splits import Splits
from jaxtl.data.steps.augmentation import (
    chain,
    gaussian_noise,
    random_affine,
    random_crop,
    random_flip,
    random_intensity,
)
from jaxtl.data.steps.shifts import (
    colored,
    inverted,
    noisy,
    permuted,
    rotated,
    subsampled,
    thickened,
)
from jaxtl.data.steps.together import together
from jaxtl.data.table import Table
from jaxtl.data.weights import balanced, effective_number
