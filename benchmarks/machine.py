"""What a benchmark ran on, in one line."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from search.runtime import count_cores
from trainer.precision import CPU_FLAGS, read_cpu_flags


def describe_machine(packages: tuple[str, ...]) -> str:
    """Processor, cores this process may use, Python, and the versions of `packages` that are installed."""
    installed = []
    for package in packages:
        try:
            installed.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    features = ", ".join(flag for flag in CPU_FLAGS if flag in read_cpu_flags())
    names = (line.partition(":")[2].strip() for line in _cpu_info().splitlines() if "model name" in line)
    return (
        f"{next(names, platform.processor())}, {count_cores()} cores ({features or 'no bfloat16'}); "
        f"Python {platform.python_version()}, {', '.join(installed)}"
    )


def _cpu_info() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.exists() else ""
