import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from tiny_data import tiny_config

from cgan_core import generate
from cgan_core.config import GANConfig
from cgan_core.data.standardization import Standardization
from cgan_core.families import FAMILIES
from cgan_core.generate import main
from cgan_core.model import Model, ModelError
from cgan_core.networks import ConditionKind
from cgan_core.pictures import class_grid, save_grid

LABELS = ConditionKind(3, labels=True)
VECTORS = ConditionKind(2, labels=False)
KINDS = {"labels": LABELS, "vectors": VECTORS, "none": None}


def model_of(
    kind: ConditionKind | None, shape: tuple[int, ...] = (4, 4), config: GANConfig | None = None
) -> Model:
    """A model of random parameters, whose images differ in every pixel."""
    config = config or tiny_config(noise="gaussian")
    torch.manual_seed(0)
    network = FAMILIES[config.family].generator(config, shape, kind)
    state = {name: torch.randn_like(value) for name, value in network.state_dict().items()}
    return Model.of(config, shape, kind, state, {"trial": 3, "dataset": {"name": "tiny"}})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A saved model of labels."""
    model_of(LABELS).save(tmp_path / "best")
    return tmp_path / "best"


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("shape", [(4, 4), (2, 3, 3)])
def test_a_saved_model_is_the_same_model(
    tmp_path: Path, kind: str, shape: tuple[int, ...]
) -> None:
    model = model_of(KINDS[kind], shape)
    model.save(tmp_path)
    loaded = Model.load(tmp_path)
    assert (loaded.config, loaded.image_shape) == (model.config, shape)
    assert (loaded.condition, loaded.provenance) == (model.condition, model.provenance)
    conditions = torch.randn(6, 2) if kind == "vectors" else torch.arange(6) % 3
    images = generate(model, conditions, seed=1)
    assert images.dtype == np.uint8
    assert images.shape == (6, *shape)
    assert np.array_equal(generate(tmp_path, conditions, seed=1), images)
    assert np.array_equal(generate(str(tmp_path), conditions, seed=1), images)
    assert not np.array_equal(generate(tmp_path, conditions, seed=2), images)


def test_model_files_are_tensors_and_json(folder: Path) -> None:
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert "joint.weight" in file.keys()  # noqa: SIM118, it is no mapping
    assert set(json.loads((folder / "config.json").read_text())) == {
        "model",
        "image_shape",
        "condition",
        "provenance",
    }


def edited(**changes: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


BREAKS: dict[str, Callable[[Path], object]] = {
    "weights missing": lambda f: (f / "model.safetensors").unlink(),
    "weights cut short": lambda f: (f / "model.safetensors").write_bytes(
        (f / "model.safetensors").read_bytes()[:-9]
    ),
    "weights empty": lambda f: (f / "model.safetensors").write_bytes(b""),
    "description missing": lambda f: (f / "config.json").unlink(),
    "description cut short": lambda f: (f / "config.json").write_text("{"),
    "description of another kind": lambda f: (f / "config.json").write_text("[]"),
    "other image shape": edited(image_shape=[5, 5]),
    "other condition": edited(condition={"width": 4, "labels": True}),
    "broken condition": edited(condition={"wide": 4}),
    "no configuration": edited(model={}),
    "unknown hyperparameter": edited(model={"learning_rate": 1.0, "d_dropout": 0.5, "x": 1}),
}


@pytest.mark.parametrize("damage", list(BREAKS))
def test_broken_folder_is_refused(
    folder: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    BREAKS[damage](folder)
    with pytest.raises(ModelError, match=f"^{folder}: holds no whole model"):
        Model.load(folder)
    assert main([str(folder), "--out", "x.png"]) == 2
    assert one_line(capsys).startswith(f"{folder}: holds no whole model")


def test_the_folder_around_a_winner_is_told_from_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model_of(LABELS).save(tmp_path / "best")
    assert main([str(tmp_path), "--out", "x.png"]) == 2
    assert f"; did you mean {tmp_path / 'best'}?" in one_line(capsys)


def test_a_model_is_for_whom_any_new_file_is(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        model_of(None).save(tmp_path)
        model_of(None).save(tmp_path)
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {0o640}


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize(
    ("kind", "conditions", "message"),
    [
        (LABELS, torch.tensor([0, 3]), r"`0 <= condition < 3` must hold, but got 0 … 3"),
        (LABELS, torch.tensor([-1]), r"`0 <= condition < 3` must hold, but got -1 … -1"),
        (LABELS, torch.tensor([0.0]), "must be integer labels"),
        (LABELS, torch.tensor([[0]]), "must be integer labels"),
        (VECTORS, torch.zeros(2, 3), r"vectors of length 2, but got shape \(2, 3\)"),
        (VECTORS, torch.tensor([0]), r"vectors of length 2, but got shape \(1,\)"),
    ],
)
def test_condition_that_does_not_fit_is_refused(
    kind: ConditionKind, conditions: torch.Tensor, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        generate(model_of(kind), conditions)


def test_conditions_of_any_width_of_number_are_taken() -> None:
    labels, vectors = model_of(LABELS), model_of(VECTORS)
    expected = generate(labels, torch.tensor([2, 0]))
    for dtype in (torch.uint8, torch.int32):
        assert np.array_equal(generate(labels, torch.tensor([2, 0], dtype=dtype)), expected)
    whole = torch.tensor([[1.0, -2.0]])
    for given in (whole.double(), whole.long()):
        assert np.array_equal(generate(vectors, given), generate(vectors, whole))


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 1), (4, 4, 3), (4, 4, 5)])
def test_command_writes_a_picture(tmp_path: Path, shape: tuple[int, ...]) -> None:
    model_of(LABELS, shape).save(tmp_path)
    out = tmp_path / "new" / "grid.png"
    assert main([str(tmp_path), "--condition", "2", "--count", "11", "--out", str(out)]) == 0
    with Image.open(out) as picture:
        assert picture.format == "PNG"
        assert picture.size == (2 * (10 * 6 + 2), 2 * (2 * 6 + 2))
        assert picture.mode == ("RGB" if shape[2:] == (3,) else "L")


@pytest.mark.parametrize("shape", [(4, 4), (2, 3, 3)])
def test_command_writes_an_archive(tmp_path: Path, shape: tuple[int, ...]) -> None:
    model = model_of(LABELS, shape)
    model.save(tmp_path)
    out = tmp_path / "images.npz"
    arguments = [str(tmp_path), "--condition", "1", "--count", "5", "--seed", "4"]
    assert main([*arguments, "--out", str(out)]) == 0
    with np.load(out, allow_pickle=False) as archive:
        assert archive.files == ["images"]
        images = archive["images"]
    assert (images.dtype, images.shape) == (np.uint8, (5, *shape))
    assert np.array_equal(images, generate(model, torch.full((5,), 1), seed=4))


def test_command_goes_through_the_labels_in_turn(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "images.npz"
    assert main([str(folder), "--count", "7", "--out", str(out)]) == 0
    expected = generate(folder, torch.arange(7) % 3)
    assert np.array_equal(np.load(out)["images"], expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--condition", "3", "--out", "x.png"], "`0 <= condition < 3` must hold, but got 3 … 3"),
        (["--condition", "-1", "--out", "x.png"], "`0 <= condition < 3` must hold"),
        (["--out", "x.jpg"], "--out: must end in .png or .npz, but got x.jpg"),
        (["--count", "0", "--out", "x.png"], "--count: `1 <= count` must hold, but got 0"),
        (["--out", "/dev/null/x.png"], "/dev/null"),
    ],
)
def test_command_refuses_in_one_line(
    folder: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(folder), *arguments]) == 2
    assert message in one_line(capsys)


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (VECTORS, [], "this model takes condition vectors: give --condition-file FILE.npy"),
        (None, ["--condition", "1"], "--condition: this model takes none, but got 1"),
    ],
)
def test_command_refuses_a_condition_that_the_model_cannot_take(
    tmp_path: Path,
    kind: ConditionKind | None,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model_of(kind).save(tmp_path)
    assert main([str(tmp_path), *arguments, "--out", str(tmp_path / "x.png")]) == 2
    assert one_line(capsys) == f"{message}\n"


RAW = np.array([[10.0, 4.0], [12.0, 4.5], [8.0, 3.0]])
STANDARD = Standardization(mean=np.array([10.0, 4.0]), scale=np.array([2.0, 0.5]))


@pytest.mark.parametrize("name", ["raw.npy", "raw.csv", "named.csv"])
def test_command_takes_condition_vectors_as_they_were_measured(tmp_path: Path, name: str) -> None:
    model = dataclasses.replace(model_of(VECTORS), standardization=STANDARD)
    model.save(tmp_path)
    file = tmp_path / name
    if name == "raw.npy":
        np.save(file, RAW)
    else:
        np.savetxt(file, RAW, delimiter=",", header="a,b" if "named" in name else "", comments="")
    given = [str(tmp_path), "--condition-file", str(file), "--out", str(tmp_path / "x.npz")]
    assert main(given) == 0
    images = np.load(tmp_path / "x.npz")["images"]
    rows = torch.tensor([[0.0, 0.0], [1.0, 1.0], [-1.0, -2.0]])
    assert np.array_equal(images, generate(model, rows))
    assert main([*given, "--count", "5"]) == 0
    again = np.load(tmp_path / "x.npz")["images"]
    assert np.array_equal(again, generate(model, rows[[0, 1, 2, 0, 1]]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1,2,3\n", "must hold rows of 2 values, but has shape (1, 3)"),
        ("1,x\n", "cannot be read (could not convert string"),
        ("1,2\n1,nan\n", "every value must be finite, but row 1, column 1 (from 0) is nan"),
    ],
)
def test_command_refuses_vectors_that_do_not_fit(
    tmp_path: Path, content: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model_of(VECTORS).save(tmp_path)
    file = tmp_path / "y.csv"
    file.write_text(content)
    given = [str(tmp_path), "--condition-file", str(file), "--out", str(tmp_path / "x.png")]
    assert main(given) == 2
    line = one_line(capsys)
    assert line.startswith(f"--condition-file {file}: ")
    assert message in line


def test_command_refuses_a_file_of_vectors_where_labels_are_taken(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(folder), "--condition-file", "y.npy", "--out", "x.png"]) == 2
    expected = "--condition-file: this model takes labels: use --condition\n"
    assert one_line(capsys) == expected


def test_grid_has_a_row_a_class_and_one_noise_a_column() -> None:
    model = model_of(LABELS)
    images = class_grid(model.generator, model.config, LABELS)
    same = class_grid(model.generator, model.config, LABELS)
    assert images.shape == (30, 16)
    assert torch.equal(images, same)
    with torch.no_grad():
        model.generator.get_parameter("condition.weight").zero_()
    rows = class_grid(model.generator, model.config, LABELS).view(3, 10, 16)
    torch.testing.assert_close(rows[0], rows[1])
    assert len(rows[0].unique(dim=0)) > 1


def test_grid_of_vectors_has_a_row_a_vector() -> None:
    model = model_of(VECTORS)
    assert class_grid(model.generator, model.config, VECTORS).shape == (100, 16)
    vectors = torch.tensor([[0.0, 1.0], [2.0, 3.0], [0.0, 1.0]])
    rows = class_grid(model.generator, model.config, VECTORS, vectors).view(3, 10, 16)
    assert torch.equal(rows[0], rows[2])
    assert not torch.equal(rows[0], rows[1])


def test_grid_without_conditions_is_a_square() -> None:
    model = model_of(None)
    images = class_grid(model.generator, model.config, None)
    assert images.shape == (100, 16)
    assert len(images.unique(dim=0)) > 90  # some noise switches every unit off


def test_pictures_lie_row_by_row(tmp_path: Path) -> None:
    images = np.arange(3, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8)
    save_grid(images, tmp_path / "grid.png", columns=2)
    with Image.open(tmp_path / "grid.png") as picture:
        pixels = np.asarray(picture)[::2, ::2]
    assert pixels.shape == (10, 10)
    assert pixels[2:4, 2:4].tolist() == [[0, 0]] * 2
    assert pixels[2:4, 6:8].tolist() == [[1, 1]] * 2
    assert pixels[6:8, 2:4].tolist() == [[2, 2]] * 2
    assert (pixels[6:8, 6:8] == 255).all()
