"""Runs that start from the weights of another one, with its words and those of other captions."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from PIL import Image

from t2i_jax import files, runs
from t2i_jax.config import load_config
from t2i_jax.data import vocabularies
from t2i_jax.errors import UserError
from t2i_jax.tasks import init_from

NEW = ["a scarlet seven", "a mauve seven", "a scarlet seven above a red two"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of 24 pictures with captions of which two words are new."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    with (folder / "captions.jsonl").open("w") as rows:
        for i in range(24):
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / f"{i}.png")
            rows.write(json.dumps({"file": f"{i}.png", "caption": NEW[i % 3]}) + "\n")
    return folder


def arguments(pictures, run, folder, *options):
    short = ["steps=2", "batch_size=8", "optim.warmup=1", "optim.lr=1e-30", "eval_every=100", "checkpoint_every=1"]
    fields = [f"data.dir={pictures}", f"data.data_dir={folder / 'data'}", f"init_from={run}", *short, *options]
    return ["--config=translator:folder", f"--workdir={folder / 'run'}", *(f"--config.{field}" for field in fields)]


@pytest.mark.slow
def test_a_run_starts_from_another_and_goes_on_without_it(command, smoke_run, pictures, tmp_path, read_only):
    """The learning rate moves nothing, so what it ends with is what it started from."""
    first = Path(shutil.copytree(smoke_run.translator, tmp_path / "first"))
    before, argv = read_only(first), arguments(pictures, first, tmp_path)
    code, lines = command(*argv)
    assert code == 0, lines
    assert read_only(first) == before
    assert any(line.startswith(f"config.model as in {first}: decoder.heads 6 -> 2, ") for line in lines)
    own = vocabularies_of(tmp_path / "run"), vocabularies_of(first)
    said = f"init_from {first}: text vocabulary {len(own[1])} -> {len(own[0])} (2 new words)"
    assert lines.count(said) == 1
    assert sum(" captions: none are cut to 24 word pieces" in line for line in lines) == 1
    assert set(own[0]) - set(own[1]) == {"scarlet", "mauve"}
    assert own[1].items() <= own[0].items()
    assert any(line.startswith(f"init_from {first} (step 2): ") and "anew" not in line for line in lines)

    config, theirs = files.read_json(tmp_path / "run" / runs.CONFIG), runs.read_weights(first)
    assert config["init_from_digest"] == theirs[3]
    assert config["model"]["text_vocab_size"] == 2000
    assert config["data"]["image_size"] == 32
    new, old = (flatten_dict(x, sep="/") for x in (runs.read_weights(tmp_path / "run")[0], theirs[0]))
    grown = {"bert/word_embed/embedding": len(own[1]), "bert/position_embed/embedding": 12}
    for path, x in old.items():
        assert new[path].shape == ((2000 if "word" in path else 24, 32) if path in grown else x.shape)
        rows = grown.get(path, len(x))
        np.testing.assert_allclose(new[path][:rows], x[:rows], atol=1e-20, err_msg=path)
    words = new["bert/word_embed/embedding"]
    mean = old["bert/word_embed/embedding"][4 : len(own[1])].mean(0)
    np.testing.assert_allclose(words[[own[0]["scarlet"], own[0]["mauve"]]], [mean, mean], atol=1e-7)

    shutil.rmtree(first)
    assert command(*argv) == (0, [f"{tmp_path / 'run'} is finished"])
    code, lines = command(*argv, "--config.steps=3", "--accept-config-change")
    assert code == 0, lines
    assert "continuing from step 2" in lines
    assert runs.read_weights(tmp_path / "run")[2] == 3
    assert files.read_json(tmp_path / "run" / runs.CONFIG)["init_from_digest"] == theirs[3]


def vocabularies_of(run):
    return files.read_json(run / runs.TEXT_TOKENIZER)["model"]["vocab"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["model.encoder.width=48", "model.decoder.width=48"], "fits this model: no kernel and no embedding"),
        (["init_from={tokenizer}"], "holds a patch_vqvae, and this config is of a translator; name another run"),
        (["init_from={nowhere}"], "nowhere does not exist"),
        (["init_from_digest=c0ffee"], "config.init_from_digest is c0ffee, but the weights of "),
        (["data.image_size=64"], "config.data.image_size is 64, but "),
        (["model.text_vocab_size=20"], "pieces already; raise config.model.text_vocab_size 20 to "),
    ],
)
def test_what_cannot_be_started_from_is_one_line(command, smoke_run, pictures, tmp_path, options, said):
    places = {"tokenizer": smoke_run.tokenizer, "nowhere": tmp_path / "nowhere"}
    options = [option.format(**places) for option in options]
    code, lines = command(*arguments(pictures, smoke_run.translator, tmp_path, *options))
    assert code == 2
    assert said in lines[-1]
    assert not (tmp_path / "run" / runs.WEIGHTS).exists()


def test_another_objective_is_refused(smoke_run, smoke_config, tmp_path):
    config = smoke_config("prior")
    config.init_from = str(smoke_run.translator)
    with pytest.raises(UserError, match="learned to translate by a translator, not to prior by a pixelcnn"):
        init_from.check(SimpleNamespace(config=config), tmp_path)


def test_parents_and_sizes_that_are_given_stay(smoke_run, tmp_path):
    fields = [f"init_from={smoke_run.translator}", "parents.tokenizer.run=mine", "model.decoder.dropout=0.25"]
    config = load_config("translator:digits", [f"--config.{x}" for x in fields], workdir=str(tmp_path))
    assert config.parents.tokenizer.run == "mine"
    assert config.parents.tokenizer.config.model.width == 256
    assert config.model.codebook_size == 2048
    assert (config.model.decoder.dropout, config.model.decoder.width) == (0.25, 32)


# --- tables of made-up runs: three words, two image tokens, one table and one head for both, as in models/dalle.py

OLD, V, D, IMAGE = ("a", "red", "seven"), 8, 3, 2
MODEL = SimpleNamespace(text_tables=(("table", 0), ("head", 1)), image_tables=("table", "head", "rows/embedding"))


def write_run(folder, tokenizer_step=1):
    rng = np.random.default_rng(0)
    params = {
        "table": rng.random((V + IMAGE + 1, D)),
        "head": rng.random((D, V + IMAGE)),
        "rows": {"embedding": rng.random((4, D))},
        "bert": {"position_embed": {"embedding": rng.random((5, D))}},
        "same": rng.random(2),
        "other": rng.random(2),
    }
    runs.make_folder(runs.parent_folder(folder, "tokenizer"))
    fields = {
        "task": "t",
        "model_name": "m",
        "model": {"text_vocab_size": V},
        "data": {},
        "steps": 1,
        "sampling": {},
    }
    runs.write_config(folder, ml_collections.ConfigDict(fields))
    runs.write_weights(folder, params, {"codes": {"k": np.arange(3.0)}}, 7)
    runs.write_weights(runs.parent_folder(folder, "tokenizer"), {"a": np.ones(1)}, {}, tokenizer_step)
    vocabularies.write_word_pieces(folder / runs.TEXT_TOKENIZER, vocabularies.build_word_pieces([" ".join(OLD)], V))
    return params


def started(folder, digest):
    """What a run with a vocabulary of two more starts with; whatever is fresh is -1."""
    size = V + 2
    grown = vocabularies.grow(vocabularies.build_word_pieces([" ".join(OLD)], V), ["a scarlet mauve"], size)[0]
    vocabularies.write_word_pieces(folder / "grown.json", grown)
    shapes = {
        "table": (size + IMAGE + 1, D),
        "head": (D, size + IMAGE),
        "rows/embedding": (4, D),
        "bert/position_embed/embedding": (6, D),
        "same": (2,),
        "other": (3,),
    }
    params = unflatten_dict({path: jnp.full(shape, -1.0) for path, shape in shapes.items()}, sep="/")
    config = ml_collections.ConfigDict({"init_from": str(folder), "model": {"text_vocab_size": size}})
    variables = {"codes": {"k": jnp.zeros(3)}}
    tables = init_from.tables_of(config, MODEL, params, folder / "grown.json", digest)
    return init_from.put(folder, params, variables, tables)


def test_words_and_image_tokens_of_one_table_find_their_places(tmp_path, capsys):
    old = write_run(tmp_path)
    digest = runs.read_weights(runs.parent_folder(tmp_path, "tokenizer"))[3]
    new, variables = started(tmp_path, digest)
    for name, axis in (("table", 0), ("head", 1)):
        ours, theirs = (np.moveaxis(np.asarray(x[name]), axis, 0) for x in (new, old))
        np.testing.assert_allclose(ours[:7], theirs[:7], rtol=1e-6)  # four special pieces and three words
        np.testing.assert_allclose(ours[7:9], [theirs[4:7].mean(0)] * 2, rtol=1e-6)
        assert (ours[9] == -1).all()  # no piece yet
        np.testing.assert_allclose(ours[10:], theirs[8:], rtol=1e-6)
    table = new["bert"]["position_embed"]["embedding"]
    np.testing.assert_allclose(table[:5], old["bert"]["position_embed"]["embedding"], rtol=1e-6)
    assert (table[5] == -1).all()
    np.testing.assert_allclose(new["rows"]["embedding"], old["rows"]["embedding"], rtol=1e-6)
    np.testing.assert_array_equal(variables["codes"]["k"], np.arange(3.0))
    said = f"init_from {tmp_path} (step 7): 6 of 7 arrays taken; starting anew: other"
    assert capsys.readouterr().err.splitlines() == [said]


def test_tables_of_other_image_tokens_start_anew(tmp_path, capsys):
    old = write_run(tmp_path)
    new, _ = started(tmp_path, "of another")
    assert (np.asarray(new["table"])[V + 2 :] == -1).all()
    assert (np.asarray(new["head"])[:, V + 2 :] == -1).all()
    assert (np.asarray(new["rows"]["embedding"]) == -1).all()
    np.testing.assert_allclose(new["table"][:7], old["table"][:7], rtol=1e-6)
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"init_from {tmp_path}: its images were in other tokens; their tables start anew"
    assert second.endswith("5 of 7 arrays taken; starting anew: other, rows/embedding")


@pytest.mark.long
@pytest.mark.parametrize("name", ["patch_vqvae", "prior", "dalle", "vae"])
def test_other_kinds_start_from_runs_of_theirs(name, smoke, command, data_dir, tmp_path):
    argv = [f"--config={name}:smoke", f"--config.init_from={smoke.run(name)}", f"--config.data.data_dir={data_dir}"]
    code, lines = command(*argv, f"--workdir={tmp_path / 'run'}")
    assert code == 0, lines
    count = len(flatten_dict(runs.load_weights(smoke.run(name) / runs.WEIGHTS)[0]))
    taken = next(line for line in lines if " arrays taken" in line)
    assert int(taken.split(": ")[1].split()[0]) >= count
    assert "anew" not in taken
