"""What can go wrong between a person and train.py: one line on stderr, exit code 2, nothing lost."""

import logging
import shutil

import pytest
from absl import flags

from t2i_jax import cli, files, runs
from t2i_jax.config import load_config

VQVAE = "--config=configs/patch_vqvae.py:smoke"


def refusal(command, *argv):
    code, lines = command(*argv)
    assert code == 2, lines
    assert not any("Traceback" in line for line in lines)
    assert lines[-1].startswith("train.py: ")
    return lines[-1]


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--config=configs/patch_vqvae.py", "--config.optim.lrr=3"], "no field 'lrr'; did you mean 'lr'?"),
        (["--config=configs/patch_vqvae.py", "--config.model.widht=3"], "did you mean 'width'?"),
        (["--config=configs/patch_vqvae.py", "--config.optim.lr=abc"], "abc"),
        (
            ["--config=configs/patch_vqvae.py:nope"],
            "'nope'; choose one of configs/patch_vqvae.py:digits, ",
        ),
        (["--config=configs/translators.py"], "did you mean 'configs/translator.py'?"),
        (["--config=configs/base.py"], "is no experiment"),
        (["--confg=configs/patch_vqvae.py"], "did you mean '--config'?"),
        ([], "--config is missing; choose one of"),
        ([VQVAE, "x"], "'x' is no flag"),
    ],
)
def test_flags_that_cannot_be(command, argv, expected):
    assert expected in refusal(command, *argv)


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("steps=0", "config.steps 0 is below 1"),
        ("eval_every=0", "config.eval_every 0 is below 1"),
        ("batch_size=0", "config.batch_size 0 is below 1"),
        ("seed=-1", "config.seed -1 is below 0"),
        ("parallel=pjit", "choose jit, pmap"),
        ("accumulate=3", "choose a multiple of 3"),
        ("optim.schedule=step", "choose cosine, linear, constant"),
        ("optim.warmup=9", "config.optim.warmup 9 is above config.steps 2"),
        ("data.name=captioned_digits/fien", "it has coarse, fine, tiny"),
        ("data.name=nothing", "'nothing' is unknown"),
        ("model.patch=5", "block 16 is not divisible by patch 5"),
        ("model.residual_depth=5", "48 shapes are not divisible by residual_depth 5"),
        ("model.dtype=bf16", "config.model.dtype is 'bf16'; it is float32 or bfloat16"),
    ],
)
def test_configs_that_cannot_be(command, data_dir, tmp_path, field, expected):
    line = refusal(
        command, VQVAE, f"--workdir={tmp_path}", f"--config.data.data_dir={data_dir}", f"--config.{field}"
    )
    assert expected in line
    assert not (tmp_path / runs.WEIGHTS).exists()


def test_a_sampler_that_cannot_be_is_found_before_the_tokenizer_is_trained(command, smoke_run, tmp_path):
    argv = [*smoke_run.argv, f"--workdir={tmp_path}", f"--config.parents.tokenizer.run={tmp_path / 'tokenizer'}"]
    assert "temperature -1 is below 0" in refusal(command, *argv, "--config.sampling.temperature=-1.0")
    assert not (tmp_path / "tokenizer").exists()


