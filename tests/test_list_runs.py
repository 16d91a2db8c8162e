"""`t2i runs`: a line a run, and what to do next."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from t2i_jax import cli, runs
from t2i_jax.cli import list_runs
from t2i_jax.config import load_config


def listed(capsys, *argv):
    assert cli.main(["runs", *map(str, argv)]) == 0
    return capsys.readouterr().out


def test_finished_runs_come_with_their_next_command(smoke_run, capsys, read_only, monkeypatch):
    folder = smoke_run.translator.parent
    before = read_only(folder)
    found = {entry["run"]: entry for entry in json.loads(listed(capsys, folder, "--json"))}
    assert list(found) == [str(smoke_run.tokenizer), str(smoke_run.translator)]  # no copies of parents
    tokenizer, translator = found.values()
    assert (tokenizer["model"], tokenizer["step"], tokenizer["steps"]) == ("patch_vqvae", 2, 2)
    assert tokenizer["score"] == ["psnr", runs.read_scores(smoke_run.tokenizer)["psnr"]]
    assert tokenizer["bytes"] == sum(
        path.stat().st_size for path in smoke_run.tokenizer.rglob("*") if path.is_file()
    )
    assert tokenizer["next"] == f"t2i doctor --run {smoke_run.tokenizer}"
    assert translator["next"] == f"t2i sample --run {smoke_run.translator} --prompt 'a green five'"
    monkeypatch.chdir(folder)
    table = listed(capsys, ".").splitlines()
    assert table[1].split()[:3] == ["tokenizer", "patch_vqvae", "2/2"]
    assert table[-2:] == ["translator:", "  t2i sample --run translator --prompt 'a green five'"]
    assert max(map(len, table)) <= 80
    assert json.loads(listed(capsys, smoke_run.tokenizer, "--json")) == [tokenizer]
    assert read_only(folder) == before


def test_a_run_that_stopped_or_is_damaged_says_so(smoke_run, tmp_path, capsys):
    stopped, damaged = tmp_path / "a", tmp_path / "b"
    for folder in (stopped, damaged):
        shutil.copytree(smoke_run.tokenizer, folder)
    (stopped / runs.SCORES).unlink()
    newest = max((stopped / runs.CHECKPOINTS).iterdir(), key=lambda path: int(path.name))
    shutil.rmtree(newest)
    (damaged / runs.CONFIG).write_text("{}")
    one, other = json.loads(listed(capsys, tmp_path, "--json"))
    assert (one["step"], one["score"]) == (1, None)
    assert one["next"] == "not finished; the command that trained it continues"
    assert other["model"] is None
    assert str(damaged / runs.CONFIG) in other["next"]
    assert "unreadable" in listed(capsys, tmp_path)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("vae:digits", "sample --run R"),
        ("vqvae:digits", "doctor --run R"),
        ("dvae:digits", "doctor --run R"),
        ("prior:digits", "sample --run R --prompt 'a green five'"),
        ("dalle:smoke", "sample --run R --prompt 'a green five'"),
    ],
)
def test_every_kind_of_run_has_a_next_command(name, command):
    assert list_runs._way_on(load_config(name), Path("R")) == command


def test_a_command_of_a_strangers_run_is_safe_to_paste(tmp_path):
    """Whatever its captions and its folder are called: a shell reads words, and a terminal sees no escape."""
    config = load_config("translator:smoke").unlock()
    config.shown_captions = ("$(rm -r .) `x` 'y' \x1b[2J",)
    folder = tmp_path / ("a b " + "c" * 60)
    way_on = list_runs._broken(f"t2i {list_runs._way_on(config, folder)}")
    program = f"t2i() {{ printf '%s\\n' \"$@\"; }}\n{way_on}"
    words = subprocess.run(["sh", "-c", program], capture_output=True, text=True, check=True).stdout.splitlines()
    assert words[:4] == ["sample", "--run", str(folder), "--prompt"]
    assert words[4:] == [ascii(config.shown_captions[0])]
    assert way_on.count("\n") == 1


@pytest.mark.parametrize(("name", "says"), [("missing", "is no folder"), ("empty", "holds no run")])
def test_a_folder_without_runs_is_one_line(name, says, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert cli.main(["runs", str(tmp_path / name)]) == 2
    error = capsys.readouterr().err
    assert str(tmp_path / name) in error
    assert says in error
