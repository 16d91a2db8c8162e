"""A few steps of the smoke VQ-VAE against a discriminator."""

from configs import vqvae


def get_config():
    config = vqvae.get_config("smoke")
    config.name, config.task = "toy-adversarial", "toy_adversarial"
    config.model.update({"codebook_size": 16, "width": 8, "code_width": 4, "residual_blocks": 1})
    config.discriminator = {"width": 8}
    config.loss.adversarial_weight = 0.1
    config.discriminator_optim = {"lr": 2e-3, "b1": 0.5, "warmup": 1, "schedule": "constant", "lr_multipliers": {}}
    config.steps, config.accumulate = 4, 2
    config.eval_every = config.checkpoint_every = 2
    return config
