"""`t2i evaluate --metrics` and `--images`: distances of features, with the protocol that made them."""

import json

import lpips_files
import numpy as np
import pytest
from PIL import Image

from t2i_jax import cli, runs
from t2i_jax.evals.metrics import features, measure, moments
from t2i_jax.evals.metrics.moments import Frechet, Moments
from t2i_jax.evals.metrics.sets import Folder


def write(folder, count, seed, *, shade=1.0, side=32):
    """Coloured blocks, their own in each picture."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        blocks = rng.integers(0, 256, (4, 4, 3)) * shade
        Image.fromarray(np.uint8(blocks).repeat(side // 4, 0).repeat(side // 4, 1)).save(
            folder / f"{number:03}.png"
        )
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Folders of pictures, and AlexNet with random weights."""
    root = tmp_path_factory.mktemp("features")
    (root / "alexnet").mkdir()
    runs.write_weights(root / "alexnet", lpips_files.weights_of("alexnet")[0], {}, 0)
    write(root / "real", 300, 0)
    write(root / "same", 290, 1)
    write(root / "dark", 290, 1, shade=0.5)
    write(root / "few", 9, 2)
    return root


@pytest.fixture
def evaluate(world, tmp_path, capsys):
    """The command: `code, JSON or None, stdout, lines on stderr that no progress bar wrote`."""

    def call(*argv, images="same", reference="real"):
        out = tmp_path / "card.json"
        given = ["--features", str(world / "alexnet"), "--out", str(out)]
        given += ["--images", str(world / images)] if images else []
        given += ["--reference", str(world / reference)] if reference else []
        code = cli.main(["evaluate", *given, *map(str, argv)])
        said = capsys.readouterr()
        lines = [line for line in said.err.replace("\r", "\n").splitlines() if line.startswith("t2i:")]
        return code, json.loads(out.read_text()) if out.exists() else None, said.out, lines

    return call


@pytest.mark.slow
def test_pictures_of_the_same_kind_are_nearer_than_others(evaluate, world, tmp_path):
    found = {}
    for images in ("same", "dark"):
        code, card, table, _ = evaluate(images=images)
        assert code == 0
        found[images] = {name: own["value"] for name, own in card["metrics"].items()}
        assert list(found[images]) == ["FD-alexnet", "KD-alexnet", "precision", "recall", "density", "coverage"]
        for own in card["metrics"].values():
            assert own["interval"] is None or own["interval"][0] <= own["value"] <= own["interval"][1]
        assert all(name in table for name in found[images])
    assert found["same"]["FD-alexnet"] < found["dark"]["FD-alexnet"] / 2
    assert abs(found["same"]["KD-alexnet"]) < found["dark"]["KD-alexnet"] / 10
    assert found["dark"]["recall"] < found["same"]["recall"]
    assert card["metrics"]["KD-alexnet"]["subset"] == 145
    assert (card["pictures"]["pictures"], card["reference"]["pictures"]) == (290, 300)
    assert card["features"] | {"resize": ""} == {
        "network": "alexnet",
        "digest": runs.load_weights(world / "alexnet" / runs.WEIGHTS)[3],
        "resize": "",
    }
    assert {"python", "jax", "numpy", "pillow"} <= set(card["versions"])


def test_a_stream_over_a_folder_is_the_distance_of_all_its_features(world):
    extractor = features.load(world / "alexnet")
    whole = {
        name: np.concatenate(list(extractor.stream(Folder(world / name)))).astype(float)
        for name in ("same", "real")
    }
    gathered = {name: measure.gather(extractor, Folder(world / name), name, keep=False) for name in whole}
    assert gathered["same"].features is None
    assert [group.n for group in gathered["same"].groups] == [29] * 10
    direct = Frechet(Moments.of(whole["real"]))(Moments.of(whole["same"]))
    assert Frechet(gathered["real"].whole)(gathered["same"].whole) == pytest.approx(direct, rel=1e-8)


def test_statistics_of_a_reference_are_used_again(evaluate, tmp_path):
    path = tmp_path / "real.npz"
    _, first, _, _ = evaluate("--metrics", "fd", "--save-reference", path)
    code, again, _, _ = evaluate(reference=path)
    assert code == 0
    assert again["metrics"] == first["metrics"]
    assert again["reference"]["pictures"] == 300
    known, _ = moments.load(path)
    known.save(path, "vgg16 0123")
    assert "not of alexnet" in evaluate(reference=path)[3][0]


