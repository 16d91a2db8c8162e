"""Lays the experiments of configs/ inside the installed package; all else stands in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["t2i_jax*"]), "t2i_jax.configs"],
    package_dir={"t2i_jax.configs": "configs"},
)
