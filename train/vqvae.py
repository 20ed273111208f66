"""Train a VQ-VAE: L1 + LPIPS, later a hinge GAN with adaptive weight, and optionally a price on unpredictable codes.

    python -m train.vqvae --config train/configs/photos-vqvae.yaml --data-root DATA --minutes 180 [--resume]

    L = |x_hat - x|_1 + w_lpips LPIPS + w_gan lambda G + w_commit |z - e_k|^2 + w_price R,
    lambda = |dL_rec/dx_hat| / |dG/dx_hat|,   L_rec the first two terms,   G = -E D(x_hat) once progress >= gan_start,
    R = - sum_k softmax(-|z - e_k|^2 / T) log p(k | codes above and to the left)   nats a code.

R is entropy-constrained quantisation (Chou, Lookabaugh & Gray 1989) with a context: codes that a small causal network
cannot foresee cost, so the encoder learns ones that a prior can learn. With `learn: decoder` in the configuration
encoder and codebook stay as --init has them, so that a prior of its codes stays valid once its config.json names the
new file (vqvae_sha256). lambda is Esser et al.'s (2021) but taken at the picture: see docs/decisions.md. Several
processes (torchrun, accelerate launch) average their gradients and see each other's latents, so that their codebooks
stay one. Every random number of a step is a function of (seed, step, rank): a resumed run continues exactly.
"""

import argparse
from pathlib import Path

import torch
import yaml
from PIL import Image
from torch import Tensor, nn

from dd import checkpoints, perceptual
from dd.device import autocast, best_device, device_name
from dd.images import to_picture
from dd.networks.discriminator import PatchDiscriminator, adaptive_weight, discriminator_loss, generator_loss
from dd.networks.vqvae import CausalContext, Coded, VqVae
from train.cards import vqvae_card
from train.evaluate_vqvae import measure
from train.loop import Loop, add_arguments, sentences
from train.pictures import Pictures, load_split, readable
from train.state import Ema, average_gradients, cosine_rate, gathered, step_generator, worker_count

RAMP = 0.05  # of the run, over which the weight of the price grows
GAN_RAMP = 0.3  # of the run: so long the critic learns by itself before gan_start, and so long its weight grows after


