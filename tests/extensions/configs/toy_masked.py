"""A few steps of a masked model on the tokens of the smoke tokenizer."""

from configs import base, patch_vqvae


def get_config():
    config = base.base()
    config.name, config.task, config.model_name = "toy-masked", "toy_masked", "toy_masked"
    config.model = {"width": 32, "layers": 1}
    base.on_tokens(config, patch_vqvae.get_config("smoke"), base.digits())
    config.init_from_tokenizer = False
    config.sampling = {"name": "toy_parallel", "steps": 4}
    base.smoke(config)
    config.steps = config.eval_every = config.checkpoint_every = 4
    return config
