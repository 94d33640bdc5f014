import pytest

from oracle.errors import InputError
from oracle.metrics import Extraction, answer_in

SOLUTION = "He has 3+4=<<3+4=7>>7 pens.\n#### 7"


@pytest.mark.parametrize(
    ("extract", "text", "answer"),
    [
        ("gsm8k", SOLUTION, "7"),
        ("gsm8k", "#### 1,234.", "1234"),
        ("gsm8k", "#### -3.5 euros", "-3.5"),
        ("gsm8k", "The answer is 7.", ""),
        ("number", SOLUTION, "7"),
        ("number", "First 3, then $1,200.50.", "1200.50"),
        ("number", "It is 7...", "7"),
        ("number", "between -2 and -5 degrees", "-5"),
        ("number", "no digits. at all", ""),
        ("boxed", r"so \boxed{1} or \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        ("boxed", "so 1/2", ""),
        ("letter", "The answer is (B) because A is wrong", "B"),
        ("letter", "C) 64", "C"),
        ("letter", "A cat sat", ""),
        ("letter", " A ", "A"),
        ("letter", "Answer: D", "D"),
        ("letter", "I think so", ""),
        (r"= (\d+)", "3 = 3, 4 = 5", "3"),
        (r"last:= (\d+)", "3 = 3, 4 = 5", "5"),
        (r"last:\w+", "one two", "two"),
        (r"(a)|(b)", "xxb", "b"),
        (None, " as it is ", " as it is "),
    ],
)
def test_the_answer_in_a_text(extract: str | None, text: str, answer: str) -> None:
    assert answer_in(text, extract) == answer


@pytest.mark.parametrize(
    ("extract", "message"),
    [
        ("gsm8", r"--extract needs a regular expression or a name \(gsm8k: .*not 'gsm8'; nearest: 'gsm8k'"),
        ("", "needs a regular expression or a name"),
        ("(", r"--extract needs a valid regular expression, not '\('"),
        ("last:[", "needs a valid regular expression"),
    ],
)
def test_what_is_no_pattern_is_refused(extract: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Extraction.parse(extract)