class Trainer:
    """Networks, optimisers and one step; everything that has to survive an interruption is in `state_dict`."""

    def __init__(self, config: dict, device: torch.device):
        self.config, self.w, self.device = config, config["losses"], device
        torch.manual_seed(config["seed"])
        self.network = checkpoints.build(config).to(device, memory_format=torch.channels_last)
        d, colours = self.network.d, self.network.colours
        self.context = CausalContext(self.network.K, d).to(device)
        self.discriminator = PatchDiscriminator(colours).to(device, memory_format=torch.channels_last)
        self.decoder_only = config.get("learn") == "decoder"
        self.network.encoder.requires_grad_(not self.decoder_only)
        whole = [*self.network.parameters(), *self.context.parameters()]
        learnt = self.network.decoder.parameters() if self.decoder_only else whole
        self.optimiser = torch.optim.AdamW(learnt, config["rate"], (0.9, 0.99), weight_decay=0.0, fused=True)
        self.critic_optimiser = torch.optim.AdamW(
            self.discriminator.parameters(), config["critic_rate"], (0.5, 0.9), weight_decay=0.0, fused=True
        )
        self.ema = Ema(self.network, config["ema"])

    def parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        return {
            "network": self.network, "context": self.context, "discriminator": self.discriminator,
            "optimiser": self.optimiser, "critic_optimiser": self.critic_optimiser,
        }  # fmt: skip

    def state_dict(self) -> dict:
        state = {name: part.state_dict() for name, part in self.parts().items()}
        return state | {"ema": self.ema.shadow, "ema_n": self.ema.n}

    def load_state_dict(self, state: dict) -> None:
        for name, part in self.parts().items():
            part.load_state_dict(state[name])
        self.ema.load(state["ema"], state["ema_n"])

    def step(self, x: Tensor, progress: float, generator: torch.Generator) -> dict[str, float]:
        """One update of all networks on this worker's images x (B, c, H, W); the report of what each loss was.

        generator: the same in every worker, so that all revive the same codes at the same places.
        """
        w = self.w
        for group in self.optimiser.param_groups:
            group["lr"] = cosine_rate(self.config["rate"], progress)
        with autocast(self.device):
            coded = self.network(x)
            price = self.price(coded) if w["price"] else coded.z.new_zeros(())
        report = self.critic_step(x, coded.x_hat.detach()) if w["gan"] and progress >= w["gan_start"] - GAN_RAMP else {}
        gradient, image_report = self.image_gradient(x, coded.x_hat, progress)
        commit = (coded.z - self.network.quantiser.codebook[coded.codes].movedim(-1, 1)).square().sum(1).mean()
        latent_loss = w["commit"] * commit + w["price"] * ramp(progress, w["price_start"]) * price
        self.optimiser.zero_grad()
        roots = [(coded.x_hat, gradient)] + [(latent_loss, None)] * (not self.decoder_only)
        torch.autograd.backward(*zip(*roots, strict=True))
        average_gradients([*self.network.parameters(), *self.context.parameters()])
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.config["clip"])
        self.optimiser.step()
        report = image_report | report | {"commit": commit, "price_nats": price, "norm": norm}
        report |= {} if self.decoder_only else self.codebook_step(coded, progress, generator)
        self.ema.update(self.network)
        return {k: v.item() if isinstance(v, Tensor) else v for k, v in report.items()}

    def codebook_step(self, coded: Coded, progress: float, generator: torch.Generator) -> dict[str, Tensor | int]:
        """The codebook follows the latents of all workers."""
        revive = self.w["revive"] if progress < 0.8 else 0.0
        rows, codes = gathered(coded.z.detach().movedim(1, -1).flatten(0, 2)), gathered(coded.codes.flatten())
        revived = self.network.quantiser.update(rows, codes, self.w["decay"], revive, generator)
        alive = (self.network.quantiser.counts > 0.1 * len(rows) / self.network.K).float().mean()
        return {"revived": revived, "alive": alive}

    def image_gradient(self, x: Tensor, x_hat: Tensor, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """dL/dx_hat of the losses on the image, with the GAN's share weighed against that of the others."""
        w, y = self.w, x_hat.detach().requires_grad_()
        l1 = (y - x).abs().mean()
        with autocast(self.device):
            distance = perceptual.lpips_distance(y, x).mean() if w["lpips"] else y.new_zeros(())
        (g_rec,) = torch.autograd.grad(w["l1"] * l1 + w["lpips"] * distance, y)
        report = {"l1": l1, "lpips": distance}
        weight = w["gan"] * ramp(progress, w["gan_start"], GAN_RAMP)
        if not weight:
            return g_rec, report
        with autocast(self.device):
            gan = generator_loss(self.discriminator(y))
        (g_gan,) = torch.autograd.grad(gan, y)
        adaptive = adaptive_weight(g_rec, g_gan)
        return g_rec + weight * adaptive * g_gan, report | {"gan": gan, "adaptive": adaptive, "gan_weight": weight}

    def critic_step(self, x: Tensor, x_hat: Tensor) -> dict[str, Tensor]:
        """One update of the discriminator on real and rebuilt images."""
        with autocast(self.device):
            real, rebuilt = self.discriminator(torch.cat([x, x_hat])).chunk(2)
        loss = discriminator_loss(real, rebuilt)
        self.critic_optimiser.zero_grad()
        loss.backward()
        average_gradients(self.discriminator.parameters())
        self.critic_optimiser.step()
        return {"critic": loss, "score_real": real.mean(), "score_rebuilt": rebuilt.mean()}

    def price(self, coded: Coded) -> Tensor:
        """R: what a soft assignment costs under the causal context, nats a code."""
        log_p = self.context(coded.z_q)
        similarity = torch.einsum("bdhw,kd->bkhw", coded.z, self.network.quantiser.codebook).float()
        q = torch.softmax(2 * similarity / self.w["temperature"], 1)
        return -(q * log_p).sum(1).mean()


def ramp(progress: float, start: float, length: float = RAMP) -> float:
    """0 before `start`, then linearly up to 1 within `length`."""
    return min(1.0, max(0.0, (progress - start) / length))


@sentences()
def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    config = configure(args)
    rank, world = worker_count()
    if config["batch"] % world:
        raise ValueError(f"a batch of {config['batch']} cannot be dealt out evenly to {world} workers")
    if config.get("learn") == "decoder" and not args.init:
        raise ValueError(
            f"{args.config} trains a decoder for given codes: give their checkpoint with --init, to --resume too"
        )
    device = args.device or best_device()
    data, colours = config["data"], config["network"]["colours"]
    files = load_split(data if args.folder is None else data | {"folder": args.folder}, args.data_root)
    pictures, held_out = Pictures(files.train, colours), readable(files.held_out[: args.held_out], colours)
    print(f"{len(files.train)} pictures to learn from, {len(files.held_out)} held out", flush=True)

    trainer = Trainer(config, device)
    if args.init:
        trainer.network.load_state_dict(checkpoints.load(args.init).network.state_dict())
        trainer.ema = Ema(trainer.network, config["ema"])
    loop = Loop(args, config, rank, trainer.load_state_dict)

    def step(n: int, progress: float) -> dict:
        mine, shared = (step_generator(config["seed"], n, r) for r in (rank + 1, 0))
        x = pictures.batch(config["batch"] // world, data["crop"], data["smallest"], mine)
        x = x.to(device, memory_format=torch.channels_last)  # a fifth faster than planes, on CPUs with bf16
        return trainer.step(x, progress, shared)

    def evaluate() -> dict:
        """Figures of held-out pictures; the checkpoint and some rebuilt pictures are written."""
        trained = {"pictures": len(pictures), "seed": config["seed"]}
        trained |= {"steps": loop.budget.step, "minutes": loop.minutes, "device": device_name(device)}
        export(loop.out / "checkpoint", trainer.ema.shadow, config | {"trained": trained}, command(args))
        if not len(held_out):
            return {}
        averaged = checkpoints.load(loop.out / "checkpoint", device).network
        sheet(averaged, held_out, data["size"]).save(loop.out / f"rebuilt-{loop.budget.step:06d}.png")
        return measure(averaged, held_out, data["size"])

    loop.run(step, evaluate, trainer.state_dict)


def configure(args: argparse.Namespace) -> dict:
    """The configuration file with the command line's changes."""
    config = yaml.safe_load(Path(args.config).read_text())
    if args.seed is not None:
        config["seed"] = args.seed
    if args.folder is not None:
        config["data"] |= {"source": "folder", "folder": Path(args.folder).name}  # where it is stays on this machine
        config["card"] = {
            "data": f"the pictures of a folder of the user's own ({Path(args.folder).name})",
            "terms": "not stated",
        }
    if args.celeba:
        config["data"] |= {"source": "celeba"}
        config["card"] = {"data": "CelebA (Liu et al. 2015)", "terms": "non-commercial research use"}
    for name in args.without:
        config["losses"][name] = 0.0
    return config


def export(folder: Path, state: dict[str, Tensor], config: dict, command_line: str) -> None:
    """Weights, configuration and a model card that claims nothing that was not measured."""
    public = {k: config[k] for k in ("name", "architecture", "network", "data", "losses", "trained")}
    checkpoints.save(folder, state, public)
    checkpoints.write_text(folder / "README.md", vqvae_card(config, command_line))


def command(args: argparse.Namespace) -> str:
    """The command of this run, without the folders of the machine it ran on."""
    budget = f"--minutes {args.minutes:g}" if args.minutes is not None else f"--steps {args.steps}"
    parts = [f"python -m train.vqvae --config train/configs/{Path(args.config).name} --data-root DATA {budget}"]
    parts += [f"--without {' '.join(args.without)}"] if args.without else []
    parts += ["--celeba"] if args.celeba else [f"--folder {Path(args.folder).name}"] if args.folder else []
    parts += ["--init CHECKPOINT"] if args.init else []
    return " ".join([*parts, f"--seed {args.seed}"] if args.seed is not None else parts)


@torch.inference_mode()
def sheet(network: VqVae, pictures: Pictures, size: int, n: int = 8) -> Image.Image:
    """Originals above, rebuilt pictures below, as one image."""
    x = pictures.whole(range(min(n, len(pictures))), size)
    x_hat = network.reconstruct(x.to(next(network.parameters()).device))[0].cpu()
    return to_picture(torch.cat([torch.cat(list(row), -1) for row in (x, x_hat)], -2))


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a VQ-VAE on a folder of pictures or CelebA.")
    parser.add_argument("--config", required=True, help="YAML file, see train/configs")
    parser.add_argument("--data-root", default="data", help="what the configuration's folder is relative to")
    parser.add_argument("--folder", help="pictures of your own, instead of the configuration's folder")
    parser.add_argument("--celeba", action="store_true", help="torchvision's CelebA in --data-root instead")
    parser.add_argument(
        "--without", nargs="*", default=[], choices=("lpips", "gan", "price"), help="losses to leave out"
    )
    parser.add_argument("--init", help="checkpoint to start from, with a fresh optimiser")
    parser.add_argument("--seed", type=int, help="instead of the configuration's")
    parser.add_argument("--held-out", type=int, default=100, help="held-out pictures per evaluation, at most")
    add_arguments(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
