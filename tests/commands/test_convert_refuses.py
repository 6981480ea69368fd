"""What `worldloom import` says when its output, its record or a number is wrong."""

from pathlib import Path

import pytest

from tests.data.foreign import d4rl_arrays, save_npz
from worldloom.commands.convert import ImportSettings, convert
from worldloom.data.convert import RECORD
from worldloom.errors import UserError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return save_npz(tmp_path / "d4rl.npz", d4rl_arrays())


@pytest.mark.parametrize("content", ["", '{"source": ', "[]", "{}"])
def test_a_damaged_record_of_the_import_is_named(source: Path, tmp_path: Path, content: str) -> None:
    convert(ImportSettings(src=source, out=tmp_path / "out"))
    (tmp_path / "out" / RECORD).write_text(content)
    with pytest.raises(UserError, match=r"meta/import\.json is damaged"):
        convert(ImportSettings(src=source, out=tmp_path / "out"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fps": 10**12}, "--fps is 1000000000000, but must be at most"),
        ({"image_size": (10**12, 64)}, "--image-size is 1000000000000"),
    ],
)
def test_a_number_too_large_to_be_meant(source: Path, tmp_path: Path, options: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        convert(ImportSettings(src=source, out=tmp_path / "out", **options))
    assert not (tmp_path / "out").exists()


def test_a_disk_that_fails_is_one_line_with_the_way_on(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "out/meta/import.json"))

    monkeypatch.setattr("worldloom.data.convert._write_record", full)
    with pytest.raises(UserError, match=r"import\.json: No space left on device.* type the same command again"):
        convert(ImportSettings(src=source, out=tmp_path / "out"))
