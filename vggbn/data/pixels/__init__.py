"""One image: decoded, fitted, rescaled; cropped and coloured inside the step."""
