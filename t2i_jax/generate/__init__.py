"""Text -> tokens -> pixels: run folders opened for use. The only folder that knows two models."""

from pathlib import Path

from t2i_jax.errors import UserError
from t2i_jax.generate.autoencoder import AutoEncoder
from t2i_jax.generate.clip import Clip
from t2i_jax.generate.prior import Prior
from t2i_jax.generate.tokenizer import TOKENIZERS, Tokenizer
from t2i_jax.generate.translator import Translator
from t2i_jax.loop import run as runs

__all__ = ["AutoEncoder", "Clip", "Prior", "Tokenizer", "Translator", "load"]


def load(run: str | Path) -> "Translator | Prior | Tokenizer | AutoEncoder":
    """Open a run folder: a translator's, a prior's, a tokenizer's or an autoencoder's, as its config says.

    Raises:
      UserError: the folder is missing, is no run, has no weights yet, or holds another kind of model.
    """
    kinds = {"translate": Translator, "dalle": Translator, "prior": Prior, "autoencode": AutoEncoder}
    kinds |= dict.fromkeys(TOKENIZERS, Tokenizer)
    task = runs.read_config(run).task
    if task not in kinds:
        raise UserError(f"run {run} is of an unknown kind ({task}); this version reads {', '.join(kinds)}")
    return kinds[task](run)
