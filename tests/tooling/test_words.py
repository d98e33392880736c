"""What the check of words finds, and what it leaves alone."""

import pytest

from tooling import words


def found(text: str) -> list[str]:
    return [what for _, what in words.problems(text)]


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        ("The log tells which version it was.", "'tells which': write reports, shows, says or explains"),
        ("The reason is told in the log.", "'is told': write reports, shows, says or explains"),
        ("It runs. Who sends no HTTP can read why.", "'Who': write name who it is"),
        ("| what | why |\n|---|---|\n| whoever asks | waits |", "'whoever': write anyone who"),
        ("The slowest hundredth takes 40 ms.", "'slowest hundredth': write p99"),
        ("Asked for half as much again as it can give.", "'half as much again': write 150 % load"),
        ("It costs 4 ms a photo.", "'ms a photo': write per photo"),
        ("This is no variance.", "'is no variance': write is not a"),
        ("It refuses what finds no\nroom in the queue.", "'finds no room': write the queue is full"),
        ("A worker is counted no longer.", "'counted no longer': write no longer counted"),
        ("It is small. Of the twenty, three were wrong.", "'Of': write subject first"),
        ("Nothing is said of ratios.", "'Nothing is said': write say what is"),
        (" ".join(["word"] * 36) + ".", "36 words in one sentence; the limit is 35"),
        ("It was 1, 2, 3, 4, 5, 6, 7, 8 and 9.", "9 figures in one paragraph; write a table"),
    ],
)
def test_a_shape_that_readers_stumble_over_is_found(written: str, complaint: str) -> None:
    [what] = found(written)
    assert what.startswith(complaint)


@pytest.mark.parametrize(
    "written",
    [
        "The log shows which version it was, and petclf tells cats from dogs.",
        "Who may ask? A client that has a key.",
        "There is no network, and TorchServe is no longer asked.",
        "At 150 % load it answers the rest with 503 within 3 ms (p99), at 4 ms per photo.",
        "`whoever` [asks](whoever.md) <!-- whoever -->",
        "```\nwhoever asks is told of 1 2 3 4 5 6 7 8 9\n```",
        "    whoever asks is told",
        "# Whoever",
        "| 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 |",
        "- " + " ".join(["word"] * 30) + "\n- " + " ".join(["word"] * 30),
        "version 2.0.0, 2026-11-27, petclf-2.0.0.mar, v1, 192x192, p99, 0001-squash, 1 2 3 4 5 6 7",
    ],
)
def test_plain_words_code_tables_and_headings_are_left_alone(written: str) -> None:
    assert found(written) == []


def test_a_problem_is_named_with_the_line_where_its_paragraph_begins() -> None:
    text = "# Title\n\nFine.\n\n- fine\n- goes on\n  over two lines: whoever asks\n\n| a |\n|---|\n| whoever |\n"
    assert [line for line, _ in words.problems(text)] == [6, 11]


def test_reading_ease_is_fleschs() -> None:
    """11 words in 2 sentences, 13 syllables; with the same formula by hand."""
    assert words.ease("The cat sat on the mat. It was happy about that.") == pytest.approx(
        206.835 - 1.015 * 11 / 2 - 84.6 * 13 / 11
    )
    assert [words.syllables(word) for word in ("photo", "make", "table", "rolled", "waited", "the")] == [2, 1, 2, 1, 2, 1]
    assert words.ease("| only | a table |") == 100
