"""Tables of the commands and benchmarks: every column has one width and one alignment."""

from fastbptt.display import tables


def test_numbers_are_aligned_at_the_right_and_named_columns_at_the_left():
    rows = [("T", "method", "us"), ("1,000", "full", "2.5"), ("10", "one recompute", "")]
    assert tables.aligned(rows, left=(1,), indent="  ").splitlines() == [
        "      T  method          us",
        "  1,000  full           2.5",
        "     10  one recompute",
    ]


def test_a_markdown_table_has_a_rule_that_aligns_its_columns():
    assert tables.markdown(["cell", "T"], [("LSTM", "9"), ("", "10")], left=(0,)) == [
        "| cell | T |",
        "|---|--:|",
        "| LSTM | 9 |",
        "|  | 10 |",
    ]
