"""`t2i sweep`: every combination is scored once, whatever stopped it before."""

import json

import pytest
from PIL import Image

from t2i_jax import cli, files
from t2i_jax.evals.judges import captioned_digits

SETTINGS = ["--temperature", "0,0.5", "--guidance-scale", "1,1.5,2"]


@pytest.fixture
def sweep(smoke_run, tmp_path, monkeypatch, capsys):
    """`sweep(*flags)` is the exit code, stdout and stderr; `sweep.rated` the samplers that were rated."""
    rated = []

    def rater(pipe, seed):
        def rate(sampler):
            if len(rated) == call.stop_at:
                raise KeyboardInterrupt
            rated.append((sampler.temperature, sampler.guidance_scale))
            score = 0.5 + 0.1 * sampler.guidance_scale - 0.2 * sampler.temperature
            return score, [score - 0.01, score + 0.02]

        return rate

    def call(*flags):
        code = cli.main(["sweep", "--run", str(smoke_run.translator), "--out", str(tmp_path / "s.json"), *flags])
        return code, *capsys.readouterr()

    monkeypatch.setattr(captioned_digits, "rater", rater)
    call.rated, call.stop_at, call.out = rated, None, tmp_path / "s.json"
    return call


def test_every_combination_is_scored_tabled_and_drawn(sweep):
    code, table, _ = sweep(*SETTINGS)
    assert code == 0
    assert sorted(sweep.rated) == [(t, g) for t in (0.0, 0.5) for g in (1.0, 1.5, 2.0)]
    (best,) = [line for line in table.splitlines() if line.endswith("best")]
    assert best.split()[:5] == ["temperature", "0.0,", "guidance_scale", "2.0", "0.700"]
    found = files.read_json(sweep.out)
    assert len(found["rows"]) == 6
    assert found["rows"][0]["sampling"]["min_p"] == 0.05  # the run's own
    with Image.open(sweep.out.with_suffix(".png")) as picture:
        assert picture.width > 400


def test_an_interrupted_sweep_goes_on_and_a_wider_one_rates_what_is_new(sweep):
    sweep.stop_at = 4
    assert sweep(*SETTINGS)[0] == 130
    assert len(files.read_json(sweep.out)["rows"]) == 4
    sweep.stop_at = None
    code, printed, _ = sweep(*SETTINGS, "--json")
    assert (code, len(json.loads(printed))) == (0, 6)
    assert sweep("--temperature", "0,0.5,0.7", "--guidance-scale", "1")[0] == 0
    assert len(sweep.rated) == len(set(sweep.rated)) == 7


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "no setting is varied"),
        (["--temperature", "0.3,warm"], "'warm' is no number"),
        (["--temperature", "0.3,-1"], "temperature -1"),
        (["--window", "2,1000"], "window 1000 is above the"),
        (["--top-p", ",".join(f"0.{i}" for i in range(100, 400))], "300 combinations are more than 200"),
    ],
)
def test_what_cannot_be_swept_is_one_line(sweep, flags, said):
    code, _, error = sweep(*flags)
    assert code == 2
    assert said in error
    assert error.count("\n") == 1
    assert not sweep.rated


def test_another_seeds_sweep_is_kept(sweep):
    assert sweep("--temperature", "0.3")[0] == 0
    before = sweep.out.read_bytes()
    code, _, error = sweep("--temperature", "0.3", "--seed", "1")
    assert (code, sweep.out.read_bytes()) == (2, before)
    assert "another --seed; name another --out" in error
    sweep.out.write_bytes(before[:-9])
    assert "corrupt" in sweep("--temperature", "0.3")[2]
