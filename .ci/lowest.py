"""Hold .ci/lowest.txt against pyproject.toml, and against what is installed.

    python .ci/lowest.py

pyproject.toml must say `name>=version`, .ci/lowest.txt `name==version` with the same version, and that version must be
installed where this runs. Only the pin of torch may be higher than its floor, which .ci/lowest.txt explains. Extras:
cli and bench; dev, docs and train are for work on the package itself.
"""

import sys
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
EXTRAS = ("cli", "bench")
BY_HAND = ("torch",)  # floors that were tried by hand


def versions(lines: list[str], operator: str) -> dict[str, Version]:
    found = {}
    for requirement in map(Requirement, lines):
        specifiers = list(requirement.specifier)
        if [specifier.operator for specifier in specifiers] != [operator]:
            sys.exit(f"{requirement}: write name{operator}version")
        found[canonicalize_name(requirement.name)] = Version(specifiers[0].version)
    return found


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = project["dependencies"] + [line for extra in EXTRAS for line in project["optional-dependencies"][extra]]
    floors = versions(declared, ">=")
    pins = [line for line in (ROOT / ".ci/lowest.txt").read_text().splitlines() if line and not line.startswith("#")]
    pinned = versions(pins, "==")
    installed = {name: Version(Version(metadata.version(name)).public) for name in floors}
    wrong = [
        f"{name}: pyproject.toml says {floors.get(name)}, .ci/lowest.txt {pinned.get(name)}, installed is "
        f"{installed.get(name)}"
        for name in sorted(floors.keys() | pinned.keys())
        if not (floors.get(name) == pinned.get(name) or name in BY_HAND) or pinned.get(name) != installed.get(name)
    ]
    if wrong:
        sys.exit("\n".join(["the lowest versions differ; write the same version in both files:", *wrong]))
    print(f"{len(floors)} lowest versions are declared, pinned and installed alike (torch: {floors['torch']} by hand)")


if __name__ == "__main__":
    main()
