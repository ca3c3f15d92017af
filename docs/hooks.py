"""What the documentation site has beyond `docs/`: pages of the repository's root, the reference, links and formulas.

The pages are written for a reader of the repository: their links lead to files. On the site a link to a page of the
root leads to its copy, and a link to code becomes its text, because no address of the repository is known.
"""

from __future__ import annotations

import os
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from nrt_lightning import EXPORTS, HOMES  # noqa: E402  (imports nothing else)

DOCS = ROOT / "docs"
COPIES = {  # of pages of the root
    "README.md": "project/overview.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
    "CHANGELOG.md": "project/changelog.md",
}
ORIGINALS = {copy: page for page, copy in COPIES.items()}
FENCE = re.compile(r"(^```.*?^```)", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"(`[^`\n]+`)")
FORMULA = re.compile(r"\$([^$\n]+)\$")
FORMULAS: dict[str, str] = {}  # by the word that stands for them
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages of the root and of the reference."""
    from mkdocs.structure.files import File

    for page, copy in COPIES.items():
        files.append(File.generated(config, copy, content=(ROOT / page).read_text(encoding="utf-8")))
    for name, text in reference().items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def reference() -> dict[str, str]:
    """Pages of the reference by name: one for each part of the package, and a list of all names."""
    pages = {}
    for module, names in EXPORTS.items():
        title = f"# {module.replace('.', ' ').capitalize()}\n\n`nrt_lightning.{module}`\n"
        parts = [f"::: nrt_lightning.{module}.{name}\n" for name in names.split()]
        pages[page_of(module)] = "\n".join([title, *parts])
    rows = [f"- [`{name}`]({page_of(HOMES[name])}.md#{target(name)})" for name in sorted(HOMES)]
    pages["index"] = "\n".join(["# Reference", "", "Every public name, as `nrt_lightning.NAME`.", "", *rows, ""])
    return pages


def page_of(module: str) -> str:
    """The page of a part."""
    return module.replace(".", "_")


def target(name: str) -> str:
    """The anchor of a name."""
    return f"nrt_lightning.{HOMES[name]}.{name}"


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Change links and formulas of a page, but not its blocks of code."""
    source = page.file.src_uri
    if source.startswith("reference/"):
        return markdown
    pieces = FENCE.split(markdown)
    pieces[::2] = [LINK.sub(lambda link: changed(link, source), with_formulas(text)) for text in pieces[::2]]
    return "".join(pieces)


def with_formulas(text: str) -> str:
    """A text whose formulas are MathML, which browsers show without a library."""
    pieces = CODE.split(text)
    pieces[::2] = [FORMULA.sub(lambda found: placeholder(found[1]), piece) for piece in pieces[::2]]
    return "".join(pieces)


def placeholder(formula: str) -> str:
    """A word that stands for a formula until Markdown has been read, which would take it for a block of HTML."""
    word = f"formula{len(FORMULAS)}x"
    FORMULAS[word] = formula.replace("\\*", "*")
    return word


def on_page_content(html: str, **_: Any) -> str:
    """Write the formulas of a page."""
    from latex2mathml.converter import convert

    return re.sub(r"formula\d+x", lambda found: convert(FORMULAS[found[0]]) if found[0] in FORMULAS else found[0], html)


def changed(link: re.Match[str], source: str) -> str:
    """A link as the site needs it."""
    image, text, address = link.groups()
    name, mark, anchor = address.partition("#")
    if not name or "://" in name:
        return link[0]
    base = ROOT if source in ORIGINALS else DOCS
    path = (base / name).resolve()
    inside = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else ""
    if inside in COPIES:
        goal = COPIES[inside]
    elif path.is_relative_to(DOCS) and path.is_file() and path.suffix != ".py":
        goal = path.relative_to(DOCS).as_posix()
    else:
        return text
    return f"{image}[{text}]({posixpath.relpath(goal, posixpath.dirname(source) or os.curdir)}{mark}{anchor})"
