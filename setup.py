"""The description of the package on an index: README.md, whose links into the checkout would lead nowhere there."""

import re
from pathlib import Path

from setuptools import setup

PICTURE = re.compile(r"!\[[^\]]*\]\((?!https?:)[^)]*\)\n+")
LINK = re.compile(r"\[([^\]]*)\]\((?!https?:)([^)#]*)[^)]*\)")
# Names the file. With a public address of the project, r"[\1](https://.../\2)" makes each an absolute link instead.
NAMED = r"\1 (`\2`)"

readme = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
setup(
    long_description=LINK.sub(NAMED, PICTURE.sub("", readme)),
    long_description_content_type="text/markdown",
)
