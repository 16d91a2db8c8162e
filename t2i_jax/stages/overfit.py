"""Can a config learn anything? A handful of captions by heart, and their tokens drawn again."""

import sys
import tempfile
from functools import partial
from importlib import import_module
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from t2i_jax import models
from t2i_jax.errors import UserError
from t2i_jax.loop.optimizer import make_optimizer
from t2i_jax.loop.state import State
from t2i_jax.loop.step import JitStep
from t2i_jax.random import stream
from t2i_jax.sampling.autoregressive import Autoregressive

STEPS = 600  # at most
EVERY = 50  # steps between two looks
ENOUGH = 0.99  # share of tokens that must come back
GREEDY = Autoregressive(temperature=0)
SUSPECTS = (
    "the learning rate first (config.optim.lr {lr:g}; try a tenth of it, then ten times), then warm-up (here"
    " {warmup} steps), then a model too small for its tokens, then tokens that do not belong to their captions"
)


def measure(config, count: int) -> dict:
    """Train on `count` captions, without what a run does against learning by heart, and draw their tokens greedily.

    Args:
      config: of a translator or a conditional prior; the tokenizer it names must be trained.
      count: captions, all different.

    Returns:
      `right`, the share of tokens that come back, after `steps` steps with the training `loss` (nats a token);
      `count`, the captions.

    Raises:
      UserError: a config without captions, a tokenizer that is not trained, or too few different captions.
    """
    if config.task not in ("translate", "dalle", "prior") or not config.model.get("conditional", True) or count < 1:
        raise UserError(
            f"--overfit {count} of {config.name}: give a number from 1 up, and the config of a translator"
        )
    config = _by_heart(config, count)
    task, model = import_module(f"t2i_jax.tasks.{config.task}"), models.build(config)
    with tempfile.TemporaryDirectory() as folder:
        prepare = import_module(f"t2i_jax.stages.{config.task}").prepare
        stage = prepare(config, Path(folder), task, model, train_first=_refuse, accept=True)
        batch = _examples(stage, count)
        variables = jax.jit(partial(task.init, model))(stream(config.seed, "init"), batch)
        params, variables = stage.start(variables.pop("params"), variables)
        optimizer = make_optimizer(config.optim, config.steps, stage.frozen)
        state = State.create(params, variables, optimizer, 0.0)
        step = JitStep(
            state, loss_fn=partial(task.loss_fn, model, **config.loss), optimizer=optimizer, config=config
        )
        state, right = step.place(state), 0.0
        for number in tqdm(range(1, STEPS + 1), f"{count} captions of {config.name}", file=sys.stderr):
            state, metrics = step(state, batch)
            if number % EVERY == 0:
                keys = jax.random.split(stream(config.seed, "sample"), len(batch["ids"]))
                condition = batch["text_ids"], batch["text_mask"], np.zeros(len(keys), bool)
                drawn = GREEDY.draw(model, state.params, condition, keys)
                right = float(np.mean(np.asarray(drawn)[:count] == batch["ids"][:count]))
                if right == 1:
                    break
    return {"right": right, "steps": number, "loss": float(metrics["loss"]), "count": count}


def report(config, count: int) -> str:
    """`measure` as text, with a verdict."""
    found = measure(config, count)
    line = (
        f"{found['right']:.1%} of the tokens of {count} captions came back, after {found['steps']} steps, at"
        f" {found['loss']:.4f} nats a token"
    )
    if found["right"] >= ENOUGH:
        return f"{line}\nverdict: it can learn"
    suspects = SUSPECTS.format(lr=config.optim.lr, warmup=min(config.optim.warmup, EVERY))
    return f"{line}; {ENOUGH:.0%} should\nverdict: it cannot learn these by heart; suspect {suspects}"


def _by_heart(config, count: int):
    """The config without dropout, noise or averages, on one batch that the devices can share."""
    config = config.copy_and_resolve_references()
    config.unlock()
    devices = jax.device_count()
    config.batch_size, config.accumulate, config.ema = -(-count // devices) * devices, 1, 0.0
    config.optim.warmup, config.optim.schedule, config.steps = min(config.optim.warmup, EVERY), "cosine", STEPS
    config.optim.restarts, config.optim.weight_decay = (), 0.0
    config.data.caption_dropout = 0.0
    if "code_noise" in config.data:
        config.data.code_noise = 0.0
    for part in ("encoder", "decoder"):
        if part in config.model:
            config.model[part].dropout = 0.0
    if "dropout" in config.model:
        config.model.dropout = 0.0
    return config.lock()


def _examples(stage, count: int) -> dict:
    """Arrays of the first examples whose captions differ, repeated to fill the batch."""
    found = {}
    for i in range(len(stage.splits["train"])):
        example = stage.transform(stage.splits["train"][i], np.random.default_rng(0))
        found.setdefault(example["text_ids"].tobytes(), example)
        if len(found) == count:
            break
    if len(found) < count:
        raise UserError(f"--overfit {count}: the data has {len(found)} different captions; give at most that many")
    devices = jax.device_count()
    rows = list(found.values())
    rows += rows[:1] * (-count % devices)
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _refuse(config, folder):
    raise UserError(
        f"the tokenizer {folder} is not trained; train it first, or name another with --config.tokenizer_run=RUN"
    )
