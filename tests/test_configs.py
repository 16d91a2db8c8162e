"""Every experiment builds, says what the loop needs, and its model initialises."""

import functools
import inspect
import json
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from fakes import fake_batch
from t2i_jax.loop.command_line import known_configs

from t2i_jax import models
from t2i_jax.loop.optimizer import make_schedule
from t2i_jax.nn import quantizers
from t2i_jax.sampling.settings import Sampling

FOLDER = Path(__file__).parents[1] / "configs"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "base")
EXPERIMENTS = [Path(known).name.split(".py:") for known in known_configs(FOLDER)]


@functools.cache
def build(name, variant):
    return import_module(f"configs.{name}").get_config(variant)


@pytest.mark.parametrize("name", NAMES)
def test_every_file_names_its_variants_and_has_a_smoke_test(name):
    module = import_module(f"configs.{name}")
    variants = [variant for known, variant in EXPERIMENTS if known == name]
    assert variants == list(module.VARIANTS)  # read from the text, without running it
    assert "smoke" in variants
    assert inspect.signature(module.get_config).parameters["variant"].default in variants
    assert f"--config=configs/{name}.py" in module.__doc__


@pytest.mark.parametrize(("name", "variant"), EXPERIMENTS)
def test_every_experiment_has_what_the_loop_reads(name, variant):
    config = build(name, variant)
    assert config.name == f"{name}-{variant}"
    for field in ("seed", "steps", "batch_size", "accumulate", "checkpoint_every", "eval_every", "log_every"):
        assert isinstance(config[field], int), field
    assert config.steps > 0
    assert config.checkpoint_every <= config.steps
    assert (config.steps <= 2) == (variant == "smoke")
    make_schedule(config.optim, config.steps)
    settings = asdict(Sampling(**config.sampling))
    assert dict(config.sampling) == (settings if "tokenizer" in config else {})  # so that flags find them
    task = import_module(f"t2i_jax.tasks.{config.task}")
    assert callable(task.loss_fn)
    assert not config.upkeep_every or callable(task.upkeep)
    assert json.loads(config.to_json())["model"] == json.loads(config.model.to_json())
    if "codebook_size" in config.model:
        assert json.loads(config.to_json())["model"]["codebook_size"] == config.model.codebook_size
    with pytest.raises(AttributeError):
        config.lock().stepz = 3


@pytest.mark.parametrize(("name", "variant"), EXPERIMENTS)
def test_every_model_builds_and_initialises(name, variant):
    config = build(name, variant)
    model = models.build(config)
    hash(model)  # jit takes it as static
    init = functools.partial(import_module(f"t2i_jax.tasks.{config.task}").init, model)
    shapes = jax.eval_shape(init, jax.random.key(0), fake_batch(config, 2))
    assert all(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
    assert variant == "smoke" or config.model.get("codebook_size", 256) >= 256


@pytest.mark.parametrize(("name", "variant"), EXPERIMENTS)
def test_what_draws_tokens_fits_the_tokenizer_that_it_names(name, variant):
    config = import_module(f"configs.{name}").get_config(variant)
    if "tokenizer" not in config:
        return
    tokenizer = models.build(config.tokenizer)
    assert tokenizer.num_tokens == config.model.num_tokens
    if "decoder" in config.model:
        assert config.model.decoder.positions == config.model.num_tokens
    assert config.model.text_len == config.data.text_len
    if "encoder" in config.model:
        assert config.model.encoder.max_positions == config.model.text_len
    assert config.tokenizer_run == f"runs/{config.tokenizer.name}"
    # Its run is the one that the tokenizer's own config trains.
    name, _, variant = config.tokenizer.name.partition("-")
    assert config.tokenizer.to_json() == import_module(f"configs.{name}").get_config(variant).to_json()
    # One value in two places: an override reaches both.
    config.model.codebook_size, config.data.name, config.data.data_dir = 320, "other", "elsewhere"
    assert config.tokenizer.model.codebook_size == 320
    assert (config.tokenizer.data.name, config.tokenizer.data.data_dir) == ("other", "elsewhere")


@pytest.mark.parametrize("kind", quantizers.KINDS)
@pytest.mark.parametrize("name", ["patch_vqvae", "vqvae"])
def test_one_field_changes_the_quantizer(name, kind):
    config = import_module(f"configs.{name}").get_config("smoke")
    config.model.quantizer = kind
    if name == "patch_vqvae":  # three codebooks, and FSQ's sizes are products of 4 to 8
        config.model.codebook_size, config.model.colours, config.model.strengths = 48, 16, 16
    options = config.model.quantizer_options[kind]
    made = quantizers.make(kind, 64, 8)
    assert {field: getattr(made, field) for field in options} == options.to_dict()  # the defaults
    model = models.build(config)
    images = jnp.zeros((1, 32, 32, 3))
    assert jax.eval_shape(model.init, jax.random.key(0), images)["params"]
