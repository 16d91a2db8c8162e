"""`t2i convert`: released weights -> a run folder. One sub-command a format."""

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


FORMATS = (_add_openai_dvae,)


def _run_openai_dvae(args):
    import numpy as np

    from t2i_jax.convert import openai_dvae
    from t2i_jax.generate import converted

    side = args.image_size
    if side < 8 or side % 8:
        raise UserError(f"--image-size {side} is no multiple of 8; a token stands for 8 x 8 pixels")
    converted.check_free(Path(args.out))
    tensors = openai_dvae.read(args.encoder, args.decoder)
    config = openai_dvae.config_of(tensors, side)
    shapes = converted.shapes_of(config, np.zeros((1, side, side, 3), np.float32))
    converted.write_run(args.out, config, openai_dvae.convert(tensors, shapes))
    print(args.out)
