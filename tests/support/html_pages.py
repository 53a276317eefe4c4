"""HTML pages for tests: their text, links, tags and ids."""

from __future__ import annotations

import re
from html.parser import HTMLParser


class HtmlPage(HTMLParser):
    """Text, links, tags and ids of a page; every element must be closed."""

    _VOID = frozenset({"meta", "br", "use"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "xlink:href", "data")]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in self._VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self._VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self._VOID:
            assert self._open and self._open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def assert_self_contained(text: str, page: HtmlPage) -> None:
    """Check that a page loads nothing, that its ids are unique and known, and that its drawings have theme colours."""
    assert all(link.startswith("#") for link in page.links)
    assert not {"script", "link", "iframe", "object", "img"} & set(page.tags)
    assert "@import" not in text and not re.search(r"url\((?!#)", text)
    assert len(page.ids) == len(set(page.ids)), "two elements have the same id"
    for name in set(re.findall(r"url\(#([^)]+)\)", text)) | {link[1:] for link in page.links}:
        assert name in page.ids
    # The curves use only colours of the theme: no placeholder is left, and no white background.
    assert "#ffffff" not in text[text.index("<body>") :]
    assert not re.search(r"#0(10203|40506|70809|a0b0c)", text)
