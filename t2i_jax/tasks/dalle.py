"""Write captions and image tokens as one sequence: the loss of both."""

from functools import partial

import jax.numpy as jnp
import numpy as np

from t2i_jax.tasks.tokens import TokenTask, prediction_loss, project


def loss_fn(model, params, variables, batch, *, step, rngs, train, text_weight):
    """Cross entropy of word pieces and image tokens, a mean of each kind (Ramesh et al. 2021, section 2.2).

    Args:
      batch: see `TokenTask.transform`.
      text_weight: share of the text in the loss, 1/8 in the paper; the image has the rest.

    Returns:
      loss, (variables, metrics), among which `text_nats` and `image_nats` are nats a token of each kind. Pads count
      as word pieces, all of id 0; a row without its caption has nothing else.
    """
    text_states, image_states = model.apply(
        {"params": params},
        batch["text_ids"],
        batch["text_mask"],
        batch.get("given_ids", batch["ids"]),
        batch["null"],
        train=train,
        rngs=rngs,
        method="states",
    )
    there = batch["text_mask"] & ~batch["null"][:, None]
    pieces = jnp.where(there, batch["text_ids"], 0)[:, 1:]
    text_head, head = (partial(model.apply, {"params": params}, method=name) for name in ("text_logits", "logits"))
    text_nats, _ = prediction_loss(text_head, text_states, pieces, model.text_vocab_size)
    image_nats, metrics = prediction_loss(head, image_states, batch["ids"], model.codebook_size)
    loss = text_weight * text_nats + (1 - text_weight) * image_nats
    return loss, (variables, {**metrics, "loss": loss, "text_nats": text_nats, "image_nats": image_nats})


class Task(TokenTask):
    """Cross entropy of word pieces and image tokens."""

    loss_fn = staticmethod(loss_fn)

    def from_tokenizer(self, params: dict, codebook: np.ndarray, positions: np.ndarray, key) -> dict:
        """Image tokens begin as one random projection of the codebook, in table and head.

        Rows and columns are embeddings of positions by themselves.
        """
        table, head = params["token_embed"]["embedding"], params["head"]
        codes = 0.02 * project((codebook - codebook.mean(0)) / codebook.std(), self.model.width, key)
        own = slice(self.model.text_vocab_size, self.model.text_vocab_size + self.model.codebook_size)
        return {
            **params,
            "token_embed": {"embedding": table.at[own].set(codes)},
            "head": head.at[:, own].set(codes.T),
        }
