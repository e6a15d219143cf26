"""What pyproject.toml cannot say: the folder kernels/ is installed as fastbptt.kernels.

The top-level name `kernels` belongs to another package. A new folder of kernels is found here by
itself; everything else stands in pyproject.toml.
"""

from setuptools import find_packages, setup

setup(
    packages=[
        "fastbptt",
        *(f"fastbptt.{name}" for name in find_packages("fastbptt")),
        "fastbptt.kernels",
        *(f"fastbptt.kernels.{name}" for name in find_packages("kernels")),
    ],
    package_dir={"fastbptt": "fastbptt", "fastbptt.kernels": "kernels"},
)
