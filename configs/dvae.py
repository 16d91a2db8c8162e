"""dVAE tokenizer: images -> tokens on a grid -> images.

    python train.py --config=configs/dvae.py

digits, measured on 2 CPU cores (Intel Xeon, no accelerator, 2026-11-26), so before the rebuild of 2026-11-27, on
the whole validation split: 24.2 dB, usage 76.0%, perplexity 157 of 512; 13.5 minutes while other work ran.
docs/image-models.md says which settings its codebook collapses without.

openai, not measured: the released settings of Ramesh et al. 2021 (appendix A.2), for training on 256 x 256 images
of COCO. `t2i convert openai-dvae` makes a run of released weights of this model.
"""

from configs import base


def dvae(data):
    """What the variants share; of the model they list their own."""
    config = base.base()
    config.task = "dvae"
    config.model_name = "dvae"
    config.data = data
    return config


def digits():
    config = dvae(base.digits())
    config.model = {
        "codebook_size": 512,
        "width": 32,
        "code_width": 64,
        "groups": 3,  # a token stands for 4 x 4 pixels
        "blocks": 1,
    }
    config.loss = {
        "temperature": 1 / 16,  # of the relaxation, from 1 down a cosine
        "temperature_steps": 500,
        "kl_weight": 0.1,  # beta, from 0 up a line
        "kl_steps": 350,
    }
    config.kmeans_examples = 300  # pictures that the start looks at; 0 starts as initialised
    config.optim.lr = 6e-3
    config.optim.lr_multipliers = {
        "encoder": 0.03
    }  # else it chooses few codes before the decoder can tell them apart
    config.steps = 700
    config.eval_every = 350
    config.checkpoint_every = 350
    return config


def openai():
    config = dvae(base.coco())  # the model's defaults are the released one
    config.loss = {
        "temperature": 1 / 16,
        "temperature_steps": 150_000,
        "kl_weight": 6.6,
        "kl_steps": 5000,
    }
    config.kmeans_examples = 0
    config.steps, config.batch_size, config.ema = 3_000_000, 512, 0.999
    config.optim.update({"lr": 1e-4, "warmup": 0, "weight_decay": 1e-4, "clip": 1.0})
    config.log_every, config.eval_every, config.checkpoint_every = 100, 10_000, 10_000
    return config


def smoke():
    config = digits()
    config.model.update({"codebook_size": 64, "width": 8, "code_width": 16})
    config.kmeans_examples = 8
    base.smoke(config)
    return config


def get_config(variant: str = "digits"):
    config = globals()[variant]()
    config.name = f"dvae-{variant}"
    return config
