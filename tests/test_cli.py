"""The command line `t2i` in this process, over a translator that answers at once."""

import json
import sys
import types
from datetime import date
from importlib.metadata import version
from pathlib import Path

import pytest
from fakes import FakeTranslator
from PIL import Image

import t2i_jax
from t2i_jax import cli, files
from t2i_jax.errors import UserError


@pytest.fixture
def pipe(monkeypatch):
    fake = FakeTranslator()
    monkeypatch.setattr(t2i_jax, "load", lambda run: fake)
    return fake


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    return str(folder)


@pytest.fixture
def error(capsys):
    """Calls `t2i`, expects it to refuse, and returns the one line that it says."""

    def call(*argv):
        assert cli.main([str(part) for part in argv]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("t2i: ")
        assert err.count("\n") == 1
        assert err.endswith("\n")
        return err

    return call


def test_sample_writes_a_labelled_grid(pipe, run, tmp_path, capsys):
    out = tmp_path / "new" / "folder" / "grid.png"
    prompts = ["--prompt", "a red seven", "--prompt", "a blue one"]
    assert cli.main(["sample", "--run", run, *prompts, "-n", "3", "--seed", "5", "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err[:15]) == (f"{out}\n", "pictures after ")
    assert pipe.calls == [(["a red seven", "a blue one"], 3, 5, {"candidates": None})]
    with Image.open(out) as grid:
        assert grid.width > 3 * 96
        assert grid.height > 96


def test_only_given_settings_override_the_runs(pipe, run, tmp_path):
    options = ["--temperature", "0", "--top-k", "7", "--top-p", "0.9", "--min-p", "0", "--guidance-scale", "3"]
    argv = ["sample", "--run", run, "--prompt", "a red seven", "--out", str(tmp_path / "grid.png")]
    argv.append("--overwrite")
    assert cli.main(argv + options) == 0
    assert cli.main(argv + options[2:4]) == 0
    assert cli.main([*argv, "--min-p", "0.25", "--unguided-tokens", "8", "--window", "4"]) == 0
    given = {"temperature": 0, "top_k": 7, "top_p": 0.9, "min_p": 0, "guidance_scale": 3}
    expected = [given, {"top_k": 7}, {"min_p": 0.25, "unguided_tokens": 8, "window": 4}]
    assert [settings for *_, settings in pipe.calls] == [{"candidates": None, **settings} for settings in expected]
    assert [num for _, num, *_ in pipe.calls] == [4, 4, 4]


def test_a_prompt_is_needed_and_only_from_one_place(pipe, run, error):
    for argv in ([], ["--prompt", "a", "--prompts-file", "b"]):
        message = error("sample", "--run", run, *argv)
        assert "--prompt " in message
        assert "--prompts-file" in message
    assert pipe.calls == []


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("-n", "0", "1 to 1000"),
        ("-n", "1001", "1001"),
        ("-n", "many", "'many'"),
        ("--seed", "-1", "-1"),
        ("--seed", str(2**32), str(2**32)),
        ("--seed", "1.5", "'1.5'"),
        ("--temperature", "-0.5", "-0.5"),
        ("--temperature", "nan", "nan"),
        ("--temperature", "warm", "'warm'"),
        ("--top-k", "-3", "-3"),
        ("--top-k", "2.5", "'2.5'"),
        ("--top-p", "0", "top_p 0"),
        ("--top-p", "1.5", "1.5"),
        ("--min-p", "-0.5", "min_p -0.5"),
        ("--min-p", "1.5", "min_p 1.5"),
        ("--min-p", "nan", "nan"),
        ("--min-p", "few", "'few'"),
        ("--unguided-tokens", "-1", "unguided_tokens -1"),
        ("--unguided-tokens", "1.5", "'1.5'"),
        ("--window", "0", "window 0"),
        ("--window", "2.5", "'2.5'"),
        ("--guidance-scale", "-2", "-2"),
        ("--guidance-scale", "inf", "inf"),
        ("--prompt", " ", "--prompt number 2"),
        ("--out", "grid.jpg", ".png"),
        ("--run", "no/such/run", "no/such/run"),
        ("--colour", "red", "--colour"),
        ("--temp", "1", "--temp"),
    ],
)
def test_a_bad_option_is_refused_before_the_run_is_loaded(option, value, said, pipe, run, tmp_path, error):
    out = tmp_path / "grid.png"
    argv = ["sample", "--run", run, "--prompt", "a red seven", "--out", out, option, value]
    assert said in error(*argv)
    assert pipe.calls == []
    assert not out.exists()


@pytest.mark.parametrize("argv", [[], ["sampel"], ["sample"], ["evaluate"], ["sample", "--run"]])
def test_bad_usage_is_one_line(argv, error):
    assert "--help" in error(*argv)


def test_the_version(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"t2i_jax {version('t2i_jax')}\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"a red seven\n\na blue one\n", "line 2 is empty"),
        (b"a red seven\na blue one\n\n", "line 3 is empty"),
        (b"a red seven\na bl\xffe one\n", "line 2 is not UTF-8"),
        ("a red seven\n".encode("utf-16"), "line 1 is not UTF-8"),
    ],
)
def test_a_bad_prompts_file_is_named(content, said, pipe, run, tmp_path, error):
    file = tmp_path / "prompts.txt"
    file.write_bytes(content)
    message = error("sample", "--run", run, "--prompts-file", file, "--out", tmp_path / "out")
    assert str(file) in message
    assert said in message
    assert pipe.calls == []


