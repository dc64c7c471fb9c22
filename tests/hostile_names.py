"""Names that no file of ours holds, because they lead elsewhere or are no names."""

from __future__ import annotations

from typing import Any

HOSTILE: list[Any] = [
    "../../../evil/site/x.pth",
    "..",
    ".",
    "",
    "/etc/passwd",
    "a/../../b.tar",
    "sub/a.tar",
    "..\\..\\evil.tar",
    "C:evil.tar",
    "C:\\evil.tar",
    "s3://other/evil.tar",
    "file:evil",
    "a\x00b.tar",
    "a\nb.tar",
    "\x1b[2Ja.tar",
    "\ud800.tar",
    "x" * 256,
    None,
    7,
    ["a.tar"],
    {"a": 1},
]
