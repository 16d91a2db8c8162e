"""OpenAI's released dVAE: `encoder.pkl` and `decoder.pkl`, whole pickled modules, -> the run of a `dvae` model."""

from pathlib import Path

import numpy as np
from flax.traverse_util import flatten_dict

from t2i_jax.convert import tables
from t2i_jax.convert.pickles import read_module
from t2i_jax.errors import UserError

ENCODER, DECODER = "dall_e.encoder.Encoder", "dall_e.decoder.Decoder"
CLASSES = {
    ENCODER,
    DECODER,
    "dall_e.encoder.EncoderBlock",
    "dall_e.decoder.DecoderBlock",
    "dall_e.utils.Conv2d",
    "torch.nn.modules.activation.ReLU",
    "torch.nn.modules.container.Sequential",
    "torch.nn.modules.linear.Identity",
    "torch.nn.modules.pooling.MaxPool2d",
    "torch.nn.modules.upsampling.Upsample",
}
GROUPS = 4
CODES = "decoder.blocks.input.w"


def read(encoder: str | Path, decoder: str | Path) -> dict[str, np.ndarray]:
    """Tensors of both files, `encoder.` or `decoder.` before their names.

    Raises:
      UserError: a file is missing, damaged, or holds something else.
    """
    tensors = {}
    for part, expected, path in (("encoder", ENCODER, encoder), ("decoder", DECODER, decoder)):
        found, own = read_module(path, CLASSES)
        if found != expected:
            raise UserError(
                f"{path} holds a {found}, no {expected}; give the encoder's file first, then the decoder's"
            )
        tensors |= {f"{part}.{name}": tensor for name, tensor in own.items()}
    return tensors


def sizes_of(tensors: dict[str, np.ndarray]) -> dict[str, int]:
    """Sizes of a `models.dvae.Model`, read off the tensors that `read` returns; the image's is not among them.

    Raises:
      UserError: the tensors they are read off are missing or of another kind.
    """
    try:
        width = tensors["encoder.blocks.input.w"].shape[0]
        code_width, codebook_size, _, _ = tensors[CODES].shape
    except (KeyError, IndexError, ValueError):
        raise UserError(
            "the files hold no first convolution of a dVAE; name OpenAI's encoder.pkl and decoder.pkl"
        ) from None
    blocks = sum(name.startswith("encoder.blocks.group_1.") and name.endswith(".conv_1.w") for name in tensors)
    return {"codebook_size": codebook_size, "width": width, "code_width": code_width, "blocks": blocks}


def convert(tensors: dict[str, np.ndarray], shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Params of the target from the tensors of the source.

    Args:
      tensors: see `read`.
      shapes: of the target's params, by name, "/" between its parts.

    Returns:
      float32 arrays by the target's names.

    Raises:
      UserError: a tensor is left over, is missing, or has another shape.
    """
    blocks = len({name.split("/")[1] for name in shapes if name.startswith("encoder/group_1_")})
    # A block has a shortcut only between unequal widths.
    rows = {name: tables.Row(shapes[name], source) for name, source in table(blocks).items() if name in shapes}
    codes = tensors[CODES]
    if codes.shape[2:] == (1, 1):  # a 1 x 1 convolution of one-hot codes
        codes = codes[:, :, 0, 0]
    params = tables.fill({**tensors, CODES: codes}, rows, origin="this pair of files")
    return flatten_dict(params, sep="/")


def table(blocks: int) -> dict[str, str]:
    """Target -> source, of a dVAE of so many blocks a group."""
    layers = {"encoder/input": "encoder.blocks.input"}
    for part in ("encoder", "decoder"):
        for group in range(1, GROUPS + 1):
            for block in range(1, blocks + 1):
                ours = f"{part}/group_{group}_block_{block}"
                theirs = f"{part}.blocks.group_{group}.block_{block}"
                layers[f"{ours}/shortcut"] = f"{theirs}.id_path"
                layers |= {f"{ours}/conv_{i}": f"{theirs}.res_path.conv_{i}" for i in range(1, 5)}
        layers[f"{part}/output"] = f"{part}.blocks.output.conv"
    kernels = {f"{ours}/kernel": f"{theirs}.w T" for ours, theirs in layers.items()}
    biases = {f"{ours}/bias": f"{theirs}.b" for ours, theirs in layers.items()}
    return kernels | biases | {"codes": f"{CODES} T", "codes_bias": "decoder.blocks.input.b"}
