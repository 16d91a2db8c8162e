"""Samplers and their settings: defaults and ranges, and the config that names a sampler."""

import dataclasses
import math
import subprocess
import sys

import pytest

from t2i_jax import sampling
from t2i_jax.errors import UserError
from t2i_jax.sampling.autoregressive import Autoregressive


def test_settings_default_to_plain_sampling():
    plain = {"temperature": 1, "top_k": 0, "top_p": 1, "min_p": 0, "unguided_tokens": 0, "guidance_scale": 1}
    assert dataclasses.asdict(Autoregressive()) == plain | {"window": 1, "weight_bits": 32}
    assert isinstance(Autoregressive(temperature=1).temperature, float)
    assert isinstance(Autoregressive(min_p=0).min_p, float)
    assert isinstance(Autoregressive(top_k=3).top_k, int)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("temperature", -1, "temperature -1 is below 0; give a value from 0 (greedy) up"),
        ("temperature", math.nan, "temperature nan is not finite; give a value from 0 (greedy) up"),
        ("top_k", -3, "top_k -3 is below 0; give a whole number from 0 (off) up"),
        ("top_k", 2.5, "top_k 2.5 is no whole number; give a whole number from 0 (off) up"),
        ("top_k", True, "top_k True is no number; give a whole number from 0 (off) up"),
        ("top_p", 0, "top_p 0 is not above 0; give a value above 0, up to 1 (off)"),
        ("top_p", -0.5, "top_p -0.5 is below 0; give a value above 0, up to 1 (off)"),
        ("top_p", 1.5, "top_p 1.5 is above 1; give a value above 0, up to 1 (off)"),
        ("min_p", -0.1, "min_p -0.1 is below 0; give a value from 0 (off) to 1"),
        ("min_p", 1.5, "min_p 1.5 is above 1; give a value from 0 (off) to 1"),
        ("min_p", math.nan, "min_p nan is not finite; give a value from 0 (off) to 1"),
        ("min_p", True, "min_p True is no number; give a value from 0 (off) to 1"),
        ("unguided_tokens", -1, "unguided_tokens -1 is below 0; give a whole number from 0 (none) up"),
        ("unguided_tokens", 2.0, "unguided_tokens 2.0 is no whole number; give a whole number from 0 (none) up"),
        ("weight_bits", 12, "weight_bits 12 is none of 8, 16, 32; give 32 (as trained), 16 or 8"),
        ("weight_bits", 64, "weight_bits 64 is none of 8, 16, 32; give 32 (as trained), 16 or 8"),
        ("window", 0, "window 0 is not above 0; give a whole number from 1 (off) to the number of tokens"),
        ("window", -4, "window -4 is below 0; give a whole number from 1 (off) to the number of tokens"),
        ("window", 2.0, "window 2.0 is no whole number; give a whole number from 1 (off) to the number of"),
        ("guidance_scale", -2.0, "guidance_scale -2 is below 0; give a value from 0 up, where 1"),
        ("guidance_scale", math.inf, "guidance_scale inf is not finite; give a value from 0 up"),
    ],
)
def test_settings_out_of_range_say_so(field, value, message):
    for make in (Autoregressive, Autoregressive().replace):
        with pytest.raises(UserError) as error:
            make(**{field: value})
        assert str(error.value).startswith(message)


@pytest.mark.parametrize("changes", [{"min_p": 0}, {"min_p": 1}, {"min_p": 0.3}, {"top_p": 1}, {"top_p": 1e-9}])
def test_settings_at_the_ends_of_their_ranges_are_good(changes):
    for name, value in changes.items():
        assert getattr(Autoregressive(**changes), name) == value


def test_a_config_names_its_sampler_and_what_differs():
    config = {"name": "autoregressive", "temperature": 0.3, "top_k": 5}
    sampler = sampling.make(config)
    assert sampler == Autoregressive(temperature=0.3, top_k=5)
    assert set(sampling.settings()) >= {field.name for field in dataclasses.fields(Autoregressive)}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "config.sampling has no name; choose autoregressive"),
        ({"name": "oracle"}, "config.sampling.name 'oracle' is unknown; choose autoregressive"),
        ({"name": "logits"}, "config.sampling.name 'logits' is unknown"),  # a file, but no sampler
        ({"name": "autoregressive", "temprature": 1}, "no setting 'temprature'; did you mean 'temperature'?"),
        ({"name": "autoregressive", "x": 1}, "no setting 'x'; it has temperature, top_k"),
        ({"name": "autoregressive", "top_p": 2}, "top_p 2 is above 1"),
    ],
)
def test_a_config_that_names_none_says_so(config, said):
    with pytest.raises(UserError, match=r"\w") as error:
        sampling.make(config)
    assert said in str(error.value)


def test_a_keyword_that_is_no_setting_names_the_near_miss():
    with pytest.raises(UserError, match=r"^the sampler has no setting 'topk'; did you mean 'top_k'\?$"):
        Autoregressive().replace(topk=3)


@pytest.mark.parametrize(
    ("scale", "dropout", "refused"), [(1.5, 0, True), (0, 0, True), (1, 0, False), (3, 0.1, False)]
)
def test_guidance_needs_a_null_caption_that_was_trained(scale, dropout, refused):
    sampler = Autoregressive(guidance_scale=scale)
    if not refused:
        sampling.check_guidance(sampler, dropout)
        return
    with pytest.raises(UserError, match=f"^guidance_scale {scale} compares with the null caption, which is never"):
        sampling.check_guidance(sampler, dropout)
    sampling.check_guidance(sampler.unguided(), dropout)


def test_settings_are_read_without_jax():
    program = "import sys, t2i_jax.cli.sample as s; s.sampling.settings(); sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
