"""The lowest versions of the dependencies that pyproject.toml allows, as constraints for pip: python tests/oldest.py

torch is left out: the default index has no CPU build of its older versions.
"""

import re
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
LEFT_OUT = ("torch", "mamba-ssm")


def oldest() -> dict[str, str]:
    """Versions by name, the highest of the lowest where several extras ask for one."""
    found: dict[str, str] = {}
    for text in [
        *PROJECT["dependencies"],
        *(each for extra in PROJECT["optional-dependencies"].values() for each in extra),
    ]:
        match = re.match(r"([\w-]+)>=([\d.]+)", text)
        if match and match[1] not in LEFT_OUT:
            found[match[1]] = max(found.get(match[1], "0"), match[2], key=lambda v: [*map(int, v.split("."))])
    return found


if __name__ == "__main__":
    for name, version in oldest().items():
        print(f"{name}=={version}")
