"""Build the documentation site into build/site, and fail on every warning.

    python .ci/site.py

zensical's own `--strict` fails on links that lead nowhere. This adds what zensical only logs, and looks into the built
pages: nothing on them may be loaded from another host, and every picture of docs/pictures is on some page.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SITE = ROOT / "build/site"
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_COMPLAINT = re.compile(r"^(?:griffe|mkdocstrings|autorefs|mkdocs_autorefs)\b.*|^.*\bWarning\b.*", re.M | re.I)
# What a browser loads by itself. A plain link (<a href>) to another host is fine.
_LOADED = re.compile(
    r"""<(?:link|script|img|iframe|source|video|audio)\b[^>]*?\b(?:src|href|srcset)=["']?((?:https?:)?//[^"'\s>]+)"""
)
_LOADED_BY_STYLE = re.compile(r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^"')\s]+)""")


def build() -> list[str]:
    """Run zensical; returns what it complained about."""
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    output = _COLOUR.sub("", done.stdout)
    print(output)
    if done.returncode:
        sys.exit("the site was not built; the message above says why")
    return _COMPLAINT.findall(output)


def outside() -> list[str]:
    """What the pages would load from other hosts."""
    found = []
    for page in sorted(SITE.rglob("*.html")):
        text = page.read_text()
        for host in _LOADED.findall(text) + _LOADED_BY_STYLE.findall(text):
            found.append(f"{page.relative_to(SITE)} loads {host}")
    for sheet in sorted(SITE.rglob("*.css")):
        found += [f"{sheet.relative_to(SITE)} loads {host}" for host in _LOADED_BY_STYLE.findall(sheet.read_text())]
    return found


def unseen() -> list[str]:
    """Pictures that no page shows."""
    pages = "".join(page.read_text() for page in SITE.rglob("*.html"))
    names = sorted(picture.name for picture in (ROOT / "docs/pictures").iterdir())
    return [f"docs/pictures/{name} is on no page; docs/gallery.md is the place" for name in names if name not in pages]


def main() -> None:
    wrong = [*build(), *outside(), *unseen()]
    if wrong:
        sys.exit("\n".join(["the site has faults:", *wrong]))
    print(f"{len(list(SITE.rglob('*.html')))} pages in {SITE.relative_to(ROOT)}, no fault found")


if __name__ == "__main__":
    main()
