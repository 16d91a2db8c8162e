"""Released VQGANs of CompVis/taming-transformers, checkpoints of PyTorch Lightning, -> the run of a `vqgan` model.

Those of latent-diffusion with a codebook have the same names. Their loss, a discriminator and LPIPS, is left out.
"""

import re
from pathlib import Path

import numpy as np
from flax.traverse_util import flatten_dict

from t2i_jax.convert import tables
from t2i_jax.convert.pickles import read_checkpoint

LOSS = "loss."  # begins the names of what only training reads
CODEBOOKS = {"gradient": "quantize.embedding.weight", "gumbel": "quantize.embed.weight"}  # by kind of quantizer
LOGITS = "quantize.proj.weight"
LEAVES = {"kernel": "weight T", "scale": "weight", "bias": "bias"}


def read(path: str | Path) -> tuple[dict[str, np.ndarray], int]:
    """Tensors of the model, by name, and how many of its loss are left out.

    Raises:
      UserError: the file is missing, damaged, or holds something else.
    """
    tensors = read_checkpoint(path)
    own = {name: tensor for name, tensor in tensors.items() if not name.startswith(LOSS)}
    return own, len(tensors) - len(own)


def sizes_of(tensors: dict[str, np.ndarray], origin: str) -> dict:
    """Fields of a `models.vqgan.Model`, read off tensors; the number of groups and the picture's size are none.

    Raises:
      UserError: the tensors they are read off are missing or of another kind.
    """
    kind = next((kind for kind, name in CODEBOOKS.items() if name in tensors), "")
    levels = _count(tensors, r"encoder\.down\.([0-9]{1,6})\.block\.0\.conv1\.weight")
    try:
        width, channels = tensors["encoder.conv_in.weight"].shape[:2]
        codebook_size, _ = tensors[CODEBOOKS[kind]].shape
        widths = [len(tensors[f"encoder.down.{level}.block.0.conv1.weight"]) for level in range(levels)]
        latent_width, code_width = len(tensors["encoder.conv_out.weight"]), len(tensors["quant_conv.weight"])
    except (KeyError, TypeError, ValueError):
        raise tables.holds_no("VQGAN", tensors, origin) from None
    if not levels or not width or any(own % width for own in widths):
        raise tables.holds_no("VQGAN", tensors, origin)
    return {
        "codebook_size": codebook_size,
        "channels": channels,
        "width": width,
        "multipliers": tuple(own // width for own in widths),
        "blocks": _count(tensors, r"encoder\.down\.0\.block\.([0-9]{1,6})\.conv1\.weight"),
        "attention": tuple(i for i in range(levels) if f"encoder.down.{i}.attn.0.q.weight" in tensors),
        "latent_width": latent_width,
        "code_width": code_width,
        "quantizer": kind,
    }


def convert(tensors: dict[str, np.ndarray], shapes: dict[str, tuple[int, ...]], origin: str) -> dict:
    """Params of the target from the tensors of the source.

    Args:
      tensors: see `read`.
      shapes: of the target's params, by name, "/" between its parts.
      origin: what errors call the tensors.

    Returns:
      float32 arrays by the target's names.

    Raises:
      UserError: a tensor is left over, is missing, or has another shape.
    """
    rows = {name: tables.Row(shape, source_of(name, tensors)) for name, shape in shapes.items()}
    if LOGITS in tensors and tensors[LOGITS].shape[2:] == (1, 1):  # a 1 x 1 convolution
        tensors = {**tensors, LOGITS: tensors[LOGITS][:, :, 0, 0]}
    return flatten_dict(tables.fill(tensors, rows, origin=origin), sep="/")


def variables_of(model) -> dict:
    """What a codebook has beside its codes, each of them as if in use alike; `model` is `config.model`."""
    if model.quantizer == "gumbel":
        return {}
    return {
        "codebook": {"code": {"cluster_size": np.full(model.codebook_size, 1 / model.codebook_size, np.float32)}}
    }


def source_of(name: str, tensors: dict[str, np.ndarray]) -> str:
    """Which tensor makes a parameter; see `tables.Row`."""
    if name == "code/codes":
        return next((own for own in CODEBOOKS.values() if own in tensors), CODEBOOKS["gradient"])
    *layers, leaf = name.split("/")
    dotted = ".".join(layers).replace("code.logits", "quantize.proj")
    dotted = re.sub(r"(down|up)sample_(\d+)", r"\1.\2.\1sample.conv", dotted)
    if ".mid." not in dotted:
        dotted = re.sub(r"(down|up|block|attn)_(\d+)", r"\1.\2", dotted)
    return f"{dotted}.{LEAVES[leaf]}"


def _count(tensors, pattern):
    """How many numbers from 0 on the names of tensors have in a place."""
    found = {int(match[1]) for match in (re.fullmatch(pattern, name) for name in tensors) if match}
    return next(number for number in range(len(found) + 1) if number not in found)
