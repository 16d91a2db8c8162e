"""A decoder-only transformer of one sequence, the caption's word pieces and then the image tokens, as DALL·E's."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, ScalarLike

from t2i_jax.models.parts import embedding, stack
from t2i_jax.models.translator import shift_right
from t2i_jax.nn.dense import normal_init
from t2i_jax.nn.norms import layer_norm
from t2i_jax.nn.positions import check_length
from t2i_jax.nn.products import float32_product
from t2i_jax.nn.stack import FEW, Cache

EPSILON = 1e-5


def image_mask(kind: str, grid: Sequence[int], kernel: int) -> Bool[np.ndarray, "N N"]:
    """Which image positions (axis 1) each image position (axis 0) reads, one of which holds the token before it.

    Ramesh et al. 2021, appendix B.1, figure 11, in terms of tokens. Position n is where token n is predicted, and
    what it takes in is token n - 1 (at 0, what begins a picture), so token m is read at position m + 1. Tokens are
    numbered row by row, and rows and kernels wrap around the grid's edges as theirs do. For the token it predicts a
    position reads of those before it: all ("full"); those back to the one straight above ("row"); those straight
    above, one a row ("column"); those under a kernel around it ("conv"). It always reads itself, the token just
    written.

    Args:
      kind: "full", "row", "column" or "conv".
      grid: h, w.
      kernel: side of the kernel of "conv", odd.

    Raises:
      ValueError: the kind is unknown, or the kernel even.
    """
    height, width = grid
    positions = np.arange(height * width)
    back = positions[:, None] - (positions - 1)  # how far before the predicted token stands the token read there
    if kind == "full":
        return back >= 1
    if kind == "row":
        return (back >= 1) & (back <= width)
    if kind == "column":
        return (back == 1) | ((back >= 1) & (back % width == 0))
    if kind != "conv":
        raise ValueError(f"attention {kind!r} is unknown; choose full, row, column or conv")
    if kernel < 1 or kernel % 2 == 0:
        raise ValueError(f"kernel {kernel} is no odd number from 1 up; change it")
    reach = kernel // 2
    inside = np.arange(reach + 1)[:, None] * width + np.arange(-reach, reach + 1)
    return (back == 1) | ((back >= 1) & np.isin(back, inside))


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


class Model(nn.Module):
    """Captions in, logits of image tokens out, through one sequence of S text and N image positions.

    Ramesh et al. 2021, "Zero-Shot Text-to-Image Generation", section 2.2 and appendix B.1, with the layers and
    initial values of GPT-2. One table embeds word pieces (0 to V - 1), image tokens (from V on) and what begins a
    picture (V + K); one head writes V + K logits. Text positions can only give word pieces, and image positions
    only image tokens: a logit of the other vocabulary would be minus infinity, so it is not computed, which leaves
    the same distribution.

    A text position without a word piece has a learned padding embedding, one a position, which every later position
    reads: the text has no mask. To the paper pads are tokens, and it names none that its loss leaves out, so they
    are predicted; the position settles which pad it is, and one id, 0, stands for all. A row marked `null`, for
    classifier-free guidance (Ho & Salimans 2022, section 3.2), reads the unconditional prompt: nothing but pads.
    Text positions have learned embeddings; image positions have the sum of a row's and a column's, of the token
    that is predicted there.

    Attributes:
      codebook_size: K.
      num_tokens: N, image tokens in a picture.
      grid: h, w; N = h w, row by row.
      text_vocab_size: V.
      text_len: S.
      width, heads, mlp_width: D, attention heads (a divisor of the width), width inside the MLP.
      attention: one kind a layer (see `image_mask`).
      kernel: side of the kernel of the layers that are "conv", odd.
      dropout: rate on embeddings and every branch of a block, while training.
      dtype: of the computation; parameters are float32, and so are the logits.
      attention_dropout, remat, unroll: see `Stack`.

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
    attention_dropout: float = 0.0
    dtype: str = "float32"
    remat: str = "none"
    unroll: int = FEW

    has_stack = True
    text_tables = (("token_embed/embedding", 0), ("head", 1))
    image_tables = ("token_embed/embedding", "row_embed/embedding", "column_embed/embedding", "head")

    def setup(self):
        height, width = self.grid
        if height * width != self.num_tokens:
            raise ValueError(f"grid {height} x {width} does not hold num_tokens {self.num_tokens}; change either")
        masks = [attention_mask(kind, self.text_len, self.grid, self.kernel) for kind in self.attention]
        self.masks = np.stack(masks)[:, None, None]  # [L, 1, 1, S + N, S + N]
        rows = (self.text_vocab_size + self.codebook_size + 1, self.text_len, height, width)
        tables = (embedding(self, count) for count in rows)
        self.token_embed, self.text_embed, self.row_embed, self.column_embed = tables
        self.pads = self.param("pads", normal_init(self.width), (self.text_len, self.width))
        self.drop = nn.Dropout(self.dropout)
        layers = len(self.attention)
        self.decoder = stack(self, layers, "gelu_tanh", epsilon=EPSILON, out_scale=(2 * layers) ** -0.5)
        self.ln_f = layer_norm(EPSILON, self.dtype)
        vocabularies = (self.width, self.text_vocab_size + self.codebook_size)
        self.head = self.param("head", normal_init(self.width), vocabularies)

    def __call__(
        self,
        text_ids: Int[ArrayLike, "B S"],
        text_mask: Bool[ArrayLike, "B S"],
        ids: Int[ArrayLike, "B L"],
        null: Bool[ArrayLike, " B"] | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, "B L K"]:
        """Logits of every image position under teacher forcing.

        Args:
          text_ids: in [0, V).
          text_mask: True at word pieces, False at pads.
          ids: image tokens in [0, K), of which each position is given those before it; L at most N.
          null: True for rows that read the unconditional prompt; None for none.
          train: apply dropout (draws from the random stream "dropout").

        Returns:
          float32 logits; those at image position i say what the i-th image token is.
        """
        return self.logits(self.states(text_ids, text_mask, ids, null, train=train)[1])

    def states(
        self, text_ids, text_mask, ids, null=None, *, train=False
    ) -> tuple[Float[Array, "B _ D"], Float[Array, "B L D"]]:
        """What `text_logits` reads at the first S - 1 text positions, and `logits` at all image positions.

        The last text position has no word piece to say. The arguments are those of a call.
        """
        length = ids.shape[1]
        check_length("picture", length, "the model writes", self.num_tokens, "num_tokens")
        text = self.encode(text_ids, text_mask, null)[0]
        x = jnp.concatenate([text, self.embed_image(shift_right(ids, self.codebook_size), jnp.arange(length))], 1)
        x = self.drop(x, deterministic=not train)
        x, _ = self.decoder(x, jnp.asarray(self.masks[..., : x.shape[1], : x.shape[1]]), train=train)
        x = self.ln_f(x)
        return x[:, : self.text_len - 1], x[:, self.text_len :]

    def text_logits(self, states: Float[Array, "*B D"]) -> Float[Array, "*B V"]:
        """float32 logits of text positions; those at position i say what the word piece at i + 1 is."""
        return float32_product(states, self.head[:, : self.text_vocab_size], self.dtype)

    def logits(self, states: Float[Array, "*B D"]) -> Float[Array, "*B K"]:
        """float32 logits of image positions."""
        return float32_product(states, self.head[:, self.text_vocab_size :], self.dtype)

    def encode(
        self,
        text_ids: Int[ArrayLike, "B S"],
        text_mask: Bool[ArrayLike, "B S"],
        null: Bool[ArrayLike, " B"] | None = None,
    ) -> tuple[Float[Array, "B S D"], Bool[Array, "B S"]]:
        """The input of the text positions, and where it is read: everywhere, pads too."""
        if text_ids.shape[1] != self.text_len:
            raise ValueError(
                f"text has {text_ids.shape[1]} tokens; the model reads {self.text_len} (text_len): make them equal"
            )
        there = jnp.asarray(text_mask)
        if null is not None:
            there = there & ~jnp.asarray(null)[:, None]
        x = jnp.where(there[..., None], self.token_embed(text_ids), self.pads)
        x = x + self.text_embed(jnp.arange(self.text_len))
        return x.astype(self.dtype), jnp.ones(there.shape, bool)

    def init_cache(self, memory: Float[Array, "B S D"], memory_mask: Bool[Array, "B S"]) -> Cache:
        """A cache for the whole sequence that holds the text which `encode` returned; all of it is read."""
        del memory_mask
        cache = self.decoder.init_cache(len(memory), self.text_len + self.num_tokens)
        return self.decoder(memory, jnp.asarray(self.masks[..., : self.text_len, :]), cache=cache)[1]

    def decode_step(
        self, ids: Int[Array, "B Q"], position: Int[ScalarLike, ""], cache: Cache
    ) -> tuple[Float[Array, "B Q K"], Cache]:
        """Logits of the image positions from `position` on, and the cache with these positions written.

        Args:
          ids: the input there, in [0, K]: K at position 0, afterwards the token before.
          position: of the first, 0 <= position <= num_tokens - Q; may be traced (and is not checked then).
          cache: from `init_cache`, with all earlier positions written; what else it holds does not matter.
        """
        count = ids.shape[1]
        x = self.embed_image(ids, position + jnp.arange(count))
        position = self.text_len + position
        mask = jax.lax.dynamic_slice_in_dim(jnp.asarray(self.masks), position, count, axis=3)
        x, cache = self.decoder(x, mask, cache=cache, position=position)
        return self.logits(self.ln_f(x)), cache

    def embed_image(self, ids, positions):
        rows, columns = jnp.divmod(positions, self.grid[1])
        tokens = self.token_embed(self.text_vocab_size + jnp.asarray(ids))
        return (tokens + self.row_embed(rows) + self.column_embed(columns)).astype(self.dtype)
