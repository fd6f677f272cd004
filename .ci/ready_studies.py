"""Print the slugs of the studies that can run, one a line."""

import importlib
import pkgutil

import widthwise.studies


def ready() -> list[str]:
    """Slugs of every module of `widthwise.studies` that defines a ``STUDY`` which is not "not yet"."""
    names = [found.name for found in pkgutil.iter_modules(widthwise.studies.__path__)]
    modules = [importlib.import_module(f"widthwise.studies.{name}") for name in names]
    studies = [module.STUDY for module in modules if hasattr(module, "STUDY")]
    return sorted(study.slug for study in studies if study.state != "not yet")


if __name__ == "__main__":
    print("\n".join(ready()))
