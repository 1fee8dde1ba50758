"""`python -m vggbn.evaluate`, the former name of `python -m vggbn evaluate`."""

from vggbn.commands.evaluate import main

main()
