"""What all builders from originals share: a TFDS builder that checks all that goes in.

A builder is one class, named after its dataset, and says

- `ORIGINALS`, {any key: `Original`, or several of which one will do},
- `COUNTS`, {split: examples}, where the examples of a split are a number or {class: number}; None
  if none is published, of a split that may be absent and need not have labels (-1: missing),
- `_info()`, as for every TFDS builder, and
- `examples(paths)`, {split: pairs (key, example)}, from {key of ORIGINALS: path of file or folder}.

Both tables have a level more, the name of the config, if the class has `BUILDER_CONFIGS`. Keys
are unique in a split and the same whatever form the originals have: TFDS orders examples by them.
Images are given as files in memory (`as_png`, or the bytes of a file after `checked_image`), for
TFDS encodes arrays only with TensorFlow. `archives.members` reads archives and folders alike. What
is wrong with the files is a `Refused`; the numbers of examples and the names of classes are
checked here.

    class Letters(FromOriginals):
        VERSION = tfds.core.Version("1.0.0")
        ORIGINALS = {"all": Original("letters.tar.gz", "https://...", sums=("md5:...",))}
        COUNTS = {"train": {"A": 10, "B": 10}}

        def _info(self): ...

        def examples(self, paths):
            return {"train": self.letters(paths["all"])}

        def letters(self, path):
            for match, content in members(path, r"(A|B)/\\w+\\.png"):
                yield match[0], {"image": checked_image(content, match[0]), "label": match[1]}

Importing this module imports TFDS; importing that of a builder registers it.
"""

import abc
import collections
import io
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds

from jaxtl.data.prepared.builders.originals import Original, Refused, obtain
from jaxtl.data.sources import image_files
from jaxtl.paths import unknown

logger = logging.getLogger(__name__)
MOST = 6  # problems named at once
Examples = Iterable[tuple[str | int, dict[str, Any]]]


class FromOriginals(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A dataset made from published files; see the module."""

    ORIGINALS: ClassVar[Mapping[str, Any]]
    COUNTS: ClassVar[Mapping[str, Any]]
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Put the originals into <data_dir>/downloads/manual/<dataset>/."

    @abc.abstractmethod
    def examples(self, paths: Mapping[str, Path]) -> Mapping[str, Examples]:
        """The examples of each split, in any order."""

    @property
    def originals(self) -> Mapping[str, Original | Sequence[Original]]:
        return self.ORIGINALS[self.builder_config.name] if self.builder_config else self.ORIGINALS

    @property
    def counts(self) -> Mapping[str, int | Mapping[str, int] | None]:
        return self.COUNTS[self.builder_config.name] if self.builder_config else self.COUNTS

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        try:
            manual = Path(dl_manager.manual_dir)
        except AssertionError:  # TFDS: it does not exist, or is empty
            manual = Path(dl_manager.download_dir) / "manual"
        paths = obtain(self.name, self.originals, manual)
        splits = self.examples(paths)
        assert {s for s in self.counts if self.counts[s] is not None} <= splits.keys()
        assert splits.keys() <= self.counts.keys()
        return {
            split: self._generate_examples(split, examples, paths)
            for split, examples in splits.items()
        }

    def _generate_examples(
        self, split: str, examples: Examples, paths: Mapping[str, Path]
    ) -> Iterator[tuple[str | int, dict]]:
        """Those examples; raises where their numbers, or their classes, are not the published."""
        expected, counted = self.counts[split], collections.Counter()
        label = (self.info.supervised_keys or (None, None))[1]
        feature = self.info.features[label] if label else None
        by_class = isinstance(feature, tfds.features.ClassLabel)
        sources = ", ".join(str(path) for path in dict.fromkeys(paths.values()))
        logger.info("%s: writing split %s", self.info.full_name, split)
        for key, example in examples:
            name = example[label] if by_class else None
            if by_class and isinstance(name, int | np.integer):
                name = feature.names[name] if 0 <= name < feature.num_classes else str(name)
            unlabelled = expected is None and name == "-1"
            if by_class and name not in feature.names and not unlabelled:
                raise Refused(f"{sources}: {unknown('class', name, feature.names)}")
            counted[name] += 1
            yield key, example
        if expected is None:
            logger.info("%s: %d examples; no number is published", split, counted.total())
            return
        if isinstance(expected, int):
            problems = [(split, counted.total(), expected)]
        else:
            problems = [(f"class {name}", counted[name], n) for name, n in expected.items()]
        wrong = [f"{what} has {n:,}, expected {m:,}" for what, n, m in problems if n != m]
        if wrong:
            more = f" and {len(wrong) - MOST} more" if len(wrong) > MOST else ""
            raise Refused(
                f"{sources}: the examples of split {split!r} are not as many as were published: "
                f"{'; '.join(wrong[:MOST])}{more}. It is not whole, or of another version"
            )

    def _log_download_bytes(self) -> None:
        """TFDS would print that it knows no sizes."""

    def _log_download_done(self) -> None:
        """It would print where the dataset is, as its callers do."""


def as_png(pixels: np.ndarray) -> io.BytesIO:
    """An image, uint8 [height, width] or [height, width, 3], as a PNG file in memory."""
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "PNG")
    file.seek(0)
    return file


def checked_image(
    content: bytes, label: str, shape: tuple[int, int, int] | None = None
) -> io.BytesIO:
    """An image file in memory, as it is, once it could be decoded.

    Args:
        label: what the message calls it.
        shape: (height, width, channels) that it must have; None for any.

    Raises:
        Refused: it cannot be decoded, or has another shape.
    """
    try:
        pixels = image_files.decode(io.BytesIO(content))
    except ValueError as error:
        raise Refused(f"{label}: {error}") from error
    if shape is not None and pixels.shape != shape:
        raise Refused(f"{label} has the shape {list(pixels.shape)}, expected {list(shape)}")
    return io.BytesIO(content)


def per_class(names: Sequence[str], counts: Sequence[int]) -> dict[str, int]:
    """{class: number of its examples}."""
    return dict(zip(names, counts, strict=True))
