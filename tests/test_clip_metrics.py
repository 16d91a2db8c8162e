"""CMMD and CLIP score: the papers' formulas written out, torch's features, and what the command says."""

import json

import lpips_files
import numpy as np
import pytest
from clips import write
from PIL import Image

import t2i_jax
from t2i_jax import cli, runs
from t2i_jax.errors import UserError
from t2i_jax.evals import intervals
from t2i_jax.evals.metrics import features, kernel, measure
from t2i_jax.evals.metrics.sets import Drawn, Split
from t2i_jax.pipelines import Clip

CAPTIONS = ["a red one", "one", "done red", "a", "red red"]


def units(seed, count, width=16, lean=0.0):
    """Vectors of length 1."""
    x = np.random.default_rng(seed).normal(lean, 1, (count, width))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A small CLIP, and folders of pictures: the first has texts beside them, the second has none."""
    root = tmp_path_factory.mktemp("clip")
    write(root / "clip")
    rng = np.random.default_rng(0)
    for name, shade in (("drawn", 1), ("real", 0.5)):
        (root / name).mkdir()
        for number, caption in enumerate(CAPTIONS):
            pixels = rng.integers(0, 256, (40, 22, 3)) * shade
            Image.fromarray(np.uint8(pixels)).save(root / name / f"{number}.png")
            if name == "drawn":
                (root / name / f"{number}.txt").write_text(caption)
    return root


@pytest.fixture
def evaluate(world, tmp_path, capsys):
    """The command over folders of `world`: `code, metrics of the JSON or None, lines on stderr`."""

    def call(metrics, *argv, network="clip"):
        out = tmp_path / "card.json"
        given = ["--metrics", metrics, "--features", str(world / network), "--out", str(out), *argv]
        code = cli.main(["evaluate", *given])
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("t2i:")]
        return code, json.loads(out.read_text())["metrics"] if out.exists() else None, lines

    return call


def test_cmmd_is_that_of_the_paper(monkeypatch):
    """Every pair by itself, a picture with itself included; as the paper's code has it."""
    monkeypatch.setattr(kernel, "ROWS", 7)
    x, y = units(0, 23), units(1, 17, lean=0.3)

    def mean(a, b):
        pairs = [(p.astype(float), q.astype(float)) for p in a for q in b]
        return np.mean([np.exp(-np.sum((p - q) ** 2) / (2 * 10**2)) for p, q in pairs])

    values = kernel.gaussian(x, y)
    assert len(values) == 23
    assert values.mean() == pytest.approx(1000 * (mean(x, x) + mean(y, y) - 2 * mean(x, y)), rel=1e-9)
    assert kernel.gaussian(x, x).mean() == pytest.approx(0, abs=1e-9)


def test_cmmd_of_one_kind_is_above_0_as_is_said():
    found = [kernel.gaussian(units(seed, 40), units(100 + seed, 60)).mean() for seed in range(40)]
    assert np.mean(found) == pytest.approx(5 * 2 * (1 / 40 + 1 / 60), rel=0.1)  # E|x - x'|^2 is 2


def test_the_interval_of_cmmd_is_that_of_other_pictures():
    reference = units(0, 300)
    values = [kernel.gaussian(units(seed, 200, lean=0.4), reference) for seed in range(1, 200)]
    spread = np.std([own.mean() for own in values])
    ends = [intervals.of_mean(own) for own in values[:20]]
    assert np.mean([high - low for low, high in ends]) == pytest.approx(2 * 1.96 * spread, rel=0.15)


def test_clip_score_by_hand():
    images, texts = np.float32([[1, 0], [0.6, 0.8], [1, 0]]), np.float32([[1, 0], [1, 0], [-1, 0]])
    np.testing.assert_allclose(measure.clip_scores(images, texts), [100, 60, 0], atol=1e-5)


def test_folders_are_scored_as_torch_scores_them(evaluate, world):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    model = transformers.CLIPModel.from_pretrained(world / "clip").eval()
    processor = transformers.CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    found = {}
    for name in ("drawn", "real"):
        listed = [Image.open(path) for path in sorted((world / name).glob("*.png"))]
        with torch.no_grad():
            embedded = model.get_image_features(processor(listed, return_tensors="pt")["pixel_values"])
        found[name] = torch.nn.functional.normalize(getattr(embedded, "pooler_output", embedded)).double()
    ids = Clip(world / "clip")._reader.encode(CAPTIONS)[0]
    with torch.no_grad():
        embedded = model.get_text_features(torch.tensor(ids))
    texts = torch.nn.functional.normalize(getattr(embedded, "pooler_output", embedded)).double()
    kernels = [
        torch.exp(-(torch.cdist(found[one], found[other]) ** 2) / 200).mean().item()
        for one, other in (("drawn", "drawn"), ("real", "real"), ("drawn", "real"))
    ]
    expected = {
        "CMMD-clip-8-16-10": 1000 * (kernels[0] + kernels[1] - 2 * kernels[2]),
        "CLIP score, clip-8-16-10": 100 * (found["drawn"] * texts).sum(1).clamp(min=0).mean().item(),
    }
    argv = ["--images", str(world / "drawn"), "--reference", str(world / "real")]
    code, metrics, _ = evaluate("cmmd,clip", *argv)
    assert code == 0
    assert list(metrics) == list(expected)
    for name, value in expected.items():
        print(name, metrics[name], value)
        assert metrics[name]["value"] == pytest.approx(
            value, rel=1e-2
        )  # half levels of what is scaled: test_parity_clip
        assert metrics[name]["interval"][0] < metrics[name]["value"] < metrics[name]["interval"][1]


