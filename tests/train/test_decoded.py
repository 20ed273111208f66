"""Denoisers of codes, judged by what their samples decode to: on tiny networks and small pictures made here."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from dd import checkpoints
from dd.data import load, to_cells
from dd.device import best_device
from dd.metrics import frechet_distance
from tests.tiny import FACES, write_checkpoint, write_faces, write_vqvae
from train import codes, decoded, denoiser, evaluate, folders, judges, loading, neighbours, pictures, results
from train.pictures import Pictures, find, is_held_out

needs_weights = pytest.mark.usefixtures("squeezenet")
N, CPU = 12, torch.device("cpu")


@pytest.fixture(autouse=True)
def nobody_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is shipped is no part of these tests."""
    monkeypatch.setattr(judges, "CLASSIFIERS_OF_FOLDERS", {})


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


def of_codes(root: Path) -> dict:
    """A denoiser's `data` of codes, as the functions here want it."""
    return loading.with_vqvae(root / "faces", checkpoints.read_config(root / "faces"))["data"]


def run(root: Path, capsys: pytest.CaptureFixture, *more: str) -> dict:
    argv = [str(root / "faces"), "--data", str(root / "pictures"), "--steps", "2", "--images", str(N)]
    evaluate.main([*argv, "--device", "cpu", "--json", *more])
    return json.loads(capsys.readouterr().out)


@needs_weights
def test_samples_are_judged_by_what_they_decode_to(root: Path, capsys: pytest.CaptureFixture):
    record = run(root, capsys, "--metrics", "fid,time")
    checkpoint = loading.load_denoiser(root / "faces", torch.device("cpu"))
    vqvae = checkpoints.load(root / "faces-vqvae").network
    process = loading.find_process("dirichlet", checkpoint.config)
    labels = decoded.gallery(decoded.codes(vqvae), root / "pictures", 32, N, ["neutral", "smiling"]).labels
    cells = judges.sample(checkpoint, process, "dirichlet", 2, N, 0, labels=labels)
    assert cells.cells.shape == (N, 8, 8)
    pictures = (vqvae.decode(cells.cells).clamp(0, 1) * 255).round() / 255
    real = decoded.features(Pictures(find(root / "pictures"), 1).whole(range(40), 32), CPU)
    assert record["fid"] == pytest.approx(frechet_distance(decoded.features(pictures, CPU), real), rel=1e-4)
    assert record["fid_mean"] == pytest.approx(
        float((decoded.features(pictures, CPU) - real.mean(0)).mean(0).square().sum())
    )
    assert record["fid_ratio"] == pytest.approx(record["fid"] / record["fid_rebuilt"])
    assert record["seconds_per_image"] > 0
    assert record["accuracy"] is None
    assert (record["fid_split"], record["split"]) == ("all", None)


@needs_weights
def test_rebuilt_pictures_in_place_of_samples_have_ratio_one(root: Path):
    kind = decoded.codes(checkpoints.load(root / "faces-vqvae").network)
    gallery = decoded.gallery(kind, root / "pictures", 32, N, ["neutral", "smiling"])
    assert decoded.gallery(kind, root / "pictures", 32, N, ["one", "other"]).labels is None
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))[:N]
    known = decoded.grids(of_codes(root), "test", root / "pictures", CPU)
    grids = known.images
    assert torch.equal(gallery.labels, known.labels[order])
    assert decoded.compare(kind, grids[order], gallery)["fid_ratio"] == pytest.approx(1.0, rel=1e-4)
    assert gallery.fid_rebuilt > 0
    assert len(gallery.real) == 40


def test_the_bound_is_that_of_the_pictures_kept_apart_by_their_names(root: Path, capsys: pytest.CaptureFixture):
    parts = [decoded.grids(of_codes(root), split, root / "pictures", CPU) for split in ("train", "held-out", "test")]
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
    (tmp_path / "train").symlink_to(root / "pictures")
    with pytest.raises(ValueError, match="no test split"):
        decoded.grids(of_codes(root), "test", tmp_path, CPU)
    (tmp_path / "test").symlink_to(root / "pictures" / "smiling")
    sizes = [len(decoded.grids(of_codes(root), s, tmp_path, CPU).images) for s in ("train", "held-out", "test")]
    assert sizes[0] + sizes[1] == 40
    assert sizes[2] == 20


