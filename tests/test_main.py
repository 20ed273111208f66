"""The command line."""

import json

from dd import __main__ as cli
from dd.recipe import Recipe

BASE = Recipe(checkpoint="tiny", steps=4, images=3)


def test_command_line_samples_and_repeats_a_recipe(tiny_root, tmp_path, capsys):
    out = [str(tmp_path / name) for name in ("a.png", "a.json", "b.png")]
    base = ["sample", str(tiny_root / "tiny"), "--steps", "4", "--images", "2", "--quiet"]
    assert cli.main([*base, "--out", out[0], "--save-recipe", out[1]]) == 0
    assert cli.main([*base, "--recipe", out[1], "--out", out[2]]) == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert cli.main([*base, "--process", "d3pm-uniform", "--out", out[2], "--save-recipe", out[1]]) == 0
    assert json.loads((tmp_path / "a.json").read_text())["lanes"][0]["method"] == "ancestral"  # its first sampler
    capsys.readouterr()
    assert cli.main([*base, "--steps", "0"]) == 2
    assert "number of steps" in capsys.readouterr().err
    assert cli.main([*base, "--label", "²"]) == 2
    assert "The class must be a whole number from 0 to 9" in capsys.readouterr().err
    assert cli.main([*base, "--option", "stretch"]) == 2
    assert "NAME=NUMBER" in capsys.readouterr().err
    assert cli.main(["sample", str(tmp_path / "missing"), "--quiet"]) == 2
    assert "no model" in capsys.readouterr().err
    (tmp_path / "binary.json").write_bytes(bytes(range(256)))
    assert cli.main([*base, "--recipe", str(tmp_path / "binary.json")]) == 2
    assert "not a recipe" in capsys.readouterr().err
    assert cli.main([*base, "--out", "/proc/a.png"]) == 2
    assert "/proc/a.png cannot be used (No such file" in capsys.readouterr().err


def test_a_name_that_cannot_be_written_is_refused_before_the_run(tiny_root, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cli, "Run", None)  # it is not come to
    names = ["--out", str(tmp_path / "a.png"), "--gif", str(tmp_path / "a.jpg")]
    assert cli.main(["sample", str(tiny_root / "tiny"), *names]) == 2
    assert "must end in .png, .gif, .webp or .json" in capsys.readouterr().err
