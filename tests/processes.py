"""Scripts as processes of their own, on as many CPU devices as asked for."""

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

REPO = Path(__file__).parents[1]


def start(script, *argv, devices=1, **environment):
    """The script, started, with a wire to each of its outputs."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    environment |= {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(REPO)}
    pipes = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, *map(str, (script, *argv))], env=os.environ | environment, **pipes)


def finish(processes):
    """What each of them says on stdout and stderr; all must end well. Where one does not, the others are killed."""

    def end(process):
        try:
            return process.communicate(timeout=300)
        finally:
            for other in processes if process.returncode else ():
                other.kill()

    try:
        with ThreadPoolExecutor(len(processes)) as pool:
            ends = list(pool.map(end, processes))
    finally:
        for process in processes:
            process.kill()
    failed = [err for process, (_, err) in zip(processes, ends, strict=True) if process.returncode]
    assert not failed, "\n".join(failed)
    return ends


def on_two_hosts(script, *argv):
    """What each of two processes says that find each other by their environment."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        environment = {"JAX_COORDINATOR_ADDRESS": f"localhost:{free.getsockname()[1]}", "JAX_NUM_PROCESSES": "2"}
    environment["JAX_CPU_COLLECTIVES_IMPLEMENTATION"] = "gloo"
    return finish([start(script, *argv, JAX_PROCESS_ID=rank, **environment) for rank in "01"])
