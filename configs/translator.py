r"""BERT2GPT translator: captions -> the tokens of a VQ-VAE -> pictures.

    XLA_FLAGS="--xla_force_host_platform_device_count=2 --xla_cpu_multi_thread_eigen=false" \
        python train.py --config=configs/translator.py

The digits variant takes 8 min 3 s on 2 CPU cores (AMD EPYC, 2026-11-24) after its tokenizer: 0.826 overall by
`t2i evaluate`, held-out combinations 0.596; 2.245 nats a token, bigram baseline 4.175. Guidance 1.5 and temperature
0.5 were chosen from eight settings on an earlier run, with prompts of another seed than the evaluation's;
guidance 3 at temperature 1 scored half as much. The smoke variant only shows that everything runs.
"""

from configs import base, vqvae

VARIANTS = ("digits", "smoke")


def get_config(variant: str = "digits"):
    config = base.base()
    config.name = f"translator-{variant}"
    config.task = "translate"
    config.model_name = "translator"
    config.tokenizer = vqvae.get_config(variant)
    config.tokenizer_run = f"runs/{config.tokenizer.name}"  # trained there first where no finished run is
    config.data = base.digits()
    config.data.text_len = 12  # S, word pieces a caption, [CLS] and [SEP] included
    config.data.caption_dropout = 0.1  # share of captions replaced by the learned null caption
    config.data.code_noise = 0.0  # share of decoder inputs replaced by random codes, against exposure bias
    shape = {"width": 160, "heads": 5, "mlp_width": 640, "dropout": 0.0}
    config.model = {
        "codebook_size": 1024,
        "num_tokens": 32,
        "text_vocab_size": 64,
        "text_len": 12,
        "dtype": "float32",
        "encoder": {**shape, "layers": 2, "max_positions": 12},
        "decoder": {**shape, "layers": 3, "positions": 32},
    }
    # One value, two places: overriding either field overrides both.
    for field in ("name", "data_dir"):
        config.tokenizer.data[field] = config.data.get_ref(field)
    config.tokenizer.model.codebook_size = config.model.get_ref("codebook_size")
    config.loss = {}
    config.shown_captions = (  # drawn at every evaluation; never among the prompts a run is scored by
        "a green five",
        "a white two",
        "a cyan nine and a red three",
        "a blue eight above an orange six",
        "a purple one left of a green zero",
        "two red sevens",
        "three blue fours",
        "four white twos",
    )
    config.codebook_start = True  # token embedding and head start as a random projection of the codebook
    config.steps = 1800
    config.optim.lr = 2e-3
    config.optim.b2 = 0.98
    config.eval_every = 900
    config.checkpoint_every = 300
    config.sampling = {"temperature": 0.5, "top_k": 0, "top_p": 1.0, "guidance_scale": 1.5}
    if variant == "smoke":
        config.data.name = "captioned_digits/tiny"
        tiny = {"width": 32, "layers": 1, "heads": 2, "mlp_width": 64}
        config.model.update({"codebook_size": 64, "encoder": tiny, "decoder": tiny})
        config.steps, config.batch_size, config.optim.warmup = 2, 8, 1
        config.log_every = config.eval_every = config.checkpoint_every = 1
    return config
