"""`python -m vggbn.publish`, the former name of `python -m vggbn publish`."""

from vggbn.commands.publish import main

if __name__ == "__main__":
    main()
