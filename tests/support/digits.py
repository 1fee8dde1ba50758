"""The 8×8 digits that most tests train on."""

from vggbn import data


def load_digits(seed: int = 3) -> data.Dataset:
    """A fold of them, in memory."""
    return data.load("digits", image_size=8, fit="resize", split="folds", seed=seed, data_dir=None)
