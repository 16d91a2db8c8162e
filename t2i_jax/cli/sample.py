"""`t2i sample`: pictures of prompts, or new pictures from a run that reads none."""

import dataclasses
import os
import sys
import time
from pathlib import Path

from t2i_jax import files, sampling
from t2i_jax.cli import like, samples
from t2i_jax.cli.checks import check_folder, check_grid_path, check_run, load_translator, load_unconditional
from t2i_jax.errors import UserError
from t2i_jax.random import check_seed
from t2i_jax.sampling.settings import check_setting

MAX_NUM = 1000  # pictures of one prompt
CLIP = "openai/clip-vit-base-patch32"


def add(commands) -> None:
    """Add the command to argparse's `commands`."""
    sample = commands.add_parser(
        "sample", help="draw pictures, of prompts where the run reads them", allow_abbrev=False
    )
    sample.add_argument("--run", required=True, help="run folder of a translator, or of a model without prompts")
    sample.add_argument("--prompt", action="append", help="a prompt; repeat it for more rows in the grid")
    sample.add_argument("--prompts-file", help="UTF-8 text, one prompt a line")
    sample.add_argument(
        "--like",
        metavar="PNG",
        help="draw a picture of this command or of its page again, by what it says in itself",
    )
    sample.add_argument("-n", "--num", type=int, default=4, help=f"pictures (of each prompt), 1 to {MAX_NUM} (4)")
    for name, field in sampling.settings().items():
        option, number = "--" + name.replace("_", "-"), int if field.metadata["range"].whole else float
        sample.add_argument(option, type=number, help=f"{field.metadata['help']} (the run's own)")
    sample.add_argument(
        "--candidates", type=int, help=f"draw so many of each prompt and keep the -n best, up to {MAX_NUM} (-n)"
    )
    sample.add_argument(
        "--rerank",
        choices=["likelihood", "clip"],
        help="by what the best are found: how much likelier the prompt makes a picture, or CLIP (likelihood)",
    )
    sample.add_argument("--clip", help=f"folder of CLIP's released weights, or their name on the hub ({CLIP})")
    sample.add_argument("--seed", type=int, default=0, help="same seed, same pictures (0)")
    sample.add_argument(
        "--out",
        help="a PNG: a grid, labelled where there are prompts (grid.png, or the next free name); FOLDER/: single"
        " pictures and prompts.jsonl (samples/ with --prompts-file)",
    )
    sample.add_argument("--overwrite", action="store_true", help="replace pictures that were made otherwise")
    sample.set_defaults(function=run, index=None)


def run(args) -> None:
    """Draw what `args` say."""
    began = time.perf_counter()
    note = like.fill(args) if args.like is not None else None
    if args.prompt is not None and args.prompts_file is not None:
        raise UserError("give either --prompt or --prompts-file; both are given")
    if not 1 <= args.num <= MAX_NUM:
        raise UserError(f"-n {args.num} is out of range; give 1 to {MAX_NUM}")
    if args.candidates is not None and not args.num <= args.candidates <= MAX_NUM:
        raise UserError(f"--candidates {args.candidates} is out of range; give {args.num} (-n) to {MAX_NUM}")
    if args.rerank is not None and args.candidates is None:
        raise UserError(f"--rerank {args.rerank} needs --candidates, say {8 * args.num}")
    if args.clip is not None and args.rerank != "clip":
        raise UserError(f"--clip {args.clip} is read by --rerank clip alone; give both, or neither")
    check_seed(args.seed, "--seed")
    fields = sampling.settings()
    given = {name: getattr(args, name) for name in fields if getattr(args, name) is not None}
    for name, value in given.items():  # before the seconds that loading a run takes
        check_setting(fields[name], value)
    prompts = _prompts(args)
    folder = args.prompts_file is not None or (args.out or "").endswith(("/", os.sep))
    if folder:
        out = Path(args.out or "samples")
        check_folder(out, {name for own in samples.names(len(prompts or [""]), args.num) for name in own})
    else:
        out = Path(args.out or ("grid.png" if args.index is None else "picture.png"))
        check_grid_path(out)
    check_run(args.run)
    if prompts:
        pipe = load_translator(args.run)
        pipe.check(prompts)
    else:
        pipe = load_unconditional(args.run, given)
    sampler = getattr(pipe, "sampling", None)  # an autoencoder has none
    settings = _ways(args, pipe, dataclasses.asdict(sampler.replace(**given)) if sampler else given)
    if note:
        like.check(args, note, settings)
    draw = _draw_folder if folder else _draw_grid if args.index is None else _draw_one
    draw(args, pipe, prompts, given, out, settings)
    print(f"pictures after {time.perf_counter() - began:.1f} s", file=sys.stderr)


def _prompts(args) -> list[str] | None:
    """What is to be drawn; None for a run that reads no prompt."""
    if args.prompts_file is not None:
        return read_prompts(args.prompts_file)
    if args.prompt is None and args.candidates is not None:
        raise UserError("--candidates are ranked by a prompt, and there is none; give --prompt or --prompts-file")
    for number, prompt in enumerate(args.prompt or [], start=1):
        if not prompt.strip():
            raise UserError(f"--prompt number {number} is empty; describe a picture")
    return args.prompt


