"""Captioned digits: a detector reads each picture, in GenEval's categories, beside real scenes."""

from t2i_jax.evals import copies, diversity, faithfulness
from t2i_jax.evals.detector import Detector
from t2i_jax.evals.pictures import PICTURES, beside, reconstruct, sample


def rater(pipe, seed: int):
    """See `judges`; of the combinations that training shows, by category."""
    detector, prompts = Detector(), faithfulness.make_prompts(seed, exclude=pipe.config.shown_captions)
    captions = [prompt.caption for prompt in prompts for _ in range(PICTURES)]

    def rate(sampler):
        images = sample(pipe, captions, seed, sampler=sampler)
        right = faithfulness.verdicts(prompts, images.reshape(len(prompts), PICTURES, *images.shape[1:]), detector)
        return faithfulness.shares(prompts, right)["overall"], faithfulness.intervals_of(prompts, right)["overall"]

    return rate


def judge(pipe, seed: int, candidates: int) -> tuple[str, dict]:
    """Tables of faithfulness, of diversity and of copies.

    Faithfulness has reconstructions of scenes in handwriting that the generator was trained on ("seen": what one
    reaches that recites it), and in handwriting that nothing was trained on ("unseen": what one reaches that writes
    anew). The detector was fitted on a third part, for it alone.

    Args:
      pipe: a `pipelines.Translator`, or a `Prior`, whose table then has pictures of uniform ids too.
      seed: of prompts and pictures. The captions shown in training's picture grids are left out.
      candidates: sampled for each picture that is judged.

    Returns:
      The tables as text, and their numbers; "pictures" is how many a column of the first has, "intervals" has the
      95% intervals of the first two.
    """
    fine = pipe.config.data.name.endswith("/fine")
    detector, texts, columns, ends = Detector(), [], {}, {}
    for held_out in (False, True):
        prompts = faithfulness.make_prompts(seed, held_out=held_out, exclude=pipe.config.shown_captions)
        unseen, seen = (
            faithfulness.real_scenes(prompts, PICTURES, seed, fine, split) for split in ("validation", "train")
        )
        captions = [prompt.caption for prompt in prompts for _ in range(PICTURES)]
        pictures = beside(pipe, captions, unseen, seed, candidates)
        found = {
            "generated": pictures.pop("generated"),
            "reconstructed seen": reconstruct(pipe.tokenizer, seen),
            "reconstructed unseen": pictures.pop("reconstructed"),
            **pictures,
        }
        right = {kind: faithfulness.verdicts(prompts, images, detector) for kind, images in found.items()}
        scores = {kind: faithfulness.shares(prompts, own) for kind, own in right.items()}
        of_scores = {kind: faithfulness.intervals_of(prompts, own) for kind, own in right.items()}
        title, prefix = ("held out", "held-out ") if held_out else ("", "")
        texts.append(faithfulness.format_table(title, scores, of_scores))
        columns |= {prefix + kind: own for kind, own in scores.items()}
        ends |= {prefix + kind: own for kind, own in of_scores.items()}
    prompts = diversity.make_open_prompts(seed)
    readings = {
        "generated": detector(sample(pipe, [prompt.caption for prompt in prompts], seed, candidates)),
        "real": detector(faithfulness.real_scenes(prompts, 1, seed, fine=fine)[:, 0]),
    }
    measured = {kind: diversity.Diversity(prompts, own, fine=fine) for kind, own in readings.items()}
    varied = {kind: own.scores() for kind, own in measured.items()}
    of_varied = {kind: own.intervals() for kind, own in measured.items()}
    copied = copies.Copies(pipe.tokenizer, fine=fine, seed=seed).measure(readings["generated"])
    texts += [diversity.format_table(varied, of_varied), copies.format_table(copied)]
    return "\n\n".join(texts), {
        "pictures": len(captions),
        "faithfulness": columns,
        "diversity": varied,
        "copies": copied,
        "intervals": {"faithfulness": ends, "diversity": of_varied},
    }
