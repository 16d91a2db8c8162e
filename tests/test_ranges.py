"""Every number of a config has a range; what is outside is refused in one line, before anything is built."""

import math
import warnings

import pytest
from ml_collections import ConfigDict

from t2i_jax import cli, ranges
from t2i_jax.config import complete, known_configs
from t2i_jax.config.find import read_config
from t2i_jax.errors import UserError
from t2i_jax.loop import train
from t2i_jax.ranges import FIELDS, Range

hypothesis = pytest.importorskip("hypothesis")
given, st = hypothesis.given, pytest.importorskip("hypothesis.strategies")

SAMPLED = st.sampled_from(
    ["translator", "patch_vqvae", "vqvae", "dvae", "vae", "dalle", "prior"],
)


def numbers(config, path=""):
    """`(dotted name, value)` of every number in a config, in its parents too."""
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            if name != "sampling":
                yield from numbers(value, f"{path}{name}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield f"{path}{name}", value


@pytest.fixture(scope="module")
def smokes():
    """Of each experiment the smoke variant, as its file and the defaults make it."""
    known = [name for name in known_configs() if name.endswith(":smoke")]
    return {name.partition(":")[0]: complete(read_config(name)) for name in known}


def test_every_number_of_every_experiment_has_a_range(smokes):
    lacking = {
        field
        for config in smokes.values()
        for field, _ in numbers(config)
        if field.rpartition(".")[2] not in FIELDS and "lr_multipliers" not in field
    }
    assert lacking == set()
    for config in smokes.values():
        ranges.check_config(config)


def outside(range_: Range, whole: bool):
    """Numbers that a range refuses, which a field of its type can hold."""
    most = range_.most if range_.most is not None else (ranges.MOST_WHOLE if range_.whole else ranges.MOST)
    low, high = (range_.least, most)
    if whole:
        first = low if range_.above else low - 1
        last = high if range_.below else high + 1
        return st.integers(max_value=first) | st.integers(min_value=last)
    bad = st.sampled_from([math.nan, math.inf, -math.inf])
    below = st.floats(max_value=float(low), exclude_max=not range_.above, allow_infinity=False)
    above = st.floats(min_value=float(high), exclude_min=not range_.below, allow_infinity=False)
    return bad | below | above


@given(data=st.data(), name=SAMPLED)
def test_what_is_outside_its_range_is_refused_and_named(smokes, record_fault, data, name):
    config = smokes[name].copy_and_resolve_references()
    field, value = data.draw(st.sampled_from(sorted(numbers(config))))
    last = field.rpartition(".")[2]
    number = data.draw(outside(FIELDS.get(last, FIELDS["lr_multipliers"]), isinstance(value, int)))
    config.update_from_flattened_dict({field: number})
    record_fault("settings out of range", "tried")
    with pytest.raises(UserError) as refused, warnings.catch_warnings(action="error"):
        train.check_config(config)
    said = str(refused.value)
    assert said.startswith(f"config.{field} "), said
    assert "; give " in said
    assert "\n" not in said
    assert len(said) < 400
    record_fault("settings out of range", "refused")


@given(value=st.floats() | st.integers() | st.text() | st.booleans() | st.none(), whole=st.booleans())
def test_a_check_hands_on_or_refuses_and_never_fails_otherwise(value, whole):
    try:
        checked = ranges.check("x", value, Range(whole=whole))
    except UserError as refused:
        assert str(refused).startswith("x ")  # noqa: PT017, both ends are good
    else:
        assert type(checked) is (int if whole else float)
        assert 0 <= checked < 2**128


@pytest.mark.parametrize(
    ("range_", "value", "said"),
    [
        (Range(), -0.5, "x -0.5 is below 0; give a number from 0 up"),
        (Range(above=True), 0.0, "x 0 is not above 0; give a number above 0"),
        (Range(most=1, below=True), 1.0, "x 1 is not below 1; give a number from 0 to below 1"),
        (Range(1, whole=True), 2**31, "x 2147483648 is above 2147483647; give a whole number from 1 up"),
        (
            Range(1, 4, whole=True, note="4 is all"),
            2.5,
            "x 2.5 is no whole number; give a whole number from 1 to 4;",
        ),
        (Range(), 1e39, "x 1e+39 is above 3e+38; give a number from 0 up"),
    ],
)
def test_what_a_refusal_says(range_, value, said):
    with pytest.raises(UserError) as refused:
        ranges.check("x", value, range_)
    assert str(refused.value).startswith(said)


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ("translator", "model.encoder.heads=0"),  # was a ZeroDivisionError
        ("translator", "parents.tokenizer.config.optim.lr=-1"),
        ("translator", "sampling.top_k=3000000000"),
        ("translator", "mesh.tensor=7"),
        ("vqvae", "model.codebook_size=4000000000"),  # was an OverflowError
        ("dvae", "loss.temperature=0"),
    ],
)
def test_the_command_refuses_in_one_line(config, field, capsys, tmp_path):
    assert cli.main(["train", f"--config={config}:smoke", f"--workdir={tmp_path}", f"--config.{field}"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert field.partition("=")[0].split(".")[-1] in said
    assert list(tmp_path.iterdir()) == []
