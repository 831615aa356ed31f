"""The native CRF, which setup.cfg cannot declare; where it cannot be built, the rest installs."""

from pathlib import Path

from pybind11.setup_helpers import Pybind11Extension
from setuptools import setup

SOURCES = sorted(path.as_posix() for path in Path("segment/crf/cpp").glob("*.cpp"))
HEADERS = sorted(
    path.as_posix() for kind in ("*.h", "*.inc") for path in Path("segment/crf/cpp").glob(kind)
)

native = Pybind11Extension(
    "segment.crf._native",
    SOURCES,
    depends=HEADERS,
    cxx_std=17,
    # -Wno-psabi: vectors are passed within one file only. MSVC has no vector extensions at all.
    extra_compile_args=["-O3", "-Wno-psabi", "-pthread"],
    extra_link_args=["-pthread"],
    optional=True,
)
setup(ext_modules=[native])
