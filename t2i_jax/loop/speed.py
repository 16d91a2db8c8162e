"""How long a run takes to its first step, and how fast it trains from there."""

import time
from contextlib import contextmanager, suppress

import jax

from t2i_jax.loop.flops import flops_of

COMPILING = "/jax/core/compile/backend_compile_duration"  # jax's event; a program that is loaded counts, too

# FLOP/s of one device by jax's name of it, dense bfloat16 (T4: float16). Sources: NVIDIA's data sheets; "Cloud TPU
# system architecture" of Google, one page a version.
PEAKS = {
    "NVIDIA H200": 989e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA L4": 121e12,
    "Tesla T4": 65e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
}


class Start:
    """From the beginning of a run to the end of its first step; a context."""

    def __init__(self):
        self._began, self._compiling = time.perf_counter(), 0.0

    def __enter__(self):
        jax.monitoring.register_event_duration_secs_listener(self._take)
        return self

    def __exit__(self, *_):
        jax.monitoring.unregister_event_duration_listener(self._take)

    def _take(self, event: str, seconds: float, **_) -> None:
        if event == COMPILING:
            self._compiling += seconds

    def describe(self) -> str:
        """One line, once the first step has ended."""
        seconds = time.perf_counter() - self._began
        return f"first step after {seconds:.1f} s, {self._compiling:.1f} s of them compiling"


class Speed:
    """Speed and memory between two looks, saving and evaluating left out.

    Args:
      built: what trains.
    """

    def __init__(self, built):
        self._batch_size, self._steps, self._seconds, self._since = built.config.batch_size, 0, 0.0, None
        self._peak, self._flops = PEAKS.get(jax.devices()[0].device_kind), None
        if self._peak:
            with suppress(ValueError):  # a loop of unknown length
                self._flops = flops_of(built.trace(self._batch_size).jaxpr) / jax.device_count()

    def start(self) -> None:
        """Count from here: the first step, which compiles, is no measure."""
        self._steps, self._seconds, self._since = 0, 0.0, time.perf_counter()

    def step(self) -> None:
        """Count a step, which need not have ended."""
        self._steps += 1

    @contextmanager
    def paused(self):
        """What runs within is not training; the steps before must have ended."""
        self._seconds += time.perf_counter() - self._since
        yield
        self._since = time.perf_counter()

    def look(self) -> dict:
        """Scalars since the last look, or since the start; the steps must have ended.

        Returns:
          `speed/examples_per_second`; where the devices' peak is known `speed/mfu`, the share of it (in bfloat16,
          whatever the config computes in) that products and convolutions of the steps make up (PaLM, appendix B);
          where they tell, `memory/peak_gigabytes` of the fullest device since the process began. {} without a step.
        """
        seconds, steps = self._seconds + time.perf_counter() - self._since, self._steps
        self.start()
        if not steps:
            return {}
        scalars = {"speed/examples_per_second": steps * self._batch_size / seconds}
        if self._flops:
            scalars["speed/mfu"] = steps * self._flops / seconds / self._peak
        used = [device.memory_stats() or {} for device in jax.local_devices()]
        if peaks := [stats["peak_bytes_in_use"] for stats in used if "peak_bytes_in_use" in stats]:
            scalars["memory/peak_gigabytes"] = max(peaks) / 1e9
        return scalars
