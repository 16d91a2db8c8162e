"""Every experiment builds, says what the loop needs, and its model initialises."""

import functools
import inspect
import json
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from fakes import fake_batch

from t2i_jax import models, sampling, tasks
from t2i_jax.config import complete, known_configs, load_config
from t2i_jax.config.find import read_config
from t2i_jax.errors import UserError
from t2i_jax.loop.optimizer import make_schedule
from t2i_jax.nn import quantizers

FOLDER = Path(__file__).parents[1] / "configs"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "base")
EXPERIMENTS = known_configs()


@functools.cache
def build(experiment):
    return load_config(experiment)


@pytest.mark.parametrize("name", NAMES)
def test_every_file_names_its_variants_and_has_a_smoke_test(name):
    module = import_module(f"configs.{name}")
    variants = [known.partition(":")[2] for known in EXPERIMENTS if known.startswith(f"{name}:")]
    assert "smoke" in variants  # read from the text, without running it
    assert all(callable(getattr(module, variant)) for variant in variants)
    assert name not in variants  # what the variants share is none
    assert inspect.signature(module.get_config).parameters["variant"].default in variants
    assert f"--config=configs/{name}.py" in module.__doc__


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_has_what_the_loop_reads(experiment):
    config = build(experiment)
    assert config.name == experiment.replace(":", "-")
    for field in ("seed", "steps", "batch_size", "accumulate", "checkpoint_every", "eval_every", "log_every"):
        assert isinstance(config[field], int), field
    assert config.steps > 0
    assert config.checkpoint_every <= config.steps
    assert (config.steps <= 2) == experiment.endswith(":smoke")
    make_schedule(config.optim, config.steps)
    assert bool(config.sampling) == bool(config.parents)
    if config.sampling:
        sampling.check_guidance(sampling.make(config.sampling), config.data.caption_dropout)
    task = tasks.make(config)
    assert task.phases()  # the loss has what it reads of the config
    assert not config.codebook_reset_every or callable(task.between_steps)
    own = [field.name for field in fields(import_module(f"t2i_jax.models.{config.model_name}").Model)]
    assert set(config.model) == set(own) - {"parent", "name"}
    stored = json.loads(config.to_json())
    assert stored["model"] == json.loads(config.model.to_json())
    assert None not in stored["model"].values()
    with pytest.raises(AttributeError):
        config.stepz = 3


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_model_builds_and_initialises(experiment):
    config = build(experiment)
    task = tasks.make(config)
    hash(task.model)  # jit takes it as static
    shapes = jax.eval_shape(task.init, jax.random.key(0), fake_batch(task, 2))
    assert all(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
    assert experiment.endswith(":smoke") or config.model.get("codebook_size", 256) >= 256


@pytest.mark.parametrize("experiment", [name for name in EXPERIMENTS if read_config(name).parents])
def test_what_draws_tokens_names_the_run_that_the_tokenizers_config_trains(experiment):
    config = load_config(experiment)
    own = config.parents.tokenizer.config
    assert config.parents.tokenizer.run == f"runs/{own.name}"
    assert own.to_json() == load_config(own.name.replace("-", ":", 1)).to_json()
    # One value in two places: an override reaches both.
    config.data.name, config.data.data_dir = "other", "elsewhere"
    assert (own.data.name, own.data.data_dir) == ("other", "elsewhere")


@pytest.mark.parametrize("kind", quantizers.KINDS)
@pytest.mark.parametrize("name", ["patch_vqvae", "vqvae"])
def test_one_field_changes_the_quantizer(name, kind):
    config = load_config(f"{name}:smoke")
    config.model.quantizer = kind
    if name == "patch_vqvae":  # three codebooks, and FSQ's sizes are products of 4 to 8
        config.model.codebook_size, config.model.hues, config.model.gains = 48, 16, 16
    model = models.build(config)
    images = jnp.zeros((1, 32, 32, 3))
    assert jax.eval_shape(model.init, jax.random.key(0), images)["params"]


def test_options_of_quantizers_come_from_their_classes():
    options = load_config("vqvae:smoke", ["--config.model.quantizer_options.l2.decay=0.5"]).model.quantizer_options
    assert options.l2.to_dict() == {"decay": 0.5, "commitment": 0.25, "lookup_width": 8}
    assert set(options.gumbel) == {"temperature", "kl_weight"}
    assert not options.fsq


@pytest.mark.parametrize(
    ("part", "changes", "said"),
    [
        ("model", {"widht": 3}, r"config.model has no field 'widht'; did you mean 'width'\?"),
        ("sampling", {"temprature": 3}, r"config.sampling has no field 'temprature'; did you mean 'temperature'\?"),
        ("loss", {"text_wieght": 3}, r"config.loss has no field 'text_wieght'; did you mean 'text_weight'\?"),
    ],
)
def test_a_field_that_a_config_file_misspells_is_refused(part, changes, said):
    config = read_config("dalle:smoke")
    config[part].update(changes)
    with pytest.raises(UserError, match=said):
        complete(config)


def test_a_field_of_the_loss_that_has_no_default_must_be_set():
    config = read_config("dalle:smoke")
    del config.loss.text_weight
    with pytest.raises(UserError, match=r"config.loss lacks 'text_weight', which has no default"):
        complete(config)
