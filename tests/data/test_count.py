import pytest

from pegbox.data.count import auto_epochs


@pytest.mark.parametrize(
    ("examples", "epochs"),
    [
        # OpenAI's published table
        (1, 25), (2, 25), (3, 25), (4, 25), (5, 20), (10, 10), (20, 5), (30, 3), (8_333, 3), (8_334, 2), (20_000, 1),
        # its rule, at the edges: 100 div n below 34, 25000 div n from 8334
        (6, 16), (12, 8), (33, 3), (34, 3), (101, 3), (12_500, 2), (12_501, 1), (25_000, 1), (1_000_000, 1),
    ],
)  # fmt: skip
def test_auto_epochs(examples: int, epochs: int) -> None:
    n, reason = auto_epochs(examples)
    assert n == epochs
    assert str(examples) in reason
    assert str(n) in reason


def test_no_examples_at_all() -> None:
    assert auto_epochs(0)[0] == 25