def test_an_unwritable_run_folder(command, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refusal(command, VQVAE, f"--workdir={tmp_path / 'file' / 'run'}")


def test_another_config_is_refused_until_accepted(command, smoke_run, tmp_path):
    run = shutil.copytree(smoke_run.tokenizer, tmp_path / "run")
    argv = [VQVAE, f"--workdir={run}", smoke_run.argv[-1], "--config.steps=3"]
    line = refusal(command, *argv)
    assert "steps: 2 -> 3" in line
    assert "--accept-config-change" in line
    code, lines = command(*argv, "--accept-config-change")
    assert code == 0, lines
    assert "continuing from step 2" in lines
    assert runs.read_weights(run)[2] == 3


def test_a_config_is_replaced_only_once_a_checkpoint_is_restored(command, smoke_run, tmp_path, read_only):
    run = shutil.copytree(smoke_run.tokenizer, tmp_path / "run")
    for manifest in run.glob("checkpoints/*/digests.json"):
        manifest.unlink()
    before = read_only(run)
    argv = [VQVAE, f"--workdir={run}", smoke_run.argv[-1], "--config.steps=3", "--accept-config-change"]
    assert "no checkpoint in" in refusal(command, *argv)
    assert read_only(run) == before


def test_a_config_of_an_older_or_newer_version_is_listed_field_by_field(command, smoke_run, tmp_path):
    run = shutil.copytree(smoke_run.tokenizer, tmp_path / "run")
    config = files.read_json(run / runs.CONFIG)
    del config["seed"]
    files.write_json(run / runs.CONFIG, {**config, "gone": 1})
    argv = [VQVAE, f"--workdir={run}", smoke_run.argv[-1]]
    assert "(gone: 1 -> absent; seed: absent -> 0)" in refusal(command, *argv)
    code, lines = command(*argv, "--config.steps=3", "--accept-config-change")
    assert code == 0, lines
    for change in ("gone: 1 -> absent", "seed: absent -> 0", "steps: 2 -> 3"):
        assert f"warning: accepted config change: {change}" in lines
    assert files.read_json(run / runs.CONFIG)["seed"] == 0


def test_a_tokenizer_of_another_config_is_refused(command, smoke_run, tmp_path):
    argv = [*smoke_run.argv, f"--workdir={tmp_path / 'run'}", "--config.parents.tokenizer.config.seed=5"]
    assert "seed: 0 -> 5" in refusal(command, *argv)


def test_a_loss_that_is_not_finite_names_the_step_and_the_last_good_checkpoint(command, data_dir, tmp_path):
    argv = [VQVAE, f"--workdir={tmp_path}", f"--config.data.data_dir={data_dir}", "--config.optim.lr=1e30"]
    line = refusal(command, *argv, "--config.steps=4", "--config.optim.schedule=constant")
    assert "is nan" in line or "inf" in line
    assert "last good checkpoint: step" in line
    good = int(line.split("last good checkpoint: step ")[1].split(";")[0])
    assert f"at step {good + 1}" in line
    assert runs.read_weights(tmp_path)[2] == good


def test_an_unreadable_checkpoint_gives_way_to_the_one_before(command, smoke_run, tmp_path):
    run = shutil.copytree(smoke_run.tokenizer, tmp_path / "run")
    (run / runs.WEIGHTS).unlink()
    for path in (run / "checkpoints" / "2" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    code, lines = command(VQVAE, f"--workdir={run}", smoke_run.argv[-1])
    assert code == 0, lines
    assert any(line.startswith("warning: checkpoint 2 ") for line in lines)
    assert "continuing from step 1" in lines
    assert runs.read_weights(run)[3] == runs.read_weights(smoke_run.tokenizer)[3]


OUTSIDE = """
from configs import sibling, vae

def get_config(variant="small"):
    config = globals()[variant]()
    config.name = variant
    return config

def small():
    config = vae.get_config("smoke")
    config.model.latent = sibling.LATENT
    return config
"""


@pytest.fixture
def outside(tmp_path):
    """A config file of one's own, beside another that it imports."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "sibling.py").write_text("LATENT = 5\n")
    (tmp_path / "mine" / "experiment.py").write_text(OUTSIDE)
    return tmp_path / "mine" / "experiment.py"


def test_a_config_outside_the_checkout_trains_and_is_examined(command, outside, data_dir, tmp_path, capsys):
    argv = [f"--workdir={tmp_path / 'run'}", f"--config.data.data_dir={data_dir}", "--config.steps=1"]
    code, lines = command(f"--config={outside}:small", *argv, cwd=tmp_path)
    assert code == 0, lines
    assert runs.read_config(tmp_path / "run").model.latent == 5
    capsys.readouterr()
    assert cli.main(["doctor", "--config", str(outside), "--dry-run"]) == 0
    assert "parameters" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "import sibling\ndef get_config(): pass\n",
            "No module named 'sibling'); a config imports its siblings as in",
        ),
        ("def get_config(): return 1 / 0\n", "cannot be run (ZeroDivisionError: division by zero)"),
        ("def get_config(): return {}\n", "returns a dict, no ml_collections.ConfigDict"),
        ("def get_config(:\n", "is no Python file"),
    ],
)
def test_a_config_file_that_cannot_be_run_is_one_line(command, outside, text, expected):
    outside.write_text(text)
    assert expected in refusal(command, f"--config={outside}")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("transltor", "there is no config 'transltor'; did you mean 'translator'?"),
        ("translator:smok", "translator has no variant 'smok'; choose one of translator:digits, "),
    ],
)
def test_names_that_are_none(command, name, expected):
    assert expected in refusal(command, f"--config={name}")


def test_values_after_a_space_and_flags_of_truth(command, tmp_path):
    (tmp_path / "file").write_text("")
    argv = [
        "--config.steps",
        "3",
        "--noconfig.init_from_tokenizer",
        "--config",
        "translator:smoke",
        "--workdir",
        tmp_path / "file",
        f"--config.parents.tokenizer.run={tmp_path / 'tokenizer'}",
    ]
    assert "choose another --workdir" in refusal(command, *argv)
    assert "'3' is no flag" in refusal(command, *argv, "--config.init_from_tokenizer", "3")


def test_no_flag_of_the_process_is_touched():
    before = set(flags.FLAGS)
    load_config("vae:smoke", ["--config.steps=3"])
    assert set(flags.FLAGS) == before
    assert not {"config", "workdir", "accept_config_change"} & before


def test_a_shown_caption_that_is_too_long_is_found_before_training(command, smoke_run, tmp_path):
    argv = [*smoke_run.argv, f"--workdir={tmp_path / 'run'}", f"--config.shown_captions=('{'a red ' * 20}',)"]
    assert "config.shown_captions: prompt 'a red a red" in refusal(command, *argv)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_what_others_log_of_a_failed_save_is_not_shown(command, monkeypatch, tmp_path, caplog):
    """The save's own error is one line; asyncio knows of Orbax's other writes, which fail alike."""

    def fail(*_, **__):
        logging.getLogger("asyncio").error("Future exception was never retrieved\nTraceback ...")
        raise OSError("[Errno 28] No space left on device")

    monkeypatch.setattr("t2i_jax.loop.train.train", fail)
    code, lines = command(VQVAE, f"--workdir={tmp_path / 'run'}")
    assert (code, len(lines), caplog.text) == (2, 1, ""), lines
    assert "No space left on device; what was saved before stands" in lines[0]
