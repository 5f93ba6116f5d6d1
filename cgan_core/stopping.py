"""The paper's stopping point: the state at the best validation log-likelihood is kept."""

import json
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from cgan_core.networks import Generator
from cgan_core.replacing import replacing
from cgan_core.tensor_files import read_tensors, write_tensors

WEIGHTS_FILE, SCORE_FILE = "best.safetensors", "best.json"


@dataclass
class BestState:
    """The generator at the best score seen so far.

    Args:
        score: the best score (the higher, the better); minus infinity before the first.
        kimg: where it was reached.
        parameters: the generator's parameters there.
    """

    score: float = float("-inf")
    kimg: float = 0.0
    parameters: dict[str, Tensor] | None = None

    def offer(self, score: float, kimg: float, generator: Generator) -> bool:
        """Keeps the generator if the score is better than the best; returns whether it was."""
        if not score > self.score:
            return False
        self.score, self.kimg = score, kimg
        self.parameters = {k: v.detach().clone() for k, v in generator.state_dict().items()}
        return True

    def save(self, folder: Path) -> None:
        """Writes the state, if there is one."""
        if self.parameters is None:
            return
        with replacing(folder / WEIGHTS_FILE) as partial:
            write_tensors(self.parameters, partial)
        score = {"score": self.score, "kimg": self.kimg}
        with replacing(folder / SCORE_FILE) as partial:
            partial.write_text(json.dumps(score))

    @classmethod
    def load(cls, folder: Path) -> "BestState":
        """Reads what `save` wrote; an empty state where it wrote nothing.

        Raises:
            TensorFileError: The generator is no safetensors file.
        """
        if not (folder / SCORE_FILE).exists():
            return cls()
        score = json.loads((folder / SCORE_FILE).read_text())
        return cls(score["score"], score["kimg"], read_tensors(folder / WEIGHTS_FILE))
