"""The examples of the studio, cut from the test split at the size of the embedded models.

    python -m benchmarks.studio_examples    # writes src/renoise/apps/studio/static/examples.webp

Which pictures they are says examples.json beside it, by their captions.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import pictures
from renoise.apps.studio.examples import STATIC
from renoise.images import to_pil


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=STATIC / "examples.webp")
    output = parser.parse_args().output
    chosen = pictures.load("test")
    numbers = [chosen.captions.index(caption) for caption in json.loads((STATIC / "examples.json").read_text())]
    sheet = np.concatenate([np.asarray(picture) for picture in to_pil(chosen.pixels[numbers])], axis=1)
    Image.fromarray(sheet).save(output, lossless=True, quality=100, method=6)


if __name__ == "__main__":
    main()
