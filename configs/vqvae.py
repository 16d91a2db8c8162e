"""VQ-VAE over a grid: pictures -> h x w tokens of one codebook -> pictures.

python train.py --config=configs/vqvae.py
"""

from configs import base

VARIANTS = ("digits", "smoke")


def get_config(variant: str = "digits"):
    config = base.base()
    config.name = f"vqvae-{variant}"
    config.task = "reconstruct"
    config.model_name = "vqvae"
    config.data = base.digits()
    config.model = {
        "codebook_size": 512,
        "image_size": config.data.image_size,
        "channels": config.data.channels,
        "downsampling": 4,
        "width": 64,
        "code_width": 32,
        "residual_blocks": 2,
        "quantizer": "ema",  # a key of t2i_jax.models.quantizers.KINDS
        "quantizer_options": {},
        "dtype": "float32",
    }
    config.loss = {"foreground_weight": 2.0}
    config.kmeans_examples = 500  # pictures that the codebook's k-means start looks at; 0 switches it off
    config.upkeep_every = 20  # steps between two revivals of dead codes
    config.steps = 1000
    config.eval_every = 1000
    config.checkpoint_every = 500
    if variant == "smoke":
        config.data.name = "captioned_digits/tiny"
        config.model.update({"codebook_size": 64, "width": 16, "code_width": 8})
        config.kmeans_examples = 64
        config.steps, config.batch_size, config.optim.warmup, config.upkeep_every = 2, 8, 1, 1
        config.log_every = config.eval_every = config.checkpoint_every = 1
    return config
