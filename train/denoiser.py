"""Train the evidence network on a mixture of noise processes.

    python -m train.denoiser --config train/configs/digits.yaml --data-root DATA --minutes 150 [--resume]

A configuration may choose losses by process, for example `losses: {d3pm-uniform: hybrid, dirichlet: cross-entropy}`;
the bound is what is minimised otherwise. `hybrid: 0.1` is the lambda of hybrid losses, L_vb + lambda CE; 1 otherwise.

Several processes: torchrun --nproc-per-node 2 -m train.denoiser ... (or accelerate launch). Every random number of a
step is a function of (seed, step, rank), so a resumed run continues exactly as an uninterrupted one would.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

from dd import checkpoints
from dd.checkpoints import Checkpoint
from dd.data import Labelled, batch_at, load, some, to_cells
from dd.device import autocast, best_device
from dd.likelihood import estimate_bound, network_denoiser, training_loss
from dd.looks import Decoded, GreyLevels
from dd.networks.unet import Block, UNet
from dd.processes import EVERY, Process, make_process
from dd.render import tile, to_image
from dd.samplers import Denoiser, generate
from train.codes import load_codes, load_grids
from train.loop import Loop, add_arguments, sentences
from train.optimiser import MuonAdamW
from train.pictures import files_of, greys
from train.state import Ema, cosine_rate, first_alone, step_generator, worker_count

PUBLIC = ("name", "architecture", "network", "data", "mixture", "temperature", "tilt", "schedule")


def mixture_loss(
    network: torch.nn.Module,
    parts: list[tuple[Process, int]],
    x0: Tensor,
    label: Tensor | None,
    generator: torch.Generator,
    device: torch.device,
    kinds: dict[str, str] | None = None,
    lam: float = 1.0,
) -> tuple[Tensor, dict[str, float]]:
    """Mean loss per image, the batch dealt out to the processes; one network call.

    kinds: of loss, by process (dd.likelihood.training_loss); a process' first, where nothing else is said: the bound's
    Monte-Carlo estimate in nats, the DDPM's L_simple. lam: of the cross-entropy in hybrid losses.
    """
    kinds = kinds or {}
    evidence, pieces = [], []
    for (process, count), x0_part in zip(parts, x0.split([count for _, count in parts]), strict=True):
        t, weight = process.times(count, generator)
        x_t = process.perturb(x0_part, t, generator)
        evidence.append(process.evidence(x_t, t))
        pieces.append((process, x0_part, x_t, t, weight))
    l = torch.cat(evidence)
    with autocast(device):
        f = network(l.to(device), None if label is None else label.to(device)).float().cpu()
    counts, losses, report = [count for _, count in parts], [], {}
    answers = zip(f.split(counts), l.split(counts), strict=True)
    for (process, x0_part, x_t, t, weight), (f_part, l_part) in zip(pieces, answers, strict=True):
        logits = process.logits(f_part, l_part)
        kind = kinds.get(process.name, process.losses[0])
        loss = training_loss(process, kind, logits, x0_part, x_t, t, weight, lam).float()
        losses.append(loss)
        report[process.name] = float(loss.detach().mean())
    return torch.cat(losses).mean(), report


class Trainer:
    """Network, optimiser and average of a run.

    parts: the processes with their shares of a worker's batch; world: how many workers there are.
    """

    def __init__(self, config: dict, parts: list[tuple[Process, int]], device: torch.device, world: int):
        self.config, self.parts, self.device = config, parts, device
        torch.manual_seed(config["seed"])
        self.network = checkpoints.build(config).to(device, memory_format=torch.channels_last)
        self.model = torch.nn.parallel.DistributedDataParallel(self.network) if world > 1 else self.network
        self.optimiser = MuonAdamW(self.network, config["rate"], config["weight_decay"])
        self.ema = Ema(self.network, config["ema"])
        self.after: dict | None = None  # how the network was trained that this one began from

    def begin_from(self, other: Checkpoint) -> None:
        copy_matching(self.network, other.network)
        self.ema = Ema(self.network, self.config["ema"])
        self.after = other.config.get("trained", {}) | {"sha256": other.sha256}

    def step(self, x0: Tensor, label: Tensor | None, progress: float, generator: torch.Generator) -> dict:
        """One step on categories (B, H, W) and labels (B,); what is to be logged of it."""
        rate = cosine_rate(self.config["rate"], progress)
        self.optimiser.set_rate(rate)
        kinds, lam = self.config.get("losses"), self.config.get("hybrid", 1.0)
        loss, report = mixture_loss(self.model, self.parts, x0, label, generator, self.device, kinds, lam)
        self.optimiser.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config["clip"])
        self.optimiser.step()
        self.ema.update(self.network)
        return {"loss": loss.detach(), "norm": norm, "rate": rate} | report

    def averaged(self) -> torch.nn.Module:
        """The network with the averaged weights."""
        network = checkpoints.build(self.config).to(self.device).eval()
        network.load_state_dict(self.ema.shadow)
        return network

    def state_dict(self) -> dict:
        return {
            "network": self.network.state_dict(), "optimiser": self.optimiser.state_dict(),
            "ema": self.ema.shadow, "ema_n": self.ema.n, "after": self.after,
        }  # fmt: skip

    def load_state_dict(self, state: dict) -> None:
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.ema.load(state["ema"], state["ema_n"])
        self.after = state["after"]


@sentences()
def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    config = yaml.safe_load(Path(args.config).read_text())
    if args.seed is not None:
        config["seed"] = args.seed
    if args.mixture:
        config["mixture"] = args.mixture
        config["batch"] = sum(args.mixture.values())
    rank, world = worker_count()
    device = args.device or best_device()
    K, how = config["data"]["K"], config["data"]["cells"]
    with first_alone():
        data, held_out, look = load_data(config, args)
    H, W = data.images.shape[1:]
    trainer = Trainer(config, dealt_out(config, H * W, world), device, world)
    if args.init:
        trainer.begin_from(checkpoints.load(args.init))
    loop = Loop(args, config, rank, trainer.load_state_dict)

    def step(n: int, progress: float) -> dict:
        generator = step_generator(config["seed"], n, rank)
        images, labels = batch_at(data, config["batch"], config["seed"], n, rank, world)
        x0 = to_cells(images, K, how, generator)
        return trainer.step(x0, drop_labels(labels, config, generator), progress, generator)

    def evaluate() -> dict:
        """Held-out bounds, always of the same images; samples and checkpoint are written."""
        averaged, generator = trainer.averaged(), torch.Generator().manual_seed(1)
        x0 = to_cells(some(held_out.images, args.held_out), K, how, generator)
        bounds = {p.name: held_out_loss(averaged, p, x0, generator, device) for p, _ in trainer.parts}
        classes = checkpoints.classes(config)
        labels = torch.arange(40) % classes if classes else None
        x = generate(trainer.parts[0][0], Denoiser(averaged, labels), (40, H, W), steps=64, generator=generator)
        picture = tile(torch.from_numpy(look.of_cells(x)) / 254, columns=10)
        to_image(picture, scale=2).save(loop.out / f"samples-{loop.budget.step:06d}.png")
        trained = {"seed": config["seed"], "steps": loop.budget.step, "minutes": loop.minutes, "after": trainer.after}
        checkpoints.save(loop.out / "checkpoint", trainer.ema.shadow, public_config(config) | {"trained": trained})
        return bounds

    trainer.network.train()
    loop.run(step, evaluate, trainer.state_dict)


def load_data(config: dict, args: argparse.Namespace) -> tuple[Labelled, Labelled, GreyLevels | Decoded]:
    """Training and held-out images, and how their categories look; classes that folders name go into the config."""
    data, splits = config["data"], ("train", "held-out")
    if data["source"] == "codes":
        return *(load_grids(args.codes, split) for split in splits), code_look(config, args.codes)
    if data["source"] == "folder":
        files, size = [files_of(Path(args.data_root) / data["folder"], s, data) for s in splits], data["grid"][0]
        train, data["labels"] = greys(files[0], size, data.get("mirror", False))
        if len(data["labels"]) != (classes := checkpoints.classes(config)) != 0:
            raise ValueError(f"the classes {data['labels']} are not the {classes} of the network")
        return train, greys(files[1], size)[0], GreyLevels(data["K"])
    return *(load(data["source"], split, args.data_root) for split in splits), GreyLevels(data["K"])


def dealt_out(config: dict, cells: int, world: int) -> list[tuple[Process, int]]:
    """The processes of the mixture and how many images of a batch each of `world` workers gives to them."""
    mixture, K = config["mixture"], config["data"]["K"]
    if sum(mixture.values()) != config["batch"]:
        raise ValueError(f"the mixture {mixture} does not add up to the batch of {config['batch']}")
    if any(count % world for count in mixture.values()):
        raise ValueError(f"the mixture {mixture} cannot be dealt out evenly to {world} workers")
    parts = [(make_process(name, K, cells), count // world) for name, count in mixture.items()]
    for process, _ in parts:
        if (kind := config.get("losses", {}).get(process.name, process.losses[0])) not in process.losses:
            raise ValueError(f"{process.name} has no loss {kind!r}; choose one of {', '.join(process.losses)}")
    return parts


def code_look(config: dict, path: str) -> Decoded:
    """How codes look, by the VQ-VAE that made them; what a user of the prior must know of it goes into the config."""
    vqvae, codes = checkpoints.load(config["data"]["vqvae"]), load_codes(path)
    if vqvae.sha256 != codes.sha256:
        raise ValueError(f"{path} was made by other weights than those of {config['data']['vqvae']}; make it again")
    config["data"] |= {"vqvae": vqvae.name, "vqvae_sha256": vqvae.sha256, "grid": list(codes.codes.shape[1:])}
    config["data"] |= {"labels": codes.names}
    return Decoded(vqvae.network)


@torch.no_grad()
def held_out_loss(
    network: torch.nn.Module, process: Process, x0: Tensor, generator: torch.Generator, device: torch.device
) -> float:
    """The bound, nats per image, without labels; for a process that has none, the loss."""
    if "bound" in process.losses:
        return estimate_bound(process, network_denoiser(network), x0, None, 1, generator).mean
    parts = [float(mixture_loss(network, [(process, len(x))], x, None, generator, device)[0]) for x in x0.split(100)]
    return sum(parts) / len(parts)


def drop_labels(labels: Tensor, config: dict, generator: torch.Generator) -> Tensor | None:
    """Replace a share of the labels by "any", for guidance and for the unconditional bound."""
    classes = checkpoints.classes(config)
    if not classes:
        return None
    dropped = torch.rand(len(labels), generator=generator) < config["drop_label"]
    return torch.where(dropped, classes, labels)


def copy_matching(network: torch.nn.Module, other: torch.nn.Module) -> None:
    """Start from another network's weights wherever names and shapes agree.

    A network without classes starts as the other one's label "any"; one with more blocks computes what the other one
    does, for a new block is the identity.
    """
    ours = network.state_dict()
    theirs = unconditional_state(other) if other.classes and not network.classes else other.state_dict()
    theirs = renamed_state(theirs, other, network)
    same = {k: v for k, v in theirs.items() if k in ours and v.shape == ours[k].shape}
    network.load_state_dict(ours | same)
    print(f"--init: {len(same)} of {len(ours)} tensors taken over", flush=True)


@torch.no_grad()
def unconditional_state(network: UNet) -> dict[str, Tensor]:
    """The weights without classes that compute what `network` computes for the label "any".

    h (1 + scale) + shift of a constant embedding is folded into the weight and bias of the norm before it.
    """
    state = network.state_dict()
    emb = F.silu(network.label.weight[network.classes])
    for name, block in network.named_modules():
        if isinstance(block, Block):
            scale, shift = block.film(emb).chunk(2)
            state[f"{name}.norm2.weight"] = block.norm2.weight * (1 + scale)
            state[f"{name}.norm2.bias"] = block.norm2.bias * (1 + scale) + shift
    return {k: v for k, v in state.items() if ".film." not in k and not k.startswith("label.")}


def renamed_state(state: dict[str, Tensor], theirs: UNet, ours: UNet) -> dict[str, Tensor]:
    """`theirs`' weights under `ours`' names: the way to the finer level comes after a stage's blocks, however many."""
    names = {
        f"up.{i}.{len(old) - 2}.": f"up.{i}.{len(new) - 2}."
        for i, (old, new) in enumerate(zip(theirs.up[:-1], ours.up[:-1], strict=False))
    }
    return {next((to + k[len(of) :] for of, to in names.items() if k.startswith(of)), k): v for k, v in state.items()}


