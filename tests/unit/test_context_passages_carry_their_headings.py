"""Promise: a passage can be found and quoted on its own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.context.passages import TARGET_CHARS, split
from gateway.store.documents import Passage, match_expression

PAGE = """Before any heading.

# Care #

Intro.

## Cleaning

Use water.

```sh
# not a heading
```

# Returns
## Empty
"""


def test_sections_carry_the_way_to_them() -> None:
    assert split(PAGE, markdown=True) == [
        Passage(heading="", body="Before any heading."),
        Passage(heading="Care", body="Intro."),
        Passage(heading="Care › Cleaning", body="Use water.\n\n```sh\n# not a heading\n```"),
    ]


def test_plain_text_has_no_headings() -> None:
    assert split("# one\n\ntwo", markdown=False) == [Passage(heading="", body="# one\n\ntwo")]


def test_whole_paragraphs_are_put_together_up_to_the_target() -> None:
    paragraphs = ["word " * 79 + "end"] * 3  # 398 characters each
    bodies = [passage.body for passage in split("\n\n".join(paragraphs), markdown=False)]
    assert bodies == ["\n\n".join(paragraphs[:2]), paragraphs[2]]


@given(st.text(st.sampled_from("ab \n#`\t"), max_size=3_000))
def test_no_passage_is_longer_than_the_target_and_no_word_is_lost(text: str) -> None:
    passages = split(text, markdown=False)
    assert all(0 < len(passage.body) <= TARGET_CHARS for passage in passages)
    assert "".join("".join(passage.body.split()) for passage in passages) == "".join(text.split())


def test_a_question_becomes_quoted_words_without_the_commonest() -> None:
    assert match_expression('How do I "clean" the MACHINE? NOT (a OR b*) NEAR clean') == (
        '"clean" OR "machine" OR "b" OR "near"'
    )


def test_a_question_of_common_words_keeps_them_and_one_without_words_finds_nothing() -> None:
    assert match_expression("what is it?") == '"what" OR "is" OR "it"'
    assert match_expression(' "*^:(){}_-\0 ') == ""


def test_a_question_counts_with_its_first_words_only() -> None:
    assert match_expression(" ".join(f"w{number}" for number in range(100))).count("OR") == 31
