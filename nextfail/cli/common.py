"""What the commands share: where the configuration lies, and graphs by name."""

from pathlib import Path

from nextfail.errors import UserError

_PACKAGE = Path(__file__).resolve().parents[1]
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
"""The configuration folder: inside the package in a wheel, beside it in a checkout."""


def named_graph(name: str) -> dict[str, int]:
    """degree, path_length and num_nodes of an option of the group `graph`, such as g2_5.

    Raises:
        UserError: there is no such option.
    """
    known = sorted((path.stem for path in (CONF / "graph").glob("*.yaml")), key=lambda stem: (len(stem), stem))
    if name not in known:
        raise UserError(f"unknown graph {name!r}: choose one of {', '.join(known)}")
    from omegaconf import OmegaConf  # a tenth of a second, which not every command needs

    content = OmegaConf.to_container(OmegaConf.load(CONF / "graph" / f"{name}.yaml"))
    assert isinstance(content, dict)
    return {str(key): int(value) for key, value in content.items()}
