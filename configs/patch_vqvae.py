"""VQ-VAE tokenizer: images -> coarse and shape tokens -> images.

python train.py --config=configs/patch_vqvae.py

Measured on 2 CPU cores (AMD EPYC, no accelerator, 2026-11-24), so before the rebuild of 2026-11-27, on the whole
validation split. digits: 27.6 dB, usage 96.7%, perplexity 240 of 2,048; 37 seconds. digits_long: 27.4 dB, 92.5%,
337 of 4,096. photos: 23.1 dB, 100%, 486 of 1,024.
"""

from configs import base


def digits():
    config = base.base()
    config.task = "reconstruct"
    config.model_name = "patch_vqvae"
    config.data = base.digits()
    config.model.codebook_size = 2048
    config.loss.foreground_weight = 2.0
    base.judged(config)
    config.kmeans_examples = 8000  # pictures that the codebook's k-means start looks at
    config.codebook_reset_every = 20  # steps between two restarts of dead codes
    config.steps = 700
    config.eval_every = 700
    config.checkpoint_every = 350
    return config


def digits_long():
    config = digits()
    config.data.name = "captioned_digits/fine"
    config.model.codebook_size = 4096
    config.steps = 2000
    return config


def photos():
    config = digits()
    config.data = base.photos()
    config.model.codebook_size = 1024
    config.loss.foreground_weight = 1.0
    config.kmeans_examples = 2000
    return config


def folder():  # your own pictures
    config = photos()
    config.data = base.folder()
    return config


def smoke():
    config = digits()
    config.model.update({"codebook_size": 64, "hues": 8, "gains": 8, "width": 32})
    config.kmeans_examples = 64
    config.codebook_reset_every = 1
    base.smoke(config)
    return config


def get_config(variant: str = "digits"):
    config = globals()[variant]()
    config.name = f"patch_vqvae-{variant}"
    return config
