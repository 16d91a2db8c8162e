"""Fields of samplers: default, range and help of a setting in one place. No jax: `t2i --help` reads them."""

import dataclasses
from numbers import Real

from t2i_jax import ranges
from t2i_jax.errors import UserError, near_miss


def setting(
    default: Real,
    help: str,
    way_out: str,
    *,
    most: Real | None = None,
    above_zero: bool = False,
    whole: bool = False,
    choices: tuple[Real, ...] = (),
) -> dataclasses.Field:
    """A field of a sampler, a number >= 0.

    Args:
      default: where nobody gives a value.
      help: one line for people; the help of the flag as well.
      way_out: what errors tell people to give.
      most: the greatest value; None is as far as 32 bits go.
      above_zero: 0 is out of range.
      whole: int instead of float.
      choices: all values that there are, where these are few.
    """
    range_ = ranges.Range(0, most, whole=whole, above=above_zero, way_out=way_out, choices=choices)
    return dataclasses.field(default=default, metadata={"help": help, "range": range_})


def check_setting(field: dataclasses.Field, value) -> int | float:
    """The value as an int or a float, as the field says.

    Raises:
      UserError: it is no finite number, or out of its range.
    """
    return ranges.check(field.name, value, field.metadata["range"])


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

    def check_fits(self, model) -> None:
        """Whether a model's pictures can be drawn by these settings.

        Args:
          model: with `num_tokens`, and `has_stack` where a `Stack` called `decoder` draws its tokens.

        Raises:
          UserError: they cannot.
        """

    def draw_in_parts(self, model, *inputs, parts: int):
        """`draw`, and what there is of it in between.

        Args:
          model, inputs: as of `draw`.
          parts: how often to look, about evenly; 1 is `draw`.

        Yields:
          int32 ids [B, N] in [0, K), and how many of the leading ones are drawn. The last are those of `draw`.
          Samplers that know no order of positions yield that alone.
        """
        yield self.draw(model, *inputs), model.num_tokens

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
