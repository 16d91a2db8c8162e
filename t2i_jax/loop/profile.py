"""A trace of some steps by jax's profiler, for Perfetto and TensorBoard."""

from pathlib import Path

import jax

from t2i_jax import hosts
from t2i_jax.errors import UserError


class Profile:
    """Traces steps FIRST to LAST of a run into a folder, on the first host; a context.

    Args:
      folder: where `plugins/profile/DATE/` with the trace appears.
      steps: FIRST and LAST; None traces nothing.
      done: steps that the run has when it begins or goes on.

    Raises:
      UserError: FIRST is done already.
    """

    def __init__(self, folder: Path, steps: tuple[int, int] | None, done: int):
        self._folder, (self._first, self._last), self._tracing = folder, steps or (0, 0), False
        if steps and self._first <= done:
            raise UserError(
                f"--profile {self._first}:{self._last} begins at a step that is done; give a FIRST above {done}"
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._tracing:
            self._tracing = False
            jax.profiler.stop_trace()

    def before(self, step: int, state) -> None:
        """Begin where `step` is the first, once the steps before it have ended."""
        if step == self._first and hosts.is_first():
            jax.block_until_ready(state)
            jax.profiler.start_trace(self._folder, create_perfetto_trace=True)
            self._tracing = True

    def after(self, step: int, state) -> None:
        """Stop where `step` is the last, once it has ended."""
        if step == self._last and self._tracing:
            jax.block_until_ready(state)
            self.__exit__()
