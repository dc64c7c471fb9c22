"""A page in headless Chromium: what it says on its console, how wide it is, whether its pictures are there."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

_FRAME = """<!DOCTYPE html><meta charset="utf-8"><body style="margin: 0">
<iframe id="page" src="{page}" style="width: {width}px; height: {height}px; border: 0; display: block"></iframe>
<pre id="seen" hidden></pre>
<script>
addEventListener("load", () => {{
  const inside = document.getElementById("page").contentDocument, root = inside.documentElement
  inside.querySelectorAll("details").forEach(d => d.open = true)
  const clipped = e => e && (e.matches(".scroll, svg") || clipped(e.parentElement))
  const wide = [...inside.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > {width} + 1)
  document.getElementById("seen").textContent = JSON.stringify({{
    width: root.scrollWidth,
    height: root.scrollHeight,
    outside: wide.filter(e => !clipped(e)).map(e => e.outerHTML.slice(0, 120)),
    images: inside.images.length,
    broken: [...inside.images].filter(i => !(i.complete && i.naturalWidth)).length,
    dark: inside.defaultView.matchMedia("(prefers-color-scheme: dark)").matches,
  }})
}})
</script>"""
"""A window cannot be narrower than some 500 px: the page is opened in a frame as wide as a phone."""


@dataclass(frozen=True)
class Seen:
    """What the browser found."""

    width: int
    """Of the page's content in px: more than the window's means scrolling sideways."""
    height: int
    outside: list[str]
    """Elements that stick out to the right and are in no box that scrolls by itself."""
    images: int
    broken: int
    dark: bool
    console: list[str]


def look(page: Path, folder: Path, width: int, dark: bool = False, height: int = 900) -> Seen:
    """Open a page in a window so wide and leave `folder`/page.png, its picture."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        if os.environ.get("CI"):
            pytest.fail("chromium is not installed: see .ci/install-system-packages")
        pytest.skip("needs chromium (Debian package chromium)")
    frame = folder / "frame.html"
    frame.write_text(_FRAME.format(page=page.as_uri(), width=width, height=height))
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--disable-background-networking",
        "--allow-file-access-from-files",
        "--enable-logging=stderr",
        f"--user-data-dir={folder / 'profile'}",
        f"--window-size={max(width, 500)},{height}",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
    ]

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [browser, *flags, *more, frame.as_uri()], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr[-500:]
        return done

    done = run("--dump-dom", f"--screenshot={folder / 'page.png'}")
    told = re.search(r'<pre id="seen"[^>]*>(.*?)</pre>', done.stdout, re.S)
    assert told, done.stdout[-500:]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return Seen(**json.loads(html.unescape(told[1])), console=console)


def assert_fits(page: Path, folder: Path, images: int) -> None:
    """The page has no complaint, no missing picture and nothing to scroll sideways, in the dark on a phone and on
    a desk; and at least so many pictures."""
    phone, desk = look(page, folder, width=390, dark=True), look(page, folder, width=1280)
    assert phone.dark
    assert not desk.dark
    for seen, width in ((phone, 390), (desk, 1280)):
        assert seen.console == []
        assert seen.broken == 0
        assert seen.images >= images
        assert seen.outside == []
        assert seen.width <= width
