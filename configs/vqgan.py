"""VQGAN (Esser et al. 2021): images -> h x w tokens -> images that look real to a discriminator and to LPIPS.

python train.py --config=configs/vqgan.py:f16 --config.lpips_weights=weights/vgg16 --config.loss.perceptual=1.0

f16, f8: the sizes and the loss of CompVis/taming-transformers, for 256 x 256 images of COCO; not trained here. `t2i
convert vqgan` makes a run of their released weights. LPIPS needs weights of its own (`t2i convert lpips`), so the
command switches it on.

emoji: 64 x 64 pixels, by squared error alone: 19.1 dB after 500 of its 1,000 steps (2026-11-28). With LPIPS and the
discriminator: docs/image-models.md.
"""

from configs import base


def vqgan(data):
    """What the variants share; the model's defaults are the released f16."""
    config = base.base()
    config.task = "reconstruct"
    config.model_name = "vqgan"
    config.data = data
    config.loss.foreground_weight = 1.0
    base.judged(config)
    config.kmeans_examples = 0
    return config


def f16():
    config = vqgan(base.coco())
    config.model.codebook_size = 16_384
    config.loss.absolute = 2.0  # pixels are in [-1, 1] there
    config.loss.adversarial = 0.8
    config.loss.disc_start = 10_000
    config.batch_size, config.steps = 64, 300_000
    for optim in (config.optim, config.discriminator_optim):
        optim.update({"lr": 4.5e-6 * 64, "b1": 0.5, "b2": 0.9, "warmup": 0, "schedule": "constant", "clip": 0.0})
    config.log_every, config.eval_every, config.checkpoint_every = 100, 10_000, 10_000
    return config


def f8():
    """32 x 32 tokens, of 8,192 codes by Gumbel-softmax."""
    config = f16()
    config.model.update(
        {"codebook_size": 8192, "multipliers": (1, 1, 2, 4), "attention": (3,), "quantizer": "gumbel"}
    )
    return config


def emoji():
    """8 x 8 tokens of the folder that examples/emoji/make.py writes."""
    config = vqgan(base.emoji())
    config.data.image_size = 64
    config.model = {
        "codebook_size": 1024,
        "width": 16,
        "multipliers": (1, 2, 4, 4),
        "blocks": 1,
        "attention": (3,),
        "groups": 8,
        "latent_width": 64,
        "code_width": 32,
        "quantizer": "ema",
    }
    config.discriminator = {"width": 32, "layers": 2}
    config.kmeans_examples = 500
    config.codebook_reset_every = 20
    config.optim.lr = 2e-3
    config.discriminator_optim.lr = 5e-4
    config.batch_size, config.steps, config.eval_every = 16, 1000, 1000
    return config


def smoke():
    config = emoji()
    config.data = base.digits()
    config.model.update({"codebook_size": 64, "width": 8, "multipliers": (1, 2), "attention": (), "groups": 4})
    config.model.update({"latent_width": 16, "code_width": 8})
    config.discriminator = {"width": 8, "layers": 2}
    config.loss.adversarial, config.loss.disc_start = 0.8, 1
    config.discriminator_optim.warmup = 1
    config.kmeans_examples = 64
    config.codebook_reset_every = 1
    base.smoke(config)
    return config


def get_config(variant: str = "f16"):
    config = globals()[variant]()
    config.name = f"vqgan-{variant}"
    return config
