"""Amounts in sentences: one file, two files.

>>> amount(1, "file was", "files were"), amount(1200, "file was", "files were")
('1 file was', '1,200 files were')
"""


def amount(count: int, one: str, many: str) -> str:
    """The number with the words that go with it."""
    return f"{count:,} {one if count == 1 else many}"