def test_a_missing_prompts_file_is_named(run, tmp_path, error):
    assert "No such file" in error("sample", "--run", run, "--prompts-file", tmp_path / "absent.txt")
    assert "directory" in error("sample", "--run", run, "--prompts-file", tmp_path)


def test_an_unwritable_output_is_refused_before_sampling(pipe, run, tmp_path, error):
    (tmp_path / "file").write_text("")
    (tmp_path / "prompts.txt").write_text("a red seven\n")
    (tmp_path / "folder.png").mkdir()
    grid = ["sample", "--run", run, "--prompt", "a red seven", "--out"]
    folder = ["sample", "--run", run, "--prompts-file", tmp_path / "prompts.txt", "--out"]
    assert "folder.png" in error(*grid, tmp_path / "folder.png")
    assert "Not a directory" in error(*grid, tmp_path / "file" / "grid.png")
    assert "Not a directory" in error(*folder, tmp_path / "file")
    assert "cannot write" in error(*grid, "/proc/grid.png")  # root, too, may not write there
    assert "cannot write" in error(*folder, "/proc/pictures")
    assert "folder.png" in error("evaluate", "--run", run, "--out", tmp_path / "folder.png")
    assert pipe.calls == []


def test_a_tokenizers_run_is_told_apart(monkeypatch, run, error):
    monkeypatch.setattr(t2i_jax, "load", lambda run: object())
    message = error("sample", "--run", run, "--prompt", "a red seven")
    assert "tokenizer" in message
    assert "configs/translator.py" in message


def test_what_the_pipeline_refuses_is_one_line(monkeypatch, run, error):
    def load(run):
        raise UserError("prompt 3 has 93 tokens;\nthis run reads at most 64 (config.data.text_len)")

    monkeypatch.setattr(t2i_jax, "load", load)
    assert "93 tokens; this run" in error("sample", "--run", run, "--prompt", "a red seven")


def test_ctrl_c_is_one_line(monkeypatch, run, capsys):
    def load(run):
        raise KeyboardInterrupt

    monkeypatch.setattr(t2i_jax, "load", load)
    assert cli.main(["sample", "--run", run, "--prompt", "a red seven"]) == 130
    assert capsys.readouterr().err == "t2i: interrupted\n"


def test_evaluate_prints_the_table_and_writes_json(pipe, monkeypatch, run, tmp_path, capsys):
    calls = []

    def evaluate_run(translator, run, *, seed, candidates):
        assert translator is pipe
        calls.append((run, seed, candidates))
        return "a table", {"overall": 0.75}

    report = types.SimpleNamespace(evaluate_run=evaluate_run)
    monkeypatch.setitem(sys.modules, "t2i_jax.evals.report", report)
    assert cli.main(["evaluate", "--run", run]) == 0
    assert (
        cli.main(
            ["evaluate", "--run", run, "--seed", "3", "--candidates", "4", "--out", str(tmp_path / "other.json")]
        )
        == 0
    )
    assert calls == [(Path(run), 0, 1), (Path(run), 3, 4)]
    out = capsys.readouterr().out.splitlines()
    assert out == ["a table", f"{run}/evaluation.json", "a table", str(tmp_path / "other.json")]
    assert cli.main(["evaluate", "--run", run, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    for file in (tmp_path / "run" / "evaluation.json", tmp_path / "other.json"):
        found = files.read_json(file)
        assert found == printed
        assert date.fromisoformat(found.pop("date")) <= date.today()
        assert found == {"overall": 0.75, "table": ["a table"]}


def test_doctor_does_not_prepare_data_where_they_never_were(monkeypatch, run, error):
    data = types.SimpleNamespace(data_dir="nowhere")
    fake = types.SimpleNamespace(tokenize=None, config=types.SimpleNamespace(data=data))
    monkeypatch.setattr(t2i_jax, "load", lambda run: fake)
    assert "lie in nowhere, which is not here; give --data-dir" in error("doctor", "--run", run)
