"""Optional packages: which one is not installed, and which one cannot be imported."""

from importlib import import_module

MISSING = "not installed"


def load(package, needed_by, remedy=""):
    """Import a package; an ImportError says whether it is not installed, or why it fails.

    needed_by : what needs it, as "x needs"
    remedy : how to install it
    """
    found, why = attempt(package)
    if found is None:
        why = f"{why}: {remedy}" if why == MISSING and remedy else why
        raise ImportError(f"{needed_by} {package}, which is {why}")
    return found


def attempt(package):
    """Return (package, None), or (None, reason): MISSING, or the error of its import."""
    try:
        return import_module(package), None
    except ModuleNotFoundError as error:
        if error.name == package.partition(".")[0]:
            return None, MISSING
        return None, _broken(error)
    except Exception as error:  # a library that does not load, a version that does not match
        return None, _broken(error)


def _broken(error):
    text = " ".join(str(error).split())
    return f"installed but cannot be imported: {type(error).__name__}: {text}"
