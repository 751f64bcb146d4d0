"""A TFDS builder of Office-31."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import tensorflow_datasets as tfds

from jaxtl.data.prepared.builders.archives import members
from jaxtl.data.prepared.builders.building import (
    Examples,
    FromOriginals,
    checked_image,
    per_class,
)
from jaxtl.data.prepared.builders.originals import Original

DOMAINS = ("amazon", "dslr", "webcam")
CLASSES = (
    *("back_pack", "bike", "bike_helmet", "bookcase", "bottle", "calculator", "desk_chair"),
    *("desk_lamp", "desktop_computer", "file_cabinet", "headphones", "keyboard"),
    *("laptop_computer", "letter_tray", "mobile_phone", "monitor", "mouse", "mug"),
    *("paper_notebook", "pen", "phone", "printer", "projector", "punchers", "ring_binder"),
    *("ruler", "scissors", "speaker", "stapler", "tape_dispenser", "trash_can"),
)
PAGE = (
    "https://drive.google.com/file/d/0B4IapRTv9pJ1WGZVd1VDMmhwdlE/view"
    "?resourcekey=0-gNMHVtZfRAyO_t2_WrOunA"
)
COPY = "https://wjdcloud.blob.core.windows.net/dataset/OFFICE31.zip"
COUNTS = {
    "amazon": (
        *(92, 82, 72, 82, 36, 94, 91, 97, 97, 81, 99, 100, 100, 98, 100, 99, 100, 94, 96, 95, 93),
        *(100, 98, 98, 90, 75, 100, 99, 99, 96, 64),
    ),
    "dslr": (
        *(12, 21, 24, 12, 16, 12, 13, 14, 15, 15, 13, 10, 24, 16, 31, 22, 12, 8, 10, 10, 13),
        *(15, 23, 18, 10, 7, 18, 26, 21, 22, 15),
    ),
    "webcam": (
        *(29, 21, 28, 12, 16, 31, 40, 18, 21, 19, 27, 27, 30, 19, 30, 43, 30, 27, 28, 32, 16),
        *(20, 30, 27, 40, 11, 25, 30, 24, 23, 21),
    ),
}


class Office31(FromOriginals):
    """Office objects in three domains: amazon 2,817, dslr 498 and webcam 795 images, as published.

    Photographs of 31 classes, JPEG of 300x300 to 1000x1000. A domain is a split; it has no train
    and test of its own. The archive may be unpacked with or without the folders
    `domain_adaptation_images/` and `images/`. Its sums: the md5 of dm_nevis, the sha1 of another
    public copy; no sum of OFFICE31.zip, which holds the same images, is published.

    K. Saenko, B. Kulis, M. Fritz, T. Darrell, "Adapting visual category models to new domains",
    ECCV 2010. For research.
    """

    VERSION = tfds.core.Version("1.0.0")
    ORIGINALS: ClassVar = {
        "images": (
            Original(
                "domain_adaptation_images.tar.gz",
                PAGE,
                sums=(
                    "md5:1b536d114869a5a8aa4580b89e9758fb",
                    "sha1:7aa25a86f3880b6e79283227816f9d4d8506d636",
                ),
                folders=DOMAINS,
            ),
            Original("OFFICE31.zip", COPY, folders=DOMAINS),
        )
    }
    COUNTS: ClassVar = {domain: per_class(CLASSES, COUNTS[domain]) for domain in DOMAINS}

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "image/filename": tfds.features.Text(),
            "label": tfds.features.ClassLabel(names=CLASSES),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Photographs of 31 kinds of office objects in three domains.",
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            homepage="https://faculty.cc.gatech.edu/~judy/domainadapt/",
        )

    def examples(self, paths: Mapping[str, Path]) -> dict[str, Examples]:
        return {domain: photographs(paths["images"], domain) for domain in DOMAINS}


def photographs(path: Path, domain: str) -> Iterator[tuple[str, dict]]:
    """The examples of one domain, by class and file name."""
    pattern = rf"{domain}/(?:images/)?([^/]+)/([^/]+\.jpe?g)"
    for match, content in members(path, pattern):
        label, file = match.groups()
        image = checked_image(content, f"{match[0]} in {path}")
        name = f"{label}/{file}"
        yield name, {"image": image, "image/filename": name, "label": label}
