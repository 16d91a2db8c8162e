"""What objectives over images alone share: datasets, batches, a ResNet's released weights."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import ShapeDtypeStruct

from t2i_jax import runs, tasks
from t2i_jax.convert import hub, resnet
from t2i_jax.errors import UserError
from t2i_jax.models.backbone import has_resnet, is_frozen
from t2i_jax.ranges import sides
from t2i_jax.tasks import Data


class ImageTask(tasks.Task):
    """A batch is `{"image": float32 [B, H, W, C] in [0, 1]}`."""

    def check(self, folder: Path) -> None:
        """See `Task.check`; a ResNet's released weights must be at hand, and pmap cannot train one."""
        if not runs.checkpoint_steps(folder):
            self.find_weights()
        if self.config.parallel == "pmap" and has_resnet(self.config.model) and not is_frozen(self.config.model):
            raise UserError(
                "config.parallel 'pmap' normalises each device's images apart in a trained ResNet; use 'jit'"
            )

    def batch_spec(self, size: int) -> dict[str, ShapeDtypeStruct]:
        data = self.config.data
        return {"image": ShapeDtypeStruct((size, *sides(data.image_size), data.channels), jnp.float32)}

    def init(self, key, batch: dict) -> dict:
        return self.model.init(key, batch["image"])

    def prepare(self, folder: Path, parents: dict) -> Data:
        """See `Task.prepare`.

        Raises:
          UserError: the data set cannot be opened, or its images have another shape than the config says.
        """
        from t2i_jax.data import sources  # Grain takes a second to import, and sampling does without

        data = self.config.data
        splits = {split: sources.open_split(data, data[split])[0] for split in ("train", "validation")}
        sources.check_size(splits["train"], data)
        self.data = Data(splits, transform)
        return self.data

    def warm_start(self, params: dict, variables: dict, key) -> tuple[dict, dict]:
        """With a ResNet's params and statistics replaced by released ones, where `config` names some."""
        if (path := self.find_weights()) is None:
            return params, variables
        ours = {
            "params": params["features"]["resnet"],
            "batch_stats": variables["batch_stats"]["features"]["resnet"],
        }
        loaded = jax.tree.map(jnp.asarray, resnet.load(path, ours))
        params = {**params, "features": {"resnet": loaded["params"]}}
        return params, {**variables, "batch_stats": {"features": {"resnet": loaded["batch_stats"]}}}

    def find_weights(self) -> Path | None:
        """The file that `config.backbone_weights` names, where the model has a ResNet that starts from it.

        Raises:
          UserError: it cannot be had; training from scratch is one way out.
        """
        if not (has_resnet(self.config.model) and self.config.model.pretrained):
            return None
        try:
            return hub.find(self.config.backbone_weights)
        except UserError as error:
            raise UserError(f"{error}; or train from scratch: config.model.pretrained=False") from None

    @property
    def trains(self) -> str:
        """Which parameters are trained: all but those of a frozen ResNet."""
        return "^(?!features/)" if is_frozen(self.config.model) else ""

    def training_images(self, count: int) -> np.ndarray:
        """[count, H, W, C] in [0, 1] of the training split, in an order of the seed's."""
        dataset = self.data.splits["train"].seed(self.config.seed).shuffle()
        return np.stack([transform(dataset[i])["image"] for i in range(count)])


def transform(example: dict, rng: np.random.Generator | None = None) -> dict:
    """uint8 pixels -> float32 in [0, 1]; draws nothing."""
    return {"image": example["image"].astype(np.float32) / 255}
