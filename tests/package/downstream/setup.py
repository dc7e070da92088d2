"""The extension, compiled against the .pxd files of whichever hvcore Python finds."""
from Cython.Build import cythonize
from setuptools import Extension, setup

setup(ext_modules=cythonize([Extension("hvcore_census.count", ["hvcore_census/count.pyx"])], language_level=3))
