"""The forms (implementations) of a scan, and which of them runs on a device."""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from nextfail.errors import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)  # hashed by identity: choose is called in every step
class Form:
    """One form of a scan.

    Attributes:
        text: what it is, for the log.
        device: the type of device that it is made for ("cpu", "cuda"); None if it runs on all of them.
        package: the package that it needs besides torch.
        attempt: a small call, which fails where the form is unavailable.
        hint: how to install the package.
    """

    text: str
    device: str | None = None
    package: str = ""
    attempt: Callable[[], object] | None = None
    hint: str = ""

    @cache  # noqa: B019, there are seven forms, as long as the process lives
    def missing(self) -> str | None:
        """Why the form is unavailable on this machine; None if it is available."""
        return trouble(self.package, self.attempt) if self.attempt else None


class Forms(Mapping[str, Form]):
    """All forms of a scan by name.

    Args:
        fallback: the one that "auto" takes where no form made for the device is available.
        forms: by name.
    """

    def __init__(self, fallback: str, **forms: Form) -> None:
        self.fallback, self._forms = fallback, forms
        everywhere = ["auto", *(name for name, form in forms.items() if form.device is None)]
        self._advice = f"{', '.join(everywhere[:-1])} or {everywhere[-1]}"

    def __getitem__(self, name: str) -> Form:
        return self._forms[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._forms)

    def __len__(self) -> int:
        return len(self._forms)

    def require(self, name: str) -> None:
        """Raise UserError unless this is "auto" or the name of a form."""
        if name not in ("auto", *self):
            raise UserError(f"model.scan={name!r} does not exist: choose auto, {', '.join(self)}")

    def choose(self, name: str, device: str) -> str:
        """The form used on a device ("cpu", "cuda", ...).

        Raises:
            UserError: the form does not exist or is unavailable here.
        """
        self.require(name)
        if name == "auto":
            quickest = self._made_for(device)
            return quickest if quickest and not self[quickest].missing() else self.fallback
        form = self[name]
        if form.device not in (None, device):
            raise UserError(f"model.scan={name} runs on {form.device}, not on {device}: choose {self._advice}")
        if reason := form.missing():
            raise UserError(f"model.scan={name} is not available: {reason}. Choose {self._advice}")
        return name

    def announce(self, name: str, device: str) -> None:
        """Log the form used on a device, and why a faster form is unavailable and how to install it."""
        quickest = self._made_for(device)
        if name == "auto" and quickest and (reason := self[quickest].missing()):
            hint = self[quickest].hint
            log.warning("scan on %s: falling back to %s, since %s; %s", device, self.fallback, reason, hint)
        log.info("scan on %s: %s", device, self[self.choose(name, device)].text)

    def _made_for(self, device: str) -> str | None:
        return next((name for name, form in self.items() if form.device == device), None)


def trouble(package: str, attempt: Callable[[], object]) -> str | None:
    """Why an attempt to use a package fails; None if it succeeds."""
    try:
        attempt()
    except ModuleNotFoundError as error:
        absent = error.name == package.replace("-", "_")
        return f"{package} is not installed" if absent else f"{package} is installed but broken ({error})"
    except Exception as error:  # builds for another torch or driver fail in various ways
        what = " ".join(f"{type(error).__name__}: {error}".splitlines()[:1])
        return f"{package} is installed but broken ({what})"
    return None


KERNELS_HINT = "pip install --no-build-isolation 'nextfail[gpu]' builds its kernels, where there is a CUDA compiler"
"""How to install mamba-ssm, for the forms that need it."""
