"""Tables: rows of cells, the first of which is the header."""


def aligned(rows: list[list[str]]) -> str:
    """For a terminal."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    first, *others = widths
    return "\n".join(
        "  ".join([row[0].ljust(first), *(cell.rjust(width) for cell, width in zip(row[1:], others))]).rstrip()
        for row in rows
    )


def markdown(rows: list[list[str]]) -> list[str]:
    """Lines of Markdown."""
    header, *others = rows
    rule = ["---", *("---:" for _ in header[1:])]
    return [f"| {' | '.join(row)} |" for row in [header, rule, *others]]
