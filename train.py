"""Train a model.

    python train.py --config=configs/translator.py --workdir=runs/mine --config.optim.lr=1e-3

The same command again continues a stopped run. The loop is t2i_jax/loop/train.py.
"""

import os
import sys

from absl import app, flags, logging

from t2i_jax.errors import UserError
from t2i_jax.loop.command_line import parse_flags
from t2i_jax.loop.train import train


def main(argv) -> None:
    logging.set_verbosity(logging.WARNING)
    config = flags.FLAGS.config
    workdir = flags.FLAGS.workdir or os.path.join("runs", config.name)
    try:
        train(config, workdir, accept_config_change=flags.FLAGS.accept_config_change)
    except UserError as error:
        print(f"train.py: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"train.py: {error}; what was saved before stands, and the same command continues", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("train.py: interrupted; the last checkpoint stands, and the same command continues", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
