"""`t2i export`: a run -> weights that other programs read."""

import sys
from pathlib import Path

from t2i_jax.cli.checks import check_run
from t2i_jax.errors import UserError


def add(commands) -> None:
    """Add the command to argparse's `commands`."""
    export = commands.add_parser("export", help="write a run's weights for other programs", allow_abbrev=False)
    export.add_argument("--run", required=True, help="run folder of a translator")
    formats = {
        "choices": ["transformers"],
        "help": "transformers: for EncoderDecoderModel.from_pretrained",
    }
    export.add_argument("--format", required=True, **formats)
    export.add_argument("--out", required=True, help="folder to make; it must not exist yet")
    export.set_defaults(function=run)


def run(args) -> None:
    """Write what `args` say; the folder appears atomically."""
    check_run(args.run)
    from t2i_jax import files, models, runs
    from t2i_jax.convert import encoder_decoder
    from t2i_jax.data import vocabularies
    from t2i_jax.pipelines import converted
    from t2i_jax.tasks import pretrained

    out = Path(args.out)
    converted.check_free(out)
    config = runs.read_config(args.run)
    if not pretrained.fits(models.build(config)):
        raise UserError(
            f"--run {args.run} holds no BERT and GPT-2 ({config.model_name}); only those have this format"
        )
    params = runs.read_weights(args.run)[0]
    pieces = Path(args.run) / runs.TEXT_TOKENIZER
    tokenizer = None
    if pieces.exists():
        tokenizer = vocabularies.with_unused(files.read_json(pieces), config.model.text_vocab_size)
    with files.replacing(out) as partial:
        encoder_decoder.save(partial, config.model, params, tokenizer)
    if "converted_from" not in config:
        print("warning: the null caption and the image tokenizer have no place in this format", file=sys.stderr)
    print(args.out)
