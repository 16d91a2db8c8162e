"""A run folder of a prior, opened: captions, or nothing, -> images."""

import numpy as np

from t2i_jax.errors import UserError
from t2i_jax.pictures import to_uint8
from t2i_jax.pipelines.translator import Translator


class Prior(Translator):
    """A prior over a tokenizer's codes: samples images of captions as a translator does, and of none.

    Attributes:
      conditional: False for a run that was trained without captions, and reads no prompt.
    """

    beside_uniform = True

    @property
    def conditional(self) -> bool:
        return self._model.conditional

    @property
    def reads(self) -> str:
        return f"{super().reads}, or nothing" if self.conditional else "nothing"

    def sample(self, n: int, seed: int = 0, **settings) -> np.ndarray:
        """Sample images of nothing in particular.

        Args:
          n: how many; an image depends on its index, 0 <= index < n, the seed and the settings alone.
          seed: 0 to `random.MAX_SEED`.
          **settings: of the sampler, that differ from the run's; all but `guidance_scale`.

        Returns:
          uint8 [n, H, W, C].

        Raises:
          UserError: a setting or seed out of its range, guidance without a caption, or a run that never saw a
            picture without its caption.
        """
        if "guidance_scale" in settings:
            raise UserError("guidance_scale weighs a caption, and there is none; give a prompt, or leave it out")
        if n < 1:
            raise UserError(f"n {n} is below 1; ask for at least one picture")
        if self.conditional and self.config.data.caption_dropout == 0:
            raise UserError(
                "this run never saw a picture without its caption (config.data.caption_dropout 0); give a prompt"
            )
        sampler = self.sampling.unguided().replace(**settings)
        texts = np.zeros((n, self.config.data.text_len), np.int32)
        ids = self._draw(texts, texts > 0, np.arange(n), seed, sampler, null=True)
        return to_uint8(self.tokenizer.detokenize(ids))

    def _encode(self, prompts):
        if not self.conditional:
            raise UserError(
                "this run was trained without captions (config.model.conditional) and reads no prompt; draw without"
            )
        return super()._encode(prompts)
