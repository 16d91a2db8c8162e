"""VQ-VAE over a grid: images -> h x w tokens of one codebook -> images.

python train.py --config=configs/vqvae.py

Measured on 2 CPU cores (AMD EPYC, no accelerator, 2026-11-24), so before the rebuild of 2026-11-27, while other
work ran, on the whole validation split:
digits: 28.2 dB, usage 100%, perplexity 182 of 512; 3.5 minutes.
photos: 32.0 dB, usage 100%, perplexity 1,318 of 2,048; 12 minutes of training (docs/vqvae-photos.png).
mnist, cifar10, coco: not measured.
emoji (2026-11-28, other work beside it): 21.7 dB, usage 100%, perplexity 801 of 1,024, on 216 pictures; 4 min 38 s.

Fashion-MNIST (2 CPU cores, AMD EPYC, 2026-11-27, much other work beside it), on 5,000 pictures kept from training:
fashion_fine: 26.7 dB, usage 100%, perplexity 159 of 512 (docs/fashion.md).
fashion: 23.3 dB, usage 100%, perplexity 308 of 512.
fashion_resnet: 17.7 dB after 300 steps of a schedule of as many, from random weights.
"""

from configs import base


def vqvae(data):
    """What the variants share: a small convolutional model and a codebook that follows the features."""
    config = base.base()
    config.task = "reconstruct"
    config.model_name = "vqvae"
    config.data = data
    # Stage 1 of a ResNet, should it be the encoder, has as many tokens as `downsampling` 4.
    config.model = {"codebook_size": 512, "width": 64, "code_width": 32, "backbone": {"stage": 1}}
    config.backbone_weights = "microsoft/resnet-101"  # a name on the hub, or a folder with model.safetensors
    config.loss.foreground_weight = 1.0
    base.judged(config)
    config.kmeans_examples = 500  # pictures that the codebook's k-means start looks at; 0 switches it off
    config.codebook_reset_every = 20  # steps between two restarts of dead codes
    config.steps = 1000
    config.eval_every = 1000
    config.checkpoint_every = 500
    return config


def digits():
    config = vqvae(base.digits())
    config.loss.foreground_weight = 2.0
    return config


def report(data):
    """The report's encoder, a released ResNet; the plain one: --config.model.encoder=conv."""
    config = vqvae(data)
    config.model.update({"encoder": "resnet", "pretrained": True, "width": 128, "code_width": 64})
    config.steps, config.eval_every, config.checkpoint_every = 20_000, 2000, 1000
    return config


def mnist():
    return report(base.mnist())


def fashion():
    """Sized for two cores, as is the prior over its 49 tokens."""
    config = vqvae(base.fashion())
    config.optim.lr = 2e-3
    config.steps, config.eval_every, config.checkpoint_every = 2000, 2000, 100
    return config


def fashion_fine():
    """196 tokens in place of 49: what they are too few for."""
    config = fashion()
    config.model.update({"downsampling": 2, "residual_blocks": 1})
    config.kmeans_examples = 100
    config.steps, config.eval_every = 800, 800
    return config


def fashion_resnet():
    """The report's encoder, trained from scratch."""
    config = fashion()
    config.model.update({"encoder": "resnet", "pretrained": False})
    config.steps, config.eval_every = 1000, 1000
    return config


def cifar10():
    return report(base.cifar10())


def coco():
    config = report(base.coco())
    config.model.update({"codebook_size": 8192, "width": 256, "downsampling": 8, "backbone": {"stage": 2}})
    config.steps = 100_000
    return config


def photos():  # overfitted: what the model can keep of pictures without a grammar
    config = vqvae(base.photos())
    config.model.update({"codebook_size": 2048, "code_width": 16, "downsampling": 2})
    config.kmeans_examples = 100
    config.steps, config.batch_size, config.eval_every = 2400, 16, 2400
    config.optim.lr = 2e-3
    return config


def emoji():  # examples/emoji, 8 x 8 tokens of 4 pixels a side
    config = vqvae(base.emoji())
    config.model.codebook_size = 1024
    config.optim.lr = 2e-3
    config.steps, config.batch_size = 1500, 32
    config.eval_every, config.checkpoint_every = 1500, 250
    return config


def smoke():
    config = vqvae(base.digits())
    config.model.update({"codebook_size": 64, "width": 16, "code_width": 8})
    config.kmeans_examples = 64
    config.codebook_reset_every = 1
    base.smoke(config)
    return config


def get_config(variant: str = "digits"):
    config = globals()[variant]()
    config.name = f"vqvae-{variant}"
    return config
