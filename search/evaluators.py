"""The evaluators of a process that trains: one a fold, shared by all who need it."""

from functools import lru_cache
from weakref import WeakValueDictionary

from cgan_core.data import DataError, DataSplits
from cgan_core.evaluation import Evaluator, Protocol
from search.data_source import DataSource

# An evaluator holds its images as float32 (100 MB for full MNIST) and is made again in a second.
MAX_IDLE = 2

_in_use: WeakValueDictionary[tuple[DataSource, Protocol, str, int | None], Evaluator]
_in_use = WeakValueDictionary()


@lru_cache(maxsize=MAX_IDLE)
def evaluator_of(data: DataSource, protocol: Protocol, device: str, fold: int | None) -> Evaluator:
    """Returns the evaluator of a fold, or of no fold, of a study's data; made where it is new.

    It is the same for all runs that hold it; of those that no run holds, the last two are kept.

    Raises:
        DataError: if the data cannot be had here, or are not those of the protocol.
    """
    key = (data, protocol, device, fold)
    found = _in_use.get(key)
    if found is None:
        found = _in_use[key] = Evaluator(_splits(data, protocol), protocol, device, fold)
    return found


def forget() -> None:
    """Drops what no run holds."""
    evaluator_of.cache_clear()
    _splits.cache_clear()


@lru_cache(maxsize=1)
def _splits(data: DataSource, protocol: Protocol) -> DataSplits:
    splits = data.load()
    if splits.digest != protocol.dataset_digest:
        raise DataError(
            f"the data on this machine (digest {splits.digest[:12]}, {splits.source}) are not "
            f"those of the study (digest {protocol.dataset_digest[:12]}): give every machine "
            "the same files through CGAN_DATA_DIR"
        )
    return splits
