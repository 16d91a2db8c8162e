"""What every stage over image tokens begins with: a finished tokenizer, and its tokens."""

import sys
from pathlib import Path

from t2i_jax import encode, files, runs
from t2i_jax.errors import UserError
from t2i_jax.loop.checkpoint import Checkpoints
from t2i_jax.pipelines import Tokenizer
from t2i_jax.stages import Train


def open_tokens(config, folder: Path, *, train_first: Train, accept: bool) -> tuple[Tokenizer, encode.Encoded]:
    """The tokenizer that `config.tokenizer_run` names, trained first where it is not finished, and its tokens.

    Args:
      config: of the run; `tokenizer` is the config that the tokenizer is expected to have.
      folder: of the run; a copy of the tokenizer is put into it.
      train_first: trains the tokenizer.
      accept: take a tokenizer of another config.

    Returns:
      The tokenizer, and what `encode.encode` returns.

    Raises:
      UserError: the tokenizer's config is another, or the run was started with tokens of another.
    """
    tokenizer_run = Path(config.tokenizer_run)
    if not runs.is_finished(tokenizer_run, config.tokenizer):
        print(f"tokenizer {tokenizer_run} has no finished run yet; training it first", file=sys.stderr)
        train_first(config.tokenizer, tokenizer_run)
    runs.check_same(tokenizer_run, config.tokenizer, "config.tokenizer", accept=accept)
    tokenizer = Tokenizer(tokenizer_run)
    Checkpoints(folder).check_made_from(tokenizer.digest, str(tokenizer_run))
    return tokenizer, encode.encode(config, tokenizer, tokenizer_run)


def copy_tokenizer(tokenizer_run: Path, folder: Path) -> None:
    """Put a copy of the tokenizer into a run that builds on it: a run folder is self-contained.

    Raises:
      UserError: the tokenizer's scores are damaged.
    """
    names = [runs.CONFIG, runs.WEIGHTS]
    if (tokenizer_run / runs.SCORES).exists():
        try:
            files.read_json(tokenizer_run / runs.SCORES)
        except files.CorruptError as error:
            raise UserError(f"{error}; delete it to go on without it") from None
        names.append(runs.SCORES)
    own = folder / runs.TOKENIZER
    own.mkdir(exist_ok=True)
    for name in names:
        files.write_atomically(own / name, (tokenizer_run / name).read_bytes())
