"""Run folders opened for use: text -> tokens -> pixels."""

from t2i_jax.pipelines.autoencoder import AutoEncoder
from t2i_jax.pipelines.clip import Clip
from t2i_jax.pipelines.prior import Prior
from t2i_jax.pipelines.tokenizer import Tokenizer
from t2i_jax.pipelines.translator import Translator

__all__ = ["AutoEncoder", "Clip", "Prior", "Tokenizer", "Translator"]
