"""Gated PixelCNN over a grid of image tokens (van den Oord et al. 2016, "Conditional Image Generation with PixelCNN
Decoders").

Causal without masks: a masked convolution is a matrix product over those neighbours that its mask lets through.
That is as fast as XLA's convolutions on one CPU device, and in a training step over two it was far faster than
theirs: 0.5 s against 9 s, for 64 grids of 6 x 4, beside other work.

Tokens are laid out row by row. That is their picture where a tokenizer has one grid. Where it has several, from
coarse to fine, the rows of a grid of equal size are as good a layout: what comes first lies above or to the left,
and every position has a learned vector of its own that says what stands there.

Letters: B batch, h w token grid, N = h w tokens, S text length, D width, K codebook size.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from flax.core import FrozenDict
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, ScalarLike
from ml_collections import FrozenConfigDict

from t2i_jax.models.bert import Bert
from t2i_jax.nn.attention import Attention, read_null
from t2i_jax.nn.dense import Head

Cache = tuple[Int[Array, "B N"], Float[Array, "B h w D"]]
"""The input of each position (the id before it), and what it knows of its caption; no keys and values to keep."""


PARTS = {"encoder": Bert}  # whose fields `Model` takes; defaults of configs are read here


class Model(nn.Module):
    """Prior over the ids of a picture, given its caption or nothing.

    A caption (or the name of a class) is read by a small BERT; every position attends to it with a learned query.
    What comes of it, and the position's own vector, is the map s of equation 5 that enters every gate. A row marked
    `null` reads one learned vector instead of its caption, for guidance and for pictures of nothing in particular.

    Attributes:
      codebook_size: K.
      num_tokens: N.
      grid: h, w.
      text_vocab_size: V.
      text_len: the longest text, in tokens.
      conditional: False reads no captions: every row is a null row.
      width: D, a multiple of `heads`.
      heads: of the attention to the caption.
      layers: gated layers.
      kernel: side of their convolutions, odd; together they must reach from any corner of the grid to any other.
      encoder: fields of `Bert` that differ from its defaults.
      dtype: of the computation; parameters are float32, and so are the logits.

    Raises:
      ValueError: grid, kernel and layers do not fit each other, or a text is longer than the encoder reads.
    """

    codebook_size: int
    num_tokens: int
    grid: tuple[int, int]
    text_vocab_size: int
    text_len: int
    conditional: bool = True
    width: int = 128
    heads: int = 4
    layers: int = 5
    kernel: int = 3
    encoder: Mapping | FrozenConfigDict = FrozenDict()
    dtype: str = "float32"

    text_tables = (("bert/word_embed/embedding", 0),)
    image_tables = ("token_embed/embedding", "position_embed", "head/kernel", "head/bias")

    def setup(self):
        height, width = self.grid
        if height * width != self.num_tokens:
            raise ValueError(f"grid {height} x {width} does not hold num_tokens {self.num_tokens}; change either")
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel {self.kernel} has no middle; take an odd one")
        reach = self.layers * (self.kernel // 2)
        if reach < max(self.grid) - 1:
            raise ValueError(
                f"{self.layers} layers of kernel {self.kernel} reach {reach} tokens far, not across a grid of "
                f"{height} x {width}; raise layers or kernel"
            )
        if self.conditional:
            self.bert = Bert(vocab_size=self.text_vocab_size, dtype=self.dtype, **self.encoder)
        self.null_caption = self.param("null_caption", nn.initializers.normal(1.0), (1, self.memory_width))
        self.position_embed = self.param(
            "position_embed", nn.initializers.normal(1.0), (self.num_tokens, self.width)
        )
        self.attn = Attention(self.width, self.heads, dtype=self.dtype)
        self.token_embed = nn.Embed(self.codebook_size, self.width, embedding_init=nn.initializers.normal(1.0))
        self.blocks = [
            GatedLayer(self.width, self.kernel, first=number == 0, dtype=self.dtype)
            for number in range(self.layers)
        ]
        self.mix = nn.Dense(self.width, dtype=self.dtype)
        self.head = Head(self.codebook_size, use_bias=True, dtype=self.dtype)

    @property
    def memory_width(self) -> int:
        """Width of what the positions attend to."""
        return self.bert.width if self.conditional else self.width

    def __call__(
        self,
        text_ids: Int[ArrayLike, "B S"],
        text_mask: Bool[ArrayLike, "B S"],
        ids: Int[ArrayLike, "B N"],
        null: Bool[ArrayLike, " B"] | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, "B N K"]:
        """Logits of every position, each from the ids before it and the caption.

        Args:
          text_ids: in [0, V); S at most the encoder's positions.
          text_mask: True at real tokens.
          ids: in [0, K), row by row.
          null: True for rows that read the null caption; None for none.
          train: apply the encoder's dropout (draws from the random stream "dropout").

        Returns:
          float32 logits; those at position i say what id i is, and do not depend on ids i, i + 1, ...
        """
        return self.logits(self.states(text_ids, text_mask, ids, null, train=train))

    def states(self, text_ids, text_mask, ids, null=None, *, train=False) -> Float[Array, "B N D"]:
        """What `logits` reads at every position; the arguments are those of a call."""
        condition = self.condition(*self.encode(text_ids, text_mask, null, train=train))
        return self.stacks(self.embed(ids), condition)

    def encode(
        self,
        text_ids: Int[ArrayLike, "B S"],
        text_mask: Bool[ArrayLike, "B S"],
        null: Bool[ArrayLike, " B"] | None = None,
        *,
        train: bool = False,
    ) -> tuple[Float[Array, "B S _"], Bool[Array, "B S"]]:
        """What the positions attend to, and where; in a null row the learned vector and nothing else."""
        if self.conditional:
            memory = self.bert(text_ids, text_mask, train=train)
        else:
            memory, null = jnp.zeros((*text_ids.shape, self.width), self.dtype), jnp.ones(len(text_ids), bool)
        return read_null(memory, jnp.asarray(text_mask), null, self.null_caption)

    def condition(self, memory: Float[Array, "B S _"], memory_mask: Bool[Array, "B S"]) -> Float[Array, "B h w D"]:
        """The map s of equation 5: each position's own vector, and what it reads in the caption."""
        own = self.position_embed.astype(self.dtype)
        positions = jnp.broadcast_to(own, (len(memory), *own.shape))
        read = self.attn(positions, self.attn.project(memory), memory_mask[:, None, None])
        return rearrange(positions + read, "B (h w) D -> B h w D", h=self.grid[0])

    def embed(self, ids: Int[ArrayLike, "B N"]) -> Float[Array, "B h w D"]:
        """The ids' vectors, laid out as the grid."""
        return rearrange(self.token_embed(ids).astype(self.dtype), "B (h w) D -> B h w D", h=self.grid[0])

    def stacks(self, x: Float[Array, "B h w D"], condition: Float[Array, "B h w D"]) -> Float[Array, "B N D"]:
        """The horizontal stack's last features: each position's are made of the `x` before it."""
        vertical = horizontal = x
        for block in self.blocks:
            vertical, horizontal = block(vertical, horizontal, condition)
        return rearrange(horizontal, "B h w D -> B (h w) D")

    def logits(self, states: Float[Array, "*B D"]) -> Float[Array, "*B K"]:
        """Two 1 x 1 convolutions, each after a ReLU (van den Oord et al. 2016a, "Pixel RNNs", table 1)."""
        return self.head(nn.relu(self.mix(nn.relu(states))))

    def init_cache(self, memory: Float[Array, "B S _"], memory_mask: Bool[Array, "B S"]) -> Cache:
        """A cache with no id in it, over the memory that `encode` returned."""
        return jnp.zeros((len(memory), self.num_tokens), jnp.int32), self.condition(memory, memory_mask)

    def decode_step(
        self, ids: Int[Array, "B Q"], position: Int[ScalarLike, ""], cache: Cache
    ) -> tuple[Float[Array, "B Q K"], Cache]:
        """Logits of the positions from `position` on, and the cache with their inputs written.

        The gated layers run over the whole grid each time: a picture costs N times what its training does forwards,
        but for the head, which looks at these positions alone. On grids of some dozen tokens that is cheap enough.

        Args:
          ids: the id before each of them, in [0, K); at position 0 it does not matter.
          position: of the first, 0 <= position <= num_tokens - Q; may be traced (and is not checked then).
          cache: from `init_cache`, with all earlier inputs written; what else it holds does not matter.
        """
        inputs, condition = cache
        inputs = jax.lax.dynamic_update_slice_in_dim(inputs, ids, position, axis=1)
        # A grid holds the id at each position, the input of the next; nobody reads the last one.
        states = self.stacks(self.embed(jnp.pad(inputs[:, 1:], ((0, 0), (0, 1)))), condition)
        here = jax.lax.dynamic_slice_in_dim(states, position, ids.shape[1], axis=1)
        return self.logits(here), (inputs, condition)


