"""How measured numbers, and the machine that they were measured on, are put into words."""


def where(result):
    """Return the machine and the versions of a result, in a line."""
    machine = result["machine"]
    return (
        f"{machine['CPU']} ({machine['vectors']}), {machine['threads']} threads, "
        f"Python {machine['Python'].split()[0]}, NumPy {machine['numpy']}, "
        f"Numba {machine['numba']}, PyTorch {machine['torch']}, "
        f"JAX {machine['jax']} (`lax.scan`, jitted)"
    )


def load_before(machine):
    """Return a sentence on the load of the machine, or "" where it is unknown."""
    load = machine.get("load before")
    return "" if load is None else f"Load of the machine just before: {load:.1f}."


def measured_on(result):
    """Return what `where` returns, the day, and the sentence on the load before."""
    machine = result["machine"]
    return f"{where(result)}; {machine['date'][:10]}. {load_before(machine)}"


def between(values, form):
    """The least and the greatest value in words; one of them where they read alike."""
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"


def short(value):
    """A number with three digits or more."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def size(count):
    """So many bytes, in MB or GB."""
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"


def or_nothing(show, value):
    """What `show` makes of the value, or "" where there is none."""
    return "" if value is None else show(value)


def joined(lines):
    """The lines of a block."""
    return "\n".join(lines) + "\n"
