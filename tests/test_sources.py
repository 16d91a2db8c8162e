"""Data sources: found by name, or in a file of one's own."""

import pytest

from t2i_jax.data.sources import open_split
from t2i_jax.errors import UserError

OWN = """
import grain
import numpy as np

def open(split, data_dir, *, side, colour=7, corrupt="skip"):
    rows = [{"image": np.full((side, side, 3), colour, np.uint8), "caption": split.encode()}]
    return grain.MapDataset.source(rows), f"{split} {data_dir} {side} {colour} {corrupt}"
"""


@pytest.fixture
def own(tmp_path):
    """The fields of `config.data` that name a file of one's own."""
    (tmp_path / "flowers.py").write_text(OWN)
    return {"name": "flowers", "source": str(tmp_path / "flowers.py"), "data_dir": "here", "corrupt": "refuse"}


def test_a_file_of_one_s_own(own):
    dataset, fingerprint = open_split({**own, "side": 5, "text_len": 12}, "train")
    assert dataset[0]["image"].shape == (5, 5, 3)
    assert dataset[0]["caption"] == b"train"
    assert fingerprint == "train here 5 7 refuse"
    assert open_split({**own, "side": 4, "colour": 3}, "validation")[1] == "validation here 4 3 refuse"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({}, "data set flowers needs config.data.side; add it to the config"),
        ({"name": "flowers/wild", "side": 3}, "data set flowers has no variants"),
        ({"source": "nothing.py"}, "nothing.py does not exist; name a python file"),
        ({"source": "README.md"}, "README.md is no python file"),
    ],
)
def test_what_does_not_fit(own, change, line):
    with pytest.raises(UserError) as error:
        open_split({**own, **change}, "train")
    assert line in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "reason"), [("import nothing_like_it", "ModuleNotFoundError"), ("x = 1", "'open'")]
)
def test_a_file_that_cannot_be_loaded(tmp_path, content, reason):
    (tmp_path / "broken.py").write_text(content)
    with pytest.raises(
        UserError, match=rf"broken.py cannot be loaded \(.*{reason}.*\); it has a function `open`"
    ) as error:
        open_split({"name": "broken", "source": str(tmp_path / "broken.py"), "data_dir": "here"}, "train")
    assert "\n" not in str(error.value)
