"""A decoder-only transformer of one sequence, the caption's word pieces and then the image tokens, as DALL·E's."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, ScalarLike

from t2i_jax.models.gpt2 import gelu, layer_norm
from t2i_jax.models.translator import shift_right
from t2i_jax.nn.layers import MLP, KeyValue, SelfAttention, normal_init

Cache = tuple[KeyValue, ...]
"""Keys and values, one KeyValue a layer, [B, S + N, heads, head_dim]: first the text's, zero where not written."""


def image_mask(kind: str, grid: Sequence[int], kernel: int) -> Bool[np.ndarray, "N N"]:
    """Which image positions (axis 1) each image position (axis 0) reads: itself and some of those before it.

    Ramesh et al. 2021, appendix B.1, figure 11; positions are numbered row by row, and rows and kernels wrap around
    the grid's edges as theirs do. Each kind reads only so far back that the place straight above is the last one
    ("row"), that column alone ("column"), the part of a kernel around it that is already written ("conv"), or all
    ("full").

    Args:
      kind: "full", "row", "column" or "conv".
      grid: h, w.
      kernel: side of the kernel of "conv", odd.

    Raises:
      ValueError: the kind is unknown, or the kernel even.
    """
    height, width = grid
    places = np.arange(height * width)
    back = places[:, None] - places
    if kind == "full":
        return back >= 0
    if kind == "row":
        return (back >= 0) & (back <= width)
    if kind == "column":
        return (back >= 0) & (back % width == 0)
    if kind != "conv":
        raise ValueError(f"attention {kind!r} is unknown; choose full, row, column or conv")
    if kernel < 1 or kernel % 2 == 0:
        raise ValueError(f"kernel {kernel} is no odd number from 1 up; change it")
    reach = kernel // 2
    inside = np.arange(reach + 1)[:, None] * width + np.arange(-reach, reach + 1)
    return (back >= 0) & np.isin(back, inside)


def attention_mask(kind: str, text_len: int, grid: Sequence[int], kernel: int) -> Bool[np.ndarray, "L L"]:
    """Which positions of the whole sequence, L = S + N, each position reads.

    Text positions read the text up to themselves, image positions all text and what `image_mask` says.
    """
    length = text_len + grid[0] * grid[1]
    mask = np.tril(np.ones((length, length), bool))
    mask[text_len:, text_len:] = image_mask(kind, grid, kernel)
    return mask


def paper_attention(layers: int) -> tuple[str, ...]:
    """Kinds of attention by layer (appendix B.1): row, column, row, row over and over, and conv in the last one."""
    return (*(("row", "column", "row", "row")[i % 4] for i in range(layers - 1)), "conv")


class Block(nn.Module):
    """One pre-norm block: self-attention, MLP."""

    width: int
    heads: int
    mlp_width: int
    dropout: float
    out_scale: float
    dtype: str

    def setup(self):
        self.ln_1 = layer_norm(self.dtype)
        self.attn = SelfAttention(self.width, self.heads, self.dropout, self.out_scale, self.dtype)
        self.ln_2 = layer_norm(self.dtype)
        self.mlp = MLP(self.mlp_width, gelu, self.out_scale, self.dtype)
        self.drop = nn.Dropout(self.dropout)

    def think(self, x, train=False):
        return x + self.drop(self.mlp(self.ln_2(x)), deterministic=not train)

    def __call__(
        self, x: Float[Array, "B L D"], mask: Bool[Array, "1 1 L L"], *, train: bool = False
    ) -> Float[Array, "B L D"]:
        x = x + self.drop(self.attn(self.ln_1(x), mask, train=train), deterministic=not train)
        return self.think(x, train)

    def start(
        self, x: Float[Array, "B S D"], mask: Bool[Array, "1 1 S S"], length: int
    ) -> tuple[Float[Array, "B S D"], KeyValue]:
        """The text's states, and a cache of `length` positions that begins with its keys and values."""
        _, *kept = self.attn.project(self.ln_1(x))
        room = ((0, 0), (0, length - x.shape[1]), (0, 0), (0, 0))
        return self(x, mask), KeyValue(*(jnp.pad(part, room) for part in kept))

    def decode_step(
        self, x: Float[Array, "B 1 D"], position: Int[ScalarLike, ""], cache: KeyValue, mask: Bool[Array, " L"]
    ) -> tuple[Float[Array, "B 1 D"], KeyValue]:
        y, cache = self.attn.decode_step(self.ln_1(x), position, cache, mask)
        return self.think(x + y), cache


