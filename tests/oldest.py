"""Prints constraints that pin every dependency to the lowest version that pyproject.toml allows."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement


def main() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    for requirement in map(Requirement, {*project["dependencies"], *(line for extra in extras for line in extra)}):
        if requirement.name == project["name"]:  # an extra that includes another
            continue
        [floor] = (bound.version for bound in requirement.specifier if bound.operator == ">=")
        print(f"{requirement.name}=={floor}")


if __name__ == "__main__":
    main()
