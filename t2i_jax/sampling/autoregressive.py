"""One id after another, each from the logits that follow the ids before it."""

from dataclasses import dataclass
from numbers import Real

from t2i_jax.errors import UserError
from t2i_jax.sampling.settings import Settings, setting


@dataclass(frozen=True)
class Autoregressive(Settings):
    """Autoregressive sampling with classifier-free guidance, temperature, top-k, top-p and min-p, in this order.

    Sources: see `sampling.logits`. `unguided_tokens` is for models whose first tokens lay a picture out: left as
    the model believes them, positions and orders stay as varied as they were learned.
    """

    temperature: Real = setting(1.0, "divides the logits; 0 is greedy", "give a value from 0 (greedy) up")
    top_k: Real = setting(
        0, "keep the k likeliest tokens; 0 is off", "give a whole number from 0 (off) up", whole=True
    )
    top_p: Real = setting(
        1.0,
        "keep the likeliest tokens whose probability reaches p; 1 is off",
        "give a value above 0, up to 1 (off)",
        most=1,
        above_zero=True,
    )
    min_p: Real = setting(
        0.0,
        "keep tokens at least p times as likely as the likeliest; 0 is off",
        "give a value from 0 (off) to 1",
        most=1,
    )
    unguided_tokens: Real = setting(
        0,
        "so many leading tokens are sampled at temperature 1, without guidance, top-k and top-p",
        "give a whole number from 0 (none) up",
        whole=True,
    )
    guidance_scale: Real = setting(
        1.0,
        "weight of the caption; 1 is no guidance, 0 ignores the caption",
        "give a value from 0 up, where 1 is no guidance",
    )

    window: Real = setting(
        1,
        "draw so many positions in one pass of the model and keep those that are right: the same picture; 1 is off",
        "give a whole number from 1 (off) to the number of tokens",
        whole=True,
        above_zero=True,
    )
    weight_bits: Real = setting(
        32,
        "bits of a weight of the transformer's layers while tokens are drawn: 16 is bfloat16, 8 is int8",
        "give 32 (as trained), 16 or 8",
        whole=True,
        choices=(8, 16, 32),
    )

    def check_fits(self, model) -> None:
        """See `Settings.check_fits`."""
        most = model.num_tokens
        if self.window > most:
            raise UserError(f"window {self.window} is above the {most} tokens of a picture; give 1 (off) to {most}")
        if self.weight_bits < 32 and not getattr(model, "has_stack", False):
            raise UserError(
                f"weight_bits {self.weight_bits} is of transformer layers, and this model has none; leave it out"
            )

    def draw(self, model, params, condition: tuple, keys, valid=None, rows=None):
        """Sample the tokens of B images: one compiled function a window and weight bits, whatever else is set.

        Args:
          model: with `encode`, `init_cache`, `decode_step`, `num_tokens`, `codebook_size` and `dtype`. Every leaf
            of its cache begins with the rows, or with rows * heads.
          params: its parameters.
          condition: `(text_ids Int[P, S], text_mask Bool[P, S], null Bool[P])`; what `model.encode` reads, once for
            all images of a row. Guidance does not change rows where `null` is True: these read no caption.
          keys: [B], one random key an image, which depends on it and its caption alone.
          valid: Bool[N, K], which ids may stand at each position; None for all.
          rows: Int[B], the row of the condition that each image reads; None where P = B, each its own.

        Returns:
          int32 ids [B, N] in [0, K).

        Raises:
          UserError: `window` is above N, or `weight_bits` below 32 where there are no transformer layers.
        """
        return next(self.draw_in_parts(model, params, condition, keys, valid, rows, parts=1))[0]

    def draw_in_parts(self, model, params, condition: tuple, keys, valid=None, rows=None, *, parts: int):
        """See `Settings.draw_in_parts`; with a window above 1 a part has a few tokens more than its share."""
        from t2i_jax.sampling import decoding  # jax takes seconds to import; `t2i --help` must not pay for it

        length = model.num_tokens
        self.check_fits(model)
        settings = dict(vars(self))
        static = {"guided": self.guided, **{name: settings.pop(name) for name in ("window", "weight_bits")}}
        first, *others = [-(-length * part // parts) for part in range(1, parts + 1)]
        drawing = decoding.decode(model, params, condition, keys, settings, valid, rows, first, **static)
        yield drawing.ids, drawing.done
        for until in others:
            ids, _, done, cache = drawing
            drawing = decoding.go_on(model, params, cache, ids, done, keys, settings, valid, until, **static)
            yield drawing.ids, drawing.done


Sampler = Autoregressive