class GatedLayer(nn.Module):
    """One layer of both stacks (figure 2, with equation 5 in both gates).

    The vertical stack sees the rows above, wider with each layer; the horizontal one sees its row on the left and
    reads the vertical stack at its position, so that no position is blind to one above on the right.

    Attributes:
      width: D.
      kernel: side of the convolutions, odd.
      first: its inputs are the tokens themselves: the position (and in the vertical stack its row) is left out
        (mask A), and nothing is carried past the layer.
      dtype: of the computation.
    """

    width: int
    kernel: int
    first: bool
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        vertical: Float[Array, "B h w D"],
        horizontal: Float[Array, "B h w D"],
        condition: Float[Array, "B h w D"],
    ) -> tuple[Float[Array, "B h w D"], Float[Array, "B h w D"]]:
        """Features of both stacks, from theirs below and from the map s."""
        reach = self.kernel // 2
        end = 0 if self.first else 1  # of what may be seen, counted from the position
        whole, before = range(-reach, reach + 1), range(-reach, end)

        def dense(features, name, bias=False):
            return nn.Dense(features, use_bias=bias, dtype=self.dtype, name=name)

        above = dense(2 * self.width, "vertical", bias=True)(neighbours(vertical, before, whole))
        left = dense(2 * self.width, "horizontal", bias=True)(neighbours(horizontal, range(1), before))
        left = left + dense(2 * self.width, "down")(above)
        above = above + dense(2 * self.width, "vertical_condition")(condition)
        left = left + dense(2 * self.width, "horizontal_condition")(condition)
        out = dense(self.width, "out", bias=True)(gate(left))
        return gate(above), out if self.first else horizontal + out


def neighbours(x: Float[Array, "B h w D"], rows: range, columns: range) -> Float[Array, "B h w taps_D"]:
    """What a convolution looks at: side by side, the features at these offsets from each position, 0 outside."""
    height, width = x.shape[1:3]
    margin = max(map(abs, (*rows, *columns)))
    x = jnp.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    taps = [(margin + row, margin + column) for row in rows for column in columns]
    return jnp.concatenate([x[:, i : i + height, j : j + width] for i, j in taps], axis=-1)


def gate(x: Float[Array, "*B two_D"]) -> Float[Array, "*B D"]:
    """tanh of the first half times sigmoid of the second (equation 2)."""
    signal, opening = jnp.split(x, 2, axis=-1)
    return jnp.tanh(signal) * jax.nn.sigmoid(opening)
