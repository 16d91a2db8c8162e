"""Learning-rate multipliers by part of a model: which of them counts for a parameter, and what is frozen."""

from collections.abc import Iterable


def deepest(parts: Iterable[str], path: str) -> str | None:
    """The one of `parts` that ends deepest in a parameter's path; None where none is a piece of it."""
    whole = f"/{path}/"
    ends = {part: whole.find(f"/{part}/") + len(part) for part in parts if f"/{part}/" in whole}
    return max(ends, key=ends.get, default=None)


def is_frozen(optim, path: str) -> bool:
    """Whether the learning-rate multiplier of a parameter is 0.

    Args:
      optim: `config.optim`.
      path: of the parameter, such as "gpt2/blocks/mlp/up/kernel".
    """
    multipliers = dict(optim.get("lr_multipliers", {}))
    return multipliers.get(deepest(multipliers, path)) == 0
