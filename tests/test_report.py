"""The evaluation and the drawing commands on a real run, end to end."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

import t2i_jax
from t2i_jax import cli, files
from t2i_jax.cli.results import _broken
from t2i_jax.data.scenes import HELD_OUT
from t2i_jax.errors import UserError
from t2i_jax.evals import copies, faithfulness, report
from t2i_jax.evals.judges import captioned_digits

pytestmark = pytest.mark.slow  # a run is trained for them

COLUMNS = ["generated", "reconstructed seen", "reconstructed unseen", "real"]
COLUMNS += [f"held-out {name}" for name in COLUMNS]


@pytest.fixture(scope="module")
def pipe(smoke_run):
    return t2i_jax.load(smoke_run.translator)


@pytest.fixture(scope="module")
def evaluation(pipe, smoke_run):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copies, "PLACES", 1)
        patch.setattr(copies, "TIMES", 1)
        return report.evaluate_run(pipe, smoke_run.translator, seed=1)


def test_every_column_has_every_category(evaluation):
    _, results = evaluation
    assert list(results["faithfulness"]) == COLUMNS
    for scores in results["faithfulness"].values():
        assert list(scores) == [*faithfulness.CATEGORIES, "overall"]
        assert all(0 <= score <= 1 for score in scores.values())
        assert scores["overall"] == pytest.approx(np.mean([scores[name] for name in faithfulness.CATEGORIES]))


def test_real_scenes_are_read_and_noise_is_not(evaluation):
    columns = evaluation[1]["faithfulness"]
    assert columns["real"]["overall"] >= 0.98
    assert columns["held-out real"]["overall"] >= 0.98
    for prefix in ("", "held-out "):
        scores = [columns[prefix + name]["overall"] for name in ("generated", "reconstructed unseen", "real")]
        assert scores == sorted(scores)
    assert columns["generated"]["overall"] < 0.1  # after two steps
    assert columns["reconstructed unseen"]["overall"] > 0.2  # 64 codes already keep some


def test_every_score_has_an_interval(evaluation):
    _, results = evaluation
    for name in ("faithfulness", "diversity"):
        for column, scores in results[name].items():
            ends = results["intervals"][name][column]
            assert list(ends) == list(scores)
            assert all(low <= high for low, high in ends.values())
    found = results["intervals"]["faithfulness"]["reconstructed unseen"]
    low, high = found["overall"]
    assert low < results["faithfulness"]["reconstructed unseen"]["overall"] < high
    assert all(set(own) == {"score", "interval", "digits"} for own in results["copies"].values())
    assert {"recited", "new"} <= set(results["copies"])


def test_the_results_say_what_made_them(evaluation, pipe, smoke_run):
    table, results = evaluation
    assert json.loads(json.dumps(results)) == results
    assert results["run"] == str(smoke_run.translator)
    assert (results["step"], results["digest"], results["seed"]) == (2, pipe.digest, 1)
    assert results["pictures"] in range(4, 4 * 6 * 50 + 1, 4)  # four of each prompt
    assert results["sampling"] == dataclasses.asdict(pipe.sampling)
    for line in ("PSNR", "codebook usage", "bigram baseline", "teacher forced", "free running", "step 2, seed 1"):
        assert line in table
    for column in COLUMNS[:4]:
        assert table.count(column.split()[0]) >= 2
    shown = "\n".join(map(_broken, table.splitlines()))
    assert max(map(len, shown.splitlines())) <= 80
    scores = files.read_json(smoke_run.translator / "scores.json")
    assert f"{scores['nats']:.3f}" in table


def test_prompts_are_apart_from_those_shown_in_training(pipe, smoke_run, monkeypatch):
    asked = []
    make_prompts = faithfulness.make_prompts

    def record(*args, **options):
        asked.append(make_prompts(*args, **options))
        return asked[-1][:1]  # one picture will do

    monkeypatch.setattr(faithfulness, "make_prompts", record)
    monkeypatch.setattr(captioned_digits, "Detector", lambda: lambda images: [[] for _ in images])
    monkeypatch.setattr(copies, "Copies", lambda *_, **__: SimpleNamespace(measure=lambda readings: {}))
    monkeypatch.setattr(copies, "format_table", lambda measured: "")
    report.evaluate_run(pipe, smoke_run.translator)
    assert len(asked) == 2
    for prompts in asked:
        captions = {prompt.caption for prompt in prompts}
        assert not captions & set(pipe.config.shown_captions)
        names, counts = np.unique([prompt.category for prompt in prompts], return_counts=True)
        assert len(names) == 6
        assert counts.min() >= 50
    pairs = [[(d.colour, d.value) in HELD_OUT for d in prompt.scene.digits] for prompt in asked[0]]
    assert not any(map(any, pairs))
    assert all(any((d.colour, d.value) in HELD_OUT for d in prompt.scene.digits) for prompt in asked[1])


def test_a_data_set_without_detector_is_refused(smoke_run):
    pipe = t2i_jax.load(smoke_run.translator)
    pipe.config = ConfigDict(pipe.config.to_dict())
    pipe.config.data.name = "coco_captions/2017"
    with pytest.raises(
        UserError, match="pictures of coco_captions have no judge; only those of captioned_digits, captioned_"
    ):
        report.evaluate_run(pipe, smoke_run.translator)


def test_scores_may_be_missing_but_not_damaged(tmp_path):
    assert report.read_scores(tmp_path, ()) == {}
    (tmp_path / "scores.json").write_text('{"nats": 1.5')
    with pytest.raises(UserError, match="is corrupt"):
        report.read_scores(tmp_path, ["nats"])
    files.write_json(tmp_path / "scores.json", {"psnr": 1.5})
    with pytest.raises(UserError, match="has no nats; delete it"):
        report.read_scores(tmp_path, ["nats"])


def test_sample_draws_a_grid(smoke_run, pipe, tmp_path, capsys):
    out = tmp_path / "grid.png"
    argv = ["sample", "--run", str(smoke_run.translator), "--prompt", "a red seven above a blue three", "-n", "4"]
    options = ["--guidance-scale", "3", "--temperature", "1", "--top-k", "0", "--top-p", "1", "--seed", "0"]
    assert cli.main([*argv, *options, "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    with Image.open(out) as grid:
        assert grid.width >= 4 * 32
        assert np.asarray(grid).std() > 10


def test_sample_writes_the_pictures_that_the_pipe_draws(smoke_run, pipe, tmp_path, capsys):
    prompts = ["a red seven", "two green fours", "a blue one"]
    (tmp_path / "prompts.txt").write_text("\n".join(prompts) + "\n")
    argv = ["sample", "--run", str(smoke_run.translator), "--prompts-file", str(tmp_path / "prompts.txt")]
    assert cli.main([*argv, "-n", "2", "--seed", "7", "--top-k", "9", "--out", str(tmp_path / "out")]) == 0
    images = pipe(prompts, num_images=2, seed=7, top_k=9)
    entries = [json.loads(line) for line in (tmp_path / "out" / "prompts.jsonl").read_text().splitlines()]
    assert [entry["prompt"] for entry in entries] == prompts
    assert all(entry["digest"] == pipe.digest and entry["top_k"] == 9 for entry in entries)
    for row, entry in zip(images, entries, strict=True):
        for image, name in zip(row, entry["files"], strict=True):
            with Image.open(tmp_path / "out" / name) as picture:
                np.testing.assert_array_equal(np.asarray(picture), image)


def test_runs_that_cannot_draw_are_one_line(smoke_run, tmp_path, capsys):
    for run, said in [(smoke_run.tokenizer, "holds an image tokenizer"), (tmp_path, "is no run folder")]:
        argv = ["sample", "--run", str(run), "--prompt", "a red seven", "--out", str(tmp_path / "grid.png")]
        assert cli.main(argv) == 2
        err = capsys.readouterr().err
        assert said in err
        assert err.count("\n") == 1
    long = "a red seven " * 9
    run = str(smoke_run.translator)
    assert cli.main(["sample", "--run", run, "--prompt", long, "--out", str(tmp_path / "grid.png")]) == 2
    assert "27 word pieces; this run reads at most 10" in capsys.readouterr().err


@pytest.mark.parametrize("candidates", ["0", "1001"])
def test_candidates_out_of_range_are_refused_before_the_run_is_opened(candidates, tmp_path, capsys):
    assert cli.main(["evaluate", "--run", str(tmp_path), "--candidates", candidates]) == 2
    assert capsys.readouterr().err == f"t2i: --candidates {candidates} is out of range; give 1 to 1000\n"


def test_a_sweeps_rating_is_the_column_of_generated_pictures(pipe, evaluation):
    score, interval = captioned_digits.rater(pipe, 1)(pipe.sampling)
    assert score == evaluation[1]["faithfulness"]["generated"]["overall"]
    assert interval == evaluation[1]["intervals"]["faithfulness"]["generated"]["overall"]
