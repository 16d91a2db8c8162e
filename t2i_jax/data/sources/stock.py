"""TFDS's own labelled sets (`mnist`, `cifar10`, ...): the caption is the name of the class.

TensorFlow is needed to prepare them (extra `prepare`), but not to read them.
"""

import os
from importlib.util import find_spec
from pathlib import Path

import grain

from t2i_jax.data import prepared
from t2i_jax.errors import UserError


def open(
    split: str, data_dir: str, *, name: str, variant: str = "", corrupt: str = "skip"
) -> tuple[grain.MapDataset, str]:
    """Open a split of a labelled set; see `prepared.open_split`.

    Raises:
      UserError: TFDS has no such set, it has no images with class labels, or preparing it needs TensorFlow.
    """
    import tensorflow_datasets as tfds  # 0.6 s; only where images are read

    try:
        variants = tfds.builder_cls(name).builder_configs
    except tfds.core.DatasetNotFoundError:
        raise UserError(
            f"data set {name!r} is unknown to TFDS, and t2i_jax/data/sources has no such file;"
            " name a file of your own in config.data.source"
        ) from None
    full_name = prepared.full_name(name, variant, variants)
    folder = Path(data_dir, full_name)

    def build():
        existing = sorted(folder.glob("*/dataset_info.json"))
        if existing:  # by any version of TFDS; and the code of some of its sets needs TensorFlow
            return tfds.builder_from_directory(existing[-1].parent)
        if not find_spec("tensorflow"):
            raise UserError(
                f"data set {full_name} is not prepared in {data_dir}, and preparing it needs TensorFlow: pip"
                f" install '.[prepare]', or copy {folder} from where it was prepared as array_record"
            )
        return tfds.builder(full_name, data_dir=os.path.abspath(data_dir), file_format="array_record")

    dataset, fingerprint, info = prepared.open_split(full_name, folder, build, data_dir, split, corrupt)
    return dataset.map(named_classes(full_name, info.features)), fingerprint


def named_classes(name: str, features):
    """A function that makes a labelled example a captioned one."""
    import tensorflow_datasets as tfds

    if "image" not in features or not isinstance(dict(features).get("label"), tfds.features.ClassLabel):
        raise UserError(f"data set {name} has no pictures with class labels; it holds {', '.join(features)}")
    classes = [words.encode() for words in features["label"].names]
    return lambda example: {"image": example["image"], "caption": classes[example["label"]]}