def _ways(args, pipe, settings) -> dict:
    """See `pictures.ways`."""
    from t2i_jax.pictures import ways

    return ways(
        pipe.digest,
        args.seed,
        settings,
        candidates=args.candidates,
        rerank=args.rerank or (args.candidates and "likelihood"),
        clip=(args.clip or CLIP) if args.rerank == "clip" else None,
    )


def _drawn(args, pipe, prompts, given, missing):
    """`(job, images)` of what is missing, with a bar where that is more than one call."""
    from t2i_jax import progress

    if prompts is None:
        if missing[0]:
            yield samples.Job([0], 0, args.num), pipe.sample(args.num, args.seed, **given)[None]
        return
    choice, jobs = _choice(args), list(samples.jobs(missing, args.num, args.candidates))
    total = sum(len(job.numbers) * job.num for job in jobs)
    with progress.bar(desc="drawing", total=total, unit="pictures", hidden=len(jobs) < 2) as bar:
        for job in jobs:
            first = {"first": job.first} if job.first else {}
            some = [prompts[number] for number in job.numbers]
            yield job, pipe(some, num_images=job.num, seed=args.seed, **first, **choice, **given)
            bar.update(len(some) * job.num)


def _draw_grid(args, pipe, prompts, given, out, settings):
    import numpy as np

    from t2i_jax.pictures import labelled_grid, plain_grid, to_png

    note = {"prompts": prompts, "n": args.num, "prompt": ", ".join(prompts or []), **settings}
    if args.out is None:
        out = _free(out, note)
    samples.is_made(out, note, overwrite=args.overwrite)
    parts = _drawn(args, pipe, prompts, given, [set(range(args.num)) for _ in prompts or [None]])
    images = np.concatenate([rows for job, images in parts for rows in images])
    grid = labelled_grid(images.reshape(len(prompts), args.num, *images.shape[1:]), prompts) if prompts else None
    out.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomically(out, to_png(grid or plain_grid(images), note))
    print(out)


def _draw_one(args, pipe, prompts, given, out, settings):
    """The picture number `args.index` of a prompt, at its own size."""
    from t2i_jax.pictures import to_image, to_png

    note = {"prompt": prompts and prompts[0], "index": args.index, **settings}
    if args.out is None:
        out = _free(out, note)
    samples.is_made(out, note, overwrite=args.overwrite)
    if prompts is None:
        picture = pipe.sample(args.num, args.seed, **given)[-1]
    elif args.candidates is None:
        picture = pipe(prompts, num_images=1, seed=args.seed, first=args.index, **given)[0, 0]
    else:
        picture = pipe(prompts, num_images=args.num, seed=args.seed, candidates=args.candidates, **given)[0, -1]
    files.write_atomically(out, to_png(to_image(picture), note))
    print(out)


def _draw_folder(args, pipe, prompts, given, out, settings):
    record = {"run": args.run, "n": args.num} | settings
    notes = [[{"prompt": prompt, "index": i, **settings} for i in range(args.num)] for prompt in prompts or [None]]
    folder = samples.Samples(out, notes, record, overwrite=args.overwrite)
    lacking = sum(map(len, folder.missing))
    if 0 < lacking < len(notes) * args.num:
        print(f"{lacking} pictures are lacking in {out}; the others are there already", file=sys.stderr)
    try:
        for job, images in _drawn(args, pipe, prompts, given, folder.missing):
            folder.put(job, images)
    except KeyboardInterrupt:
        lacking = sum(map(len, folder.missing))
        raise KeyboardInterrupt(f"{lacking} pictures are lacking in {out}; the same command draws them") from None


def _free(path: Path, note: dict) -> Path:
    """A name under which nothing stands, or the same picture."""
    from t2i_jax.pictures import read_note

    number, free = 1, path
    while free.exists() and read_note(free) != note:
        number += 1
        free = path.with_stem(f"{path.stem}-{number}")
    return free


def _choice(args):
    """What says which pictures are drawn and kept."""
    if args.rerank != "clip":
        return {"candidates": args.candidates}
    from t2i_jax.pipelines.clip import Clip

    return {"candidates": args.candidates, "rerank": Clip(args.clip or CLIP)}


def read_prompts(file: str | Path) -> list[str]:
    """The file's lines; each is a prompt, and none may be empty, so that numbers stay line numbers.

    Raises:
      UserError: there is no such file, it is not UTF-8, or has no prompt, or an empty line.
    """
    try:
        raw = Path(file).read_bytes()
    except OSError as error:
        raise UserError(f"--prompts-file {file}: {error.strerror}; name a text file") from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(f"--prompts-file {file}: line {line} is not UTF-8; save the file as UTF-8") from None
    prompts = text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n")
    if not any(prompt.strip() for prompt in prompts):
        raise UserError(f"--prompts-file {file} is empty; write one prompt a line")
    for number, prompt in enumerate(prompts, start=1):
        if not prompt.strip():
            raise UserError(f"--prompts-file {file}: line {number} is empty; remove it or write a prompt")
    return prompts
