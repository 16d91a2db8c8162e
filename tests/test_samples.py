"""Single pictures of `t2i sample`: whoever reads its output, and wherever it is stopped, nothing drawn is lost."""

import json
import subprocess
import sys

import numpy as np
import pytest
from fakes import FakeTranslator
from PIL import Image
from processes import REPO

import t2i_jax
from t2i_jax import cli
from t2i_jax.cli import samples
from t2i_jax.pictures import read_note, to_png

# The command line over a translator that answers at once, as a process of its own.
PROGRAM = """
import sys; sys.path.insert(0, "tests")
import t2i_jax; from fakes import FakeTranslator; from t2i_jax import cli
t2i_jax.load = lambda run: FakeTranslator()
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.fixture
def pipe(monkeypatch):
    fake = FakeTranslator()
    monkeypatch.setattr(t2i_jax, "load", lambda run: fake)
    return fake


@pytest.fixture
def argv(tmp_path):
    """Three prompts, forty pictures each: one a call."""
    (tmp_path / "run").mkdir()
    file = tmp_path / "prompts.txt"
    file.write_bytes("\ufeffa red seven\r\nun été bleu\r\nà\r\n".encode())  # as an editor on Windows saves it
    options = ["--run", tmp_path / "run", "--prompts-file", file, "-n", 40, "--out", tmp_path / "out"]
    return ["sample", *map(str, options)]


@pytest.fixture
def error(capsys):
    """Calls `t2i`, expects it to refuse, and returns the last line that it says."""

    def call(*argv):
        assert cli.main([str(part) for part in argv]) == 2
        return capsys.readouterr().err.splitlines()[-1]

    return call


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_pictures_and_what_made_them(pipe, argv, tmp_path, capsys):
    argv += ["-n", "2", "--top-k", "3", "--min-p", "0.05"]
    assert cli.main(argv) == 0
    names = [f"{p:05d}_{i:02d}.png" for p in range(3) for i in range(2)]
    written = [*names, samples.RECORD]
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "out" / name) for name in written]
    assert sorted(content(tmp_path / "out")) == written
    lines = (tmp_path / "out" / samples.RECORD).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["prompt"] for line in lines] == ["a red seven", "un été bleu", "à"]
    ways = {"digest": "c0ffee", "seed": 0, "candidates": None, "rerank": None, "clip": None}
    ways |= {"temperature": 0.5, "top_k": 3, "top_p": 1.0, "min_p": 0.05, "unguided_tokens": 0}
    ways |= {"guidance_scale": 1.5, "window": 1, "weight_bits": 32}
    run = {"run": argv[2], "n": 2}
    assert json.loads(lines[1]) == {"number": 1, "prompt": "un été bleu", "files": names[2:4]} | run | ways
    expected = FakeTranslator()(["un été bleu"], 2)[0, 1]
    with Image.open(tmp_path / "out" / names[3]) as picture:
        assert picture.info["Description"] == "un été bleu"
        assert np.array_equal(np.asarray(picture), expected)
    assert read_note(tmp_path / "out" / names[3]) == {"prompt": "un été bleu", "index": 1} | ways


def test_a_reader_that_leaves_loses_nothing(argv, tmp_path):
    command = [sys.executable, "-c", PROGRAM, *argv]
    script = '"$@" | head -1; exit ${PIPESTATUS[0]}'
    done = subprocess.run(["bash", "-c", script, "-", *command], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(content(tmp_path / "out")) == 121
    assert "Error" not in done.stderr
    assert "Exception" not in done.stderr


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ('PYTHONIOENCODING=ascii "$@"', "drawing: 100% 120/120 ["),
        ('TQDM_DISABLE=1 "$@" > /dev/full', "standard output cannot be written (No space"),
    ],
)
def test_neither_does_one_that_cannot_read(argv, tmp_path, script, said):
    argv[-1] = str(tmp_path / "ä")
    command = [sys.executable, "-c", PROGRAM, *argv]
    done = subprocess.run(["bash", "-c", script, "-", *command], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert said in done.stderr
    assert done.stderr.count("\n") == 2  # and how long it took
    assert "\r" not in done.stderr
    assert len(content(tmp_path / "ä")) == 121


def test_ctrl_c_keeps_what_there_is_and_the_same_command_draws_the_rest(pipe, argv, tmp_path, capsys):
    assert cli.main([*argv, "--out", str(tmp_path / "whole")]) == 0
    pipe.calls, pipe.stop_at = [], 2
    assert cli.main(argv) == 130
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == f"t2i: interrupted; 40 pictures are lacking in {tmp_path / 'out'}; the same command draws them"
    assert len((tmp_path / "out" / samples.RECORD).read_bytes().splitlines()) == 2
    (tmp_path / "out" / "00000_07.png").unlink()
    with (tmp_path / "out" / samples.RECORD).open("ab") as record:
        record.write(b'{"number": 2, "pro')  # of a kill
    pipe.calls, pipe.stop_at = [], None
    assert cli.main(argv) == 0
    assert [prompts for prompts, *_ in pipe.calls] == [["a red seven"], ["à"]]
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    pipe.calls = []
    assert cli.main(argv) == 0
    assert pipe.calls == []


def test_many_pictures_of_a_prompt_are_drawn_in_parts(pipe, argv, tmp_path):
    out = ["--prompt", "a red seven", "-n", "130", "--out", f"{tmp_path}/out/"]
    assert cli.main([*argv[:3], *out]) == 0
    assert [(num, settings.get("first", 0)) for _, num, _, settings in pipe.calls] == [(64, 0), (64, 64), (2, 128)]
    assert read_note(tmp_path / "out" / "00000_129.png")["index"] == 129


def test_grey_pictures(pipe, argv, tmp_path, monkeypatch):
    monkeypatch.setattr(FakeTranslator, "__call__", lambda *_, **__: np.full((1, 1, 8, 8, 1), 7, np.uint8))
    out = ["--prompt", "a red seven", "-n", "1", "--out", f"{tmp_path}/out/"]
    assert cli.main([*argv[:3], *out]) == 0
    with Image.open(tmp_path / "out" / "00000_00.png") as picture:
        assert np.array_equal(np.asarray(picture), np.full((8, 8), 7, np.uint8))


def test_a_prompt_and_a_folder(pipe, argv, tmp_path):
    out = f"{tmp_path}/single/"
    assert cli.main(["sample", "--run", argv[2], "--prompt", "a red seven", "-n", "2", "--out", out]) == 0
    assert sorted(content(tmp_path / "single")) == ["00000_00.png", "00000_01.png", samples.RECORD]


def test_pictures_of_another_command_are_neither_mixed_in_nor_overwritten(pipe, argv, tmp_path, error):
    assert cli.main(argv) == 0
    assert cli.main([*argv, "-n", "41"]) == 0  # leaves no old picture behind
    before = content(tmp_path / "out")
    assert "holds 00000_40.png, which this command would not overwrite" in error(*argv)
    changed = [*argv, "-n", "41", "--seed", "1"]
    assert "00000_00.png differs in its seed; name another place, or give --overwrite" in error(*changed)
    (tmp_path / "out" / "00000_00.png").write_bytes(b"")
    assert "00000_00.png was not made by this command, or is damaged" in error(*argv, "-n", 41)
    (tmp_path / "out" / "00000_00.png").write_bytes(before["00000_00.png"])
    assert content(tmp_path / "out") == before
    assert cli.main([*changed, "--overwrite"]) == 0
    assert read_note(tmp_path / "out" / "00001_03.png")["seed"] == 1
    (tmp_path / "out" / "holiday.png").write_bytes(b"")
    assert "holiday.png" in error(*argv, "-n", 41)


def test_a_grid_is_not_overwritten_either(pipe, argv, tmp_path, error, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    prompt = ["sample", "--run", "run", "--prompt", "a red seven"]
    for seed, name in (("0", "grid.png"), ("1", "grid-2.png"), ("0", "grid.png"), ("2", "grid-3.png")):
        assert cli.main([*prompt, "--seed", seed]) == 0
        assert capsys.readouterr().out == f"{name}\n"
        assert read_note(name)["seed"] == int(seed)
    said = error(*prompt, "--out", "grid.png", "--seed", 5)
    assert said == "t2i: --out grid.png differs in its seed; name another place, or give --overwrite"
    assert cli.main([*prompt, "--out", "grid.png", "--seed", "5", "--overwrite"]) == 0
    assert read_note("grid.png")["seed"] == 5
    assert "holds a file" not in error(*prompt, "--out", "run")


def test_a_full_disk_is_one_line_and_no_stale_record_stays(pipe, argv, tmp_path, error, monkeypatch):
    def fail(path, content):
        raise OSError(28, "No space left on device", str(path))

    (tmp_path / "out").mkdir()
    (tmp_path / "out" / samples.RECORD).write_text("of another command")
    monkeypatch.setattr("t2i_jax.files.write_atomically", fail)
    assert "No space left on device" in error(*argv)
    assert content(tmp_path / "out") == {}


def test_the_images_from_an_index_on_are_those_of_these_indices(smoke_run):
    pipe = t2i_jax.load(str(smoke_run.translator))
    drawn = [pipe(iter(["a red one"]), n, seed=3, first=first) for n, first in ((3, 0), (2, 1))]
    np.testing.assert_array_equal(drawn[0][:, 1:], drawn[1])


def test_jobs_draw_what_is_missing_and_no_call_is_large(record_fault):
    hypothesis = pytest.importorskip("hypothesis")
    st = hypothesis.strategies

    @hypothesis.given(data=st.data(), num=st.integers(1, 200), ranked=st.booleans())
    def check(data, num, ranked):
        missing = data.draw(st.lists(st.sets(st.integers(0, num - 1), max_size=5), max_size=80))
        record_fault("jobs of t2i sample that go on", "tried")
        jobs = list(samples.jobs(missing, num, num + 3 if ranked else None))
        drawn = [(p, i) for job in jobs for p in job.numbers for i in range(job.first, job.first + job.num)]
        assert len(drawn) == len(set(drawn))
        assert set(drawn) >= {(p, i) for p, indices in enumerate(missing) for i in indices}
        assert {p for p, _ in drawn} == {p for p, indices in enumerate(missing) if indices}
        record_fault("jobs of t2i sample that go on", "survived")
        if not ranked:
            assert all(len(job.numbers) * job.num <= samples.AT_ONCE for job in jobs)

    check()


def test_a_note_is_read_from_any_file_or_not_at_all(tmp_path, record_fault):
    hypothesis = pytest.importorskip("hypothesis")
    st = hypothesis.strategies
    texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)  # no surrogates: no UTF-8

    @hypothesis.given(prompt=texts, place=st.integers(0), byte=st.integers(1, 255), cut=st.integers(0))
    def check(prompt, place, byte, cut):
        note = {"prompt": prompt, "seed": 5}
        whole = bytearray(to_png(Image.new("RGB", (8, 8)), note))
        path = tmp_path / "a.png"
        path.write_bytes(whole)
        assert read_note(path) == note
        path.write_bytes(whole[: cut % len(whole)])
        assert read_note(path) is None
        record_fault("PNGs cut or changed", "tried")
        whole[place % len(whole)] ^= byte
        path.write_bytes(whole)
        found = read_note(path)
        assert found in (None, note)
        record_fault("PNGs cut or changed", "survived" if found else "refused")

    check()
