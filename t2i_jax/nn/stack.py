"""The one transformer: L layers over stacked parameters.

BERT, GPT-2, the original Transformer, DALL·E and CLIP's towers are embeddings, a `Stack` and a head. Letters: B
batch, Q positions handed in, N positions of the sequence, S positions of the memory, D width, L layers.
"""

from itertools import pairwise
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Bool, Float, Int, ScalarLike

from t2i_jax.nn.attention import Attention, KeyValue, causal_mask, write
from t2i_jax.nn.dense import MLP
from t2i_jax.nn.norms import layer_norm
from t2i_jax.nn.products import to_int8

REMAT = {  # what the forward pass keeps for the backward one; the rest is computed again
    "none": None,
    "full": jax.checkpoint_policies.nothing_saveable,  # only each layer's input
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,  # products with parameters; no scores
}
LAYERS = "layers"  # name of the stacked parameters
DECODER = "decoder"  # name of the stack that draws tokens, in every model that has one
FEW = 4  # layers up to which a stack is written out: as fast or faster there, and soon compiled


class LayerCache(NamedTuple):
    """What decoding remembers of one layer.

    Attributes:
      own: KeyValue of the sequence, zero where not yet written.
      memory: KeyValue of the memory, computed once; None without cross attention.
    """

    own: KeyValue
    memory: KeyValue | None


class Cache(NamedTuple):
    """What decoding remembers. Shapes are static; every leaf's first axis is the batch, or batch * heads.

    Attributes:
      layers: one `LayerCache` a layer.
      memory_mask: Bool[B, S], True where the memory may be read; None without cross attention.
    """

    layers: tuple[LayerCache, ...]
    memory_mask: Array | None


class Layer(nn.Module):
    """Self-attention, cross attention where there is one, MLP, each in a residual branch; see `Stack`."""

    width: int
    heads: int
    mlp_width: int
    activation: str
    norm: str
    epsilon: float
    cross: bool
    dropout: float
    attention_dropout: float
    out_scale: float
    dtype: str

    def setup(self):
        attention = (self.width, self.heads, self.attention_dropout, self.out_scale, self.dtype)
        self.attn = Attention(*attention)
        self.ln_attn = layer_norm(self.epsilon, self.dtype)
        if self.cross:
            self.cross_attn = Attention(*attention)
            self.ln_cross_attn = layer_norm(self.epsilon, self.dtype)
        self.mlp = MLP(self.mlp_width, self.activation, self.out_scale, self.dtype)
        self.ln_mlp = layer_norm(self.epsilon, self.dtype)
        self.drop = nn.Dropout(self.dropout, deterministic=False)

    def project_memory(self, memory: Float[Array, "B S _"]) -> KeyValue:
        return self.cross_attn.project(memory)

    def residual(self, x, norm, branch):
        if self.norm == "pre":
            return x + self.drop(branch(norm(x)))
        return norm(x + self.drop(branch(x)))

    def __call__(self, x, mask, memory=None, memory_mask=None, cache=None, position=0):
        """The layer's output, and its cache with these positions written (None without one)."""
        written = None

        def look(x):
            nonlocal written
            written = self.attn.project(x)
            if cache is not None:
                written = write(cache.own, written, position)
            return self.attn(x, written, mask)

        x = self.residual(x, self.ln_attn, look)
        if self.cross:
            read = self.cross_attn.project(memory) if cache is None else cache.memory
            x = self.residual(x, self.ln_cross_attn, lambda x: self.cross_attn(x, read, memory_mask[:, None, None]))
        x = self.residual(x, self.ln_mlp, self.mlp)
        return x, None if cache is None else LayerCache(written, cache.memory)


