"""Bars: one that moves on a terminal, lines elsewhere, nothing where nobody wants them."""

import io

import pytest

from t2i_jax import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(monkeypatch, stream, **options):
    monkeypatch.setattr("sys.stderr", stream)
    for _ in progress.bar(range(1000), "drawing", mininterval=0, **options):
        pass
    return stream.getvalue()


def test_a_file_gets_lines_now_and_then(monkeypatch):
    said = shown(monkeypatch, io.StringIO())
    assert "\r" not in said
    assert said.splitlines()[0].startswith("drawing: 100% 1000/1000 [")
    assert said.count("\n") == 1  # at its end, as it took no `EVERY`
    monkeypatch.setattr(progress, "EVERY", 0.0)
    assert shown(monkeypatch, io.StringIO()).count("\n") > 900


def test_what_is_written_beside_a_bar_stays_apart(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    with progress.bar(desc="training", total=4) as bar:
        bar.update(2)
        bar.write("step 2: loss 0.5", file=stream)
    assert stream.getvalue().splitlines()[0] == "step 2: loss 0.5"
    assert stream.getvalue().splitlines()[1].startswith("training:  50% 2/4 [")


def test_a_terminal_gets_a_bar(monkeypatch):
    assert shown(monkeypatch, Terminal()).count("\r") > 900


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_nobody_needs_one(monkeypatch, stream):
    assert shown(monkeypatch, stream(), hidden=True) == ""
