"""Text -> tokens -> pixels: run folders opened for use. The only folder that knows two models."""

from collections.abc import Callable
from pathlib import Path

from t2i_jax import runs
from t2i_jax.errors import UserError
from t2i_jax.pipelines.autoencoder import AutoEncoder
from t2i_jax.pipelines.clip import Clip
from t2i_jax.pipelines.prior import Prior
from t2i_jax.pipelines.tokenizer import TOKENIZERS, Tokenizer
from t2i_jax.pipelines.translator import Translator

__all__ = ["AutoEncoder", "Clip", "Prior", "Tokenizer", "Translator", "load"]


def load(run: str | Path, recover: Callable | None = None) -> "Translator | Prior | Tokenizer | AutoEncoder":
    """Open a run folder: a translator's, a prior's, a tokenizer's or an autoencoder's, as its config says.

    Args:
      run: its folder.
      recover: see `runs.read_weights`.

    Raises:
      UserError: the folder is missing, is no run, has no weights yet, or holds another kind of model.
    """
    kinds = {"translate": Translator, "dalle": Translator, "prior": Prior, "autoencode": AutoEncoder}
    kinds |= dict.fromkeys(TOKENIZERS, Tokenizer)
    task = runs.read_config(run).task
    if task not in kinds:
        raise UserError(f"run {run} is of an unknown kind ({task}); this version reads {', '.join(kinds)}")
    return kinds[task](run, recover)
