"""Command line: python -m dd sample | push | pull, for those without a browser."""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from dd import export, hub
from dd.checkpoints import CheckpointError
from dd.device import device
from dd.models import Models
from dd.recipe import Lane, Recipe, RecipeError
from dd.runs import Run


def sample(args: argparse.Namespace) -> None:
    """Generate images, with a progress bar, and write the files asked for."""
    wanted = [Path(path) for path in (args.out, args.gif, args.webp, args.save_recipe) if path]
    for path in wanted:
        export.check_name(path)
    if args.recipe:
        recipe = Recipe.from_json(Path(args.recipe).read_text(errors="replace"))
    else:
        recipe = Recipe(
            checkpoint=Path(args.checkpoint).name,
            lanes=(Lane(args.process, args.sampler, _options(args.option), args.schedule),),
            steps=args.steps,
            images=args.images,
            label=args.label if args.label in ("any", "each") else _number(args.label),
            guidance=args.guidance,
            temperature=args.temperature,
            tilt=args.tilt,
            seed=args.seed,
        )
    run = Run(recipe, Models(Path(args.checkpoint).resolve().parent, args.device))
    with tqdm(total=run.recipe.steps, unit="step", disable=args.quiet) as bar:
        while (views := run.advance()) is not None:
            bar.update(views[0].step - bar.n)
    for path in wanted:
        export.write(run, path)
        print(path)


def push(args: argparse.Namespace) -> None:
    """Upload a checkpoint, or the whole app as a Space."""
    if args.space and not args.names:
        print(hub.push_space(Path(__file__).parent.parent, args.space, args.docker))
    elif len(args.names) == 2 and not args.space and not args.docker:
        print(hub.push(*args.names))
    else:
        raise CheckpointError("say push CHECKPOINT USER/NAME, or push --space USER/NAME [--docker]")


def pull(args: argparse.Namespace) -> None:
    """Download the checkpoints of a hub repository."""
    for folder in hub.pull(args.repository, args.to):
        print(folder)


def _options(pairs: list[str]) -> dict[str, float]:
    try:
        return {name: float(value) for name, value in (pair.split("=", 1) for pair in pairs)}
    except ValueError as error:
        raise RecipeError(f"--option takes NAME=NUMBER, for example eta=0.5 ({error})") from error


def _number(text: str) -> int | str:
    return int(text) if text.lstrip("-").isdecimal() else text


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m dd", description="Dirichlet diffusion from the command line.")
    commands = parser.add_subparsers(required=True)
    s = commands.add_parser("sample", help="generate images", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    s.add_argument("checkpoint", help="folder of a checkpoint, for example checkpoints/digits")
    s.add_argument("--process", default="dirichlet", help="process to run backwards")
    s.add_argument("--sampler", default="default", help="how one reverse step is taken (default: the process' first)")
    s.add_argument("--steps", default=64, help="reverse steps")
    s.add_argument("--images", default=16, help="how many")
    s.add_argument("--label", default="each", help='class number, "each" in turn or "any"')
    s.add_argument("--guidance", default=1.0, help="classifier-free guidance")
    s.add_argument("--temperature", help="below 1: surer, fewer specks, less variety (default: as the checkpoint says)")
    s.add_argument("--tilt", help="of the temperature: above 0 lower late, at the details (default: the checkpoint's)")
    s.add_argument("--option", action="append", default=[], metavar="NAME=NUMBER", help="stretch, below, eta, ...")
    s.add_argument(
        "--schedule",
        default="default",
        help="where the steps go: cosine, early, information, native, nichol (gaussian)",
    )
    s.add_argument("--seed", default=0, help="the same seed gives the same picture")
    s.add_argument("--device", type=device, default="cpu", help="where the network lives")
    s.add_argument(
        "--recipe",
        help="JSON recipe saved earlier, instead of the options above; its model is looked for beside `checkpoint`",
    )
    s.add_argument("--out", default="samples.png", help="final images")
    s.add_argument("--gif", help="animation of all steps")
    s.add_argument("--webp", help="the same as animated WebP")
    s.add_argument("--save-recipe", help="JSON recipe of this run")
    s.add_argument("--quiet", action="store_true", help="no progress bar")
    s.set_defaults(run=sample)
    s = commands.add_parser("push", help="upload a checkpoint, or the app as a Space, to the Hugging Face hub")
    s.add_argument("names", nargs="*", metavar="CHECKPOINT USER/NAME", help="a folder and the repository for it")
    s.add_argument("--space", metavar="USER/NAME", help="upload the app as this Space instead")
    s.add_argument("--docker", action="store_true", help="the Space builds the Dockerfile")
    s.set_defaults(run=push)
    s = commands.add_parser("pull", help="download checkpoints from the Hugging Face hub and verify them")
    s.add_argument("repository", metavar="USER/NAME[@REVISION]")
    s.add_argument("--to", default="checkpoints", help="folder to put them in (default checkpoints)")
    s.set_defaults(run=pull)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    try:
        args.run(args)
    except (RecipeError, CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        name = str(error.filename or "a file").removesuffix(".part")  # dd.checkpoints.replacing
        print(f"error: {name} cannot be used ({error.strerror or error})", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
