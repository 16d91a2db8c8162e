r"""BERT2GPT translator: captions -> the tokens of a VQ-VAE -> images.

    XLA_FLAGS="--xla_force_host_platform_device_count=2 --xla_cpu_multi_thread_eigen=false" \
        python train.py --config=configs/translator.py

Figures are from before the rebuild of 2026-11-27 where nothing else is said. Measured by `t2i evaluate` (seed 0) on
2 CPU cores (AMD EPYC, no accelerator, 2026-11-24) where nothing else is said:

digits_long (jitter at every pixel, 150,000 scenes, 4,000 steps): overall 0.958, held-out combinations 0.942,
weakest category 0.890 (two objects), reconstructions 0.947; 1.89 nats a token, bigram baseline 4.19. 39 minutes,
data and tokenizer included, while other work ran on the machine (26 with less of it).

photos (24,000 crops, 1,200 steps): the nearest photograph is the right one in 93.8% of 192 images (a motorcycle
25%, all others 100%), with evaluation seed 1000 in 90.6%; 1.08 nats a token, bigram baseline 3.07. 19 min 44 s,
data and tokenizer included, while other work ran on the machine. With 6,000 crops and 600 steps it was 88.0%.

digits (the quick start), on an EPYC, 2026-11-28, with the data as they are since then: overall 0.933, held-out
combinations 0.925, weakest category 0.830 (two objects), reconstructions 0.947. Training seeds 0 to 4: 0.933 to
0.953 / 0.925 to 0.951.

transformer (Vaswani et al. 2017, on the same tokens as digits): not measured.

folder (your own pictures): not measured, and nothing in it was tuned.

emoji (2026-11-28): of names trained on, the nearest real emoji is the right one in 62%, one of the nearest five in
88% (reconstructions: 77% and 94%); examples/emoji/README.md.

grid: not measured over its 2,000 steps; docs/decoder-only.md compares 386 steps of it with configs/dalle.py.

coco (BERT-base, GPT-2, OpenAI's dVAE), coco_report (the recipe of the report, the student report of the README):
not measured; neither the weights nor the captions could be had. On one H200 coco trains 333 examples/s on made-up
data (MFU 0.25), and its step compiles in 26 s (2026-11-27, benchmarks/results.md); before the rebuild an H100 had
not compiled it after three minutes. Compiled for CPU in float32 a step of coco needs 15.6 GB beside 2.8 GB of state
(2026-11-28; 35.4 GB with scores and logits as a whole).

How each choice was made is in docs/recipe-digits.md. The smoke variant only shows that everything runs.
"""

from configs import base, dvae, patch_vqvae, vqvae

PHOTO_CAPTIONS = (
    "a smiling astronaut in an orange suit",
    "a ginger cat with green eyes",
    "a cup of coffee on a wooden table",
    "a rocket on its launch pad",
)

EMOJI_CAPTIONS = (
    "a red apple",
    "slice of pizza",
    "green heart",
    "firefighter with dark skin",
    "smiling cat with heart-eyes",
    "flag of Norway",
    "a kitten",
    "an automobile",
)

COCO_CAPTIONS = (
    "a red bus on a city street",
    "a bowl of oranges on a table",
    "a man riding a wave on a surfboard",
    "two giraffes under a tree",
)


def translator(tokenizer, data):
    """What the variants share: a small encoder and decoder, from scratch."""
    config = base.base()
    config.task = "translate"
    config.model_name = "translator"
    small = {"width": 160, "heads": 5, "mlp_width": 640, "dropout": 0.0}
    config.model = {"encoder": {**small, "layers": 2}, "decoder": {**small, "layers": 3}}
    base.on_tokens(config, tokenizer, data)
    config.data.code_noise = 0.0  # share of decoder inputs replaced by another picture's, against exposure bias
    config.encoder_weights = ""  # a released BERT, its folder or its name on the hub; "" starts from scratch
    config.decoder_weights = ""  # a released GPT-2, likewise; its token table and head always start anew
    config.optim.lr_multipliers = {"bert": 1.0}  # 0 freezes the encoder, which then runs once for each caption
    config.steps = 2000
    return config


def digits():
    config = translator(patch_vqvae.get_config("digits"), base.digits())
    config.optim.muon = 2.0  # binds digits to their places early; with AdamW alone that is a lottery too
    config.steps = 1200
    return config


def digits_long():
    config = translator(patch_vqvae.get_config("digits_long"), base.digits())
    config.data.name = "captioned_digits/fine"
    config.steps = 4000
    config.eval_every = 2000
    config.checkpoint_every = 1000
    return config


def transformer():  # the original one: sinusoids, post-norm, nothing learned before it starts
    config = translator(patch_vqvae.get_config("digits"), base.digits())
    config.model_name = "transformer"
    del config.model.encoder, config.model.decoder
    config.model.update({"width": 160, "heads": 5, "mlp_width": 640, "dropout": 0.0})
    config.model.update({"encoder_layers": 2, "decoder_layers": 3})
    config.init_from_tokenizer, config.optim.lr_multipliers = False, {}
    return config


