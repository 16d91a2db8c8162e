"""The sampler's settings, checked; no jax in here, so that a command line can read them at once."""

import math
from dataclasses import dataclass
from numbers import Integral, Real

from t2i_jax.errors import UserError


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    Attributes:
      temperature: divides the logits, >= 0; 0 is greedy.
      top_k: keep the k likeliest ids; 0 keeps all.
      top_p: keep the smallest set of likeliest ids whose probability reaches p, 0 < p <= 1; 1 keeps all.
      min_p: keep the ids at least p times as likely as the likeliest, 0 <= p <= 1; 0 keeps all.
      plain_tokens: as many leading ids are drawn at temperature 1, without guidance, top_k and top_p (min_p holds
        for all ids); 0 is none. Where the first ids lay a picture out, this keeps places and orders as varied as
        they were learned.
      guidance_scale: weight of the caption, >= 0; 1 is no guidance, 0 ignores the caption.

    Raises:
      UserError: a value is no finite number, or out of its range.
    """

    temperature: Real = 1.0
    top_k: Real = 0
    top_p: Real = 1.0
    min_p: Real = 0.0
    plain_tokens: Real = 0
    guidance_scale: Real = 1.0

    def __post_init__(self):
        self._check("temperature", "give a value from 0 (greedy) up")
        self._check("top_k", "give a whole number from 0 (off) up", whole=True)
        self._check("top_p", "give a value above 0, up to 1 (off)")
        self._check("min_p", "give a value from 0 (off) to 1")
        self._check("plain_tokens", "give a whole number from 0 (none) up", whole=True)
        self._check("guidance_scale", "give a value from 0 up, where 1 is no guidance")
        if self.top_p == 0:
            raise UserError("top_p 0 keeps no token; give a value above 0, up to 1 (off)")
        if self.top_p > 1:
            raise UserError(f"top_p {self.top_p:g} is above 1; give a value above 0, up to 1 (off)")

        if self.min_p > 1:
            raise UserError(f"min_p {self.min_p:g} is above 1; give a value from 0 (off) to 1")

    def _check(self, name, way_out, whole=False):
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, Real):
            raise UserError(f"{name} {value!r} is no number; {way_out}")
        if not math.isfinite(value):
            raise UserError(f"{name} {value} is not finite; {way_out}")
        if value < 0:
            raise UserError(f"{name} {value:g} is below 0; {way_out}")
        if whole and not isinstance(value, Integral):
            raise UserError(f"{name} {value} is no whole number; {way_out}")
        # An int where a float belongs would be another trace of the jitted sampler.
        object.__setattr__(self, name, int(value) if whole else float(value))
