"""Write MNIST or Fashion-MNIST as folders of PNG files, which is what train.vqvae, train.codes and train.evaluate read.

    python -m train.folders fashion-mnist --data-root DATA --out DATA/fashion

OUT/train/LABEL/00017.png and OUT/test/LABEL/00017.png, the number being that of the image in its file, 32 x 32 with a
black border: 28 can be halved only twice, and LPIPS needs 32. The last 5,000 training images, which every choice is
made on (dd/data.py), are left out.
"""

import argparse
from pathlib import Path

from PIL import Image, ImageOps

from dd.data import LABELS, load
from train.loop import sentences

BORDER = 2  # pixels on every side


def write(name: str, split: str, root: str | Path, out: Path) -> int:
    """The images of a split as OUT/LABEL/NUMBER.png; returns how many."""
    data = load(name, split, root)
    for label in LABELS[name]:
        (out / label).mkdir(parents=True, exist_ok=True)
    for i, (image, label) in enumerate(zip(data.images, data.labels.tolist(), strict=True)):
        ImageOps.expand(Image.fromarray(image.numpy()), BORDER).save(out / LABELS[name][label] / f"{i:05d}.png")
    return len(data.images)


@sentences()
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write a torchvision data set as folders of PNG files.")
    parser.add_argument("name", choices=sorted(LABELS))
    parser.add_argument("--data-root", default="data", help="where torchvision finds or puts the data")
    parser.add_argument("--out", required=True, help="folder to write into")
    args = parser.parse_args(argv)
    for split in ("train", "test"):
        print(f"{write(args.name, split, args.data_root, Path(args.out) / split):,} images of the {split} split")


if __name__ == "__main__":
    main()
