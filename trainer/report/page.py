"""report.html: one self-contained page that draws results.json and some search trees.

The page opens without a network. Its Content-Security-Policy allows only the inline scripts and
styles written here, each by its SHA-256. So text that a model wrote can never run, even if it
reached the page as markup. It does not reach the page as markup: results travel as JSON with every
`<` escaped, trees as compressed JSON in base64 (tree_data.py), and the scripts put them on the page
only as text nodes.

plotly.js, which the `plotly` distribution ships, draws the charts. Three measures make it work
under this policy, without 'unsafe-inline' and 'unsafe-eval':
- plotly adds no styles if a `<style id="plotly.js-style-global">` has the class `no-inline-styles`;
  `assets/plotly.css` holds the plotly rules that our charts need;
- plotly's map library adds a style sheet unless an element with a certain id exists, so it exists;
- labels contain no pseudo-HTML that becomes a style attribute (`<sup>`, `<b>`); powers are Unicode.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.report.tree_data import TreeData, pack_trees

SCHEMA_VERSION = 1
MAX_PAGE_BYTES = 30_000_000  # most bytes of the whole page; 5 million of them are plotly.js
PAGE = Path(__file__).with_name("assets")
SCRIPTS = (
    *("format.js", "charts.js", "tree.js", "tree_panel.js", "play.js", "explorer.js"),
    *("prm.js", "learners.js", "page.js"),
)
STYLES = ("style.css", "explorer.css")


def write_report(
    results: Mapping[str, Any], trees: Iterable[Mapping[str, Any]], path: Path
) -> None:
    """Write the page to `path`, whose folder must exist.

    `results` is the content of results.json. A sentence replaces a section that is missing, empty
    or null. Sections of optional stages are left out. `trees` are rows as `pack_trees` takes them.
    The page shows the trees of as many problems as fit into `MAX_PAGE_BYTES`, and says so.
    Raises ValueError for another schema version.
    """
    version = results.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"results.schema_version is {version!r}; this report reads only {SCHEMA_VERSION}"
        )
    empty = pack_trees((), 0)
    free = MAX_PAGE_BYTES - len(_page({"results": dict(results)}, empty))
    data = pack_trees(trees, max(0, free * 9 // 10))  # the rest is for the index
    path.write_bytes(_page({"results": dict(results)}, data))


def _page(content: Mapping[str, Any], trees: TreeData) -> bytes:
    return filled_page(
        title=f"{content['results'].get('run') or 'thinktree'}: report",
        content={**content, "trees": trees.index()},
        scripts=SCRIPTS,
        chunks=trees.chunks,
    )


def filled_page(
    *,
    title: str,
    content: Mapping[str, Any],
    scripts: Sequence[str],
    chunks: Sequence[str] = (),
    connects: bool = False,
) -> bytes:
    """A page as UTF-8, drawn by `scripts` of the assets from `content`. With `connects` the scripts
    may read from the server that the page came from, otherwise from nowhere. One pass fills all
    placeholders, so content is never read as a placeholder."""
    from plotly.offline import get_plotlyjs

    library = get_plotlyjs()
    script = "\n".join(_read(name) for name in scripts)
    style = "\n".join(_read(name) for name in STYLES)
    plotly_style = _read("plotly.css")
    for text in (library, script):
        assert "</script" not in text.lower() and "<!--" not in text
    parts = {
        "policy": "; ".join(
            (
                "default-src 'none'",
                f"script-src {_source(library)} {_source(script)}",
                f"style-src {_source(style)} {_source(plotly_style)}",
                "img-src data:",
                *(("connect-src 'self'",) if connects else ()),
                "base-uri 'none'",
                "form-action 'none'",
            )
        ),
        "title": html.escape(title),
        "style": style,
        "plotly_style": plotly_style,
        "map_style_id": _map_style_id(library),
        "content": json_for_script(content),
        "chunks": "\n".join(
            f'<script type="text/plain" id="trees-{i}">{chunk}</script>'
            for i, chunk in enumerate(chunks)
        ),
        "library": library,
        "script": script,
    }
    template = _read("template.html")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template).encode()


def json_for_script(content: Any) -> str:
    """ASCII JSON that is safe inside a script element: without `<`, `>` and `&`, and with null for
    numbers that JSON does not have (NaN and the infinities)."""
    text = json.dumps(_finite(content), separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def _source(text: str) -> str:
    """The policy's source expression for an inline script or style with exactly this text."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _map_style_id(library: str) -> str:
    """The id of the style sheet of the map library inside plotly.js."""
    match = re.search(r'getElementById\("([0-9a-f]{64})"\)', library)
    return match[1] if match else "no-map-style"


def _read(name: str) -> str:
    return (PAGE / name).read_text(encoding="utf-8")
