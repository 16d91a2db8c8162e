"""VQ-VAE over a grid: pictures -> h x w tokens of one codebook -> pictures.

python train.py --config=configs/vqvae.py

Measured on 2 CPU cores (AMD EPYC, no accelerator, 2026-11-24) while other work ran, on the whole validation split:
digits: 28.2 dB, usage 100%, perplexity 182 of 512; 3.5 minutes.
photos: 32.0 dB, usage 100%, perplexity 1,318 of 2,048; 12 minutes of training (docs/vqvae-photos.png).
mnist, cifar10, coco: not measured.
"""

from configs import base

VARIANTS = ("digits", "mnist", "cifar10", "coco", "photos", "smoke")


def get_config(variant: str = "digits"):
    config = base.base()
    config.name = f"vqvae-{variant}"
    config.task = "reconstruct"
    config.model_name = "vqvae"
    sets = {"mnist": base.mnist, "cifar10": base.cifar10, "coco": base.coco, "photos": base.photos}
    config.data = sets.get(variant, base.digits)()
    config.model = {
        "codebook_size": 512,
        "image_size": config.data.get_ref("image_size"),
        "channels": config.data.get_ref("channels"),
        "encoder": "conv",  # or "resnet"
        "backbone": {"depth": 101, "stage": 1, "frozen": True},  # of a ResNet
        "pretrained": False,  # a ResNet starts from backbone_weights
        "downsampling": 4,
        "width": 64,
        "code_width": 32,
        "residual_blocks": 2,
        "quantizer": "ema",  # a key of t2i_jax.nn.quantizers.KINDS
        "quantizer_options": base.quantizers(),
        "dtype": "float32",
    }
    config.backbone_weights = "microsoft/resnet-101"  # a name on the hub, or a folder with model.safetensors
    config.loss = {"foreground_weight": 2.0 if variant == "digits" else 1.0}
    config.kmeans_examples = 500  # pictures that the codebook's k-means start looks at; 0 switches it off
    config.upkeep_every = 20  # steps between two revivals of dead codes
    config.steps = 1000
    config.eval_every = 1000
    config.checkpoint_every = 500
    if variant in ("mnist", "cifar10", "coco"):  # the report's; the plain encoder: --config.model.encoder=conv
        config.model.encoder, config.model.pretrained = "resnet", True
        config.model.width, config.model.code_width = 128, 64
        config.steps, config.eval_every, config.checkpoint_every = 20_000, 2000, 1000
    if variant == "coco":
        config.model.codebook_size, config.model.width = 8192, 256
        config.model.downsampling, config.model.backbone.stage = 8, 2
        config.steps = 100_000
    if variant == "photos":  # overfitted: what the model can keep of pictures without a grammar
        config.model.codebook_size, config.model.code_width, config.model.downsampling = 2048, 16, 2
        config.kmeans_examples = 100
        config.steps, config.batch_size, config.eval_every = 2400, 16, 2400
        config.optim.lr = 2e-3
    if variant == "smoke":
        config.data.name = "captioned_digits/tiny"
        config.model.update({"codebook_size": 64, "width": 16, "code_width": 8})
        config.kmeans_examples = 64
        config.steps, config.batch_size, config.optim.warmup, config.upkeep_every = 2, 8, 1, 1
        config.log_every = config.eval_every = config.checkpoint_every = 1
    return config
