"""From one stage to the next: a translator and the tokenizer that it names, and other ways to misname things."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from t2i_jax import runs

REPO = Path(__file__).parents[1]
VQVAE, TRANSLATOR = "--config=configs/patch_vqvae.py:smoke", "--config=configs/translator.py:smoke"


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
        (["--config"], "argument --config: expected one argument"),
        (
            ["--config=elsewhere/patch_vqvae.py"],
            "does not exist; did you mean 'patch_vqvae'? choose one of dalle, dvae, ",
        ),
        (
            ["--config=configs/patch_vqvea.py"],
            "did you mean 'configs/patch_vqvae.py'? choose one of configs/dalle.py, ",
        ),
        (["--config=configs"], "there is no config 'configs'; choose one of dalle, "),
        (
            ["--config", "configs/patch_vqvae.py:smok"],
            "no variant 'smok'; choose one of configs/patch_vqvae.py:digits",
        ),
        (
            ["--config=./configs/patch_vqvae.py:smok"],
            "no variant 'smok'; choose one of configs/patch_vqvae.py:digits",
        ),
        (["--config=patch_vqvae:"], "patch_vqvae has no variant ''; choose one of patch_vqvae:digits, "),
        ([VQVAE, "--config.mesh.foo=1"], "config.mesh has no field 'foo'; it has data, fsdp, tensor"),
        ([VQVAE, "--config.optm.lr=1"], "no field 'optm'; did you mean 'optim'?"),
        ([VQVAE, "--config.optim.lr.x=1"], "config.optim.lr has no field 'x'; it has none"),
        ([VQVAE, "--config.steps=1.5"], "--config.steps=1.5"),
        ([VQVAE, "--config.optim=3"], "--config.optim=3"),
        ([VQVAE, "--config.mesh.fsdp=maybe"], "--config.mesh.fsdp=maybe"),
        ([VQVAE, "--workdir"], "--workdir"),
    ],
)
def test_more_flags_that_cannot_be(argv, said, command):
    code, lines = command(*argv)
    assert code == 2
    assert len(lines) == 1, lines
    assert lines[0].startswith("train.py: ")
    assert said in lines[0]


def test_good_ways_to_name_a_config(command, tmp_path):
    (tmp_path / "file").write_text("")
    for argv in (
        ["--config=configs/patch_vqvae.py"],
        ["--config", "configs/patch_vqvae.py:smoke"],
        ["--config=./configs/patch_vqvae.py:smoke"],
        [f"--config={REPO}/configs/patch_vqvae.py:smoke"],
        [VQVAE, "--accept-config-change"],
    ):  # each goes on until it meets the bad workdir
        assert "choose another --workdir" in command(*argv, f"--workdir={tmp_path / 'file'}")[1][-1]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([VQVAE, "--workdir=/proc/run"], "run folder /proc/run cannot be written"),
        ([VQVAE, "--config.data.data_dir=/proc/data"], "/proc/data"),
        (
            [TRANSLATOR, "--config.model.codebook_size=32"],
            "codebook_size is 32, but 64 follows from config.parents.tokenizer.config.",
        ),
        (
            [TRANSLATOR, "--config.model.num_tokens=16"],
            "model.num_tokens is 16, but 24 follows from config.par",
        ),
        ([TRANSLATOR, "--config.model.text_vocab_size=10"], "the model reads at most 10"),
        ([TRANSLATOR, "--config.model.decoder.heads=5"], "config.model: width 32 is not divisible by 5 heads"),
        (
            [TRANSLATOR, "--config.model.text_len=16"],
            "model.text_len is 16, but 12 follows from config.data.",
        ),
    ],
)
def test_stages_that_do_not_fit(argv, said, refused, smoke_run):
    if argv[0] == TRANSLATOR:
        argv = [*argv, f"--config.parents.tokenizer.run={smoke_run.tokenizer}"]
    assert said in refused(*argv)


def test_a_field_that_does_not_fit_is_found_before_the_tokenizer_is_trained(refused, tmp_path):
    run = tmp_path / "tokenizer"
    said = refused(TRANSLATOR, f"--config.parents.tokenizer.run={run}", "--config.model.decoder.remat=always")
    assert "remat 'always' is unknown" in said
    assert not run.exists()


def test_a_first_attempt_that_was_refused_leaves_no_text_tokenizer_to_go_by(refused, smoke_run, tmp_path):
    argv = [TRANSLATOR, f"--config.parents.tokenizer.run={smoke_run.tokenizer}"]
    assert "by 5 heads" in refused(*argv, "--config.model.decoder.heads=5")
    assert (tmp_path / "run" / "text_tokenizer.json").exists()
    assert "at most 10" in refused(*argv, "--config.model.text_vocab_size=10", "--accept-config-change")


def test_a_translators_run_is_no_tokenizer(refused, smoke_run):
    said = refused(TRANSLATOR, f"--config.parents.tokenizer.run={smoke_run.translator}")
    assert str(smoke_run.translator) in said
    assert "was trained with another config" in said


@pytest.fixture
def retrained(smoke_run, tmp_path):
    """The smoke run's tokenizer, trained once more to something else, its tokens still those of before."""
    folder = shutil.copytree(smoke_run.tokenizer, tmp_path / "tokenizer")
    params, variables, step, _ = runs.read_weights(folder)
    params["decoder_0"]["channel_out"]["bias"] += 0.01
    runs.write_weights(folder, params, variables, step)
    return folder


