"""Which form of a scan runs, and what is said where it cannot."""

import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nextfail.errors import UserError
from nextfail.models.scan import selective_scan, ssd
from nextfail.models.scan.forms import Form, Forms

SCANS = (selective_scan, ssd)
MAMBA, MAMBA2 = selective_scan.FORMS, ssd.FORMS


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    Form.missing.cache_clear()
    yield
    Form.missing.cache_clear()


def replace_import(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    """Let every import of a package needed by a scan give an answer, or raise it if it is an error."""

    def give(name: str) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    for scan in SCANS:
        monkeypatch.setattr(scan, "import_module", give)


def test_the_cpu_takes_the_fused_kernel_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        MAMBA.announce("auto", "cpu")
    assert MAMBA.choose("auto", "cpu") == "fused"
    assert [record.message for record in caplog.records] == [f"scan on cpu: {MAMBA['fused'].text}"]


@pytest.mark.parametrize("forms", [MAMBA, MAMBA2])
def test_a_form_that_was_asked_for_is_named_without_a_warning(forms: Forms, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        forms.announce("loop", "cpu")
    assert [record.message for record in caplog.records] == [f"scan on cpu: {forms['loop'].text}"]


@pytest.mark.parametrize(
    ("forms", "device", "package", "fallback", "hint"),
    [
        (MAMBA, "cuda", "mamba_ssm", "parallel", "--no-build-isolation 'nextfail[gpu]'"),
        (MAMBA, "cpu", "numba", "parallel", "pip install numba"),
        (MAMBA2, "cuda", "mamba_ssm", "blocked", "--no-build-isolation 'nextfail[gpu]'"),
    ],
)
def test_absent_package_falls_back_with_a_hint(
    forms: Forms, device: str, package: str, fallback: str, hint: str,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    replace_import(monkeypatch, ModuleNotFoundError(f"No module named {package!r}", name=package))
    assert forms.choose("auto", device) == fallback
    forms.announce("auto", device)
    warning = caplog.records[0].message
    assert f"falling back to {fallback}, since {package.replace('_', '-')} is not installed; " in warning
    assert hint in warning


@pytest.mark.parametrize("forms", [MAMBA, MAMBA2])
@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("No module named 'selective_scan_cuda'", name="selective_scan_cuda"),
        ImportError("undefined symbol: _ZN3c10"),
        RuntimeError("no driver\nfor this device"),
        RuntimeError(),
    ],
)
def test_broken_package_is_named_with_what_failed(
    forms: Forms, error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    replace_import(monkeypatch, error)
    assert forms.choose("auto", "cuda") == forms.fallback
    forms.announce("auto", "cuda")
    warning = caplog.records[0].message
    assert "mamba-ssm is installed but broken" in warning and str(error).partition("\n")[0] in warning
    assert f"falling back to {forms.fallback}" in warning and "\n" not in warning


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda *given: None.fwd(*given), "AttributeError: 'NoneType' object has no attribute 'fwd'"),
        (lambda *given: torch.zeros(2, 2) @ torch.zeros(3, 3), "RuntimeError: mat1 and mat2 shapes"),
        (lambda x, *given: x, None),
    ],
)
@pytest.mark.parametrize(
    ("forms", "function"), [(MAMBA, "selective_scan_fn"), (MAMBA2, "mamba_chunk_scan_combined")]
)  # fmt: skip
def test_kernels_are_judged_by_a_call(
    forms: Forms, function: str, call: Any, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """mamba-ssm can be imported without its CUDA extension."""
    monkeypatch.setattr(torch, "ones", lambda *size, **_: torch.full(size, 1.0))  # on no GPU
    replace_import(monkeypatch, SimpleNamespace(**{function: call}))
    trouble = forms["mamba_ssm"].missing()
    if expected is None:
        assert trouble is None and forms.choose("auto", "cuda") == forms.choose("mamba_ssm", "cuda") == "mamba_ssm"
    else:
        assert trouble is not None and trouble.startswith(f"mamba-ssm is installed but broken ({expected}")
        assert forms.choose("auto", "cuda") == forms.fallback


def test_other_devices_take_the_fallback() -> None:
    assert MAMBA.choose("auto", "mps") == "parallel"
    assert MAMBA2.choose("auto", "mps") == MAMBA2.choose("auto", "cpu") == "blocked"


@pytest.mark.parametrize(
    ("forms", "form", "device", "message"),
    [
        (MAMBA, "slow", "cpu", r"model\.scan='slow' does not exist: choose auto, mamba_ssm, parallel, fused, loop"),
        (MAMBA, "mamba_ssm", "cpu", r"model\.scan=mamba_ssm runs on cuda, not on cpu: choose auto, parallel or loop"),
        (MAMBA, "fused", "cuda", r"model\.scan=fused runs on cpu, not on cuda: choose auto, parallel or loop"),
        (MAMBA2, "fused", "cpu", r"model\.scan='fused' does not exist: choose auto, mamba_ssm, blocked, loop"),
        (MAMBA2, "mamba_ssm", "cpu", r"model\.scan=mamba_ssm runs on cuda, not on cpu: choose auto, blocked or loop"),
    ],
)
def test_form_that_cannot_be_is_refused(forms: Forms, form: str, device: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        forms.choose(form, device)


@pytest.mark.parametrize("forms", [MAMBA, MAMBA2])
def test_form_that_is_not_installed_is_refused_if_asked_for(forms: Forms, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_import(monkeypatch, ModuleNotFoundError("No module named 'mamba_ssm'", name="mamba_ssm"))
    with pytest.raises(
        UserError, match=r"model\.scan=mamba_ssm is not available: mamba-ssm is not installed\. Choose auto"
    ):
        forms.choose("mamba_ssm", "cuda")
