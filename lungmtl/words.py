"""Words: counts as they are said."""


def number_of(count: float, what: str) -> str:
    """A count of things: 1 scan, 2 scans."""
    return f"{count:.0f} {what}" if count == 1 else f"{count:.0f} {what}s"
