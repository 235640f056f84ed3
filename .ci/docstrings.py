"""An extension of griffe, which reads the docstrings for the documentation site (zensical.toml names this file).

* `renoise.core.solvers`, a full name in single backticks, becomes a link. A name that does not exist is a warning, and
  .ci/site.py turns warnings into errors.
* <a, b> stays what it is. In Markdown it would be an HTML tag, and vanish.
"""

import re
from typing import Any

import griffe

_CODE = re.compile(r"(``.+?``|`[^`]+`)", re.S)
_NAME = re.compile(r"`(renoise(?:\.\w+)+)(\(\))?`")
_TAG = re.compile(r"<(?=[\w/!])")


class Docstrings(griffe.Extension):
    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        if pkg.name == "renoise":
            self._walk(pkg, pkg)

    def _walk(self, pkg: griffe.Module, item: griffe.Object) -> None:
        if item.docstring:
            item.docstring.value = "\n".join(self._paragraphs(pkg, item))
        for member in item.members.values():
            if isinstance(member, griffe.Object):  # and no alias, whose target is met where it is defined
                self._walk(pkg, member)

    def _paragraphs(self, pkg: griffe.Module, item: griffe.Object) -> list[str]:
        """The docstring with its indented blocks (formulas, examples) as they are, and the rest rewritten."""
        indent, lines, example = 0, [], False
        for line in item.docstring.value.split("\n"):
            depth = len(line) - len(line.lstrip())
            if not line.strip():
                lines.append(line)
                continue
            after_blank = not lines or not lines[-1].strip()
            example = depth >= indent + 4 and (example or after_blank)
            if not example:
                indent = 4 * (depth // 4)
                line = "".join(self._outside(pkg, item, part) for part in _CODE.split(line))
            lines.append(line)
        return lines

    def _outside(self, pkg: griffe.Module, item: griffe.Object, part: str) -> str:
        name = _NAME.fullmatch(part)
        if not name:
            return part if part.startswith("`") else _TAG.sub("&lt;", part)
        try:
            pkg[name[1].removeprefix("renoise.")]
        except (KeyError, griffe.AliasResolutionError):
            griffe.logger.warning(f"{item.path}: its docstring names `{name[1]}`, which does not exist")
            return part
        return f'<autoref optional identifier="{name[1]}"><code>{name[1]}{name[2] or ""}</code></autoref>'