class Stack(nn.Module):
    """L transformer layers (Vaswani et al. 2017, section 3.1), scanned over parameters stacked along their axis 0.

    A program of 48 layers is as long as one of 2. With a cache the layers are unrolled, for a scan would copy each
    layer's weights at every step; `unstack` makes them one array each before the loop.

    Attributes:
      layers: L.
      width: D.
      heads: a divisor of D.
      mlp_width: width inside the MLP.
      activation: of the MLP, a key of `dense.ACTIVATIONS`.
      norm: "pre", before each branch (nothing normalises the last output), or "post", after adding it.
      epsilon: of the norms.
      cross: attend to a memory between self-attention and MLP.
      dropout: rate on branches, while training.
      attention_dropout: rate on attention weights, while training; above 0 no fused attention.
      out_scale: of the initial standard deviation of kernels that write into the residual stream.
      remat: a key of `REMAT`; anything but "none" trades arithmetic for memory.
      unroll: largest L whose layers are written out instead of scanned: more to compile, as fast or faster where
        they are few; the same parameters and initial values. 0 scans always.
      dtype: of the computation; parameters are float32.

    Raises:
      ValueError: an unknown `norm` or `remat`, or `heads` does not divide `width`.
    """

    layers: int
    width: int
    heads: int
    mlp_width: int
    activation: str
    norm: str = "pre"
    epsilon: float = 1e-5
    cross: bool = False
    dropout: float = 0.0
    attention_dropout: float = 0.0
    out_scale: float = 1.0
    remat: str = "none"
    unroll: int = FEW
    dtype: str = "float32"

    def fields(self, train: bool = False) -> tuple:
        """Of a `Layer`."""
        sizes = (self.width, self.heads, self.mlp_width, self.activation, self.norm, self.epsilon, self.cross)
        rates = (self.dropout, self.attention_dropout) if train else (0.0, 0.0)
        return (*sizes, *rates, self.out_scale, self.dtype)

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B Q D"],
        mask: Bool[Array, "*#L #B 1 #Q N"] | None = None,
        memory: Float[Array, "B S _"] | None = None,
        memory_mask: Bool[Array, "B S"] | None = None,
        cache: Cache | None = None,
        position: Int[ScalarLike, ""] = 0,
        *,
        train: bool = False,
    ) -> tuple[Float[Array, "B Q D"], Cache | None]:
        """States of a whole sequence; or, with a cache, of the positions from `position` on.

        Args:
          x: the layers' input.
          mask: True where a position (axis Q) may look (axis N: Q without a cache, the cache's length with one);
            with a first axis L one mask a layer. None: each position sees itself and those before it.
          memory, memory_mask: what cross attention reads, and where: a first part of it. With a cache they come
            from it.
          cache: from `init_cache`, with all earlier positions written.
          position: of the first of `x`; may be traced.
          train: apply dropout (draws from the random stream "dropout").

        Returns:
          States, and the cache with these positions written (None without one).
        """
        if self.norm not in ("pre", "post"):
            raise ValueError(f"norm {self.norm!r} is unknown; choose pre or post")
        if self.remat not in REMAT:
            raise ValueError(f"remat {self.remat!r} is unknown; choose {', '.join(REMAT)}")
        if mask is None and cache is not None:
            mask = causal_mask(x.shape[1], cache.layers[0].own.key.shape[1], position)
        if cache is not None or self._is_unstacked():
            return self._one_by_one(x, mask, memory, memory_mask, cache, position)
        kind, unroll = Layer, self.layers <= self.unroll
        if self.remat != "none":
            # A loop keeps XLA from undoing it by itself; a program that is written out does not.
            kind = nn.remat(Layer, policy=REMAT[self.remat], prevent_cse=unroll)
        own_masks = mask is not None and mask.ndim == 5
        kind = nn.scan(
            kind,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(0 if own_masks else nn.broadcast, nn.broadcast, nn.broadcast),
            length=self.layers,
            unroll=self.layers if unroll else 1,
        )
        layers = kind(*self.fields(train), name=LAYERS)
        return layers(x, mask, memory, memory_mask)

    def _one_by_one(self, x, mask, memory, memory_mask, cache, position):
        """The layers written out, without dropout."""
        layer, after = Layer(*self.fields(), parent=None), []
        masks = mask if mask is not None and mask.ndim == 5 else [mask] * self.layers
        kept = cache.layers if cache else [None] * self.layers
        if cache:
            memory_mask = cache.memory_mask
        for params, mask, own in zip(self._params(), masks, kept, strict=True):
            x, own = layer.apply({"params": params}, x, mask, memory, memory_mask, own, position)
            after.append(own)
        return x, cache._replace(layers=tuple(after)) if cache else None

    def _is_unstacked(self):
        return f"{LAYERS}_0" in self.variables.get("params", {})

    def _params(self):
        """One tree of parameters a layer."""
        params = self.variables["params"]
        if self._is_unstacked():
            return [params[f"{LAYERS}_{i}"] for i in range(self.layers)]
        return [jax.tree.map(lambda x, i=i: x[i], params[LAYERS]) for i in range(self.layers)]

    def init_cache(
        self,
        batch: int,
        length: int,
        memory: Float[Array, "B S _"] | None = None,
        memory_mask: Bool[Array, "B S"] | None = None,
    ) -> Cache:
        """A cache of `length` positions, none written, over a memory where there is cross attention."""
        layer = Layer(*self.fields(), parent=None)
        shape = (batch * self.heads, length, self.width // self.heads)

        def empty(params):
            read = layer.apply({"params": params}, memory, method="project_memory") if self.cross else None
            # One array for each leaf: a donated cache must not hold the same buffer twice.
            return LayerCache(KeyValue(jnp.zeros(shape, self.dtype), jnp.zeros(shape, self.dtype)), read)

        return Cache(tuple(map(empty, self._params())), memory_mask if self.cross else None)


def unstack(params: dict) -> dict:
    """Params in which every layer of every `Stack` has arrays of its own, for inference in loops with a cache.

    A loop would otherwise cut each layer's weights out of the stacked ones, and so copy them, at every step. A
    `Stack` computes with either, but trains (dropout, remat, scan) with stacked ones only.
    """
    flat = {}
    for path, x in flatten_dict(params).items():
        if LAYERS not in path:
            flat[path] = x
            continue
        at = path.index(LAYERS)
        flat |= {(*path[:at], f"{LAYERS}_{i}", *path[at + 1 :]): x[i] for i in range(len(x))}
    return unflatten_dict(flat)


def with_bits(params: dict, bits: int) -> dict:
    """Params of `unstack` in which kernels of the decoder's layers have 32, 16 (bfloat16) or 8 bits (`to_int8`)."""
    kinds = {32: lambda kernel: kernel, 16: lambda kernel: kernel.astype(jnp.bfloat16), 8: to_int8}
    flat = flatten_dict(params)
    kernels = {path: kinds[bits](x) for path, x in flat.items() if _of_decoder(path) and path[-1] == "kernel"}
    return unflatten_dict(flat | kernels)


def _of_decoder(path: tuple[str, ...]) -> bool:
    """Whether a parameter lies in a layer of the decoder, stacked or not."""
    return any(outer == DECODER and inner.split("_")[0] == LAYERS for outer, inner in pairwise(path))
