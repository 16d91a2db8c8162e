"""Captioned digits: a detector reads each picture, in GenEval's categories, beside real scenes."""

from t2i_jax.evals import diversity, faithfulness
from t2i_jax.evals.detector import Detector
from t2i_jax.evals.pictures import PICTURES, beside, sample


def judge(pipe, seed: int, candidates: int) -> tuple[str, dict]:
    """Tables of faithfulness and of diversity.

    Args:
      pipe: a `pipelines.Translator`, or a `Prior`, whose table then has pictures of uniform ids too.
      seed: of prompts and pictures. The captions shown in training's picture grids are left out.
      candidates: sampled for each picture that is judged.

    Returns:
      The tables as text, and their numbers.
    """
    fine = pipe.config.data.name.endswith("/fine")
    detector, columns = Detector(), {}
    for held_out in (False, True):
        prompts = faithfulness.make_prompts(seed, held_out=held_out, exclude=pipe.config.shown_captions)
        real = faithfulness.real_scenes(prompts, PICTURES, seed, fine=fine)
        captions = [prompt.caption for prompt in prompts for _ in range(PICTURES)]
        for kind, images in beside(pipe, captions, real, seed, candidates).items():
            column = f"held-out {kind}" if held_out else kind
            columns[column] = faithfulness.score(prompts, images, detector)
    prompts = diversity.make_open_prompts(seed)
    pictures = {
        "generated": sample(pipe, [prompt.caption for prompt in prompts], seed, candidates),
        "real": faithfulness.real_scenes(prompts, 1, seed, fine=fine)[:, 0],
    }
    varied = {kind: diversity.measure(prompts, detector(images), fine=fine) for kind, images in pictures.items()}
    text = f"{faithfulness.format_table(columns)}\n\n{diversity.format_table(varied)}"
    return text, {"faithfulness": columns, "diversity": varied}
