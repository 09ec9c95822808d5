"""Rows of a corpus as places to show."""

from pegbox.data.quality.corpus import Corpus
from pegbox.data.quality.findings import Place
from pegbox.data.quality.text import excerpt


def asked(corpus: Corpus, row: int) -> Place:
    """A row by what is asked in it, or by its answer where nothing is."""
    item = corpus.item(row)
    at = item.answer_index if item.answer_index >= 0 else len(item.roles)
    spoken = [i for i in range(at) if item.roles[i] not in ("system", "developer") and item.texts[i]]
    turn = spoken[-1] if spoken else min(at, len(item.roles) - 1)
    return Place(item.line, item.path(turn), excerpt(item.texts[turn]), corpus.which)


def answered(corpus: Corpus, row: int, around: int = 0) -> Place:
    """A row by question and answer."""
    item = corpus.item(row)
    turn = item.answer_index
    said = f"{item.question[:200]} → {item.answer}" if turn >= 0 else item.question
    return Place(item.line, item.path(turn), excerpt(said, around), corpus.which)
