"""What is wrong with an encoded image, as far as a look without decoding tells."""

import io

_END = b"\xff\xd9"  # the marker that ends a JPEG


def defect(raw: bytes) -> str | None:
    """Why bytes are no whole image, or None.

    Pillow must know their header. A PNG's checksums are verified. A JPEG must end with its marker,
    which one that was cut short has lost: flipped bits inside it are not noticed. Everything else,
    and a JPEG that ends otherwise, is decoded.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(raw)) as image:
            kind = image.format
            image.verify()
        if kind != "PNG" and not (kind == "JPEG" and raw.rstrip(b"\0").endswith(_END)):
            with Image.open(io.BytesIO(raw)) as image:
                image.load()
    # Pillow's plugins raise nearly anything on damaged bytes.
    except Exception as error:
        return str(error) or type(error).__name__
    return None
