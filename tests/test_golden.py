"""One step of each task gives the numbers that it gave before; tests/golden/README.md says how to renew them."""

import importlib.util
import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "golden"
_spec = importlib.util.spec_from_file_location("regenerate", FOLDER / "regenerate.py")
regenerate = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(regenerate)


def test_every_golden_file_has_its_step():
    assert {path.stem for path in FOLDER.glob("*.json")} == set(regenerate.STEPS)


@pytest.mark.parametrize("name", regenerate.STEPS)
def test_a_step_gives_the_numbers_it_gave(name):
    expected = json.loads((FOLDER / f"{name}.json").read_text())
    assert regenerate.one_step(regenerate.STEPS[name]) == pytest.approx(expected, rel=1e-4)
