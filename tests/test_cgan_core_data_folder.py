"""Folders of pictures, with classes or a table, decoded once."""

import csv
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from cgan_core.data import DataError, DataSplits, load_data
from cgan_core.data.decoding import decode, read_header

COUNT, HEIGHT, WIDTH = 40, 6, 5
GREY = np.random.default_rng(0).integers(256, size=(COUNT, HEIGHT, WIDTH), dtype=np.uint8)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CGAN_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def save(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def flat_folder(tmp_path: Path) -> Path:
    for k, pixels in enumerate(GREY):
        save(tmp_path / "pictures" / f"{k:02}.png", pixels)
    return tmp_path / "pictures"


def class_folder(tmp_path: Path) -> Path:
    for k, pixels in enumerate(GREY):
        save(tmp_path / "animals" / ("cat", "ant", "dog")[k % 3] / f"{k:02}.png", pixels)
    return tmp_path / "animals"


def write_table(path: Path, columns: dict[str, Any]) -> Path:
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
        return path
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def columns(**changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    made = {
        "file": [f"{k:02}.png" for k in range(COUNT)],
        "age": rng.normal(40, 10, COUNT).tolist(),
        "smiling": (np.arange(COUNT) % 2).tolist(),
    }
    return made | changes


def rows_of(splits: DataSplits) -> list[list[int]]:
    """Which of the pictures each split has, in order."""
    number = {image.tobytes(): k for k, image in enumerate(GREY)}
    parts = (splits.train, splits.validation, splits.test)
    return [[number[image.tobytes()] for image in part.images] for part in parts]


def test_each_sub_folder_is_a_class_and_keeps_its_share(tmp_path: Path) -> None:
    folder = class_folder(tmp_path)
    splits = load_data(path=folder)
    assert splits.class_names == ("ant", "cat", "dog")
    assert (splits.name, splits.num_classes, splits.notice) == ("animals", 3, None)
    rows = rows_of(splits)
    assert sorted(k for part in rows for k in part) == list(range(COUNT))
    assert [len(part) for part in rows] == [28, 8, 4]
    for part, kept in zip((splits.train, splits.validation, splits.test), rows, strict=True):
        assert part.conditions is not None
        names = [splits.class_names[label] for label in part.conditions]
        assert names == [("cat", "ant", "dog")[k % 3] for k in kept]
    assert load_data(path=folder).digest == splits.digest
    assert load_data(path=folder, seed=1).digest != splits.digest
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match="empty: a class must have pictures"):
        load_data(path=folder)


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_a_table_gives_conditions_standardised_on_the_training_split(
    tmp_path: Path, ending: str
) -> None:
    folder, table = flat_folder(tmp_path), columns()
    splits = load_data(path=folder, conditions=write_table(tmp_path / f"a{ending}", table))
    assert splits.condition_names == ("age", "smiling")
    assert splits.num_classes is None
    standard, rows = splits.standardization, rows_of(splits)
    assert standard is not None
    raw = np.array([table["age"], table["smiling"]]).T
    np.testing.assert_allclose(standard.mean, raw[rows[0]].mean(0), rtol=1e-12)
    np.testing.assert_allclose(standard.scale, raw[rows[0]].std(0), rtol=1e-12)
    for part, kept in zip((splits.train, splits.validation, splits.test), rows, strict=True):
        np.testing.assert_array_equal(part.conditions, standard.apply(raw[kept]))


def test_groups_are_on_one_side_and_a_given_split_is_kept(tmp_path: Path) -> None:
    folder = flat_folder(tmp_path)
    group = [f"g{k // 4}" for k in range(COUNT)]
    table = write_table(tmp_path / "g.csv", columns(group=group))
    splits = load_data(path=folder, conditions=table)
    sides = [{group[k] for k in part} for part in rows_of(splits)]
    assert all(sides)
    assert len(set.union(*sides)) == sum(map(len, sides))
    assert splits.train.groups is not None
    assert len(np.unique(splits.train.groups)) == len(sides[0])
    split = np.repeat(["train", "validation", "test"], [24, 8, 8])
    table = write_table(tmp_path / "s.csv", columns(group=group, split=split))
    rows = rows_of(load_data(path=folder, conditions=table))
    assert [sorted(part) for part in rows] == [[*range(24)], [*range(24, 32)], [*range(32, 40)]]
    torn = np.repeat(["train", "validation", "test"], [22, 10, 8])
    table = write_table(tmp_path / "t.csv", columns(group=group, split=torn))
    with pytest.raises(DataError, match=r"t\.csv: .* group 'g5' are in several"):
        load_data(path=folder, conditions=table)


def test_pictures_that_a_table_does_not_name_are_left_out_and_said(tmp_path: Path) -> None:
    folder = flat_folder(tmp_path)
    table = write_table(tmp_path / "a.csv", {k: v[:30] for k, v in columns().items()})
    splits = load_data(path=folder, conditions=table)
    assert splits.notice == "10 pictures that the table does not name are left out."
    assert sorted(k for part in rows_of(splits) for k in part) == list(range(30))


def test_pictures_beside_each_other_have_no_conditions(tmp_path: Path) -> None:
    splits = load_data(path=flat_folder(tmp_path))
    assert (splits.train.conditions, splits.num_classes, splits.class_names) == (None, None, None)
    save(tmp_path / "pictures" / "sub" / "x.png", GREY[0])
    with pytest.raises(DataError, match=r"00\.png lies beside sub-folders"):
        load_data(path=tmp_path / "pictures")


BAD_TABLES: dict[str, tuple[dict[str, Any], str]] = {
    "text": (columns(age=["old"] * COUNT), "column age must hold finite numbers, but row 1 has"),
    "empty": (columns(age=[1.0, ""] * (COUNT // 2)), "row 2 has ''; fill or remove"),
    "infinite": (columns(age=[1.0, 1e39] * (COUNT // 2)), "row 2 has"),
    "twice": (columns(file=["00.png"] * COUNT), "'00.png' in row 2 is there twice"),
    "unknown": (columns(file=[f"{k}.png" for k in range(COUNT)]), "'0.png' in row 1 is none"),
    "no group": (
        columns(group=["a", ""] * (COUNT // 2)),
        "column group must not be empty, .*row 2",
    ),
    "split": (columns(split=["dev"] * COUNT), "split must hold 0, 1, 2 .*but got 'dev'"),
    "one split": (columns(split=["train"] * COUNT), "train=40, validation=0, test=0"),
    "constant": (columns(age=[1.0] * COUNT, smiling=[0] * COUNT), "conditions must vary"),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_a_bad_table_gives_one_message_that_names_it(tmp_path: Path, case: str) -> None:
    table, message = BAD_TABLES[case]
    path = write_table(tmp_path / "table.csv", table)
    with pytest.raises(DataError, match=message) as caught:
        load_data(path=flat_folder(tmp_path), conditions=path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    folder = flat_folder(tmp_path)
    for name, content, message in (
        ("a.parquet", "age", "must be a Parquet file"),
        ("a.csv", "", "must have a header and at least one row"),
        ("b.csv", "file,age\n00.png,1,2\n", "every row must have 2 values, but row 1 has 3"),
        ("c.csv", "file,\n00.png,1\n", "every column must have a name"),
        ("a.txt", "", r"must end in \.csv or \.parquet"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(DataError, match=rf"{name}: .*{message}"):
            load_data(path=folder, conditions=tmp_path / name)
    with pytest.raises(DataError, match="file must exist"):
        load_data(path=folder, conditions=tmp_path / "none.csv")
    np.savez(tmp_path / "own.npz", images=GREY)
    with pytest.raises(DataError, match=r"data\.size needs a folder of pictures"):
        load_data(path=tmp_path / "own.npz", size=4)


def test_one_size_is_asked_for_or_made(tmp_path: Path) -> None:
    folder = flat_folder(tmp_path)
    save(folder / "20.png", GREY[20][:, :4])
    with pytest.raises(
        DataError, match=r"20\.png: .*is 4 x 6 pixels and 00\.png 5 x 6.*data\.size"
    ):
        load_data(path=folder)
    assert load_data(path=folder, size=4).image_shape == (4, 4)
    with pytest.raises(DataError, match=r"00\.png: is 5 x 6 .*data\.size must be at most 5"):
        load_data(path=folder, size=6)


def test_a_picture_is_cut_in_its_middle_and_shrunk_by_means(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(256, size=(8, 14), dtype=np.uint8)
    path = save(tmp_path / "a.png", pixels)
    means = pixels[:, 3:11].reshape(2, 4, 2, 4).astype(float).mean((1, 3))
    assert abs(decode(path, True, 2) - means).max() <= 1  # Pillow rounds rows, then columns
    np.testing.assert_array_equal(decode(path, True, None), pixels)
    np.testing.assert_array_equal(decode(path, False, None), np.stack([pixels] * 3, axis=-1))


def test_pictures_are_upright_and_transparent_parts_black(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    path = save(tmp_path / "turned.png", GREY[0], exif=exif)
    header = read_header(path)
    assert (header.width, header.height, header.grey) == (HEIGHT, WIDTH, True)
    np.testing.assert_array_equal(decode(path, True, None), np.rot90(GREY[0], -1))
    seen = np.full((2, 2, 4), 200, np.uint8)
    seen[:, :, 3] = [[0, 255], [255, 0]]
    got = decode(save(tmp_path / "seen.png", seen), False, None)
    np.testing.assert_array_equal(got[:, :, 0], [[0, 200], [200, 0]])


def test_one_coloured_picture_makes_all_coloured(tmp_path: Path) -> None:
    folder = flat_folder(tmp_path)
    save(folder / "07.png", np.stack([GREY[7], GREY[8], GREY[9]], axis=-1))
    splits = load_data(path=folder)
    assert splits.image_shape == (HEIGHT, WIDTH, 3)
    parts = (splits.train, splits.validation, splits.test)
    images = np.concatenate([part.images for part in parts])
    alike = (images == images[..., :1]).all((1, 2, 3))
    assert alike.sum() == COUNT - 1
    np.testing.assert_array_equal(images[~alike][0, :, :, 1], GREY[8])


def test_broken_pictures_are_listed_and_left_out_up_to_a_share(tmp_path: Path) -> None:
    folder = flat_folder(tmp_path)
    (folder / "03.png").write_text("no picture")
    whole = (folder / "09.png").read_bytes()
    (folder / "09.png").write_bytes(whole[: len(whole) - 30])
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint16)).save(folder / "11.png")
    for _ in range(2):  # decoded, and from the cache
        with pytest.raises(DataError, match=r"<= 0.01 \* 40` must hold, but got 3: .*max_broken"):
            load_data(path=folder)
        splits = load_data(path=folder, max_broken_share=0.1)
        assert splits.notice is not None
        for word in ("3 of 40", "03.png (no format", "09.png (", "11.png (its values are of type"):
            assert word in splits.notice
        kept = [k for k in range(COUNT) if k not in (3, 9, 11)]
        assert sorted(k for part in rows_of(splits) for k in part) == kept
    for path in folder.iterdir():
        path.write_text("no picture")
    with pytest.raises(DataError, match=r"none of 40 pictures can be read, 00\.png"):
        load_data(path=folder, max_broken_share=0.5)


def test_a_folder_is_decoded_once_and_again_when_it_changes(tmp_path: Path, cache: Path) -> None:
    folder = flat_folder(tmp_path)
    first = load_data(path=folder)
    (kept,) = cache.glob("pictures/*/pictures.npy")
    made = kept.stat().st_mtime_ns
    for part in (first.train, first.validation, first.test):
        base = part.images.base
        assert isinstance(base, np.memmap) or isinstance(getattr(base, "base", None), np.memmap)
    for path in folder.iterdir():  # the same names, lengths and times, with other bytes
        stat = path.stat()
        path.write_bytes(bytes(stat.st_size))
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert load_data(path=folder).digest == first.digest
    assert kept.stat().st_mtime_ns == made
    shutil.rmtree(folder)
    flat_folder(tmp_path)
    save(folder / "05.png", 255 - GREY[5])
    assert load_data(path=folder).digest != first.digest
    assert not list(cache.rglob("*.tmp"))


def test_a_cache_that_was_cut_short_is_made_again(tmp_path: Path, cache: Path) -> None:
    folder = flat_folder(tmp_path)
    digest = load_data(path=folder).digest
    (place,) = (cache / "pictures").iterdir()
    (place / "broken.json").unlink()  # written last
    (place / "pictures.npy").write_bytes(b"half")
    assert load_data(path=folder).digest == digest


def test_several_may_ask_for_one_folder_at_once(tmp_path: Path, cache: Path) -> None:
    folder = flat_folder(tmp_path)  # a file's lock holds off threads as it does processes
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: load_data(path=folder).digest, range(6)))
    assert set(found) == {load_data(path=folder).digest}
    assert len(list(cache.glob("pictures/*/*.npy"))) == 4


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path, cache: Path) -> None:
    cache.write_text("in the way")
    with pytest.raises(DataError, match=r"the cache must be writable.*CGAN_CACHE_DIR"):
        load_data(path=flat_folder(tmp_path))


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    save(tmp_path / "a" / ".hidden" / "x.png", GREY[0])
    with pytest.raises(DataError, match=r"must hold pictures \(\.bmp, .* but has none"):
        load_data(path=tmp_path / "a")
