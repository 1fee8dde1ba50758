"""`python -m vggbn.gallery`, the former name of `python -m vggbn gallery`."""

from vggbn.former import forward

if __name__ == "__main__":
    forward("vggbn.gallery", "gallery")
