"""Data sets: by name, from files, from memory, generated; every loader gives a `DataSet`."""

from widthwise.data._generated import class_means
from widthwise.data._load import load
from widthwise.data._named import NAMES, Available, available
from widthwise.data._types import DataSet

__all__ = ["NAMES", "Available", "DataSet", "available", "class_means", "load"]
