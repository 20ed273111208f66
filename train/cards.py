"""Model cards: what a checkpoint is, what it learnt from, under what terms; figures only once they are measured."""

from pathlib import Path

from dd.checkpoints import CheckpointError, read_config, write_config, write_text

BEGIN, END = "<!-- metrics -->", "<!-- /metrics -->"
UNMEASURED = "Not measured yet."
MEANING = """\
size: of the middle squares, in pixels; part: of the folder, as the training divided it; usage: share of the codes that
occur; fid: to the originals; retrieved: share of rebuilt pictures whose nearest original is their own. Both are in
SqueezeNet's features, averaged over the picture or place by place. jpeg, webp: the same pictures as files of at most
the codes' rate, or of the lowest quality, headers included."""


def vqvae_card(config: dict, command: str) -> str:
    """The card of a VQ-VAE, with an empty place for its figures."""
    network, trained, w = config["network"], config["trained"], config["losses"]
    factor = 2 ** len(network["channels"])
    losses = ["L1"]
    losses += ["LPIPS (squeeze)"] if w["lpips"] else []
    losses += [f"hinge GAN from {w['gan_start']:.0%} of the run"] if w["gan"] else []
    losses += ["a price on codes that a causal context does not foresee"] if w["price"] else []
    only = "; the decoder alone, its codes are those of the CHECKPOINT" if config.get("learn") == "decoder" else ""
    celeba = config["data"]["source"] == "celeba"
    apart = "of CelebA's own validation part" if celeba else "by a hash of the file name"
    time = f"{trained['minutes']} minutes on {trained['device']}"
    return f"""---
license: {config["card"].get("license", "other")}
tags: [vq-vae, image-reconstruction]
---
# {config["name"]}

A VQ-VAE of the Dirichlet Diffusion project: {"grey" if network["colours"] == 1 else "colour"} pictures as grids of
{network["K"]} codes, one for every {factor} x {factor} pixels, and back. Losses: {", ".join(losses)}.

- Data: {config["card"]["data"]}; {trained["pictures"]} to learn from, others held out {apart}.
- Terms of the data: {config["card"]["terms"]}. The weights were learnt from it and are for use under the same terms.
- Command: `{command}`
- Trained for {trained["steps"]} steps, {time}, seed {trained["seed"]}{only}.

## Figures
{BEGIN}
{UNMEASURED}
{END}

Limits: a small network and a short training: what is fine, or rare in its data, suffers first.
"""


def fill_metrics(folder: Path, figures: dict, command: str) -> None:
    """Put measured figures, and the command that measured them, into the card's place for them."""
    path = folder / "README.md"
    text = path.read_text() if path.is_file() else ""
    if BEGIN not in text or END not in text:
        raise CheckpointError(f"{path} has no place for figures ({BEGIN} ... {END})")
    rows = [f"| {k} | {v:.4g} |" if isinstance(v, float) else f"| {k} | {v} |" for k, v in figures.items()]
    table = "\n".join([f"`{command}`", "", "| figure | value |", "|---|---|", *rows, "", MEANING])
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    write_text(path, f"{before}{BEGIN}\n{table}\n{END}{after}")


def record_metrics(folder: Path, part: str, figures: dict) -> dict:
    """Put figures of a part of the data into the configuration too; the configuration."""
    config = read_config(folder)
    config.setdefault("measured", {})[part] = figures
    write_config(folder, config)
    return config
