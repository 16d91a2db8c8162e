"""What all commands share: tables of 80 columns, JSON, `--quiet`, shell completion."""

import argparse
import subprocess
import sys

import pytest

from t2i_jax import cli
from t2i_jax.cli import results
from t2i_jax.errors import UserError
from t2i_jax.evals.tables import format_table


def test_long_lines_go_on_under_their_second_column(capsys):
    names = ", ".join(f"name-{number:03d}.png" for number in range(30))
    text = f"  skipped     3 in no format that is read ({names})\nverdict: {names}\nshort"
    results.show(argparse.Namespace(json=False), text, {})
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    row = [line for line in lines if not line.startswith(("verdict", "short", "  name"))]
    assert all(line[:14] == " " * 14 and line[14] != " " for line in row[1:])
    assert " ".join(" ".join(lines).split()) == " ".join(text.split())
    path = "/".join(["folder"] * 20)
    results.show(argparse.Namespace(json=False), f"a {path}", {})
    assert path in capsys.readouterr().out.split()  # to be copied


def test_long_names_of_a_table_are_broken():
    columns = ["generated", "reconstructed seen", "reconstructed unseen", "real"]
    name = "distance of digits, relative to training digits, least of ten"
    rows = {name: ["0.975 ±.020"] * 4, "short": ["-"] * 4}
    lines = format_table("held out", columns, rows, rules=(1,)).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1].split() == ["held", "out", "generated", "seen", "unseen", "real"]
    assert lines[2].split()[-8:] == ["0.975", "±.020"] * 4
    assert " ".join(line[:24].strip() for line in lines[2:6]).startswith("distance of digits, relative")
    run = "x" * 200
    broken = format_table("run", ["model", "age"], {run: ["vae", "3 d"]}).splitlines()
    assert max(map(len, broken)) <= 80
    assert "".join(line[:68].strip() for line in broken[1:]) == run


def test_quiet_leaves_results_and_errors(monkeypatch, capsys):
    def command(error):
        def run(args):
            print("a notice", file=sys.stderr)
            print("a result")
            if error:
                raise UserError("no such thing; name another")

        return run

    for error, code, said in ((False, 0, ""), (True, 2, "t2i: no such thing; name another\n")):
        monkeypatch.setattr(cli.list_runs, "run", command(error))
        assert cli.main(["runs", "--quiet"]) == code
        assert capsys.readouterr() == ("a result\n", said)
        assert cli.main(["--quiet", "runs"]) == code
        assert capsys.readouterr() == ("a result\n", said)
        assert cli.main(["runs"]) == code
        assert capsys.readouterr() == ("a result\n", f"a notice\n{said}")


def test_quiet_training_says_nothing(command, data_dir, tmp_path):
    argv = ["--config=configs/patch_vqvae.py:smoke", f"--workdir={tmp_path}", f"--config.data.data_dir={data_dir}"]
    assert command("--quiet", *argv) == (0, [])
    assert (tmp_path / "model.safetensors").is_file()


def test_completion_knows_every_command(capsys):
    pytest.importorskip("shtab", reason="comes with the extra `dev`")
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--print-completion", "bash"])
    script = capsys.readouterr().out
    program = f"{script}\nCOMP_WORDS=(t2i {{}}); COMP_CWORD={{}}; {{}}\nprintf '%s\\n' \"${{COMPREPLY[@]}}\""
    function = next(line.split()[-2] for line in script.splitlines() if line.startswith("complete "))
    names = {name for command in cli.COMMANDS for name in [command.__name__.rpartition(".")[2]]}

    def complete(*words):
        shell = program.replace("{}", " ".join(map(repr, words)), 1).replace("{}", str(len(words)), 1)
        done = subprocess.run(["bash", "-c", shell.replace("{}", function, 1)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return set(done.stdout.split())

    assert names - {"list_runs"} | {"runs"} <= complete("")
    assert {"--candidates", "--json", "--quiet"} <= complete("evaluate", "--")


def test_completion_without_its_package_is_one_line(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert cli.main(["--print-completion", "bash"]) == 2
    assert capsys.readouterr().err == "t2i: --print-completion needs shtab: pip install 't2i-jax[completion]'\n"
