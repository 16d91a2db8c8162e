"""`t2i plot` and the reader of event files behind it."""

import io
import shutil
import struct
import sys

import numpy as np
import pytest
from damage import DAMAGE
from PIL import Image

from t2i_jax import cli
from t2i_jax.cli import plot
from t2i_jax.loop import events
from t2i_jax.loop.metrics import Metrics


@pytest.fixture
def log(tmp_path):
    """`log(name, first, numbers)`: a run's log, of `train/loss` from the step after `first` on; its folder."""

    def write(name, first=0, numbers=(3.0, 2.0, 1.0), **more):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        with Metrics(folder, first) as metrics:
            for step, number in enumerate(numbers, start=first + 1):
                metrics.scalars(step, {"train/loss": number, **more})
        return folder

    return write


def events_of(folder):
    return sorted((folder / "logs").glob("events*"))


def test_numbers_come_back_and_steps_that_are_trained_again_replace_theirs(log, monkeypatch):
    times = iter(range(1_000_000_000, 2_000_000_000))
    monkeypatch.setattr("time.time", lambda: next(times))  # names of files have whole seconds
    folder = log("run")
    assert events.read_scalars(folder) == ({"train/loss": {1: 3.0, 2: 2.0, 3: 1.0}}, [])
    log("run", 1, [1.5])
    assert events.read_scalars(folder) == ({"train/loss": {1: 3.0, 2: 1.5}}, [])


def test_tensorboard_reads_the_same(smoke_run):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    own, damaged = events.read_scalars(smoke_run.translator)
    theirs = accumulator.EventAccumulator(str(smoke_run.translator / "logs")).Reload()
    tags = theirs.Tags()
    assert damaged == []
    assert {"train/loss", "validation/free_running/entropy", "validation/teacher_forced/entropy"} <= set(own)
    assert own == {tag: {e.step: e.value for e in theirs.Scalars(tag)} for tag in tags["scalars"]}
    assert tags["images"] == ["samples"]


def test_pictures_and_histograms_are_passed_over(log):
    folder = log("run", **{"train/many": np.arange(1000.0)})
    with Metrics(folder, 3) as metrics:
        metrics.pictures(4, {"samples": np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)})
        metrics.scalars(5, {"train/loss": 0.5})
    assert events.read_scalars(folder)[0]["train/loss"][5] == 0.5


@pytest.mark.parametrize("name", sorted(DAMAGE))
def test_what_stands_before_the_damage_is_drawn(name, log, tmp_path, capsys):
    folder = log("run", numbers=np.linspace(3, 1, 40))
    (path,) = events_of(folder)
    DAMAGE[name](path)
    code = cli.main(["plot", "--run", str(folder), "--out", str(tmp_path / "a.png")])
    err = capsys.readouterr().err
    if name in ("emptied", "missing"):
        assert (code, err) == (
            2,
            f"t2i: --run {folder} has logged nothing yet; name a run that has trained some steps\n",
        )
        return
    assert code == 0
    assert err.startswith(f"warning: {path}: ")
    assert err.count("\n") == 1
    read = events.read_scalars(folder)[0]["train/loss"]
    assert list(read) == list(range(1, len(read) + 1))
    assert 10 < len(read) < 30


def hostile():
    """Files that anyone may put there."""
    from tensorboardX import summary
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    def record(content, length=None):
        header = struct.pack("<Q", len(content) if length is None else length)
        checksums = [struct.pack("<I", masked_crc32c(part)) for part in (header, content)]
        return header + checksums[0] + content + checksums[1]

    strange = Event(step=2**62, summary=summary.scalar("$\\frac{$\x1b[2J_" + "字" * 300, float("nan")))
    far = [Event(step=step, summary=summary.scalar("far", value)) for step, value in ((-5, 3e38), (2**62, -3e38))]
    return {
        "a length beyond the file": record(b"", 2**63),
        "no event": record(b"\xff" * 50),
        "noise": np.random.default_rng(0).bytes(5000),
        "a strange tag": record(strange.SerializeToString()),
        "far numbers": b"".join(record(event.SerializeToString()) for event in far),
    }


