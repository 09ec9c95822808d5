"""The table of codes: what each check is called, how grave it is, where it begins to speak, what to do about it.

docs/codes.md explains each with a bad row, a good row and the remedy; a test holds the two together.
"""

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    ERROR = "error"  # a job with this file fails, or learns what nobody wants
    WARNING = "warning"  # worth mending before money is spent
    INFO = "info"  # good to know


@dataclass(frozen=True, slots=True)
class Code:
    code: str
    name: str  # kebab-case, as in the docs' anchors
    title: str
    severity: Severity  # of an ordinary finding; a check may say less or more
    threshold: float | None  # the share or figure above which the check speaks; None: it speaks at the first
    fix: str  # one sentence, an imperative


_E, _W, _I = Severity.ERROR, Severity.WARNING, Severity.INFO

CODES = {
    code.code: code
    for code in (
        Code("Q01", "unreadable-row", "Rows that can't be read", _E, None, "Mend the named field of each named line."),
        Code(
            "Q02", "odd-turns", "Turns in an odd order", _W, None,
            "End each row with the assistant's answer and let user and assistant take turns.",
        ),
        Code(
            "Q03", "template", "The chat template does not take the rows as they are", _E, None,
            "Write the rows as the model's chat template expects them, or choose another base model.",
        ),
        Code("Q04", "nothing-learnt", "Little or nothing to learn", _E, 0.01, "Give each row an answer to learn."),
        Code(
            "Q05", "truncated", "Rows longer than the model's limit", _W, None,
            "Shorten or split the rows, or choose a base with a longer context.",
        ),
        Code(
            "Q06", "exact-duplicates", "The same row more than once", _W, 0.01,
            "Keep one of each: `pegbox clean --apply Q06`.",
        ),
        Code(
            "Q07", "near-duplicates", "Rows that are nearly the same", _W, 0.03,
            "Keep one of each group, or make them differ in what matters: `pegbox clean --apply Q07`.",
        ),
        Code("Q08", "semantic-duplicates", "Rows that say the same in other words", _I, None, "Collect other cases."),
        Code(
            "Q09", "contradiction", "One prompt, different answers", _W, None,
            "Decide which answer is right and give it everywhere.",
        ),
        Code(
            "Q10", "near-contradiction", "Nearly the same prompt, different answers", _I, None,
            "Look at each pair: if the prompts mean the same, give them the same answer.",
        ),
        Code(
            "Q11", "refusals", "Answers that refuse", _W, 0.2,
            "Keep refusals near the share that you want in production (`--expected-refusals 0.05`).",
        ),
        Code(
            "Q12", "leakage", "Validation rows that training has seen", _W, None,
            "Split again with `pegbox split`, which keeps like rows on one side.",
        ),
        Code(
            "Q13", "secrets", "Personal data and secrets", _W, None,
            "Replace them by made-up ones; a tuned model can repeat what it learnt.",
        ),
        Code(
            "Q14", "languages", "Mixed languages", _I, None,
            "Answer in the language of the question, unless the task is to change it.",
        ),
        Code("Q15", "length-outliers", "Rows of unusual length", _I, 5.0, "Look at them: often something was pasted."),
        Code("Q16", "imbalance", "Answers that are too rare or too common", _W, 10.0, "Collect more of the rare ones."),
        Code(
            "Q17", "system-prompts", "How system prompts are used", _I, None,
            "Use in training the very system prompt that you will use afterwards.",
        ),
        Code("Q18", "boilerplate", "Answers that open or end alike", _I, 0.2, "Drop phrases that carry nothing."),
        Code(
            "Q19", "role-markers", "Template marks inside the text", _E, None,
            "Remove them: the model reads them as the end of a turn.",
        ),
        Code(
            "Q20", "characters", "Broken or invisible characters", _I, None,
            "Read the source again with the right encoding, or `pegbox clean --apply Q20`.",
        ),
        Code("Q21", "sorted", "Rows that stand in sorted order", _I, None, "Nothing: rows are shuffled in training."),
        Code(
            "Q22", "not-derivable", "Answers that say more than the prompt tells", _I, None,
            "Put what the answer needs into the prompt, or the model learns to make things up.",
        ),
        Code("Q23", "preferences", "Preference pairs that teach the wrong thing", _W, None, "Mend the named pairs."),
    )
}  # fmt: skip