@needs_weights
def test_more_samples_than_pictures_are_refused(root: Path):
    with pytest.raises(ValueError, match="there are 40 pictures"):
        decoded.gallery(decoded.grey_levels(16, CPU), root / "pictures", 32, 41)


def test_another_vqvae_and_missing_pictures_are_said(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    write_vqvae(tmp_path / "other", seed=1)
    with pytest.raises(SystemExit, match="fetch the two together"):
        run(root, capsys, "--vqvae", str(tmp_path / "other"))
    with pytest.raises(SystemExit, match="no pictures"):
        run(root, capsys, "--data", str(tmp_path))
    with pytest.raises(SystemExit, match="codes have none"):
        run(root, capsys, "--process", "d3pm-gaussian")


def test_what_device_is_asked_for_has_the_codes_made_there_too(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    """Beside an accelerator that keeps nothing: what is made there by mistake does not come back."""
    expected = decoded.grids(of_codes(root), "held-out", root / "pictures", CPU).images
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("meta"))
    assert torch.equal(decoded.grids(of_codes(root), "held-out", root / "pictures", CPU).images, expected)
    assert run(root, capsys, "--images", "5", "--metrics", "nll")["nll_nats"] > 0
    argv = ["--checkpoints", str(root / "faces"), "--data-root", str(root / "pictures"), "--split", "held-out"]
    argv += ["--kinds", "bound", "--processes", "dirichlet", "--bound-images", "5"]
    results.main([*argv, "--out", str(tmp_path), "--device", "cpu"])
    assert json.loads((tmp_path / "results.jsonl").read_text())["nll_nats"] > 0
    with pytest.raises(RuntimeError):  # the stand-in would be noticed
        decoded.grids(of_codes(root), "held-out", root / "pictures", best_device())


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
    assert figures["process"] == "dirichlet"
    assert 0 <= figures["cells_in_common"] < 1
    assert 0 < figures["distance_least"] < figures["distance"]
    assert 0 < figures["distance_kept_apart_least"] < figures["distance_kept_apart"]
    kept_apart = sum(is_held_out(path, 0.3) for path in find(root / "pictures"))
    assert figures["training_grids"] == 2 * (40 - kept_apart)
    assert figures["grids_kept_apart"] == 2 * kept_apart
    with Image.open(out) as picture:
        assert picture.size == (2 * (3 * 34 - 2), 2 * (4 * 34 - 2))
    neighbours.main([*argv, "--process", "d3pm-uniform", "--json"])
    others = json.loads(capsys.readouterr().out)
    assert others["process"] == "d3pm-uniform"
    assert others["distance"] != figures["distance"]
    assert others["distance_kept_apart"] == figures["distance_kept_apart"]
    for name, words in (("ddpm", "needs an noise-unet"), ("d3pm-gaussian", "codes have none"), ("fog", "fog")):
        with pytest.raises(SystemExit, match=words):
            neighbours.main([*argv, "--process", name])


def test_cells_learnt_from_and_kept_apart_are_those_of_the_training_with_their_mirror_images(root: Path):
    """Of codes and of grey levels alike; what a training of codes reads is train.codes' file."""
    known = codes.encode_folder(root / "faces-vqvae", root / "pictures", 32, mirror=True, device=CPU)
    kind = decoded.cells_of(of_codes(root), CPU)
    training, apart = neighbours.learnt_and_apart(of_codes(root), kind, root / "pictures")
    assert torch.equal(training, known.codes[~known.held_out])
    assert torch.equal(apart, known.codes[known.held_out])
    data = {"source": "folder", "held_out": 0.3, "K": 16, "cells": "levels", "grid": [16, 16]}
    levels = neighbours.learnt_and_apart(data, decoded.cells_of(data, CPU), root / "pictures")
    for cells, split in zip(levels, ("train", "held-out"), strict=True):
        images, _ = pictures.greys(pictures.files_of(root / "pictures", split, data), 16, mirror=True)
        assert torch.equal(cells, to_cells(images.images, 16, "levels", torch.Generator()))
    with pytest.raises(ValueError, match="on one side of the split"):
        neighbours.learnt_and_apart(data | {"held_out": 0.0}, decoded.cells_of(data, CPU), root / "pictures")


@needs_weights
def test_samples_of_grey_levels_have_neighbours_too(root: Path, mnist_root: Path, tmp_path: Path, capsys):
    data = {"source": "folder", "held_out": 0.3, "K": 16, "cells": "levels", "grid": [16, 16]}
    made = write_checkpoint(tmp_path / "pixels", network=FACES | {"K": 16}, data=data)
    more = ["--out", str(tmp_path / "out.png"), "--images", "3", "--steps", "2", "--device", "cpu", "--json"]
    neighbours.main([str(made), "--data", str(root / "pictures"), "--process", "d3pm-gaussian", *more])
    figures = json.loads(capsys.readouterr().out)
    assert 0 < figures["distance_least"] <= figures["distance"]
    assert 0 < figures["cells_in_common"] < 1
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.size == (2 * (3 * 18 - 2), 2 * (4 * 18 - 2))
    with pytest.raises(SystemExit, match="has not learnt from pictures in folders"):
        neighbours.main([str(write_checkpoint(tmp_path / "digits")), "--data", str(mnist_root), *more])


# -- pixels of pictures in folders, and codes of a data set that a classifier knows ------------------------------------


def test_grey_levels_show_what_they_read():
    kind = decoded.grey_levels(16, CPU)
    cells = torch.arange(16).view(1, 4, 4)
    assert torch.equal(kind.read(kind.show(cells)), cells)
    assert kind.show(cells).flatten()[[0, -1]].tolist() == [0.0, 1.0]


@needs_weights
def test_pixels_of_folders_are_trained_on_and_judged_like_codes(root: Path, tmp_path: Path, capsys):
    """Two steps of training; then the bound of the pictures kept apart, and FID in the classes of real pictures."""
    config = {
        "name": "pixels", "architecture": "evidence-unet", "network": FACES | {"K": 16},
        "data": {"source": "folder", "folder": "pictures", "held_out": 0.3, "K": 16, "cells": "levels",
                 "grid": [16, 16], "mirror": True},
        "mixture": {"dirichlet": 4, "d3pm-gaussian": 4}, "drop_label": 0.1, "batch": 8, "rate": 1e-3,
        "weight_decay": 0.0, "clip": 1.0, "ema": 0.9, "seed": 0,
    }  # fmt: skip
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    argv = ["--config", str(tmp_path / "config.yaml"), "--data-root", str(root), "--steps", "2", "--held-out", "4"]
    denoiser.main([*argv, "--out", str(tmp_path / "run"), "--device", "cpu", "--quiet"])
    capsys.readouterr()
    made = tmp_path / "run" / "checkpoint"
    assert checkpoints.read_config(made)["data"]["labels"] == ["neutral", "smiling"]
    apart = sum(is_held_out(path, 0.3) for path in find(root / "pictures"))
    evaluate.main([
        str(made), "--data", str(root / "pictures"), "--steps", "2", "--images", str(apart), "--metrics", "nll,fid",
        "--device", "cpu", "--json",
    ])  # fmt: skip
    record = json.loads(capsys.readouterr().out)
    assert 0 < record["fid_mean"] < record["fid"]
    assert 0 < record["fid_rebuilt_mean"] < record["fid_rebuilt"]
    assert record["fid_ratio"] == pytest.approx(record["fid"] / record["fid_rebuilt"])
    assert (record["fid_split"], record["split"], record["accuracy"]) == ("all", "held-out", None)
    assert record["bits_per_dim"] == pytest.approx(record["nll_nats"] / 256 / np.log(2))


@needs_weights
def test_a_classifier_of_the_folders_names_says_which_samples_are_what_was_asked_for(
    root: Path, tmp_path: Path, capsys
):
    """It sees pictures of 32 x 32 at 16 x 16, has its classes in another order, and is asked about the real ones as
    their codes show them too."""
    pixels = {"source": "folder", "K": 16, "cells": "levels", "grid": [16, 16], "labels": ["smiling", "neutral"]}
    network = {"K": 16, "classes": 2, "channels": [4, 8]}
    kind = decoded.cells_of(of_codes(root), CPU)
    gallery = decoded.gallery(kind, root / "pictures", 32, N, ["neutral", "smiling"])

    def seen(cells: torch.Tensor) -> torch.Tensor:
        smaller = torch.nn.functional.interpolate(kind.show(cells), (16, 16), mode="bicubic", antialias=True)
        return (255 * smaller.clamp(0, 1)).round()[:, 0].long() * 16 // 256

    config = {"architecture": "classifier", "network": network, "data": pixels}
    classifier = checkpoints.build(config).eval()
    with torch.no_grad():  # half of the pictures are the one, half the other
        w = torch.randn(8, generator=torch.Generator().manual_seed(0))
        middle = (classifier.features(seen(gallery.cells)) @ w).median()
        classifier.leave.weight.copy_(torch.stack([w, -w]))
        classifier.leave.bias.copy_(torch.stack([-middle, middle]))
    checkpoints.save(tmp_path / "judge", classifier.state_dict(), config)
    classifier = checkpoints.load(tmp_path / "judge").network
    record = run(root, capsys, "--metrics", "fid", "--classifier", str(tmp_path / "judge"))
    checkpoint = loading.load_denoiser(root / "faces", torch.device("cpu"))
    process = loading.find_process("dirichlet", checkpoint.config)
    made = judges.sample(checkpoint, process, "dirichlet", 2, N, 0, labels=gallery.labels).cells

    def right(cells: torch.Tensor) -> float:
        found = classifier(seen(cells)).argmax(1)
        return float((1 - found == gallery.labels).double().mean())

    assert len(classifier(seen(gallery.cells)).argmax(1).unique()) == 2
    assert record["accuracy"] != record["accuracy_rebuilt"]
    assert record["accuracy"] == pytest.approx(right(made))
    assert record["accuracy_rebuilt"] == pytest.approx(right(gallery.cells))
    with pytest.raises(SystemExit, match="not a classifier"):
        run(root, capsys, "--metrics", "fid", "--classifier", str(root / "faces"))
    write_checkpoint(
        tmp_path / "other", architecture="classifier", network=network, data=pixels | {"labels": ["cat", "dog"]}
    )
    with pytest.raises(SystemExit, match="other does not know the classes neutral, smiling"):
        run(root, capsys, "--metrics", "fid", "--classifier", str(tmp_path / "other"))


def test_mirror_images_are_learnt_from_too(root: Path):
    files = find(root / "pictures")
    (plain, names), (both, _) = pictures.greys(files, 16), pictures.greys(files, 16, mirror=True)
    assert torch.equal(both.images, torch.cat([plain.images, plain.images.flip(-1)]))
    assert [names[i] for i in both.labels[:40]] == [path.parent.name for path in files]
    assert torch.equal(both.labels[:40], both.labels[40:])


def test_codes_of_a_data_set_are_judged_by_its_classifier_without_border():
    """Codes 0 and 1 show black and white frames; classes are matched by their names."""

    def show(cells: torch.Tensor) -> torch.Tensor:
        picture = torch.zeros(len(cells), 1, 32, 32)
        picture[:, :, 2:-2, 2:-2] = cells[:, None, :1, :1].float()
        return picture

    data = {"source": "codes", "of": "mnist", "border": 2, "labels": ["7", "0"]}
    samples = judges.Samples(torch.tensor([0, 1]).view(2, 1, 1).expand(2, 8, 8), torch.tensor([0, 1]), 0.0)
    pixels = {"source": "mnist", "K": 2, "cells": "threshold"}
    seen = judges.as_pixels(samples, decoded.Cells(show, None, 1, 4, CPU), data, pixels)
    assert seen.cells.shape == (2, 28, 28)
    assert seen.cells.flatten(1).float().mean(1).tolist() == [0.0, 1.0]
    assert seen.labels.tolist() == [7, 0]


def test_codes_of_a_data_set_are_measured_with_the_data_set_itself(
    root: Path, mnist_root: Path, tmp_path: Path, capsys
):
    """One folder of data serves bound and FID, and a tilt is told; a class that the classifier lacks is said."""
    vqvae = checkpoints.load(write_vqvae(tmp_path / "codes-vqvae"))
    data = {"source": "codes", "of": "mnist", "border": 2, "K": 8, "cells": "codes", "grid": [8, 8]}
    data |= {"vqvae": vqvae.name, "vqvae_sha256": vqvae.sha256, "labels": sorted("0123456789", reverse=True)}
    network = FACES | {"classes": 10}
    made = write_checkpoint(tmp_path / "codes", network=network, data=data, temperature=0.8, tilt=0.2)
    judge = write_checkpoint(
        tmp_path / "judge", architecture="classifier", network={"K": 2, "channels": [4, 8]}
    )  # fmt: skip
    argv = ["--data-root", str(mnist_root), "--steps", "2", "--images", "8", "--device", "cpu", "--json"]
    argv += ["--classifier", str(judge)]
    evaluate.main([str(made), *argv])
    record = json.loads(capsys.readouterr().out)
    assert (record["split"], record["fid_split"], record["tilt"]) == ("held-out", "held-out", 0.2)
    assert record["fid_floor"] > 0
    assert record["fid_ratio"] == pytest.approx(record["fid"] / record["fid_rebuilt"])
    assert 0 <= record["accuracy"] <= 1
    evaluate.main([str(made), *argv, "--tilt", "0", "--metrics", "fid"])
    assert json.loads(capsys.readouterr().out)["tilt"] == 0.0
    known = decoded.grids(data | {"vqvae_folder": tmp_path / "codes-vqvae"}, "test", mnist_root, CPU)
    digits = load("mnist", "test", mnist_root)
    assert [data["labels"][i] for i in known.labels] == [str(int(i)) for i in digits.labels]
    framed = torch.zeros(1, 1, 32, 32)
    framed[0, 0, 2:-2, 2:-2] = digits.images[5] / 255
    assert torch.equal(known.images[5], vqvae.network.encode(framed)[0])
    other = write_checkpoint(tmp_path / "other", network=network, data=data | {"labels": ["ten", *"123456789"]})
    with pytest.raises(SystemExit, match="knows no class 'ten'"):
        evaluate.main([str(other), *argv, "--metrics", "fid"])


def test_a_data_set_is_written_as_folders(mnist_root: Path, tmp_path: Path):
    folders.main(["mnist", "--data-root", str(mnist_root), "--out", str(tmp_path / "out")])
    train, test = load("mnist", "train", mnist_root), load("mnist", "test", mnist_root)
    assert len(find(tmp_path / "out" / "train")) == len(train.images)
    files = sorted(find(tmp_path / "out" / "test"), key=lambda path: path.stem)
    assert [int(path.parent.name) for path in files] == test.labels.tolist()
    with Image.open(files[3]) as picture:
        assert picture.size == (32, 32)
        assert np.array_equal(np.asarray(picture)[2:-2, 2:-2], test.images[3].numpy())


def test_folders_that_do_not_suit_are_said(root: Path, tmp_path: Path):
    config = {
        "name": "pixels", "architecture": "evidence-unet", "network": FACES | {"K": 16, "classes": 3},
        "data": {"source": "folder", "folder": "pictures", "held_out": 0.3, "K": 16, "cells": "levels",
                 "grid": [16, 16]},
        "mixture": {"dirichlet": 4}, "batch": 4, "seed": 0,
    }  # fmt: skip
    argv = ["--config", str(tmp_path / "config.yaml"), "--data-root", str(root), "--steps", "2", "--quiet"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(SystemExit, match="are not the 3 of the network"):
        denoiser.main([*argv, "--out", str(tmp_path / "run")])
    config["data"]["held_out"] = 0.0
    config["network"]["classes"] = 2
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(SystemExit, match="none held out"):
        denoiser.main([*argv, "--out", str(tmp_path / "run")])
    with pytest.raises(SystemExit, match="no mnist under"):
        folders.main(["mnist", "--data-root", str(root / "faces" / "config.json"), "--out", str(tmp_path / "out")])
