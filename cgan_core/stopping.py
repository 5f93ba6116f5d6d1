"""The paper's stopping point: the state at the best validation log-likelihood is kept."""

from dataclasses import dataclass

from torch import Tensor

from cgan_core.networks import Generator


@dataclass
class BestState:
    """The generator at the best score seen so far.

    Args:
        score: the best score, in nats; minus infinity before the first.
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
