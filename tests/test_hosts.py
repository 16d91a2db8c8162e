"""Two processes as two hosts: one deletes, both agree on what failed, and nobody waits for ever."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

REPO = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What each of the two hosts saw."""
    folder = tmp_path_factory.mktemp("run")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"PYTHONPATH": str(REPO), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(REPO / "tests" / "two_hosts.py")]
    hosts = [
        subprocess.Popen(
            [*command, str(rank), str(port), str(folder)],
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for rank in (0, 1)
    ]
    try:
        ends = [host.communicate(timeout=120) for host in hosts]
    finally:
        for host in hosts:
            host.kill()
    for host, (_, err) in zip(hosts, ends, strict=True):
        assert host.returncode == 0, err
    return [[json.loads(line) for line in out.splitlines() if line[0] == "{"] for out, _ in ends]


def rows_of(step):
    """Rows of the kernel, by host."""
    return (np.arange(16.0) + step).reshape(2, 8).tolist()


def test_each_host_gets_back_its_rows_and_its_position(told):
    for rank, seen in enumerate(told):
        assert seen[0] == {"step": 3, "rows": [rows_of(3)[rank]], "next": 2 * 3 + rank, "folders": ["2", "3"]}


@pytest.mark.parametrize(("number", "name"), [(1, "write"), (2, "check_equal")])
def test_a_save_that_fails_on_one_host_fails_on_both(told, number, name):
    for seen, reason in zip(told, ["host 1 of 2 failed; it says why", "No space left on device"], strict=True):
        assert seen[number]["failed"] == name
        assert reason in seen[number]["said"]
        assert "; that of step 3 stands; " in seen[number]["said"]
        assert set(seen[number]["folders"]) - {"4.partial"} == {
            "2",
            "3",
        }  # which the first host may just be deleting


def test_a_restore_that_fails_on_one_host_fails_on_both(told):
    first, second = (seen[3]["said"] for seen in told)
    assert first == "host 1 of 2 failed; it says why"
    assert "checkpoints/3 cannot be read just now" in second


def test_hosts_fall_back_together_and_the_first_one_deletes(told):
    for rank, seen in enumerate(told):
        assert seen[4] == {"step": 2, "rows": [rows_of(2)[rank]], "next": 2 * 2 + rank, "folders": ["2", "3"]}
        assert seen[5]["folders"] == ["2", "5"]
        assert seen[5]["total"] == sum(range(16))
