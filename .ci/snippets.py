"""Run the python blocks of a Markdown file, in order, as one program in an empty folder; then every example.

    python .ci/snippets.py README.md FOLDER

A block that needs what cannot be had offline is marked ```python no-run.
"""

import re
import runpy
import sys
from pathlib import Path


def main() -> None:
    page, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    root = page.parent
    folder.mkdir(parents=True)
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)
    program = folder / "snippets.py"
    program.write_text("\n".join(blocks))
    import os

    os.chdir(folder)
    print(f"{len(blocks)} blocks of {page.name}")
    runpy.run_path(str(program), run_name="__main__")
    for example in sorted((root / "examples").glob("*.py")):
        print(example.name)
        runpy.run_path(str(example), run_name="__main__")


if __name__ == "__main__":
    main()
