"""What is shared of a run: a folder that draws the same pictures, with a card, and needs nothing that trains."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

import t2i_jax
from t2i_jax import cli, files, pipelines, runs
from t2i_jax.cli import card, export
from t2i_jax.config import load_config
from t2i_jax.errors import UserError
from t2i_jax.loop import continuing
from t2i_jax.pictures import read_note

REPO = Path(__file__).parents[1]
GOLDEN = REPO / "tests" / "golden"
STORED = sorted(GOLDEN.glob("export_*"))
_spec = importlib.util.spec_from_file_location("golden_export", GOLDEN / "export.py")
golden = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(golden)

DRAW = """
import sys
def watch(event, arguments):
    assert event != "pickle.find_class", arguments
sys.path[:0] = [REPO]
import numpy as np
import t2i_jax
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("export", GOLDEN)
golden = module_from_spec(spec)
spec.loader.exec_module(golden)
sys.addaudithook(watch)
drawn = golden.draw(t2i_jax.load(FOLDER))
np.savez(OUT, modules=sorted(sys.modules), **drawn)
"""


def t2i(*argv) -> int:
    return cli.main([str(each) for each in argv])


def refused(capsys, *argv) -> str:
    capsys.readouterr()
    assert t2i(*argv) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    return said


@pytest.fixture(scope="module")
def exported(once, smoke_run):
    return once("exported", lambda out: t2i("export", "--run", smoke_run.translator, "--out", out))


@pytest.fixture(scope="module", params=STORED, ids=lambda path: path.name)
def drawn(request, tmp_path_factory):
    """What another process draws of a stored export, and which modules it has imported for that."""
    out = tmp_path_factory.mktemp("drawn") / "drawn.npz"
    names = {"REPO": REPO, "GOLDEN": GOLDEN / "export.py", "OUT": out, "FOLDER": request.param}
    program = "".join(f"{name} = {str(value)!r}\n" for name, value in names.items()) + DRAW
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return np.load(out), np.load(request.param.with_name(f"drawn_{request.param.name.partition('_')[2]}.npz"))


def test_every_format_has_a_stored_export():
    assert [path.name for path in STORED] == [f"export_{number}" for number in range(1, runs.FORMAT + 1)]


def test_a_stored_export_draws_what_it_drew(drawn):
    now, then = drawn
    np.testing.assert_array_equal(now["ids"], then["ids"])
    assert len(np.unique(then["ids"])) > 8  # not a model that says nothing
    assert np.abs(now["images"].astype(int) - then["images"]).max() <= 1  # machines round differently


def test_drawing_of_an_export_imports_nothing_that_trains(drawn):
    packages = {name.partition(".")[0] for name in drawn[0]["modules"]}
    assert "safetensors" in packages
    assert not packages & {"orbax", "grain", "tensorflow_datasets", "array_record", "gradio", "huggingface_hub"}


def test_an_export_holds_what_is_used_and_no_more(exported):
    found = {path.relative_to(exported).as_posix() for path in exported.rglob("*") if path.is_file()}
    one = {runs.CONFIG, runs.WEIGHTS, runs.SCORES}
    assert found == {
        *one, runs.TEXT_TOKENIZER, card.CARD, card.GRID, *(f"{runs.PARENTS}/tokenizer/{name}" for name in one)
    }  # fmt: skip


def test_an_export_draws_as_its_run_does(exported, smoke_run):
    run, own = (t2i_jax.load(folder) for folder in (smoke_run.translator, exported))
    assert (own.digest, own.step) == (run.digest, run.step)
    prompts = ["a red seven", "two blue threes"]
    np.testing.assert_array_equal(own(prompts, num_images=2, seed=5), run(prompts, num_images=2, seed=5))


def test_its_pictures_say_how_they_were_made(exported):
    note = read_note(exported / card.GRID)
    assert note["prompts"] == list(load_config("translator:smoke").shown_captions)
    assert note["digest"] == t2i_jax.load(exported).digest


def test_the_card_says_what_others_need(exported):
    text = (exported / card.CARD).read_text()
    _, head, body = text.split("---\n", 2)
    assert yaml.safe_load(head) == {
        "license": "unknown",
        "library_name": "t2i_jax",
        "pipeline_tag": "text-to-image",
        "tags": ["jax", "flax", "t2i_jax", "translator"],
    }
    titles = ["What it is", "How to use it", "What was measured", "Data", "Licence", "Limits"]
    assert [line[3:] for line in body.splitlines() if line.startswith("## ")] == titles
    scores = files.read_json(exported / runs.SCORES)
    for said in (
        repr(t2i_jax.load(exported)),
        't2i_jax.load("exported")',
        f"| nats | {scores['nats']:.4g} |",
        f"({scores['validation_pictures']} pictures), when training had come to step 2:",
        f"captioned_digits/tiny, with captions; pictures: {scores['train_pictures']} to train on,",
        "unknown: say it with --license",
        "- Pictures have 32 x 32 pixels, in colour; no other size.",
        "Other words are named in a warning",
    ):
        assert said in body
    assert "t2i evaluate`: " not in body


def test_the_card_has_the_table_of_these_weights_alone(smoke_run, tmp_path):
    run, table = tmp_path / "run", ["overall  generated", "         0.5 ±.1"]
    shutil.copytree(smoke_run.translator, run, ignore=shutil.ignore_patterns(runs.CHECKPOINTS))
    judged = {"run": "/home/me/run", "digest": t2i_jax.load(run).digest, "seed": 7, "date": "2026-11-28"}
    judged |= {"pictures": 1200, "table": table}
    files.write_json(run / card.EVALUATION, judged)
    options = ("--license", "cc-by-4.0", "--prompt", "a red seven")
    assert t2i("export", "--run", run, "--out", tmp_path / "first", *options) == 0
    text = (tmp_path / "first" / card.CARD).read_text()
    assert "\n".join(["```", *table, "```"]) in text
    assert "1,200 pictures a column, seed 7, 2026-11-28." in text
    assert "license: cc-by-4.0\n" in text
    assert read_note(tmp_path / "first" / card.GRID)["prompts"] == ["a red seven"]
    # An export is a run: it is exported again with all that is known of it.
    assert "run" not in files.read_json(tmp_path / "first" / card.EVALUATION)
    assert t2i("export", "--run", tmp_path / "first", "--out", tmp_path / "second", *options) == 0
    assert (tmp_path / "second" / card.CARD).read_text() == text.replace("first", "second")
    files.write_json(run / card.EVALUATION, {**judged, "digest": "another"})
    assert card.measured(run, judged["digest"]) == {}


def test_an_exported_tokenizer_is_a_parent(smoke_run, tmp_path):
    assert t2i("export", "--run", smoke_run.tokenizer, "--out", tmp_path / "tokenizer") == 0
    config = load_config("translator:smoke").parents.tokenizer.config
    assert continuing.is_finished(tmp_path / "tokenizer", config)
    continuing.check_same(tmp_path / "tokenizer", config)
    assert not (tmp_path / "tokenizer" / card.GRID).exists()
    text = (tmp_path / "tokenizer" / card.CARD).read_text()
    assert "ids = pipe.tokenize(images)" in text
    assert "pipeline_tag" not in text


@pytest.mark.parametrize("name", ["vae", pytest.param("prior", marks=pytest.mark.long)])
def test_other_kinds_are_exported_too(name, smoke, tmp_path):
    out = tmp_path / "out"
    assert t2i("export", "--run", smoke.run(name), "--out", out) == 0
    assert repr(t2i_jax.load(out)) in (out / card.CARD).read_text()
    assert read_note(out / card.GRID)["digest"] == t2i_jax.load(out).digest


def test_places_on_this_machine_stay_here():
    config = {
        "parents": {"tokenizer": {"run": "/home/me/tok", "config": {"data": {"data_dir": "data"}}}},
        "data": {"dir": "/secret/photos", "name": "/not/a/place"},
        "lpips_weights": "/opt/vgg16",
        "steps": 2,
    }
    shared = export._without_places(config)
    assert shared["parents"]["tokenizer"] == {"run": "tok", "config": {"data": {"data_dir": "data"}}}
    assert shared["data"] == {"dir": "photos", "name": "/not/a/place"}
    assert (shared["lpips_weights"], shared["steps"]) == ("vgg16", 2)


def test_a_newer_format_is_refused_in_one_line(tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(STORED[-1], run)
    content = files.read_json(run / runs.CONFIG)
    assert content["format"] == runs.FORMAT
    for other in (runs.FORMAT + 1, 0, "new", None, [1]):
        files.write_json(run / runs.CONFIG, {**content, "format": other})
        said = refused(capsys, "sample", "--run", run, "--prompt", "a red seven", "--out", tmp_path / "grid.png")
        assert f"has format {other!r}; this version of t2i_jax reads up to {runs.FORMAT}: install a newer" in said


def test_what_export_refuses(capsys, smoke_run, tmp_path):
    run = ("--run", smoke_run.translator)
    said = refused(capsys, "export", *run, "--out", tmp_path)
    assert "is there already" in said
    out = ("--out", tmp_path / "out")
    assert "is no folder" in refused(capsys, "export", "--run", tmp_path / "no", *out)
    assert "--private is about --push-to-hub" in refused(capsys, "export", *run, *out, "--private")
    assert "is no identifier of the hub" in refused(capsys, "export", *run, *out, "--license", "Do what you want")
    others = ("--format", "transformers", "--license", "mit")
    assert "which --format transformers has not" in refused(capsys, "export", *run, *out, *others)
    tokenizer = ("--run", smoke_run.tokenizer, *out, "--prompt", "a red seven")
    assert "--prompt is read by runs that draw pictures of prompts" in refused(capsys, "export", *tokenizer)
    assert not list(tmp_path.iterdir())


def test_what_a_run_is_stands_in_its_repr():
    pipe = t2i_jax.load(STORED[0])
    assert repr(pipe) == (
        f"Translator translator-smoke: step 2 of 2, weights {pipe.digest[:8]}\n"
        "  captions of up to 10 words, of 6 known -> 24 tokens of 16 -> 16 x 16 x 3 pictures\n"
        "  2,240 parameters, and 6,288 parameters of patch_vqvae-smoke"
    )
    assert repr(pipe.tokenizer).splitlines()[1:] == [
        "  16 x 16 x 3 pictures <-> 24 tokens of 16",
        "  6,288 parameters",
    ]
    parts = (pipe.config, pipe._model, pipe._params, pipe.tokenizer, pipe._reader)
    assert repr(pipelines.Translator.of_parts(*parts)).splitlines()[0] == "Translator translator-smoke: in memory"


def test_a_config_that_was_damaged_is_no_format(tmp_path):
    (tmp_path / runs.CONFIG).write_text(json.dumps({"format": 99}))
    with pytest.raises(UserError, match="is corrupt"):
        runs.read_config(tmp_path)
