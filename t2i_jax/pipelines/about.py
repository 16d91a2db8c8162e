"""What opened runs say of themselves: parts of their `repr`."""

import jax


def name_of(pipe) -> str:
    """Kind, run, step and the beginning of the weights' digest; of a model in memory, kind and run."""
    where = (
        f"step {pipe.step:,} of {pipe.config.steps:,}, weights {pipe.digest[:8]}" if pipe.digest else "in memory"
    )
    return f"{type(pipe).__name__} {pipe.config.name}: {where}"


def pictures(shape: tuple[int, int, int]) -> str:
    """Pictures of a shape [H, W, C] in words: "32 x 48 x 3 pictures"."""
    return f"{' x '.join(map(str, shape))} pictures"


def parameters(tree) -> str:
    """How many numbers are trained: "1,234 parameters"."""
    return f"{sum(leaf.size for leaf in jax.tree.leaves(tree)):,} parameters"
