"""`python -m vggbn.evaluate`, the former name of `python -m vggbn evaluate`."""

from vggbn.commands import forward

forward("vggbn.evaluate", "evaluate")
