"""What a refusal looks like."""


def assert_one_line(text: str, *parts: str) -> None:
    """Exactly one error line, holding ``parts``; no traceback."""
    assert "Traceback" not in text
    lines = [line for line in text.splitlines() if line.startswith("pcamx: error:")]
    assert len(lines) == 1, text
    for part in parts:
        assert part in lines[0]