def public_config(config: dict) -> dict:
    """What a user of the weights needs: architecture, data, mixture, and what was chosen for its samples."""
    return {k: config[k] for k in PUBLIC if k in config}


class Mixture(argparse.Action):
    """PROCESS=IMAGES ... as a mapping."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        mixture = {}
        for name, _, count in (value.partition("=") for value in values):
            if name not in EVERY or not count.isdigit() or not int(count):
                parser.error(f"{option_string} takes PROCESS=IMAGES with one of {', '.join(EVERY)}, not {name}={count}")
            mixture[name] = int(count)
        setattr(namespace, self.dest, mixture)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the evidence network on a mixture of noise processes.")
    parser.add_argument("--config", required=True, help="YAML file, see train/configs")
    parser.add_argument("--data-root", default="data", help="where torchvision finds or puts the data")
    parser.add_argument("--codes", default="codes.safetensors", help="for configs of codes: the file of train.codes")
    parser.add_argument(
        "--mixture", nargs="+", action=Mixture, metavar="PROCESS=IMAGES",
        help="of a batch, instead of the configuration's: dirichlet=64 trains for one process alone",
    )  # fmt: skip
    parser.add_argument("--init", help="checkpoint to start from, with a fresh optimiser")
    parser.add_argument("--seed", type=int, help="instead of the configuration's")
    parser.add_argument("--held-out", type=int, default=500, help="held-out images per evaluation")
    add_arguments(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
