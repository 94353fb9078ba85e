"""The scale: what the device suggests, and what the reader asks for."""

import subprocess

import pytest

from lmcourse import scale as module
from lmcourse.scale import choose, scale


@pytest.fixture
def machine(monkeypatch):
    """Pretend to be a machine with or without an NVIDIA GPU and cuDNN."""
    monkeypatch.delenv("LMCOURSE_SCALE", raising=False)

    def pretend(gpus, cudnn):
        module.has_cuda_gpu.cache_clear()
        monkeypatch.setattr(module, "cuda_gpus", lambda: gpus)
        monkeypatch.setattr(module, "has_cudnn", lambda: cudnn)

    yield pretend
    module.has_cuda_gpu.cache_clear()


@pytest.mark.parametrize(
    ("gpus", "cudnn", "suggested"),
    [([], True, "quick"), (["Tesla T4"], True, "gpu"), (["GeForce MX450"], False, "quick")],
)
def test_the_device_suggests_the_scale(machine, gpus, cudnn, suggested):
    machine(gpus, cudnn)
    assert scale() == suggested


@pytest.mark.parametrize("named", ["quick", "full", "gpu"])
def test_the_environment_overrides_the_device(machine, monkeypatch, named):
    machine(["Tesla T4"], True)
    monkeypatch.setenv("LMCOURSE_SCALE", named)
    assert scale() == named
    assert choose(quick="quick", full="full", gpu="gpu") == named


def test_an_unknown_scale_is_refused(monkeypatch):
    monkeypatch.setenv("LMCOURSE_SCALE", "huge")
    with pytest.raises(ValueError, match="LMCOURSE_SCALE must be one of quick, full, gpu; got 'huge'"):
        scale()


def test_the_drivers_listing_names_the_gpus(tmp_path, monkeypatch):
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho 'Tesla T4'\necho 'NVIDIA L4'\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert module.cuda_gpus() == ["Tesla T4", "NVIDIA L4"]


def test_a_driver_without_a_device_is_no_gpu(tmp_path, monkeypatch):
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho 'No devices were found'\nexit 6\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert module.cuda_gpus() == []


def test_a_driver_that_hangs_is_no_gpu(monkeypatch):
    def hang(command, **options):
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(module.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(module.subprocess, "run", hang)
    assert module.cuda_gpus() == []
