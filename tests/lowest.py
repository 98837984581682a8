"""The lowest versions that pyproject.toml admits, as constraints for pip: `make lowest` tests with them."""

import re
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parent.parent / "pyproject.toml"


def constraints(project):
    """A line `name==version` for each requirement `name>=version`, of users and of developers."""
    requirements = [
        *project["dependencies"],
        *(row for rows in project["optional-dependencies"].values() for row in rows),
    ]
    floors = (re.match(r"([\w.-]+)(?:\[[\w,]+\])?>=([\d.]+)", requirement) for requirement in requirements)
    return sorted({f"{floor[1]}=={floor[2]}" for floor in floors if floor})


if __name__ == "__main__":
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    sys.stdout.write("\n".join(constraints(project)) + "\n")
