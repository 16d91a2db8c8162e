"""`t2i data check`: what a folder of one's own pictures holds, and what training would make of it."""

from pathlib import Path

from t2i_jax.cli import results
from t2i_jax.cli.checks import check_grid_path, image_size
from t2i_jax.errors import UserError
from t2i_jax.ranges import sides


def add(commands) -> None:
    """Add the command to argparse's `commands`."""
    data = commands.add_parser("data", help="look at your own pictures before training", allow_abbrev=False)
    actions = data.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = actions.add_parser(
        "check", help="sizes, captions, duplicates, what cannot be used; a contact sheet", allow_abbrev=False
    )
    check.add_argument("dir", help="folder of pictures with captions, or a .tar or .parquet file")
    check.add_argument(
        "--out", default="contact-sheet.png", help="where the contact sheet goes (contact-sheet.png)"
    )
    check.add_argument(
        "--image-size", type=image_size, default=64, help="as config.data.image_size: 64, or 48,64 (64)"
    )
    check.add_argument("--background", default="white", help="as config.data.background (white)")
    check.add_argument("--validation-share", type=float, default=0.1, help="as config.data.validation_share (0.1)")
    results.add_json(check)
    check.set_defaults(function=run)


def run(args) -> None:
    """Look at what `args` name."""
    out = Path(args.out)
    for side in sides(args.image_size):
        if not 8 <= side <= 1024:
            raise UserError(f"--image-size {side} is out of range; give 8 to 1024")
    if out.resolve().is_relative_to(Path(args.dir).resolve()):
        raise UserError(
            f"--out {out} lies in {args.dir}, where it would be taken for a picture; name another place"
        )
    check_grid_path(out)
    from t2i_jax.data.sources.folder import Options
    from t2i_jax.data.survey import survey
    from t2i_jax.pictures import labelled_grid

    looked_at = {name: getattr(args, name) for name in ("image_size", "background", "validation_share")}
    Options(**looked_at, crops=0, crop_scale=(1.0, 1.0), flip=False)  # finds what is out of its range
    found = survey(args.dir, **looked_at)
    out.parent.mkdir(parents=True, exist_ok=True)
    labelled_grid(found.pictures, found.captions).save(out)
    results.show(args, found.text, found.numbers, out)
