"""Data sets: images with conditions, where they come from, and whether they are what they seem."""

from cgan_core.data.errors import DataError, MnistNotFoundError
from cgan_core.data.images import DataSplits, LabeledImages
from cgan_core.data.load import load_data

__all__ = ["DataError", "DataSplits", "LabeledImages", "MnistNotFoundError", "load_data"]
