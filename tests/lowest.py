"""Prints setup.cfg's floors as pins, each at its newest patch, for `make test-lowest`."""

import configparser
import re
from pathlib import Path

config = configparser.ConfigParser()
config.read(Path(__file__).parents[1] / "setup.cfg")
needs = [config["options"]["install_requires"], *config["options.extras_require"].values()]
for line in "\n".join(needs).splitlines():
    found = re.fullmatch(r"([\w-]+)(?:\[[\w,]+\])?>=([\w.]+)", line.strip())
    if found:
        print(f"{found[1]}=={found[2]}.*")
