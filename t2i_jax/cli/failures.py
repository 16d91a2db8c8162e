"""What other libraries raise and people can mend, in one line each. All else is a fault of this package."""

from t2i_jax.errors import one_line

BATCH = "lower config.batch_size, or raise config.accumulate, which cuts it into smaller parts"
LESS = {  # by command
    "train": f"{BATCH}; t2i doctor --config CONFIG --dry-run says what a step takes",
    "doctor": f"{BATCH}, or make config.model smaller",
    "sample": "draw fewer pictures at a time, by -n or --candidates",
}


def explain(error: Exception, command: str) -> str | None:
    """What happened and the way out, in one line; None where that is not known.

    Args:
      error: that reached the command line.
      command: of `t2i`.
    """
    line = one_line(error)
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in line or "Out of memory" in line:
        return f"out of memory ({line}); {LESS.get(command, 'free some, or take a machine with more')}"
    if not isinstance(error, RuntimeError):
        return None
    if "nable to initialize backend" in line or "known backends" in line or "Unknown backend" in line:
        return f"jax finds no such device ({line}); set JAX_PLATFORMS to cpu, cuda or tpu, or not at all"
    if "can't start new thread" in line:
        return f"{line}: the system allows no more (ulimit -u); stop other programs, or raise that limit"
    return None