@pytest.mark.parametrize("name", list(hostile()))
def test_anyones_file_is_drawn_as_far_as_it_goes(name, log, tmp_path, capsys):
    folder = log("run")
    (folder / "logs" / "events.out.tfevents.9").write_bytes(hostile()[name])
    (folder / "logs" / "events.out.tfevents.folder").mkdir()
    out = tmp_path / "a.png"
    assert cli.main(["plot", "--run", str(folder), "--out", str(out)]) == 0
    said = capsys.readouterr().err
    assert ("what stands before is read" in said) == (name in ("a length beyond the file", "no event", "noise"))
    assert Image.open(out).width > 300


def test_several_runs_share_a_panel_a_name(log, monkeypatch, tmp_path, capsys):
    first, second = log("first", **{"validation/loss": 2.0, "train/psnr": 20.0}), log("_second")
    drawn = []
    monkeypatch.setattr(plot, "_draw", lambda panels, names: drawn.append((panels, names)) or b"")
    argv = ["plot", "--run", str(first), "--run", str(second), "--out", str(tmp_path / "a.png")]
    assert cli.main(argv) == 0
    assert cli.main([*argv, "--what", "psnr"]) == 0
    (panels, names), (chosen, _) = drawn
    assert names == ["first", "_second"]
    assert list(panels) == ["loss", "psnr"]
    assert {split: list(own) for split, own in panels["loss"].items()} == {"train": [0, 1], "validation": [0]}
    assert list(chosen) == ["psnr"]
    other = shutil.copytree(first, tmp_path / "x" / "first")
    assert plot._names([str(first), str(other)]) == [str(first), str(other)]
    capsys.readouterr()


def test_colours_tell_runs_apart():
    curves = {0: {1: 3.0, 20: 1.0}, 1: {1: 1.0, 20: 2.0}}
    with Image.open(io.BytesIO(plot._draw({"loss": {"train": curves}}, ["a", "b"]))) as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    for colour in ((31, 119, 180), (255, 127, 14)):
        assert (np.abs(pixels.astype(int) - colour).max(1) < 8).sum() > 300


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--what", "los"], "--what los is no curve of these runs; did you mean 'loss'?"),
        (["--what", "zzz"], "--what zzz is no curve of these runs; there are loss"),
        (["--out", "a.jpg"], "--out a.jpg does not end in .png"),
        (["--run", "nowhere"], "--run nowhere is no folder"),
        (["--run", "run"] * 10, "11 runs are more than 10 colours"),
    ],
)
def test_bad_input_is_one_line(argv, said, log, tmp_path, monkeypatch, capsys):
    log("run")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["plot", "--run", "run", *argv]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"t2i: {said}")
    assert err.count("\n") == 1


def test_without_matplotlib_it_is_one_line(log, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert cli.main(["plot", "--run", str(log("run"))]) == 2
    assert capsys.readouterr().err == "t2i: t2i plot needs matplotlib: pip install 't2i-jax[plot]'\n"


def test_tensorboard_is_told_what_to_show_in_one_chart(smoke_run):
    """Teacher-forced beside free-running draws, and pictures with their captions under them."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    layout_pb2 = pytest.importorskip("tensorboard.plugins.custom_scalar.layout_pb2")
    log = accumulator.EventAccumulator(str(smoke_run.translator / "logs")).Reload()
    layout = layout_pb2.Layout.FromString(log.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    charts = {chart.title: list(chart.multiline.tag) for chart in layout.category[0].chart}
    assert list(charts) == ["entropy", "longest_run", "distinct"]
    assert charts["entropy"] == [
        f"validation/{name}/entropy" for name in ("data", "teacher_forced", "free_running")
    ]
    with Image.open(io.BytesIO(log.Images("samples")[-1].encoded_image_string)) as grid:
        assert grid.height > 8 * 96 / 4  # enlarged
        assert grid.getpixel((0, 0)) == (255, 255, 255)  # paper to write on