def test_clip_score_needs_no_reference(evaluate, world, tmp_path):
    code, metrics, _ = evaluate("clip", "--images", str(world / "drawn"))
    assert code == 0
    images = np.stack([np.array(Image.open(path)) for path in sorted((world / "drawn").glob("*.png"))])
    cosines = Clip(world / "clip")(CAPTIONS, images)
    found = metrics["CLIP score, clip-8-16-10"]
    assert found["value"] == pytest.approx(100 * np.maximum(cosines, 0).mean(), rel=1e-5)
    assert found["interval"] == pytest.approx(intervals.of_mean(100 * np.maximum(cosines, 0)), rel=1e-4)


@pytest.mark.parametrize(
    ("metrics", "argv", "said"),
    [
        ("clip", ["--images", "real"], "0.png has no caption, which CLIP score needs"),
        ("cmmd", ["--images", "drawn"], "--images needs --reference"),
        ("cmmd", ["--images", "drawn", "--reference", "x.npz"], "cmmd compares pictures"),
        ("is", ["--images", "drawn"], "needs InceptionV3, not clip-8-16-10"),
        ("fd", ["--images", "drawn", "--reference", "real"], "5 pictures make a singular covariance of 10"),
        ("clip", ["--images", "drawn", "-n", "1"], "-n 1 is below 2"),
        ("clip", ["--images", "drawn", "--reference", "real"], "clip looks at no reference; leave --reference out"),
        ("clip", ["--images", "drawn", "--save-reference", "x.npz"], "leave --save-reference out"),
    ],
)
def test_what_cannot_be_scored_is_one_line(evaluate, world, metrics, argv, said):
    placed = [str(world / word) if (world / word).is_dir() else word for word in argv]
    code, found, lines = evaluate(metrics, *placed)
    assert (code, found, len(lines)) == (2, None, 1)
    assert said in lines[0]


def test_a_translator_is_scored_by_the_captions_that_it_drew(evaluate, smoke_run, world):
    run = str(smoke_run.translator)
    code, metrics, _ = evaluate("clip,cmmd", "--run", run, "-n", "6", "--seed", "3")
    assert code == 0
    pipe = t2i_jax.load(run)
    split = Split(pipe.config.data, "validation", 6, 3)
    cosines = Clip(world / "clip")(split.captions, np.stack(list(Drawn(pipe, split, 3))))
    expected = 100 * np.maximum(cosines, 0).mean()
    assert metrics["CLIP score, clip-8-16-10"]["value"] == pytest.approx(expected, rel=1e-4)


def test_pictures_of_t2i_sample_say_their_prompt_themselves(evaluate, smoke_run, world, tmp_path):
    prompts, own = tmp_path / "prompts.txt", tmp_path / "own"
    prompts.write_text("a red seven\na blue one\n")
    argv = ["--run", str(smoke_run.translator), "--prompts-file", str(prompts), "-n", "2", "--out", str(own)]
    assert cli.main(["sample", *argv]) == 0
    code, metrics, _ = evaluate("clip", "--images", str(own))
    assert code == 0
    images = np.stack([np.array(Image.open(path)) for path in sorted(own.glob("*.png"))])
    cosines = Clip(world / "clip")(["a red seven"] * 2 + ["a blue one"] * 2, images)
    expected = 100 * np.maximum(cosines, 0).mean()
    assert metrics["CLIP score, clip-8-16-10"]["value"] == pytest.approx(expected, rel=1e-4)


def test_other_networks_are_refused(tmp_path):
    (tmp_path / "alexnet").mkdir()
    runs.write_weights(tmp_path / "alexnet", lpips_files.weights_of("alexnet")[0], {}, 0)
    extractor = features.load(tmp_path / "alexnet")
    for name in ("cmmd", "clip"):
        with pytest.raises(UserError, match=f"--metrics {name} needs CLIP, not alexnet"):
            measure.check([name], extractor, count=9, reference=9)