def test_pictures_of_many_sizes_are_scaled_where_it_is_asked(evaluate, world, tmp_path):
    mixed = write(tmp_path / "mixed", 5, 3)
    write(mixed / "more", 5, 4, side=48)
    code, _, _, lines = evaluate("--metrics", "kid", images=mixed)
    assert (code, len(lines)) == (2, 1)
    assert "48 x 48 pixels, others before it 32 x 32; give --size" in lines[0]
    code, card, _, _ = evaluate("--metrics", "kid", "--size", 32, images=mixed)
    assert code == 0
    assert "Lanczos" in card["pictures"]["resize"]
    code, card, _, _ = evaluate("--metrics", "kid", "--size", "32,40", images=mixed)
    assert code == 0
    assert card["pictures"]["resize"].endswith("to 32 x 40")


@pytest.mark.parametrize(
    ("argv", "options", "said"),
    [
        ((), {"images": "alexnet"}, "holds no pictures"),
        ((), {"images": "nothing"}, "is no folder"),
        ((), {"reference": None}, "--images needs --reference"),
        ((), {"reference": "nothing.npz"}, "does not exist"),
        (("--metrics", "fd"), {"images": "few"}, "9 pictures make a singular covariance of 256"),
        (("--metrics", "kid,fid"), {}, "--metrics fid is unknown; there are fd, fdinf, kid, pr, is"),
        (("--metrics", "fdinf"), {}, "half of the pictures: 145 pictures make a singular covariance"),
        (("--metrics", "kid,is"), {}, "needs InceptionV3, not alexnet"),
        (("--metrics", "is"), {}, "is looks at no reference; leave --reference out"),
        (("-n", "1"), {}, "-n 1 is below 2"),
        (("-n", "3", "--metrics", "kid"), {}, "kid of 3 is no number; at least 4"),
        (("--size", "16", "--metrics", "kid"), {}, "too small for alexnet; 31"),
        (("--size", "32,6", "--metrics", "kid"), {}, "--size 6 is below 8"),
        (("--split", "train"), {}, "--split says what a --run draws for"),
        (("--candidates", "2"), {}, "--candidates goes together with the judge"),
    ],
)
def test_what_cannot_be_measured_is_one_line(evaluate, argv, options, said):
    code, card, _, lines = evaluate(*argv, **options)
    assert (code, card, len(lines)) == (2, None, 1)
    assert said in lines[0]


def test_a_broken_picture_is_named(evaluate, tmp_path):
    broken = write(tmp_path / "broken", 5, 3)
    (broken / "002.png").write_bytes((broken / "002.png").read_bytes()[:60])
    code, _, _, lines = evaluate("--metrics", "kid", images=broken)
    assert code == 2
    assert "002.png is corrupt; mend it or take it away" in lines[0]


def test_flags_of_features_are_not_passed_over(evaluate, smoke_run, capsys):
    run = str(smoke_run.translator)
    assert "--features goes together with --metrics" in evaluate("--run", run, images=None, reference=None)[3][0]
    assert cli.main(["evaluate", "--run", run, "--metrics", "kid"]) == 2
    assert "--metrics needs --features" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["translator", "tokenizer"])
def test_a_run_is_measured_against_its_own_data(evaluate, smoke_run, kind, data_dir):
    run = getattr(smoke_run, kind)
    argv = ["--run", run, "--metrics", "kid,pr", "-n", 12, "--split", "validation"]
    code, card, _, _ = evaluate(*argv, images=None, reference=None)
    assert code == 0
    assert card["run"] == str(run)
    made = {"translator": "one for each caption", "tokenizer": "reconstructions"}
    assert (card["pictures"]["made"], card["pictures"]["pictures"]) == (made[kind], 12)
    assert card["reference"]["data"] == "captioned_digits/tiny"
    assert card["reference"]["split"] == "validation"
    assert card["metrics"]["KD-alexnet"]["value"] > 0
    assert evaluate(*argv[:-3], 10**6, images=None, reference=None)[3][0].endswith("; ask for fewer")
