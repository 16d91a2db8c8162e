"""EncoderDecoderModel (BERT + GPT-2) as `save_pretrained` writes it <-> models/translator.py.

Both read K + 1 ids, of which the last begins a picture. Theirs also has a logit for it, which is never to be drawn;
ours has K. `load` leaves that logit out, and `save` writes the input embedding of the id in its place (with a tied
head that is what stood there) and forbids the id in `generation_config.json`. Ours has a null caption, which theirs
lacks: `load` starts it at zero, `save` leaves it out.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors.numpy
from ml_collections import ConfigDict

from t2i_jax import files
from t2i_jax.convert import bert, gpt2, hub, tables, weights
from t2i_jax.errors import UserError

PROJECTION = {
    "enc_to_dec_proj/kernel": tables.Row("E D", "enc_to_dec_proj.weight T"),
    "enc_to_dec_proj/bias": tables.Row("D", "enc_to_dec_proj.bias"),
}
HEAD, TOKENS = "decoder.lm_head.weight", "decoder.transformer.wte.weight"
IGNORED = (*(rf"encoder\.{name}" for name in bert.IGNORED), rf"decoder\.transformer\.{gpt2.BUFFERS}")


def load(folder: str | Path) -> tuple[ConfigDict, dict]:
    """Read a whole checkpoint.

    Args:
      folder: holds `config.json` and the weights in one of `weights.FILES`; or the name of a repository on the hub.

    Returns:
      The config of a run, `config.model` being the fields of `models.translator.Model`: K is the decoder's
      vocabulary less one, and the model writes the first K of the file's logits. And its params, a nested dict of
      float32 arrays.

    Raises:
      UserError: a file is missing or damaged, or holds another architecture or other sizes than its config says, or
        pictures do not begin with its last id.
    """
    path = weights.find(folder)
    origin, content = str(path), weights.read_config(folder)
    config = config_of(content, f"config.json of {folder}")
    check_start(content, f"config.json of {folder}", config.model.codebook_size)
    try:
        generation = hub.find_beside(folder, ("generation_config.json",))
    except UserError:  # not every checkpoint has one
        generation = None
    if generation:
        check_start(weights.read_object(generation), str(generation), config.model.codebook_size)
    tensors = weights.read(path)
    if HEAD not in tensors and TOKENS in tensors and _is_tied(content):
        tensors[HEAD] = tensors[TOKENS]
    return config, convert(tensors, config.model, origin)


def convert(tensors: Mapping[str, np.ndarray], model: ConfigDict, origin: str) -> dict:
    """Params of a translator from a checkpoint's tensors, the head among them.

    Args:
      tensors: by name.
      model: fields of the model with all those of its encoder and decoder, as in `load`'s config.
      origin: what errors call the tensors.

    Raises:
      UserError: tensors are missing, left over, or of another shape.
    """
    encoder = {name: tensor for name, tensor in tensors.items() if name.startswith("encoder.")}
    sizes = bert.letters({**model.encoder, "vocab_size": model.text_vocab_size})
    params = tables.fill(encoder, encoder_table(model), sizes, ignored=IGNORED, origin=origin)
    others = {name: tensor for name, tensor in tensors.items() if name not in encoder}
    sizes = {"E": model.encoder.width} | gpt2.letters({**model.decoder, "vocab_size": model.codebook_size + 1})
    params |= tables.fill(others, decoder_table(model), sizes, ignored=IGNORED, origin=origin)
    params["head"]["kernel"] = np.ascontiguousarray(params["head"]["kernel"][:, : model.codebook_size])
    return params | {"null_caption": np.zeros((1, model.decoder.width), np.float32)}


def _is_tied(content):
    """Whether the head is the embedding, so that a file may leave it out: so it is unless its config says not."""
    return content.get("tie_word_embeddings", True) and content["decoder"].get("tie_word_embeddings", True)


def config_of(content: Mapping, origin: str) -> ConfigDict:
    """The config of a run from a checkpoint's `config.json`.

    Raises:
      UserError: it describes no BERT and GPT-2 with cross attention, or ones that the modules do not compute.
    """
    if content.get("model_type") != "encoder-decoder":
        raise UserError(
            f"{origin} describes a {content.get('model_type')}, no encoder-decoder; name a folder that"
            " EncoderDecoderModel.save_pretrained wrote"
        )
    parts = [content.get(part) for part in ("encoder", "decoder")]
    if not all(isinstance(part, Mapping) for part in parts):
        raise UserError(f"{origin} does not describe its encoder and decoder; fetch it again")
    encoder = tables.read_sizes(parts[0], bert.SIZES, bert.FIXED, f"encoder in {origin}")
    decoder = gpt2.read_sizes(parts[1], f"decoder in {origin}")
    encoder["dropout"] = parts[0].get("hidden_dropout_prob", 0.1)
    encoder["attention_dropout"] = parts[0].get("attention_probs_dropout_prob", 0.1)
    decoder["dropout"] = parts[1].get("resid_pdrop", 0.1)
    decoder["attention_dropout"] = parts[1].get("attn_pdrop", 0.1)
    if parts[1].get("cross_attention_hidden_size") is not None:
        raise UserError(
            f"{origin} has a decoder that projects no encoder states (cross_attention_hidden_size);"
            " convert a checkpoint whose halves are equally wide, or joined by enc_to_dec_proj"
        )
    return ConfigDict(
        {
            "name": "translator-encoder-decoder",
            "converted_from": "encoder-decoder",
            "task": "translate",
            "model_name": "translator",
            "model": {
                "codebook_size": decoder.pop("vocab_size") - 1,
                "num_tokens": decoder["positions"],
                "text_vocab_size": encoder.pop("vocab_size"),
                "text_len": encoder["max_positions"],
                "dtype": "float32",
                "encoder": encoder,
                "decoder": decoder,
            },
            "seed": 0,
            "steps": 0,  # it was not trained here
            "data": {"name": "unknown", "text_len": encoder["max_positions"]},
            "sampling": {"name": "autoregressive"},  # no guidance: a null caption was never trained
        }
    )


def check_start(content: Mapping, origin: str, codebook_size: int) -> None:
    """Whether a checkpoint begins its pictures with its last id, as a run does.

    Args:
      content: of its `config.json` or `generation_config.json`; one that names no such id is taken to.
      origin: what errors call it.
      codebook_size: K, which is that id.

    Raises:
      UserError: it names another.
    """
    start = content.get("decoder_start_token_id")
    if start is not None and start != codebook_size:
        raise UserError(
            f"{origin} begins with id {start} (decoder_start_token_id); a run begins with its last id,"
            f" {codebook_size}: move that row of the token table to the end, or convert another checkpoint"
        )


def save(folder: str | Path, model: ConfigDict, params: Mapping, tokenizer: dict | None = None) -> None:
    """Write what `EncoderDecoderModel.from_pretrained` reads.

    Args:
      folder: an existing one.
      model: fields of the model with all those of its encoder and decoder, as in `load`'s config.
      params: of the model.
      tokenizer: content of a `tokenizer.json`, if there is one.
    """
    folder, size = Path(folder), model.codebook_size
    tokens = np.asarray(params["gpt2"]["token_embed"]["embedding"])
    whole = {**params, "head": {"kernel": np.concatenate([params["head"]["kernel"], tokens[size:].T], 1)}}
    tensors = tables.spread(whole, encoder_table(model) | decoder_table(model))
    width = model.encoder.width  # of a layer that theirs always has, and never uses
    tensors["encoder.pooler.dense.weight"] = np.zeros((width, width), np.float32)
    tensors["encoder.pooler.dense.bias"] = np.zeros(width, np.float32)
    content = safetensors.numpy.save(tensors, {"format": "pt"})
    files.write_atomically(folder / "model.safetensors", content)
    generation = {"decoder_start_token_id": size, "bos_token_id": size, "pad_token_id": size}
    written = {
        "config.json": theirs_of(model),
        "generation_config.json": {
            **generation,
            "max_new_tokens": model.num_tokens,
            "suppress_tokens": [size],
        },
    }
    if tokenizer is not None:
        written["tokenizer.json"] = tokenizer
        special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
        written["tokenizer_config.json"] = {"tokenizer_class": "PreTrainedTokenizerFast", **special}
    for name, content in written.items():
        files.write_atomically(folder / name, json.dumps(content, indent=1, ensure_ascii=False).encode())


def theirs_of(model: ConfigDict) -> dict:
    """The content of the `config.json` of an `EncoderDecoderModel` of these sizes; `model` as for `save`."""
    size = model.codebook_size
    encoder = _config(bert.SIZES, bert.FIXED, {**model.encoder, "vocab_size": model.text_vocab_size})
    decoder = _config(gpt2.SIZES, gpt2.FIXED, {**model.decoder, "vocab_size": size + 1})
    return {
        "architectures": ["EncoderDecoderModel"],
        "model_type": "encoder-decoder",
        "is_encoder_decoder": True,
        "tie_word_embeddings": False,
        "dtype": "float32",
        "decoder_start_token_id": size,
        "pad_token_id": size,
        "encoder": encoder
        | {
            "hidden_dropout_prob": model.encoder.dropout,
            "attention_probs_dropout_prob": model.encoder.attention_dropout,
        },
        "decoder": decoder
        | dict.fromkeys(("embd_pdrop", "resid_pdrop"), model.decoder.dropout)
        | {"attn_pdrop": model.decoder.attention_dropout, "n_inner": model.decoder.mlp_width}
        | {"add_cross_attention": True, "is_decoder": True}
        | {"tie_word_embeddings": False, "bos_token_id": size, "eos_token_id": None},
    }


def encoder_table(model: ConfigDict) -> tables.Table:
    """The table of the encoder, which fills `bert`."""
    return bert.table(model.encoder.layers, "bert/", "encoder.")


def decoder_table(model: ConfigDict) -> tables.Table:
    """The table of all else; its head still has a column for the id that begins a picture."""
    rows = gpt2.table(model.decoder.layers, "gpt2/", "decoder.transformer.")
    rows["head/kernel"] = tables.Row("D V", f"{HEAD} T")
    return rows | (PROJECTION if model.encoder.width != model.decoder.width else {})


def _config(names, fixed, sizes):
    """The reverse of `tables.read_sizes`."""
    return {theirs: sizes[ours] for ours, theirs in names.items()} | {
        name: known[0] for name, known in fixed.items()
    }
