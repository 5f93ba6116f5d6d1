"""One proposal or decision of a recorded study, and what its own rules make of it now."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal["proposal", "decision"]


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A proposal or a decision as recorded, and as it comes now.

    Attributes:
        kind: Which of the two.
        line: Of the journal, from 1: of the proposal, or of what was decided upon.
        subject: Whom it is about.
        recorded: What it was.
        now: What it is; nothing where it could not come.
    """

    kind: Kind
    line: int
    subject: str
    recorded: str
    now: str

    @property
    def equal(self) -> bool:
        """Whether it came as recorded."""
        return self.recorded == self.now

    def __str__(self) -> str:
        return (
            f"{self.kind} for {self.subject} (line {self.line} of the journal): "
            f"recorded {self.recorded}, now {self.now}"
        )

    def to_mapping(self) -> dict[str, Any]:
        """Returns it as JSON has it."""
        return asdict(self)
