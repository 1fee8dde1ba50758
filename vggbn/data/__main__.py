"""`python -m vggbn.data prepare`, the former name of `python -m vggbn prepare`."""

import sys

from vggbn.former import forward

argv = sys.argv[1:]
forward("vggbn.data prepare", "prepare", argv[1:] if argv[:1] == ["prepare"] else argv)
