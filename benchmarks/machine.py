"""What a benchmark ran on, in one line."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def describe_machine(packages: tuple[str, ...]) -> str:
    """Processor, cores this process may use, Python, and the versions of `packages` that are installed."""
    installed = []
    for package in packages:
        try:
            installed.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    cores = len(os.sched_getaffinity(0))
    features = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in _cpu_info()]
    name = next((line.split(":")[1].strip() for line in _cpu_info().splitlines() if "model name" in line), "")
    return (
        f"{name or platform.processor()}, {cores} cores ({', '.join(features) or 'no bfloat16'}); "
        f"Python {platform.python_version()}, {', '.join(installed)}"
    )


def _cpu_info() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.exists() else ""
