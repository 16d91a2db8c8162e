"""Text-to-image with discrete tokens in JAX/Flax, from pixels to prompt."""


def load(run):
    """Open a run for use.

    Args:
      run: path of a run folder, as `t2i train` and `t2i export` write it, or `OWNER/NAME` of an export on
        huggingface.co, with `@REVISION` behind it where `main` is not meant (see `convert.hub.find_run`).

    Returns:
      `t2i_jax.pipelines.Translator` for a translator's run (captions -> pictures),
      `t2i_jax.pipelines.Prior` for a prior's (captions, or nothing with `sample`, -> pictures),
      `t2i_jax.pipelines.Tokenizer` for an image tokenizer's (`tokenize`, `detokenize`), or
      `t2i_jax.pipelines.AutoEncoder` for an autoencoder's (`encode`, `decode`, `sample`, `interpolate`).

    Raises:
      t2i_jax.errors.UserError: the folder is missing, is no run, has no weights yet, or is of a newer format; or it
        cannot be fetched.
    """
    from t2i_jax import tasks  # jax takes seconds to import; `t2i --help` must not pay for it
    from t2i_jax.convert import hub

    return tasks.open_run(hub.find_run(run), recover=recover_weights)


def recover_weights(folder):
    """Params, variables and step of the newest good checkpoint of a run; None where there is none."""
    from t2i_jax.loop.checkpoint import Checkpoints  # Orbax and Grain take a second: only where they are needed

    checkpoints = Checkpoints(folder)
    return checkpoints.weights() if checkpoints.steps else None
