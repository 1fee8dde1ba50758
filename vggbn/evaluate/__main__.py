"""`python -m vggbn.evaluate`, the former name of `python -m vggbn evaluate`."""

from vggbn.former import forward

forward("vggbn.evaluate", "evaluate")
