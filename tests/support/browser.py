"""A page as headless Chromium lays it out: what is too wide for it, and what its console says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path
from typing import NamedTuple

NAMES = ("chromium", "chromium-browser", "google-chrome")

# The page stands in a frame, for no window of Chromium is as narrow as a phone.
FRAME = """<!DOCTYPE html><body style="margin: 0">
<iframe srcdoc="{page}" style="border: 0; width: {width}px; height: 900px"></iframe>
<pre></pre>
<script>
onload = () => {{
  const page = document.querySelector("iframe").contentDocument;
  page.querySelectorAll("details").forEach(each => each.open = true);
  const seen = [...page.body.querySelectorAll("*")].map(e => [e, e.getBoundingClientRect()]);
  const words = seen.filter(([e]) => e.tagName == "text");
  const wide = seen.filter(([e, box]) => box.left < -1 || box.right > {width} + 1);
  document.querySelector("pre").textContent = JSON.stringify({{
    scrolled: page.documentElement.scrollWidth,
    wide: wide.map(([e]) => e.outerHTML.slice(0, 80)),
    smallest: Math.min(...words.map(([, box]) => Math.max(box.height, 0))),
  }});
}};
</script>"""


class Layout(NamedTuple):
    """scrolled: the width in pixels that the page takes; wide: elements that reach beyond it;
    smallest: the height of the lowest line of text in a figure; console: what was written there."""

    scrolled: int
    wide: list[str]
    smallest: float | None
    console: list[str]


def find_chromium() -> str | None:
    """The browser's command, if it is installed."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def lay_out(chromium: str, page: str, width: int, folder: Path) -> Layout:
    """Open the page, all its folds too, in a frame of `width` pixels."""
    frame = folder / f"frame{width}.html"
    frame.write_text(FRAME.format(page=escape(page), width=width), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    command = [chromium, *flags, f"--user-data-dir={folder / 'profile'}", "--dump-dom"]
    done = subprocess.run(
        [*command, frame.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    found = re.search("<pre>(.*?)</pre>", done.stdout, re.DOTALL)
    assert found, "the page was not laid out"
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return Layout(**json.loads(unescape(found[1])), console=console)
