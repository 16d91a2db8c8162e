"""Train a model; `t2i train` is the same, for those who installed the package.

    python train.py --config=configs/translator.py --workdir=runs/mine --config.optim.lr=1e-3

The same command again continues a stopped run. The loop is t2i_jax/loop/train.py.
"""

import sys

from t2i_jax import cli

if __name__ == "__main__":
    cli.memory.use_huge_pages()
    sys.exit(cli.main(["train", *sys.argv[1:]], program="train.py"))
