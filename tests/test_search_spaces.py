from pathlib import Path

import pytest

from search.ledger import Ledger
from search.proposer import Proposer
from search.study import load_spec

SPACES = sorted((Path(__file__).parent.parent / "spaces").glob("*.yaml"))


@pytest.mark.parametrize("space", SPACES, ids=lambda path: path.stem)
@pytest.mark.parametrize("size", [None, "quick"])
def test_every_space_proposes_whole_configurations(space: Path, size: str | None) -> None:
    spec = load_spec(space, size)
    assert spec.study == space.stem
    proposal = Proposer(spec).propose(Ledger())
    assert proposal is not None
    config = spec.gan_config(proposal.params)
    assert config.family == spec.model["family"]
