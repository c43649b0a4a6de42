"""A report opened in a real browser, without a network, with all that it complained about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"
WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.violations.push(event.violatedDirective + " " + event.blockedURI));
"""


class Opened:
    """A page of the report and all that it complained about or asked the network for."""

    def __init__(self, browser: Any, path: Path, width: int = 1280) -> None:
        self.context = browser.new_context(offline=True, viewport={"width": width, "height": 900})
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.asked: list[str] = []
        self.page.add_init_script(WATCH)
        self.page.on(
            "console",
            lambda m: self.errors.append(m.text) if m.type in ("error", "warning") else None,
        )
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_function("document.body.dataset.drawn !== undefined")

    def check_silent(self, path: Path) -> None:
        assert self.errors == []
        assert self.page.evaluate("window.violations") == []
        assert [url for url in self.asked if not url.startswith("data:")] == [path.as_uri()]
