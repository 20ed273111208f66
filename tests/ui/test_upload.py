"""Pictures that visitors are given."""

import threading
from pathlib import Path

import numpy as np
from PIL import Image

from dd.ui.upload import png
from tests.test_images import picture


def test_a_picture_handed_out_again_is_never_seen_half_written(monkeypatch, tmp_path):
    """One visitor reads the file over and over while others are given the same picture."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    image = picture(size=(300, 200))
    path = Path(png(image))
    assert path.is_relative_to(tmp_path)
    with Image.open(path) as opened:
        assert np.array_equal(opened, image)
    size, seen, stop = path.stat().st_size, set(), threading.Event()

    def read() -> None:
        while not stop.is_set():
            try:
                seen.add(len(path.read_bytes()))
            except OSError as error:
                seen.add(repr(error))

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(200):
        assert png(image) == str(path)
    stop.set()
    reader.join()
    assert seen == {size}
    assert [file.name for file in path.parent.iterdir()] == ["picture.png"]
