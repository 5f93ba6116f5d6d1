"""What the data package raises for anything a user can put right."""


class DataError(ValueError):
    """A data set cannot be used; the message names the file, the fault and the remedy."""


class MnistNotFoundError(DataError):
    """Full MNIST is neither on disk nor downloadable.

    Attributes:
        reason: Where it was looked for and why the download failed.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"full MNIST is required, but {reason}; {REMEDY}")


REMEDY = "put mnist.npz or the four IDX files into a folder and set CGAN_DATA_DIR to it"
