"""What a benchmark ran on, in one line."""

import platform
from importlib.metadata import PackageNotFoundError, version

from search.runtime import count_cores, read_processor
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
    return (
        f"{read_processor() or platform.processor()}, {count_cores()} cores ({features or 'no bfloat16'}); "
        f"Python {platform.python_version()}, {', '.join(installed)}"
    )
