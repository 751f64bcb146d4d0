"""A small dataset that TFDS prepares, as its users would."""

import io
from pathlib import Path

import PIL.Image


def png(pixels):
    """An image [height, width(, channels)] as a PNG file in memory."""
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "PNG")
    file.seek(0)
    return file


def prepare(
    folder: Path,
    class_name: str,
    features: dict,
    splits: dict,
    label: str = "label",
    inputs: str = "image",
) -> None:
    """Prepare a dataset with labels in a data directory.

    Args:
        class_name: of the builder; `JaxtlTestPages` becomes the dataset `jaxtl_test_pages`.
        features: {name: TFDS feature}, the inputs and the label among them.
        splits: {name: examples in order}.
        label: the feature that is to be predicted.
        inputs: the feature that it is predicted from.
    """
    import tensorflow_datasets as tfds

    def info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=(inputs, label),
        )

    def split_generators(self, dl_manager):
        return {name: enumerate(examples) for name, examples in splits.items()}

    methods = {"_info": info, "_split_generators": split_generators, "_generate_examples": iter}
    attributes = {"VERSION": tfds.core.Version("1.0.0"), "__module__": __name__, **methods}
    builder = type(class_name, (tfds.core.GeneratorBasedBuilder,), attributes)
    builder(data_dir=folder, file_format="array_record").download_and_prepare()