def grid():  # 8 x 8 tokens of one codebook, beside configs/dalle.py; nothing in it was tuned
    config = translator(vqvae.get_config("digits"), base.digits())
    config.sampling.unguided_tokens = 0
    return config


def photos():
    config = translator(patch_vqvae.get_config("photos"), base.photos())
    config.steps, config.batch_size = 1200, 32
    config.shown_captions = PHOTO_CAPTIONS
    config.sampling.update({"unguided_tokens": 0, "guidance_scale": 1.0})
    return config


def folder():  # your own pictures with captions, some twenty to some thousands: docs/own-pictures.md
    return captioned(patch_vqvae.get_config("folder"), base.folder())


def captioned(tokenizer, data):
    """What sets of pictures with captions of any words share."""
    config = translator(tokenizer, data)
    config.data.text_len = 24
    config.model.text_vocab_size = 2000
    config.model.encoder.width = config.model.decoder.width = 192
    config.model.encoder.heads = config.model.decoder.heads = 6
    config.model.encoder.mlp_width = config.model.decoder.mlp_width = 768
    config.shown_captions = ()  # the first of the data's own
    config.optim.muon = 2.0
    config.steps, config.batch_size = 1200, 32
    config.sampling.update({"temperature": 0.5, "unguided_tokens": 0, "guidance_scale": 1.5})
    return config


def emoji():  # examples/emoji
    config = captioned(vqvae.get_config("emoji"), base.emoji())
    config.model.text_vocab_size = 4000
    config.model.decoder.layers = 4
    config.shown_captions = EMOJI_CAPTIONS
    config.data.code_noise = 0.4  # else a few true tokens tell the whole picture, and captions are hardly read
    config.steps, config.batch_size = 2400, 64
    config.eval_every, config.checkpoint_every = 2400, 200
    config.sampling.update({"guidance_scale": 2.0})
    return config


def emoji_words():  # the same with the words of a released BERT, whose states are made once
    config = emoji()
    config.encoder_weights = "weights/minilm"
    config.model.encoder = {
        "dropout": 0.0,
        "attention_dropout": 0.0,
    }  # so that a caption is read once for all steps
    config.optim.lr_multipliers = {"bert": 0.0}
    return config


def coco():  # BERT-base, GPT-2 and OpenAI's dVAE (t2i convert openai-dvae): the report's experiment done right
    config = translator(dvae.get_config("openai"), base.coco())
    config.model = {  # the rest is as released, which are the defaults
        "text_vocab_size": 30_522,
        "dtype": "bfloat16",
        "encoder": {"remat": "full"},
        "decoder": {"remat": "full"},
    }
    config.data.text_len = 64
    config.encoder_weights, config.decoder_weights = "bert-base-uncased", "gpt2"
    config.init_from_tokenizer, config.shown_captions = False, COCO_CAPTIONS
    config.steps, config.batch_size, config.accumulate = 50_000, 256, 4
    config.optim.update({"lr": 5e-4, "warmup": 2000, "weight_decay": 0.01})
    # What was learned elsewhere moves slowly; what is new in GPT-2, its table and its reading of BERT, fast.
    new = ("gpt2/token_embed", "ln_cross_attn", "cross_attn")
    config.optim.lr_multipliers = {"bert": 0.1, "gpt2": 0.1} | dict.fromkeys(new, 1.0)
    config.log_every, config.eval_every, config.checkpoint_every = 100, 2500, 1000
    config.sampling = {"name": "autoregressive", "top_p": 0.95, "guidance_scale": 3.0}
    return config


def coco_report():  # its recipe to the letter, as the control (section 2.2); the rest as HF's Trainer
    config = coco()
    config.data.caption_dropout = 0.0
    config.model = {"text_vocab_size": 30_522, "encoder": {}, "decoder": {}}
    config.model.encoder.attention_dropout = config.model.decoder.attention_dropout = 0.1
    config.batch_size, config.accumulate = 24, 3
    config.optim.update({"lr": 3e-3, "warmup": 10, "schedule": "linear", "b2": 0.999, "weight_decay": 0.0})
    # In between down to 0, the report shows no numbers.
    config.optim.restarts = ((10_000, 1.8e-3), (25_000, 1.5e-3))
    config.optim.lr_multipliers = {}
    config.sampling = {"name": "autoregressive", "temperature": 0.0}
    return config


def smoke():
    config = translator(patch_vqvae.get_config("smoke"), base.digits())
    config.optim.muon = 2.0
    tiny = {"width": 32, "layers": 1, "heads": 2, "mlp_width": 64}
    config.model.update({"encoder": tiny, "decoder": tiny})
    base.smoke(config)
    return config


def get_config(variant: str = "digits"):
    config = globals()[variant]()
    config.name = f"translator-{variant}"
    return config
