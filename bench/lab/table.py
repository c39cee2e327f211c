# SPDX-License-Identifier: MIT
"""Figures for people."""
from statistics import median


def spread(values, digits=0):
    """median [least..most]"""
    if not values:
        return "-"
    text = f"{median(values):.{digits}f}"
    if len(values) > 1:
        text += f" [{min(values):.{digits}f}..{max(values):.{digits}f}]"
    return text


def table(out, head, rows):
    cells = [head] + [[str(c) for c in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    for number, row in enumerate(cells):
        out("  ".join(c.ljust(w) if i == 0 else c.rjust(w)
                      for i, (c, w) in enumerate(zip(row, widths))).rstrip())
        if number == 0:
            out("  ".join("-" * w for w in widths))
    out("")


def ratio(a, b, digits=3):
    return f"{a / b:.{digits}f}" if b else "-"
