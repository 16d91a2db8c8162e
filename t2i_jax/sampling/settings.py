"""Fields of samplers: default, range and help of a setting in one place. No jax: `t2i --help` reads them."""

import dataclasses
import math
from numbers import Integral, Real

from t2i_jax.errors import UserError, near_miss


def setting(
    default: Real,
    help: str,
    way_out: str,
    *,
    most: Real = math.inf,
    above_zero: bool = False,
    whole: bool = False,
) -> dataclasses.Field:
    """A field of a sampler, a number >= 0.

    Args:
      default: where nobody gives a value.
      help: one line for people; the help of the flag as well.
      way_out: what errors tell people to give.
      most: the greatest value.
      above_zero: 0 is out of range.
      whole: int instead of float.
    """
    limits = {"way_out": way_out, "most": most, "above_zero": above_zero, "whole": whole}
    return dataclasses.field(default=default, metadata={"help": help, **limits})


def check_setting(field: dataclasses.Field, value) -> int | float:
    """The value as an int or a float, as the field says.

    Raises:
      UserError: it is no finite number, or out of its range.
    """
    name, limits = field.name, field.metadata
    way_out = limits["way_out"]
    if isinstance(value, bool) or not isinstance(value, Real):
        raise UserError(f"{name} {value!r} is no number; {way_out}")
    if not math.isfinite(value):
        raise UserError(f"{name} {value} is not finite; {way_out}")
    if value < 0:
        raise UserError(f"{name} {value:g} is below 0; {way_out}")
    if value > limits["most"]:
        raise UserError(f"{name} {value:g} is above {limits['most']:g}; {way_out}")
    if value == 0 and limits["above_zero"]:
        raise UserError(f"{name} 0 is not above 0; {way_out}")
    if limits["whole"] and not isinstance(value, Integral):
        raise UserError(f"{name} {value} is no whole number; {way_out}")
    # An int where a float belongs would be another trace of a jitted sampler.
    return int(value) if limits["whole"] else float(value)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Base of samplers: frozen, each field made by `setting`, checked.

    Raises:
      UserError: a value is no finite number, or out of its range.
    """

    def __post_init__(self):
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, check_setting(field, getattr(self, field.name)))

    def replace(self, **changes):
        """A sampler with other settings.

        Raises:
          UserError: there is no such setting, or its value is out of range.
        """
        check_names(type(self), changes)
        return dataclasses.replace(self, **changes)

    def check_fits(self, num_tokens: int) -> None:
        """Whether pictures of so many tokens can be drawn by these settings.

        Raises:
          UserError: they cannot.
        """

    @property
    def guided(self) -> bool:
        """Whether rows are compared with the null caption: a setting `guidance_scale` that is not 1."""
        return getattr(self, "guidance_scale", 1.0) != 1

    def unguided(self):
        """This sampler without guidance."""
        return self.replace(guidance_scale=1.0) if self.guided else self


def check_names(sampler: type[Settings], names) -> None:
    """Whether all names are settings of a sampler.

    Raises:
      UserError: one is not; names the near miss.
    """
    known = [field.name for field in dataclasses.fields(sampler)]
    for name in names:
        if name not in known:
            hint = near_miss(name, known) or f"it has {', '.join(known)}"
            raise UserError(f"the sampler has no setting {name!r}; {hint}")
