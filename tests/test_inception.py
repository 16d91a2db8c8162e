"""InceptionV3 of FID, from a file of torch, which is not run. Its features: test_parity_fidelity."""

import inception_files
import numpy as np
import pytest

from t2i_jax import cli, files
from t2i_jax.convert import inception as convert
from t2i_jax.errors import UserError
from t2i_jax.evals.metrics import features


@pytest.fixture(scope="module")
def state():
    return inception_files.tensors()


def test_a_file_of_torch_becomes_a_folder_of_features(state, tmp_path, capsys):
    torch = pytest.importorskip("torch")
    path, out = tmp_path / "own.pth", tmp_path / "inception"
    counted = {"Conv2d_1a_3x3.bn.num_batches_tracked": torch.tensor(0)}
    torch.save({name: torch.tensor(x) for name, x in state.items()} | counted, path)
    assert cli.main(["convert", "inception", str(path), "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert said.out == f"{out}\n"
    assert "is not pytorch-fid's" in said.err
    assert said.err.count("\n") == 1
    assert files.read_json(out / features.ORIGIN)["digest"] == files.sha256_of(path)
    extractor = features.load(out)
    assert (extractor.title, extractor.width, extractor.classes) == ("FD-inception", 2048, True)
    files.write_json(out / features.ORIGIN, {"released": True})
    assert features.load(out).title == "FID"


@pytest.mark.parametrize("change", ["missing", "left over", "another shape", "none of it"])
def test_other_weights_are_refused(state, change):
    name = "Mixed_6b.branch7x7_2.conv.weight"
    tensors = {
        "missing": {key: x for key, x in state.items() if key != name},
        "left over": state | {"AuxLogits.fc.weight": np.zeros(3, np.float32)},
        "another shape": state | {name: np.zeros((128, 128, 7, 1), np.float32)},
        "none of it": {"conv1.weight": np.zeros(3, np.float32)},
    }[change]
    with pytest.raises(UserError, match=r"this (does not fit|holds no InceptionV3)") as error:
        convert.convert(tensors, "this")
    assert "\n" not in str(error.value)
