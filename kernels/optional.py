"""Packages that are used where they are there: which one is missing, and which one is broken."""

from importlib import import_module

MISSING = "not installed"


def load(package, needed_by, remedy=""):
    """Import a package; an ImportError says whether it is not installed or why it fails.

    `needed_by`: what cannot be done without it, as "x needs"; `remedy`: how to install it.
    """
    found, why = attempt(package)
    if found is None:
        why = f"{why}: {remedy}" if why == MISSING and remedy else why
        raise ImportError(f"{needed_by} {package}, which is {why}")
    return found


def attempt(package):
    """Return (the package, None), or None and why: MISSING, or with which error it fails."""
    try:
        return import_module(package), None
    except ModuleNotFoundError as error:
        if error.name == package.partition(".")[0]:
            return None, MISSING
        return None, _broken(error)
    except Exception as error:  # of a library that does not load, of a version that does not fit
        return None, _broken(error)


def _broken(error):
    text = " ".join(str(error).split())
    return f"installed but cannot be imported: {type(error).__name__}: {text}"
