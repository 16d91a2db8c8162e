"""What can be wrong with a command of train.py: one line on stderr that names it, exit code 2, no traceback."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from t2i_jax.loop import run as runs

REPO = Path(__file__).parents[1]
VQVAE, TRANSLATOR = "--config=configs/vqvae.py:smoke", "--config=configs/translator.py:smoke"


@pytest.fixture
def refused(command, data_dir, tmp_path):
    """Runs a command that must be refused; returns the line that says why, without `train.py: `."""

    def call(config, *argv):
        code, lines = command(config, f"--workdir={tmp_path / 'run'}", f"--config.data.data_dir={data_dir}", *argv)
        assert code == 2, lines
        assert lines[-1].startswith("train.py: ")
        assert not any("Traceback" in line for line in lines)
        return lines[-1].removeprefix("train.py: ")

    return call


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "--config is missing; choose one of configs/translator.py:digits, configs/translator.py:smoke"),
        (["--config"], "choose one of configs/translator.py:digits"),
        (["--config=configs/vqvea.py"], "'configs/vqvea.py' does not exist; choose one of configs/translator.py"),
        (["--config=elsewhere/vqvae.py"], "does not exist; choose one of configs/translator.py:digits"),
        (["--config=configs"], "'configs' does not exist; choose one of configs/translator.py:digits"),
        (["--config=configs/base.py"], "configs/base.py is no experiment"),
        (["--config=configs/vqvae.py:smok"], "no variant 'smok'; choose one of configs/vqvae.py:digits, configs"),
        (["--config", "configs/vqvae.py:smok"], "no variant 'smok'"),
        (["--config=./configs/vqvae.py:smok"], "no variant 'smok'; choose one of configs/vqvae.py:digits"),
        ([VQVAE, "--config.optim.lrr=1"], "no field 'lrr'; did you mean 'lr'?"),
        ([VQVAE, "--config.optm.lr=1"], "no field 'optm'; did you mean 'optim'?"),
        ([VQVAE, "--config.frobnicate=1"], "no field 'frobnicate'"),
        ([VQVAE, "--config.optim.lr.x=1"], "no field 'optim.lr.x'"),
        ([VQVAE, "--config.steps=abc"], "--config.steps=abc"),
        ([VQVAE, "--config.steps=1.5"], "--config.steps=1.5"),
        ([VQVAE, "--config.optim.lr=fast"], "--config.optim.lr=fast"),
        ([VQVAE, "--config.optim=3"], "--config.optim=3"),
        ([VQVAE, "--config.fsdp=maybe"], "--config.fsdp=maybe"),
        ([VQVAE, "steps=3"], "'steps=3' is no flag"),
        ([VQVAE, "--wrokdir=x"], "'wrokdir'. Did you mean: workdir"),
        ([VQVAE, "--workdir"], "--workdir"),
    ],
)
def test_a_bad_command_line_is_one_line_before_anything_starts(argv, said, command, tmp_path, monkeypatch):
    code, lines = command(*argv)
    assert code == 2
    assert len(lines) == 1, lines
    assert lines[0].startswith("train.py: ")
    assert said in lines[0]


def test_good_ways_to_name_a_config(command, tmp_path):
    (tmp_path / "file").write_text("")
    for argv in (
        ["--config=configs/vqvae.py"],
        ["--config", "configs/vqvae.py:smoke"],
        ["--config=./configs/vqvae.py:smoke"],
        [f"--config={REPO}/configs/vqvae.py:smoke"],
        [VQVAE, "--accept-config-change"],
    ):  # each goes on until it meets the bad workdir
        assert "choose another --workdir" in command(*argv, f"--workdir={tmp_path / 'file'}")[1][-1]


@pytest.mark.parametrize("workdir", ["/proc/run", "{tmp}/file", "{tmp}/file/run"])
def test_a_workdir_that_cannot_be_written_is_named(workdir, refused, tmp_path):
    (tmp_path / "file").write_text("")
    workdir = workdir.format(tmp=tmp_path)
    said = refused(VQVAE, f"--workdir={workdir}")
    assert said.startswith(f"run folder {workdir} cannot be written")
    assert said.endswith("choose another --workdir")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([VQVAE, "--config.data.name=captiond_digits"], "data set 'captiond_digits' is unknown"),
        (
            [VQVAE, "--config.data.name=captioned_digits/tinny"],
            "no configuration 'tinny'; it has coarse, fine, tiny",
        ),
        ([VQVAE, "--config.data.data_dir=/proc/data"], "/proc/data"),
        ([VQVAE, "--config.model.patch=7"], "config.model: image_size 32 is not divisible by patch 7"),
        ([VQVAE, "--config.optim.schedule=cosin"], "'cosin' is unknown; choose cosine, linear, constant"),
        ([VQVAE, "--config.optim.warmup=3"], "warmup 3 is above config.steps 2"),
        ([VQVAE, "--config.accumulate=3"], "batch_size 8 is not divisible by 1 devices x config.accumulate 3"),
        ([VQVAE, "--config.parallel=jot"], "'jot' is unknown; choose jit, pmap"),
        ([TRANSLATOR, "--config.model.codebook_size=32"], "config.model.codebook_size is 32, but tokenizer"),
        ([TRANSLATOR, "--config.model.num_tokens=16"], "config.model.num_tokens is 16, but tokenizer"),
        ([TRANSLATOR, "--config.model.text_vocab_size=10"], "the model reads at most 10"),
        ([TRANSLATOR, "--config.model.decoder.heads=5"], "config.model: width 32 is not divisible by 5 heads"),
        ([TRANSLATOR, "--config.data.text_len=16"], "config.model: text has 16 tokens; the encoder reads 12"),
    ],
)
def test_a_config_that_cannot_be_trained_is_one_line(argv, said, refused, smoke_run):
    if argv[0] == TRANSLATOR:
        argv = [*argv, f"--config.tokenizer_run={smoke_run.tokenizer}"]
    assert said in refused(*argv)


def test_a_refused_vocabulary_leaves_no_text_tokenizer_behind(refused, smoke_run, tmp_path):
    run = tmp_path / "run"
    argv = [TRANSLATOR, f"--config.tokenizer_run={smoke_run.tokenizer}"]
    assert "16 tokens" in refused(*argv, "--config.data.text_len=16")
    assert (run / "text_tokenizer.json").exists()
    # The next attempt is another config, and must not go by what the first one left.
    assert "at most 10" in refused(*argv, "--config.model.text_vocab_size=10", "--accept-config-change")


def test_a_translators_run_is_no_tokenizer(refused, smoke_run):
    said = refused(TRANSLATOR, f"--config.tokenizer_run={smoke_run.translator}")
    assert f"run {smoke_run.translator} holds no image tokenizer" in said


def test_another_config_is_refused_until_it_is_accepted(command, smoke_run, data_dir, tmp_path, read_only):
    run = shutil.copytree(smoke_run.tokenizer, tmp_path / "run")
    before = read_only(run)
    argv = [VQVAE, f"--workdir={run}", f"--config.data.data_dir={data_dir}", "--config.steps=3"]
    code, lines = command(*argv, "--config.optim.lr=0.002")
    assert code == 2
    assert len(lines) == 1
    assert f"{run} was started with another config (optim.lr: 0.001 -> 0.002; steps: 2 -> 3);" in lines[0]
    assert "--accept-config-change" in lines[0]
    assert read_only(run) == before

    code, lines = command(*argv, "--accept-config-change")
    assert code == 0
    assert "continuing from step 2" in lines
    assert runs.read_config(run).steps == 3
    assert runs.read_weights(run)[2] == 3
    assert command(*argv) == (0, [f"{run} is finished: step 3"])  # it is the run's own now


def test_a_loss_that_is_not_finite_stops_with_the_last_good_checkpoint(command, smoke_run, data_dir, tmp_path):
    run = shutil.copytree(smoke_run.tokenizer, tmp_path / "run")
    digest = runs.read_weights(run)[3]
    fields = ["steps=9", "optim.lr=1e30", "optim.warmup=0", "checkpoint_every=9", f"data.data_dir={data_dir}"]
    options = [f"--config.{field}" for field in fields]
    code, lines = command(VQVAE, f"--workdir={run}", *options, "--accept-config-change")
    assert code == 2
    assert lines[-1].startswith("train.py: loss is ")
    assert "at step 4; last good checkpoint: step 2; lower config.optim.lr" in lines[-1]
    assert not any("Traceback" in line for line in lines)
    assert runs.read_weights(run)[3] == digest  # what was good stays


def test_a_loss_that_is_not_finite_before_any_checkpoint(refused):
    fields = ["steps=9", "optim.lr=1e30", "optim.warmup=0", "checkpoint_every=9", "eval_every=9"]
    said = refused(VQVAE, *(f"--config.{field}" for field in fields))
    assert "at step 2; no checkpoint yet" in said


@pytest.fixture
def retrained(smoke_run, tmp_path):
    """The smoke run's tokenizer, trained once more to something else, its tokens still those of before."""
    folder = shutil.copytree(smoke_run.tokenizer, tmp_path / "tokenizer")
    params, variables, step, _ = runs.read_weights(folder)
    params["decoder_0"]["channel_out"]["bias"] += 0.01
    runs.write_weights(folder, params, variables, step)
    return folder


def test_tokens_of_a_tokenizer_that_was_trained_again_are_refused(refused, retrained):
    said = refused(TRANSLATOR, f"--config.tokenizer_run={retrained}")
    assert f"tokens in {retrained / 'tokens'}" in said
    assert "were made by tokenizer" in said
    assert "delete" in said


def test_a_translator_keeps_the_tokenizer_that_it_was_trained_with(
    refused, smoke_run, retrained, tmp_path, read_only
):
    run = shutil.copytree(smoke_run.translator, tmp_path / "run")
    before = read_only(run / "tokenizer")
    argv = [TRANSLATOR, f"--config.tokenizer_run={retrained}", "--accept-config-change", "--config.steps=3"]
    assert "tokens of another tokenizer" in refused(*argv)
    shutil.rmtree(retrained / "tokens")  # as the message about the tokens says
    assert "tokens of another tokenizer" in refused(*argv)
    assert read_only(run / "tokenizer") == before


def test_as_a_program_it_has_one_line_and_exit_code_2():
    command = [sys.executable, "train.py", VQVAE, "--config.optim.lrr=1"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "train.py: the config has no field 'lrr'; did you mean 'lr'?\n"
