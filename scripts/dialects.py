"""Writes docs/dialects.md: what each dialect has no counterpart for, out of the modules that decide it.

.venv/bin/python scripts/dialects.py            writes the file
.venv/bin/python scripts/dialects.py --check    fails if it is not up to date (a test runs this)
"""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "dialects.md"
INTRO = """\
# What becomes of a field that the other side does not know

Clients speak OpenAI's chat completions, responses, completions and embeddings, Anthropic's messages and Gemini's
generateContent. Providers speak OpenAI's chat (and everything compatible with it), OpenAI's responses, Anthropic's
messages, Gemini and Bedrock Converse. Where both sides speak the same, the client's bytes pass. Where they do not, a
request is read into a `Call` (`gateway/dialects/call.py`) and an answer into events (`gateway/dialects/events.py`).

Nothing is lost in silence: what has no counterpart is refused with a 400 that names the field, or left out and named in
the answer's header `x-sluice-dropped`. The tables below stand in the modules that do it; this page is made of them by
`scripts/dialects.py`.
"""
SECTIONS = {
    "A client's request, read": ["chat_call", "responses_call", "anthropic_call", "gemini_call", "completions"],
    "A provider's request, written": [
        "chat_encode", "responses_encode", "anthropic_encode", "gemini_encode", "bedrock_encode",
    ],
    "An answer, written for the client": [
        "chat_writer", "responses_document", "anthropic_message", "gemini_writer", "embeddings",
    ],
}  # fmt: skip


def page() -> str:
    parts = [INTRO]
    for title, modules in SECTIONS.items():
        parts.append(f"\n## {title}\n")
        for module in modules:
            path = ROOT / "gateway" / "dialects" / f"{module}.py"
            if path.exists():
                text = ast.get_docstring(ast.parse(path.read_text())) or ""
                parts.append(f"\n### `{path.relative_to(ROOT)}`\n\n```text\n{text}\n```\n")
    return "".join(parts)


def main() -> int:
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(page())
        return 0
    if PAGE.exists() and PAGE.read_text() == page():
        return 0
    sys.stderr.write("docs/dialects.md is not up to date: run .venv/bin/python scripts/dialects.py\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
