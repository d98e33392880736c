"""TorchServe's output becomes one JSON object a line, whoever wrote it and however many lines it has."""

import io
import json

import pytest

from serving.say import Log

TRACEBACK = [
    "Traceback (most recent call last):",
    '  File "x.py", line 1, in <module>',
    "    import nothing",
    "ModuleNotFoundError: No module named 'nothing'",
]
CONSEQUENCE = [
    " ",
    "During handling of the above exception, another exception occurred:",
    " ",
    "Traceback (most recent call last):",
    '  File "y.py", line 2, in load',
    "ValueError: cannot load",
]


def logged(message: str, thread: str = "W-9000-stderr") -> str:
    return json.dumps({"time": "t", "level": "INFO", "logger": "MODEL_LOG", "thread": thread, "message": message + " "})


def passed_on(lines: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[Log, list[dict[str, str]]]:
    log = Log()
    log.pass_on(io.BytesIO("\n".join(lines).encode()))
    return log, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_an_object_stays_as_it_is_without_its_thread(capsys: pytest.CaptureFixture[str]) -> None:
    _, entries = passed_on([logged("ready")], capsys)
    assert entries == [{"time": "t", "level": "INFO", "logger": "MODEL_LOG", "message": "ready"}]


@pytest.mark.parametrize("text", ["Exception in thread", "{ not JSON", '{"no": "message"}', '{"message": 7}', "käse"])
def test_other_text_becomes_an_object(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    log, [entry] = passed_on([text], capsys)
    assert (entry["logger"], entry["message"], log.last_words) == ("java", text, text)


def test_a_traceback_is_one_entry_with_its_reason_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    log, entries = passed_on([logged("before"), *map(logged, TRACEBACK), logged("after")], capsys)
    assert [(entry["level"], entry["message"]) for entry in entries] == [
        ("INFO", "before"),
        ("ERROR", " | ".join(TRACEBACK)),
        ("INFO", "after"),
    ]
    assert log.last_words == "ModuleNotFoundError: No module named 'nothing'"


def test_the_reason_is_the_first_of_two_tracebacks(capsys: pytest.CaptureFixture[str]) -> None:
    log, entries = passed_on([*map(logged, TRACEBACK), *map(logged, CONSEQUENCE)], capsys)
    assert len(entries) == 2
    assert entries[1]["message"].startswith("During handling of the above exception")
    assert log.last_words == "ModuleNotFoundError: No module named 'nothing'"


def test_tracebacks_of_two_workers_at_once_are_kept_apart(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [logged(text, thread) for text in TRACEBACK for thread in ("one", "two")]
    _, entries = passed_on(lines, capsys)
    assert [entry["message"] for entry in entries] == [" | ".join(TRACEBACK)] * 2
