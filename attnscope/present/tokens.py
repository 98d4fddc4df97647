"""Token text that cannot hurt: control, format and space characters are made visible."""

from __future__ import annotations

import unicodedata

_NAMED = {"\n": "↵", "\t": "⇥", "\r": "␍", "\0": "␀"}
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"}


def visible(text: str, limit: int = 40) -> str:
    """Return the text on one line with nothing invisible in it; the middle of a long one is left out.

    The result is plain text: a renderer still escapes it for its own markup.

    Example:
        >>> visible(" the"), visible("a\\tb\\n"), visible("\\u202ex")
        ('␣the', 'a⇥b↵', '\\\\u202ex')
    """
    if len(text) > limit:
        head = limit * 2 // 3
        text = text[:head] + "…" + text[len(text) - (limit - head - 1) :]
    shown = [_visible(character) for character in text]
    for edge in (range(len(text)), range(len(text) - 1, -1, -1)):
        for i in edge:
            if text[i] != " ":
                break
            shown[i] = "␣"
    if text and unicodedata.combining(text[0]):
        shown.insert(0, "◌")
    return "".join(shown) or "(empty)"


def _visible(character: str) -> str:
    if character in _NAMED:
        return _NAMED[character]
    if character == " " or unicodedata.category(character) not in _HIDDEN:
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
