"""Files of tensors are refused where they are pickles; what such a file would run, never runs."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_data import tiny_config, tiny_splits

from cgan_core.model import Model, ModelError
from cgan_core.stopping import BestState
from cgan_core.tensor_files import TensorFileError, read_tensors
from cgan_core.training import CheckpointError, Trainer


class Bomb:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, (f"open({str(self.mark)!r}, 'w').close()",))


def write_pickle(path: Path, form: str, mark: Path) -> None:
    if form == "torch":
        torch.save({"weight": torch.ones(2), "bomb": Bomb(mark)}, path)
    else:
        path.write_bytes(pickle.dumps({"bomb": Bomb(mark)}))


@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_a_pickle_is_refused_and_runs_nothing(tmp_path: Path, form: str) -> None:
    path, mark = tmp_path / "state.safetensors", tmp_path / "mark"
    write_pickle(path, form, mark)
    with pytest.raises(TensorFileError, match=r"state\.safetensors: .*is a pickle.*run code"):
        read_tensors(path)
    assert not mark.exists()
    if form == "pickle":
        pickle.loads(path.read_bytes())  # it would have
        assert mark.exists()


@pytest.mark.parametrize("content", [b"", b"\x00" * 7, b"not tensors at all", b"\xff" * 64])
def test_anything_else_is_refused_too(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(TensorFileError, match=r"x\.safetensors: must be a safetensors file"):
        read_tensors(path)


def test_tensors_come_back(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(3.0), "b": torch.ones(2, 2)}
    save_file(tensors, tmp_path / "x.safetensors")
    read = read_tensors(tmp_path / "x.safetensors")
    assert {name: value.tolist() for name, value in read.items()} == {
        name: value.tolist() for name, value in tensors.items()
    }


@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_a_pickled_checkpoint_or_model_is_refused(tmp_path: Path, form: str) -> None:
    mark = tmp_path / "mark"
    trainer = Trainer(tiny_config(), tiny_splits(), seeds=0)
    trainer.save(tmp_path)
    write_pickle(tmp_path / "state.safetensors", form, mark)
    with pytest.raises(CheckpointError, match="is a pickle, which is not loaded"):
        trainer.load(tmp_path)
    best = BestState()
    best.offer(1.0, 2.0, trainer.model().generator)
    best.save(tmp_path)
    write_pickle(tmp_path / "best.safetensors", form, mark)
    with pytest.raises(TensorFileError, match="is a pickle, which is not loaded"):
        BestState.load(tmp_path)
    trainer.model().save(tmp_path)
    write_pickle(tmp_path / "model.safetensors", form, mark)
    with pytest.raises(ModelError, match="is a pickle, which is not loaded"):
        Model.load(tmp_path)
    assert not mark.exists()
