"""Released weights for the ResNet of a picture model."""

from pathlib import Path

import jax

from t2i_jax.convert import hub, resnet
from t2i_jax.errors import UserError
from t2i_jax.models.backbone import has_resnet, is_frozen


def find_weights(config) -> Path | None:
    """The file that `config.backbone_weights` names, where the model has a ResNet that starts from it.

    Raises:
      UserError: it cannot be had; training from scratch is one way out.
    """
    if not (has_resnet(config.model) and config.model.pretrained):
        return None
    try:
        return hub.find(config.backbone_weights)
    except UserError as error:
        raise UserError(f"{error}; or train from scratch: config.model.pretrained=False") from None


def check_backbone(config, folder: Path) -> None:
    """Find mistakes before the minutes that data may take.

    Raises:
      UserError: weights that a new run needs cannot be had; a ResNet that pmap cannot train.
    """
    if not (folder / "checkpoints").exists():
        find_weights(config)
    if config.parallel == "pmap" and has_resnet(config.model) and not is_frozen(config.model):
        raise UserError(
            "config.parallel 'pmap' normalises each device's pictures apart in a ResNet that is trained; use 'jit'"
        )


def frozen_parts(fields) -> tuple[str, ...]:
    """Parts of a model of `fields`, `config.model`, that are a frozen ResNet."""
    return ("features",) if is_frozen(fields) else ()


def optim_of(config) -> dict:
    """`config.optim` with the frozen parts' learning rates at 0."""
    multipliers = {**config.optim.lr_multipliers, **dict.fromkeys(frozen_parts(config.model), 0.0)}
    return {**config.optim, "lr_multipliers": multipliers}


def load_weights(path: Path | None, params: dict, variables: dict) -> tuple[dict, dict]:
    """Params and variables with the ResNet's replaced by those of the file; as they are for None.

    Raises:
      UserError: the file is damaged or of another architecture.
    """
    if path is None:
        return params, variables
    ours = {"params": params["features"]["resnet"], "batch_stats": variables["batch_stats"]["features"]["resnet"]}
    loaded = jax.tree.map(jax.numpy.asarray, resnet.load(path, ours))
    params = {**params, "features": {"resnet": loaded["params"]}}
    return params, {**variables, "batch_stats": {"features": {"resnet": loaded["batch_stats"]}}}
