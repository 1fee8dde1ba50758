"""`python -m vggbn.gallery`, the former name of `python -m vggbn gallery`."""

from vggbn.commands.gallery import main

if __name__ == "__main__":
    main()
