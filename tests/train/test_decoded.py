"""Denoisers of codes, judged by what their samples decode to: on tiny networks and small pictures made here."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dd import checkpoints, perceptual
from dd.metrics import frechet_distance
from tests.tiny import write_faces, write_vqvae
from train import decoded, evaluate, neighbours
from train.pictures import Pictures, find, is_held_out

needs_weights = pytest.mark.skipif(
    not perceptual.weights_path().is_file(), reason="SqueezeNet weights are not in torch's hub folder (set TORCH_HOME)"
)
N = 12


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Checkpoints `faces` and `faces-vqvae`, and pictures/{neutral,smiling}/*.png."""
    root = tmp_path_factory.mktemp("decoded")
    write_faces(root)
    generator = np.random.default_rng(0)
    for i in range(40):
        path = root / "pictures" / ("neutral", "smiling")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (8, 8), np.uint8)).resize((32, 32)).save(path)
    return root


def run(root: Path, capsys: pytest.CaptureFixture, *more: str) -> dict:
    argv = [str(root / "faces"), "--data", str(root / "pictures"), "--steps", "2", "--images", str(N)]
    evaluate.main([*argv, "--device", "cpu", "--json", *more])
    return json.loads(capsys.readouterr().out)


@needs_weights
def test_samples_are_judged_by_what_they_decode_to(root: Path, capsys: pytest.CaptureFixture):
    record = run(root, capsys, "--metrics", "fid,time")
    checkpoint = evaluate.load_denoiser(root / "faces", torch.device("cpu"))
    vqvae = checkpoints.load(root / "faces-vqvae").network
    process_ = evaluate.find_process("dirichlet", checkpoint.config)
    labels = decoded.gallery(vqvae, root / "pictures", 32, N, ["neutral", "smiling"]).labels
    cells = evaluate.sample(checkpoint, process_, "dirichlet", 2, N, 0, labels=labels)
    assert cells.cells.shape == (N, 8, 8)
    pictures = (vqvae.decode(cells.cells).clamp(0, 1) * 255).round() / 255
    real = perceptual.features(Pictures(find(root / "pictures"), 1).whole(range(40), 32))
    assert record["fid"] == pytest.approx(frechet_distance(perceptual.features(pictures), real), rel=1e-4)
    assert record["fid_ratio"] == pytest.approx(record["fid"] / record["fid_rebuilt"])
    assert record["seconds_per_image"] > 0
    assert record["accuracy"] is None
    assert (record["fid_split"], record["split"]) == ("all", None)


@needs_weights
def test_rebuilt_pictures_in_place_of_samples_have_ratio_one(root: Path):
    vqvae = checkpoints.load(root / "faces-vqvae")
    gallery = decoded.gallery(vqvae.network, root / "pictures", 32, N, ["neutral", "smiling"])
    assert decoded.gallery(vqvae.network, root / "pictures", 32, N, ["one", "other"]).labels is None
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))[:N]
    known = decoded.encode_split(vqvae, 32, "test", root / "pictures")
    grids = known.images
    assert torch.equal(gallery.labels, known.labels[order])
    assert decoded.compare(vqvae.network, grids[order], gallery)["fid_ratio"] == pytest.approx(1.0, rel=1e-4)
    assert gallery.fid_rebuilt > 0
    assert len(gallery.real) == 40


def test_the_bound_is_that_of_the_pictures_kept_apart_by_their_names(root: Path, capsys: pytest.CaptureFixture):
    vqvae = checkpoints.load(root / "faces-vqvae")
    parts = [decoded.encode_split(vqvae, 32, split, root / "pictures") for split in ("train", "held-out", "test")]
    files = find(root / "pictures")
    apart = [is_held_out(path, 0.3) for path in files]
    assert [len(part.images) for part in parts] == [40 - sum(apart), sum(apart), 40]
    assert torch.equal(parts[1].images, parts[2].images[apart])
    assert parts[1].labels.tolist() == [int(p.parent.name == "smiling") for p, a in zip(files, apart, strict=True) if a]
    images = ("--images", "5", "--metrics", "nll")
    record = run(root, capsys, *images)
    assert record["bits_per_dim"] == pytest.approx(record["nll_nats"] / 64 / np.log(2))
    assert (record["fid_split"], record["split"]) == (None, "held-out")
    assert run(root, capsys, *images, "--split", "test")["nll_nats"] != record["nll_nats"]


def test_a_test_folder_is_the_test_split_and_a_train_folder_alone_has_none(root: Path, tmp_path: Path):
    vqvae = checkpoints.load(root / "faces-vqvae")
    (tmp_path / "train").symlink_to(root / "pictures")
    with pytest.raises(ValueError, match="no test split"):
        decoded.encode_split(vqvae, 32, "test", tmp_path)
    (tmp_path / "test").symlink_to(root / "pictures" / "smiling")
    sizes = [len(decoded.encode_split(vqvae, 32, split, tmp_path).images) for split in ("train", "held-out", "test")]
    assert sizes[0] + sizes[1] == 40
    assert sizes[2] == 20


@needs_weights
def test_more_samples_than_pictures_are_refused(root: Path):
    with pytest.raises(ValueError, match="there are 40 pictures"):
        decoded.gallery(checkpoints.load(root / "faces-vqvae").network, root / "pictures", 32, 41)


def test_another_vqvae_and_missing_pictures_are_said(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    write_vqvae(tmp_path / "other", seed=1)
    with pytest.raises(SystemExit, match="fetch the two together"):
        run(root, capsys, "--vqvae", str(tmp_path / "other"))
    with pytest.raises(SystemExit, match="no pictures"):
        run(root, capsys, "--data", str(tmp_path))
    with pytest.raises(SystemExit, match="codes have none"):
        run(root, capsys, "--process", "d3pm-gaussian")


def test_a_copied_grid_has_everything_in_common_with_its_original():
    generator = torch.Generator().manual_seed(0)
    training = torch.randint(8, (30, 6, 6), generator=generator)
    fresh = torch.randint(8, (5, 6, 6), generator=generator)
    assert neighbours.most_in_common(fresh, training) < 0.5
    assert neighbours.most_in_common(torch.cat([fresh, training[7:8]]), training) == 1.0
    points = torch.randn(20, 3, generator=generator)
    distances, indices = neighbours.nearest(points[[4, 9]], points, 2)
    assert indices[:, 0].tolist() == [4, 9]
    assert distances[:, 0].tolist() == [0.0, 0.0]


@needs_weights
def test_neighbours_are_drawn_below_the_samples(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    out = tmp_path / "neighbours.png"
    argv = [str(root / "faces"), "--data", str(root / "pictures"), "--out", str(out), "--images", "3", "--steps", "2"]
    neighbours.main([*argv, "--json"])
    figures = json.loads(capsys.readouterr().out)
    assert 0 <= figures["codes_in_common"] < 1
    assert figures["distance"] > 0
    kept_apart = sum(is_held_out(path, 0.3) for path in find(root / "pictures"))
    assert figures["training_grids"] == 2 * (40 - kept_apart)
    with Image.open(out) as picture:
        assert picture.size == (2 * (3 * 34 - 2), 2 * (4 * 34 - 2))