class Model(nn.Module):
    """Captions in, logits of image tokens out, through one sequence of S text and N image positions.

    Ramesh et al. 2021, "Zero-Shot Text-to-Image Generation", section 2.2 and appendix B.1, with the blocks and
    start of GPT-2. One table embeds word pieces (0 to V - 1), image tokens (from V on) and what begins a picture
    (V + K); one head writes V + K logits. Text positions can only give word pieces, and image positions only image
    tokens: a logit of the other vocabulary would be minus infinity, so it is not computed, which leaves the same
    distribution.

    A text position without a word piece takes in a pad of its own, one learned vector a position, and every later
    position reads that: the text has no mask. To the paper pads are tokens, and it names none that its loss leaves
    out, so they are predicted; the position settles which pad it is, and one id, 0, stands for all. A row marked
    `null`, for classifier-free guidance (Ho & Salimans 2022, section 3.2), reads the empty caption: nothing but
    pads. Text positions have learned embeddings; image positions have the sum of a row's and a column's, of the
    place whose token is written there.

    Attributes:
      codebook_size: K.
      num_tokens: N, image tokens in a picture.
      grid: h, w; N = h w, row by row.
      text_vocab_size: V.
      text_len: S.
      width, heads, mlp_width: D, attention heads (a divisor of the width), width inside the MLP.
      attention: one kind a layer (see `image_mask`).
      kernel: side of the kernel of the layers that are "conv", odd.
      dropout: rate on embeddings, attention weights and every branch of a block, while training.
      dtype: of the computation; parameters are float32, and so are the logits.

    Raises:
      ValueError: grid, kernel, attention, heads or the length of the input do not fit.
    """

    codebook_size: int
    num_tokens: int
    grid: tuple[int, int]
    text_vocab_size: int
    text_len: int
    width: int = 768
    heads: int = 12
    mlp_width: int = 3072
    attention: tuple[str, ...] = paper_attention(12)
    kernel: int = 11
    dropout: float = 0.1
    dtype: str = "float32"

    def setup(self):
        height, width = self.grid
        if height * width != self.num_tokens:
            raise ValueError(f"grid {height} x {width} does not hold num_tokens {self.num_tokens}; change either")
        self.masks = [attention_mask(kind, self.text_len, self.grid, self.kernel) for kind in self.attention]

        def embed(rows):
            return nn.Embed(rows, self.width, embedding_init=normal_init(self.width), dtype=self.dtype)

        self.token_embed = embed(self.text_vocab_size + self.codebook_size + 1)
        self.text_embed, self.row_embed, self.column_embed = embed(self.text_len), embed(height), embed(width)
        self.pads = self.param("pads", normal_init(self.width), (self.text_len, self.width))
        self.drop = nn.Dropout(self.dropout)
        out_scale = (2 * len(self.attention)) ** -0.5
        self.blocks = [
            Block(self.width, self.heads, self.mlp_width, self.dropout, out_scale, self.dtype)
            for _ in self.attention
        ]
        self.ln_f = layer_norm(self.dtype)
        vocabularies = (self.width, self.text_vocab_size + self.codebook_size)
        self.head = self.param("head", normal_init(self.width), vocabularies)

    def __call__(
        self,
        text_ids: Int[ArrayLike, "B S"],
        text_mask: Bool[ArrayLike, "B S"],
        decoder_ids: Int[ArrayLike, "B L"],
        null: Bool[ArrayLike, " B"] | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, "B L K"]:
        """Logits of the image positions alone; see `text_and_image`."""
        return self.text_and_image(text_ids, text_mask, decoder_ids, null, train=train)[1]

    def text_and_image(
        self,
        text_ids: Int[ArrayLike, "B S"],
        text_mask: Bool[ArrayLike, "B S"],
        decoder_ids: Int[ArrayLike, "B L"],
        null: Bool[ArrayLike, " B"] | None = None,
        *,
        train: bool = False,
    ) -> tuple[Float[Array, "B S-1 V"], Float[Array, "B L K"]]:
        """Logits of every position under teacher forcing.

        Args:
          text_ids: in [0, V).
          text_mask: True at word pieces, False at pads.
          decoder_ids: in [0, K], already shifted (`translator.shift_right`); L at most N.
          null: True for rows that read the empty caption; None for none.
          train: apply dropout (draws from the random stream "dropout").

        Returns:
          float32 logits of text and image: at text position i they say what the word piece at i + 1 is (the last
          text position has none to say), at image position i what the i-th image token is.
        """
        length = decoder_ids.shape[1]
        if length > self.num_tokens:
            raise ValueError(f"sequence has {length} image tokens; the model writes {self.num_tokens} (num_tokens)")
        text = self.encode(text_ids, text_mask, null)[0]
        x = jnp.concatenate([text, self.embed_image(decoder_ids, jnp.arange(length))], 1)
        x = self.drop(x, deterministic=not train)
        for block, mask in zip(self.blocks, self.masks, strict=True):
            x = block(x, jnp.asarray(mask[None, None, : x.shape[1], : x.shape[1]]), train=train)
        x, vocab = self.ln_f(x), self.text_vocab_size
        text_logits = self.write(x[:, : self.text_len - 1], self.head[:, :vocab])
        return text_logits, self.write(x[:, self.text_len :], self.head[:, vocab:])

    def teacher_forced(
        self,
        text_ids: Int[ArrayLike, "B S"],
        text_mask: Bool[ArrayLike, "B S"],
        ids: Int[ArrayLike, "B N"],
        null: Bool[ArrayLike, " B"] | None = None,
    ) -> Float[Array, "B N K"]:
        """Logits of target `ids` in [0, K), each from those before it; the arguments of `__call__` otherwise."""
        return self(text_ids, text_mask, shift_right(jnp.asarray(ids), self.codebook_size), null)

    def encode(
        self,
        text_ids: Int[ArrayLike, "B S"],
        text_mask: Bool[ArrayLike, "B S"],
        null: Bool[ArrayLike, " B"] | None = None,
    ) -> tuple[Float[Array, "B S D"], Bool[Array, "B S"]]:
        """What the text positions take in, and where it is read: everywhere, pads too."""
        if text_ids.shape[1] != self.text_len:
            raise ValueError(f"text has {text_ids.shape[1]} tokens; the model reads {self.text_len} (text_len)")
        there = jnp.asarray(text_mask)
        if null is not None:
            there = there & ~jnp.asarray(null)[:, None]
        x = jnp.where(there[..., None], self.token_embed(text_ids), self.pads.astype(self.dtype))
        return x + self.text_embed(jnp.arange(self.text_len)), jnp.ones(there.shape, bool)

    def init_cache(self, memory: Float[Array, "B S D"], memory_mask: Bool[Array, "B S"]) -> Cache:
        """A cache for the whole sequence that holds the text which `encode` returned; all of it is read."""
        del memory_mask
        x, cache = memory, []
        for block, mask in zip(self.blocks, self.masks, strict=True):
            text = jnp.asarray(mask[None, None, : self.text_len, : self.text_len])
            x, kept = block.start(x, text, len(mask))
            cache.append(kept)
        return tuple(cache)

    def decode_step(
        self, ids: Int[Array, " B"], position: Int[ScalarLike, ""], cache: Cache
    ) -> tuple[Float[Array, "B K"], Cache]:
        """Logits of one image position, and the cache with that position written.

        Args:
          ids: the input there, in [0, K]: K at position 0, afterwards the token just drawn.
          position: 0 <= position < num_tokens; may be traced (and is not checked then).
          cache: from `init_cache`, with all earlier positions written.
        """
        x, after = self.embed_image(ids[:, None], jnp.asarray(position)[None]), []
        place = self.text_len + position
        for block, mask, kept in zip(self.blocks, self.masks, cache, strict=True):
            x, kept = block.decode_step(x, place, kept, jnp.asarray(mask)[place])
            after.append(kept)
        return self.write(self.ln_f(x)[:, 0], self.head[:, self.text_vocab_size :]), tuple(after)

    def embed_image(self, ids, places):
        rows, columns = jnp.divmod(places, self.grid[1])
        tokens = self.token_embed(self.text_vocab_size + jnp.asarray(ids))
        return tokens + self.row_embed(rows) + self.column_embed(columns)

    def write(self, states, head):
        return (states @ head.astype(self.dtype)).astype(jnp.float32)
