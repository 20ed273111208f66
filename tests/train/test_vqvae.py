"""Training, measuring and encoding with a VQ-VAE, on small pictures made here."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from torchvision import datasets

from dd import checkpoints, perceptual
from dd.checkpoints import CheckpointError
from dd.data import DataError
from dd.images import ImageError, at_rate, open_image, to_picture, to_tensor
from tests.tiny import write_vqvae
from tests.train.workers import assert_two_workers_train_one_network
from train import cards, codes, evaluate, evaluate_vqvae, loop, pictures, vqvae
from train.pictures import Pictures, celeba, files_of, find, split

ROOT = Path(__file__).parents[2]
needs_weights = pytest.mark.usefixtures("squeezenet")
CONFIG = {
    "name": "shapes",
    "architecture": "vqvae",
    "network": {"K": 16, "colours": 3, "d": 4, "channels": [8, 8], "encoder": [0, 1], "decoder": [0, 1]},
    "data": {"source": "folder", "folder": "shapes", "held_out": 0.3, "crop": 32, "smallest": 32, "size": 32},
    "losses": {
        "l1": 1.0, "lpips": 0.0, "gan": 0.1, "gan_start": 0.5, "commit": 0.1, "price": 0.02,
        "price_start": 0.1, "temperature": 0.1, "decay": 0.9, "revive": 0.1,
    },
    "batch": 4, "rate": 2.0e-3, "critic_rate": 1.0e-3, "clip": 1.0, "ema": 0.9, "seed": 0,
    "card": {"data": "made-up shapes", "terms": "none"},
}  # fmt: skip


def shape(i: int, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """A coloured box on a coloured ground."""
    generator = np.random.default_rng(i)
    array = np.empty((*size[::-1], 3), np.uint8)
    array[:] = generator.integers(0, 256, 3)
    top, left = generator.integers(0, 20, 2)
    array[top : top + 18, left : left + 18] = generator.integers(0, 256, 3)
    return Image.fromarray(array)


@pytest.fixture
def root(tmp_path):
    """A data root with shapes/{a,b}/*.png and a configuration file beside it."""
    for i in range(24):
        path = tmp_path / "shapes" / "ab"[i % 2] / f"shape-{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        shape(i).save(path)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    return tmp_path


def arguments(root: Path, out: str, *more: str) -> list[str]:
    fixed = [
        "--config",
        str(root / "config.yaml"),
        "--data-root",
        str(root),
        "--out",
        str(root / out),
        "--device",
        "cpu",
    ]
    return [*fixed, "--quiet", "--log-every", "1", *more]


def records(root: Path, out: str) -> list[dict]:
    lines = (root / out / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def stop_after(monkeypatch, steps: int) -> None:
    """As if SIGTERM arrived after so many steps."""
    calls = iter(range(10**6))

    class Flag(loop.StopFlag):
        @property
        def raised(self):
            return next(calls) >= steps

    monkeypatch.setattr(loop, "StopFlag", Flag)


# -- training --------------------------------------------------------------------------------------------------------


@needs_weights
@pytest.mark.parametrize("lpips", [0.0, 0.5])
def test_resumed_run_equals_an_uninterrupted_one(root, monkeypatch, lpips):
    config = CONFIG | {"losses": CONFIG["losses"] | {"lpips": lpips}}
    (root / "config.yaml").write_text(yaml.safe_dump(config))
    vqvae.main(arguments(root, "whole", "--steps", "10"))
    with monkeypatch.context() as patch:
        stop_after(patch, 7)  # in the middle of the GAN's ramp
        vqvae.main(arguments(root, "parts", "--steps", "10"))
    assert not (root / "parts" / "checkpoint").exists()
    assert records(root, "parts")[-1]["step"] == 7
    vqvae.main(arguments(root, "parts", "--steps", "10", "--resume"))
    assert records(root, "parts") == records(root, "whole")
    a, b = (load_file(root / out / "checkpoint" / "model.safetensors") for out in ("whole", "parts"))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_every_loss_is_logged_and_the_gan_starts_late(root):
    vqvae.main(arguments(root, "run", "--steps", "20"))
    steps = [r for r in records(root, "run") if "l1" in r]
    assert len(steps) == 20
    assert {"l1", "lpips", "commit", "price_nats", "norm", "revived", "alive"} <= set(steps[0])
    with_gan = [r["step"] for r in steps if "gan" in r]
    with_critic = [r["step"] for r in steps if "critic" in r]
    assert with_gan == list(range(12, 21))  # progress > 0.5: the weight is zero at 0.5 itself
    assert with_critic == list(range(5, 21))
    assert all(r["adaptive"] > 0 and 0 < r["gan_weight"] <= 0.1 for r in steps if "gan" in r)
    assert all(np.isfinite(v) for r in steps for v in r.values())


def test_losses_can_be_left_out(root):
    vqvae.main(arguments(root, "run", "--steps", "12", "--without", "gan", "price"))
    steps = [r for r in records(root, "run") if "l1" in r]
    assert not any("gan" in r or "critic" in r for r in steps)
    assert all(r["price_nats"] == 0 for r in steps)
    card = (root / "run" / "checkpoint" / "README.md").read_text()
    assert "--without gan price" in card
    assert "hinge GAN" not in card


def test_a_checkpoint_does_not_say_where_its_pictures_were(root):
    (root / "elsewhere").mkdir()
    vqvae.main(
        [
            *arguments(root / "elsewhere", "run", "--steps", "1", "--folder", str(root / "shapes")),
            "--config",
            str(root / "config.yaml"),
        ]
    )
    for name in ("config.json", "README.md"):
        text = (root / "elsewhere" / "run" / "checkpoint" / name).read_text()
        assert "shapes" in text
        assert str(root) not in text


def test_training_learns(root):
    vqvae.main(arguments(root, "run", "--steps", "200", "--without", "gan", "price"))
    l1 = [r["l1"] for r in records(root, "run") if "l1" in r]
    assert np.mean(l1[-20:]) < 0.7 * np.mean(l1[:5])


def test_adaptive_weight_balances_the_gradients_at_the_picture():
    trainer = vqvae.Trainer(CONFIG | {"seed": 3}, torch.device("cpu"))
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    x_hat = trainer.network(x).x_hat
    g_rec, _ = trainer.image_gradient(x, x_hat, progress=0.0)
    g_all, report = trainer.image_gradient(x, x_hat, progress=1.0)
    assert report["gan_weight"] == 0.1
    assert float((g_all - g_rec).norm() / g_rec.norm()) == pytest.approx(0.1, rel=1e-3)


def decoder_config(root: Path, **losses: float) -> str:
    """CONFIG for the decoder alone; the path of its file."""
    path = root / "decoder.yaml"
    path.write_text(yaml.safe_dump(CONFIG | {"learn": "decoder", "losses": CONFIG["losses"] | losses}))
    return str(path)


def test_a_decoder_trained_on_alone_leaves_the_codes_bit_for_bit(trained):
    first = trained / "run" / "checkpoint"
    more = ("--init", str(first), "--steps", "12", "--config", decoder_config(trained, gan_start=0.2))
    vqvae.main(arguments(trained, "on", *more))
    second = trained / "on" / "checkpoint"
    a, b = (load_file(folder / "model.safetensors") for folder in (first, second))
    same = {name: torch.equal(a[name], b[name]) for name in a}
    assert all(same[name] for name in a if not name.startswith("decoder."))
    assert not any(same[name] for name in a if name.startswith("decoder."))
    before, after = (codes.encode_folder(folder, trained / "shapes", 32) for folder in (first, second))
    assert torch.equal(before.codes, after.codes)
    assert before.sha256 != after.sha256  # decoded they look different: a prior has to be told
    steps = [r for r in records(trained, "on") if "l1" in r]
    assert "gan" in steps[-1]
    assert "the decoder alone" in (second / "README.md").read_text()


def test_a_decoder_alone_needs_codes_to_begin_with(root):
    with pytest.raises(SystemExit, match=r"decoder\.yaml .*--init"):
        vqvae.main(arguments(root, "run", "--steps", "2", "--config", decoder_config(root)))


def test_price_makes_codes_more_predictable(root):
    entropy = {}
    for price in (0.0, 1.0):
        losses = CONFIG["losses"] | {"price": price, "gan": 0.0}
        (root / "config.yaml").write_text(yaml.safe_dump(CONFIG | {"losses": losses}))
        out = f"price-{price}"
        vqvae.main(arguments(root, out, "--steps", "150"))
        made = codes.encode_folder(root / out / "checkpoint", root / "shapes", 40)
        entropy[price] = codes.entropies(made.codes, made.codes, made.K)["left_up"]
    assert entropy[1.0] < 0.8 * entropy[0.0]


@pytest.mark.slow
def test_sigterm_saves_and_the_run_can_be_resumed(root):
    command = [sys.executable, "-m", "train.vqvae", *arguments(root, "run", "--steps", "100000")]
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}) as process:
        metrics, deadline = root / "run" / "metrics.jsonl", time.monotonic() + 300
        while time.monotonic() < deadline and not (metrics.is_file() and metrics.read_text().count("\n") > 3):
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    step = torch.load(root / "run" / "state.pt", weights_only=True)["step"]
    assert step == records(root, "run")[-1]["step"] > 3
    vqvae.main(arguments(root, "run", "--steps", str(step + 2), "--resume"))
    assert records(root, "run")[-1]["step"] == step + 2


def test_commitment_pulls_the_latents_to_their_codes_and_moves_the_encoder_alone():
    """With no other loss and a codebook at rest."""
    alone = dict.fromkeys(CONFIG["losses"], 0.0) | {
        "gan_start": 1.0,
        "price_start": 1.0,
        "temperature": 0.1,
        "decay": 1.0,
    }
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def steps(commit: float) -> tuple[vqvae.Trainer, list[dict]]:
        torch.manual_seed(0)
        trainer = vqvae.Trainer(CONFIG | {"losses": alone | {"commit": commit}}, torch.device("cpu"))
        generator = torch.Generator().manual_seed(0)
        return trainer, [trainer.step(x, 0.5, generator) for _ in range(10)]

    trainer, reports = steps(1.0)
    assert reports[-1]["commit"] < 0.7 * reports[0]["commit"]
    gradients = {name: p.grad for name, p in trainer.network.named_parameters() if p.grad is not None}
    assert any(g.abs().max() > 0 for name, g in gradients.items() if name.startswith("encoder"))
    assert all(g.abs().max() == 0 for name, g in gradients.items() if name.startswith("decoder"))
    assert all(report["norm"] == 0 for report in steps(0.0)[1])


@pytest.mark.slow
def test_two_workers_of_torchrun_keep_one_codebook(root):
    """The codebook is one of the weights."""
    assert_two_workers_train_one_network("vqvae", arguments(root, "two", "--steps", "4"), root)
    assert len(records(root, "two")) > 0


def test_resume_without_a_state_says_so(root):
    with pytest.raises(SystemExit, match=r"there is no .*state\.pt"):
        vqvae.main(arguments(root, "nothing", "--steps", "2", "--resume"))


def test_without_squeezenet_weights_a_run_without_lpips_goes_through(root, monkeypatch):
    def refuse(*_, **__):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(root / "hub"))
    monkeypatch.setattr(perceptual.urllib.request, "urlopen", refuse)
    perceptual._lpips.cache_clear()
    vqvae.main(arguments(root, "run", "--steps", "3"))
    assert records(root, "run")[-1]["held_out/lpips"] is None
    assert records(root, "run")[-1]["held_out/psnr"] > 0


def test_shipped_configurations_build():
    found = [yaml.safe_load(path.read_text()) for path in (ROOT / "train" / "configs").glob("*.yaml")]
    found = [config for config in found if config["architecture"] == "vqvae"]
    bits = {"photos-vqvae": 0.75, "faces-vqvae": 0.375, "fashion-vqvae": 1.25}
    assert {config["name"] for config in found} == set(bits)
    for config in found:
        network = checkpoints.build(config)
        assert 0.3e6 < sum(p.numel() for p in network.parameters()) < 3.1e6
        assert network.bits_per_pixel() == bits[config["name"]]
        assert set(config["losses"]) == set(CONFIG["losses"])


# -- pictures --------------------------------------------------------------------------------------------------------


def test_split_is_by_name_disjoint_and_stable():
    files = [Path(f"folder-{i % 7}") / f"picture-{i}.jpg" for i in range(2000)]
    parts = split(files, 0.1)
    assert set(parts.train) | set(parts.held_out) == set(files)
    assert not set(parts.train) & set(parts.held_out)
    assert 140 < len(parts.held_out) < 260
    moved = split([Path("elsewhere") / path.name for path in files[::2]], 0.1)
    assert {p.name for p in moved.held_out} <= {p.name for p in parts.held_out}
    assert split(files, 0.0).held_out == []


def test_find_is_recursive_sorted_and_says_when_there_is_nothing(root):
    files = find(root)
    assert len(files) == 24
    assert files == sorted(files)
    (root / "empty").mkdir()
    with pytest.raises(DataError, match="no pictures"):
        find(root / "empty")


@pytest.mark.parametrize("size", [(40, 40), (200, 90), (16, 300)])
def test_random_crops_have_the_asked_size_and_stay_inside(tmp_path, size):
    Image.new("RGB", size, (255, 255, 255)).save(tmp_path / "white.png")
    batch = Pictures(find(tmp_path), 3).batch(8, 32, 48, torch.Generator().manual_seed(0))
    assert batch.shape == (8, 3, 32, 32)
    assert float(batch.min()) == 1.0  # nothing from outside the picture


def test_crops_vary_in_scale_and_are_a_function_of_the_generator(root):
    loaded = Pictures(find(root), 3)
    a, b, c = (loaded.batch(16, 32, 32, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_cache_limit_changes_nothing(root, monkeypatch):
    expected = Pictures(find(root), 3).whole(range(24), 32)
    monkeypatch.setattr(pictures, "CACHE_BYTES", 3 * 48 * 40 * 5)
    loaded = Pictures(find(root), 3)
    assert torch.equal(loaded.whole(range(24), 32), expected)
    assert torch.equal(loaded.whole(range(24), 32), expected)
    assert len(loaded._kept) == 5


def test_a_damaged_picture_is_named(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    with pytest.raises(ImageError, match=r"broken\.jpg: .*not a picture"):
        Pictures(find(tmp_path), 3)[0]


def test_pictures_found_readable_are_decoded_once(root, monkeypatch):
    opened = []
    monkeypatch.setattr(pictures, "open_image", lambda path: opened.append(path) or open_image(path))
    files = find(root)
    files[3].write_bytes(b"not a picture")
    found = pictures.readable(files, 3)
    assert found.files == files[:3] + files[4:]
    expected = Pictures(found.files, 3).whole(range(23), 32)
    opened.clear()
    assert torch.equal(found.whole(range(23), 32), expected)
    assert torch.equal(found.some([5, 2]).whole(range(2), 32), expected[[5, 2]])
    assert not opened


def test_measuring_leaves_damaged_pictures_out_and_names_them(trained, capsys):
    folder = trained / "run" / "checkpoint"
    expected = evaluate_vqvae.evaluate(folder, trained / "shapes", 32)
    (trained / "shapes" / "a" / "broken.jpg").write_bytes(b"not a picture")
    capsys.readouterr()
    assert evaluate_vqvae.evaluate(folder, trained / "shapes", 32) == expected
    assert "broken.jpg" in capsys.readouterr().err


@pytest.fixture
def celeba_root(tmp_path):
    """CelebA's layout in miniature: every file that torchvision wants, nine colour pictures of 178 x 218."""
    base = tmp_path / "celeba"
    (base / "img_align_celeba").mkdir(parents=True)
    names = [f"{i:06d}.jpg" for i in range(1, 10)]
    for i, name in enumerate(names):
        shape(i, (178, 218)).save(base / "img_align_celeba" / name, quality=95)
    parts = [0, 0, 0, 0, 0, 1, 1, 2, 2]
    (base / "list_eval_partition.txt").write_text("".join(f"{n} {p}\n" for n, p in zip(names, parts, strict=True)))
    (base / "identity_CelebA.txt").write_text("".join(f"{n} {i}\n" for i, n in enumerate(names)))
    attributes = "".join(f"{n}  1 -1\n" for n in names)
    (base / "list_attr_celeba.txt").write_text(f"{len(names)}\nSmiling Male\n{attributes}")
    boxes = "".join(f"{n} 1 2 30 40\n" for n in names)
    (base / "list_bbox_celeba.txt").write_text(f"{len(names)}\nimage_id x_1 y_1 width height\n{boxes}")
    points = "".join(f"{n} {' '.join(['7'] * 10)}\n" for n in names)
    columns = " ".join(f"p{i}" for i in range(10))
    (base / "list_landmarks_align_celeba.txt").write_text(f"{len(names)}\n{columns}\n{points}")
    return tmp_path


def test_celeba_is_read_as_torchvision_reads_it(celeba_root, monkeypatch):
    monkeypatch.setattr(datasets.CelebA, "_check_integrity", lambda self: True)  # it wants the real files' checksums
    ours = celeba(celeba_root)
    for files, name, images in ((ours.train, "train", 5), (ours.held_out, "valid", 2), (ours.test, "test", 2)):
        theirs = datasets.CelebA(str(celeba_root), split=name)
        assert len(files) == len(theirs) == images
        for i, image in enumerate(Pictures(files, 3)):
            assert image.mode == "RGB"
            assert np.array_equal(np.asarray(image), np.asarray(theirs[i][0]))


def test_celeba_trains_in_colour(celeba_root):
    (celeba_root / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    vqvae.main(arguments(celeba_root, "run", "--steps", "3", "--celeba"))
    config = json.loads((celeba_root / "run" / "checkpoint" / "config.json").read_text())
    assert config["data"]["source"] == "celeba"
    assert config["trained"]["pictures"] == 5
    assert records(celeba_root, "run")[-1]["held_out/images"] == 2
    checkpoint = celeba_root / "run" / "checkpoint"
    assert "CelebA's own validation part" in (checkpoint / "README.md").read_text()
    for part, images in (("train", 5), ("held-out", 2), ("test", 2)):
        assert evaluate_vqvae.evaluate(checkpoint, celeba_root, 32, part)["images"] == images
    for part, names in (("train", range(1, 6)), ("held-out", (6, 7)), ("test", (8, 9))):  # of a prior over its codes
        assert [int(path.stem) for path in files_of(celeba_root, part, config["data"])] == list(names)


def test_missing_celeba_says_where_it_is_expected(tmp_path):
    with pytest.raises(DataError, match=r"no CelebA .*list_eval_partition\.txt"):
        celeba(tmp_path)


# -- measuring, cards, codes -----------------------------------------------------------------------------------------


@pytest.fixture
def trained(root):
    vqvae.main(arguments(root, "run", "--steps", "12"))
    return root


def test_figures_are_what_they_say(trained):
    folder = trained / "run" / "checkpoint"
    result = evaluate_vqvae.evaluate(folder, trained / "shapes", 32)
    network = checkpoints.load(folder).network
    x = Pictures(find(trained / "shapes"), 3).whole(range(24), 32)
    x_hat, grids = network.reconstruct(x)
    mse = ((x_hat * 255).round() / 255 - x).square().mean((1, 2, 3))
    assert result["psnr"] == pytest.approx(float((-10 * mse.log10()).mean()), abs=1e-3)
    assert result["usage"] == pytest.approx(len(grids.unique()) / 16)
    p = torch.bincount(grids.flatten(), minlength=16) / grids.numel()
    assert result["code_entropy_bits"] == pytest.approx(float(-torch.xlogy(p, p).sum() / np.log(2)), abs=1e-5)
    assert result["bits_per_pixel"] == 4 / 16
    assert result["images"] == 24
    parts = [evaluate_vqvae.evaluate(folder, trained / "shapes", 32, part)["images"] for part in ("train", "held-out")]
    assert sum(parts) == 24
    assert parts[0] == checkpoints.load(folder).config["trained"]["pictures"]


@pytest.mark.parametrize(
    ("size", "architecture", "words"), [("8", "vqvae", "SSIM needs images"), ("32", "evidence-unet", "not a VQ-VAE")]
)
def test_what_cannot_be_measured_is_said_in_a_sentence(trained, size, architecture, words):
    folder = trained / "run" / "checkpoint"
    config = json.loads((folder / "config.json").read_text()) | {"architecture": architecture}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(SystemExit, match=f"error: .*{words}"):
        evaluate_vqvae.main([str(folder), "--data", str(trained / "shapes"), "--size", size])


def test_retrieval_counts_own_originals():
    originals = torch.eye(4)
    rebuilt = originals[[0, 1, 3, 2]] * 0.9
    assert evaluate_vqvae.retrieved(originals, rebuilt) == 0.5


def test_retrieval_tells_apart_what_a_product_of_large_features_rounds_away():
    originals = 1000 + 0.01 * torch.eye(64)
    assert evaluate_vqvae.retrieved(originals, originals) == 1.0


class InSingle(torch.Tensor):
    """On a GPU without float64, as Apple's are, until it is brought to the CPU."""

    def cpu(self) -> torch.Tensor:
        return self.as_subclass(torch.Tensor)

    def double(self) -> torch.Tensor:
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype")


def test_features_are_compared_where_float64_is(trained, monkeypatch):
    monkeypatch.setattr(perceptual, "why_unavailable", lambda: None)
    monkeypatch.setattr(perceptual, "lpips_distance", lambda x, y: torch.zeros(len(x)))
    monkeypatch.setattr(perceptual, "feature_map", lambda x: x.as_subclass(InSingle))
    with pytest.raises(TypeError, match="float64"):
        perceptual.feature_map(torch.zeros(2, 3, 8, 8)).mean((2, 3)).double()
    result = evaluate_vqvae.evaluate(trained / "run" / "checkpoint", trained / "shapes", 32)
    assert result["fid"] > 0
    assert 0 <= result["retrieved_by_place"] <= 1


@needs_weights
@pytest.mark.parametrize("command", [evaluate, evaluate_vqvae])
def test_evaluate_command_prints_one_json_object(trained, capsys, command):
    folder = trained / "run" / "checkpoint"
    capsys.readouterr()
    command.main([str(folder), "--data", str(trained / "shapes"), "--size", "32", "--card", "--json"])
    result = json.loads(capsys.readouterr().out)
    assert {"psnr", "ssim", "lpips", "usage", "bits_per_pixel", "images", "fid", "retrieved"} <= set(result)
    assert 0 <= result["retrieved_by_place"] <= 1
    assert 0 < result["lpips"] < 1
    card = (folder / "README.md").read_text()
    assert f"| psnr | {result['psnr']:.4g} |" in card
    assert cards.UNMEASURED not in card
    kept = checkpoints.read_config(folder)["measured"]["all"]
    assert kept == {k: v for k, v in result.items() if k not in ("checkpoint", "part")}


def test_usual_formats_are_measured_beside_the_codes_at_no_more_than_their_rate(root, monkeypatch):
    monkeypatch.setattr(perceptual, "why_unavailable", lambda: "no weights")
    loaded, rate = pictures.readable(find(root / "shapes"), 3), 20.0
    found = evaluate_vqvae.usual_formats(loaded, 32, rate)
    squares = [to_picture(x) for x in loaded.whole(range(24), 32)]
    for name, prefix in (("JPEG", "jpeg_"), ("WEBP", "webp_")):
        rates = [at_rate(square, name, rate)[1] for square in squares]
        assert max(rates) <= rate
        assert found[prefix + "bits_per_pixel"] == pytest.approx(np.mean(rates))
        assert found[prefix + "lpips"] is None
    x, y = loaded.whole(range(24), 32), [to_tensor(at_rate(square, "WEBP", rate)[0]) for square in squares]
    psnr = perceptual.psnr(torch.cat(y), x)
    assert found["webp_psnr"] == pytest.approx(float(psnr.mean()), abs=1e-3)
    lower = evaluate_vqvae.usual_formats(loaded, 32, 1.0)
    assert lower["webp_psnr"] < found["webp_psnr"]


@pytest.mark.parametrize("colours", [1, 3])
def test_usual_formats_are_of_colour_pictures_alone(root, monkeypatch, colours):
    monkeypatch.setattr(perceptual, "why_unavailable", lambda: "no weights")
    folder = write_vqvae(root / "made", colours=colours)
    result = evaluate_vqvae.evaluate(folder, root / "shapes", 32)
    assert ("jpeg_psnr" in result) == ("webp_psnr" in result) == (colours == 3)


def test_card_claims_nothing_before_it_is_measured(trained):
    folder = trained / "run" / "checkpoint"
    card = (folder / "README.md").read_text()
    assert cards.UNMEASURED in card
    assert "made-up shapes" in card
    assert "Trained for 12 steps" in card
    device = checkpoints.read_config(folder)["trained"]["device"]
    assert f" minutes on {device}, seed 0" in card
    assert "CPU" in device
    assert "CPU" not in card.replace(device, "")
    assert str(trained) not in card
    assert str(trained) not in (folder / "config.json").read_text()
    for psnr in (20.0, 21.0):  # measured again, figures are replaced
        cards.fill_metrics(folder, {"psnr": psnr, "images": 3}, "the command")
    card = (folder / "README.md").read_text()
    assert "| psnr | 21 |" in card
    assert "| psnr | 20 |" not in card
    (folder / "README.md").write_text("something else")
    with pytest.raises(CheckpointError, match="no place for figures"):
        cards.fill_metrics(folder, {"psnr": 1.0}, "the command")


def test_codes_of_a_folder_round_trip(trained, capsys):
    folder, path = trained / "run" / "checkpoint", trained / "codes.safetensors"
    command = [str(folder), "--data", str(trained / "shapes"), "--size", "32", "--out", str(path), "--mirror", "--json"]
    capsys.readouterr()
    codes.main(command)
    printed = json.loads(capsys.readouterr().out)
    made = codes.load_codes(path)
    assert (made.codes.shape, made.K, made.names) == ((48, 8, 8), 16, ["a", "b"])
    assert printed["grids"] == 48
    files = find(trained / "shapes")
    assert made.labels[:24].tolist() == made.labels[24:].tolist() == ["ab".index(p.parent.name) for p in files]
    network = checkpoints.load(folder).network
    x = Pictures(files, 3).whole(range(24), 32)
    assert torch.equal(made.codes[:24], network.encode(x))
    assert torch.equal(made.codes[24:], network.encode(x.flip(-1)))
    assert made.sha256 == checkpoints.load(folder).sha256
    assert int((~made.held_out[:24]).sum()) == checkpoints.load(folder).config["trained"]["pictures"]


def test_entropies_of_known_laws():
    """Independent uniform codes: log K everywhere. A copy of the left code nine times out of ten: its exact entropy."""
    g, K = torch.Generator().manual_seed(0), 4
    free = torch.randint(K, (3000, 6, 6), generator=g)
    for name, value in codes.entropies(free[:2500], free[2500:], K).items():
        assert value == pytest.approx(1.0 if name == "used" else np.log(K), abs=0.01), name
    chain = free.clone()
    for j in range(1, 6):
        stay = torch.rand(3000, 6, generator=g) < 0.9
        chain[:, :, j] = torch.where(stay, chain[:, :, j - 1], free[:, :, j])
    p = torch.tensor([0.9 + 0.1 / K] + [0.1 / K] * (K - 1))
    found = codes.entropies(chain[:2500], chain[2500:], K)
    assert found["marginal"] == pytest.approx(np.log(K), abs=0.01)
    assert found["left"] == pytest.approx(float(-(p * p.log()).sum()), abs=0.01)
    assert found["left_up"] == pytest.approx(found["left"], abs=0.01)


def test_entropies_of_unseen_contexts_are_finite_upper_bounds():
    g = torch.Generator().manual_seed(0)
    train, test = torch.randint(0, 20, (3, 5, 5), generator=g), torch.randint(20, 40, (3, 5, 5), generator=g)
    assert all(np.log(40) <= v < 10 for k, v in codes.entropies(train, test, 40).items() if k != "used")


def test_causal_network_finds_what_the_counts_find():
    g, K = torch.Generator().manual_seed(0), 4
    grids = torch.randint(K, (400, 1, 1), generator=g).expand(-1, 6, 6).clone()  # constant grids
    codebook = torch.nn.functional.normalize(torch.randn(K, 4, generator=g), dim=1)
    nats = codes.fit_context(grids[:300], grids[300:], codebook, steps=40)
    assert nats < 0.25 * np.log(K)  # log K / 36 at best: only the first cell is news
