"""`t2i train`: an experiment, from its config to a finished run; the same command again continues a stopped one."""

import os
import re
from logging import getLogger

from t2i_jax.errors import UserError

CONFIG = "NAME of the package or PATH.py, with :VARIANT after it, such as translator:smoke"


def add(commands) -> None:
    """Add the command to argparse's `commands`."""
    train = commands.add_parser(
        "train",
        help="train a model, or continue a stopped run",
        epilog="--config.FIELD=VALUE overrides a field of the config, as in --config.optim.lr=1e-3",
        allow_abbrev=False,
    )
    train.add_argument("--config", help=f"experiment: {CONFIG}")
    train.add_argument("--workdir", help="run folder (runs/NAME of the config)")
    train.add_argument(
        "--accept-config-change",
        "--accept_config_change",
        action="store_true",
        help="continue a run that was started with another config",
    )
    train.add_argument(
        "--multihost",
        action="store_true",
        help="one process of several: start jax.distributed, as the cluster or JAX_COORDINATOR_ADDRESS,"
        " JAX_NUM_PROCESSES and JAX_PROCESS_ID say",
    )
    train.add_argument(
        "--profile",
        metavar="FIRST:LAST",
        help="trace these steps, as in 10:15, into the run's logs/plugins/profile",
    )
    train.set_defaults(function=run)


def run(args) -> None:
    """Train what `args` say."""
    from t2i_jax.config import known_configs, load_config

    if args.config is None:
        raise UserError(f"--config is missing; choose one of {', '.join(known_configs())}")
    config = load_config(args.config, args.overrides, fetch=True, workdir=args.workdir)
    profile = args.profile and _steps_to_trace(args.profile, config.steps)
    from absl import logging

    if args.multihost:
        from t2i_jax import hosts

        hosts.start()
    from t2i_jax.loop import train  # jax takes seconds to import; a mistyped flag need not wait for it

    logging.set_verbosity(logging.WARNING)
    # Orbax's threads log what they raise, with a traceback; the checkpoint manager raises it again.
    logging.get_absl_logger().addFilter(lambda record: "_SignalingThread.run() raised" not in record.getMessage())
    # Where one of its writes fails, asyncio logs what the others raise.
    getLogger("asyncio").addFilter(lambda record: "never retrieved" not in record.getMessage())
    workdir = args.workdir or os.path.join("runs", config.name)
    try:
        train.train(config, workdir, accept_config_change=args.accept_config_change, profile=profile)
    except OSError as error:
        raise UserError(f"{error}; what was saved before stands, and the same command continues") from error
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the last checkpoint stands, and the same command continues") from None


def _steps_to_trace(given: str, steps: int) -> tuple[int, int]:
    pair = re.fullmatch(r"(\d+):(\d+)", given)
    if not (pair and 1 <= int(pair[1]) <= int(pair[2]) <= steps):
        raise UserError(
            f"--profile {given} is no FIRST:LAST with 1 <= FIRST <= LAST <= {steps} (config.steps), as in 1:{steps}"
        )
    return int(pair[1]), int(pair[2])