@pytest.mark.slow
def test_tokens_of_a_tokenizer_that_was_trained_again_are_made_anew(command, retrained, data_dir, tmp_path):
    before = (retrained / "tokens" / "captioned_digits-tiny" / "train" / "digests.json").read_bytes()
    options = [f"--config.parents.tokenizer.run={retrained}", f"--config.data.data_dir={data_dir}"]
    code, lines = command(TRANSLATOR, f"--workdir={tmp_path / 'run'}", *options)
    assert code == 0, lines
    assert any("tokens in" in line and "encoding again" in line for line in lines)
    assert (retrained / "tokens" / "captioned_digits-tiny" / "train" / "digests.json").read_bytes() != before


def test_a_translator_keeps_the_tokenizer_that_it_was_trained_with(
    refused, smoke_run, retrained, tmp_path, read_only
):
    run = shutil.copytree(smoke_run.translator, tmp_path / "run")
    before = read_only(run / "parents" / "tokenizer")
    argv = [TRANSLATOR, f"--config.parents.tokenizer.run={retrained}", "--accept-config-change", "--config.steps=3"]
    assert "was trained on another tokenizer than" in refused(*argv)
    shutil.rmtree(retrained / "tokens")  # as the message about the tokens says
    assert "was trained on another tokenizer than" in refused(*argv)
    assert read_only(run / "parents" / "tokenizer") == before


def test_a_loss_that_is_not_finite_leaves_what_was_good(command, smoke_run, data_dir, tmp_path):
    run = shutil.copytree(smoke_run.tokenizer, tmp_path / "run")
    digest = runs.read_weights(run)[3]
    fields = ["steps=9", "optim.lr=1e30", "optim.warmup=0", "checkpoint_every=9", f"data.data_dir={data_dir}"]
    options = [f"--config.{field}" for field in fields]
    code, lines = command(VQVAE, f"--workdir={run}", *options, "--accept-config-change")
    assert code == 2
    assert lines[-1].startswith("train.py: loss is ")
    assert "at step 4; last good checkpoint: step 2; lower config.optim.lr" in lines[-1]
    assert not any("Traceback" in line for line in lines)
    assert runs.read_weights(run)[3] == digest


def test_a_loss_that_is_not_finite_before_any_checkpoint(refused):
    fields = ["steps=9", "optim.lr=1e30", "optim.warmup=0", "checkpoint_every=9", "eval_every=9"]
    said = refused(VQVAE, *(f"--config.{field}" for field in fields))
    assert "at step 2; no checkpoint yet" in said


def test_as_a_program_it_has_one_line_and_exit_code_2():
    command = [sys.executable, "train.py", VQVAE, "--config.optim.lrr=1"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "train.py: config.optim has no field 'lrr'; did you mean 'lr'?\n"
