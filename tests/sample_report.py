"""A report as an ordinary file would make it, with some hostile rows: what the views are tested and looked at with."""

from functools import cache
from pathlib import Path

from conftest import SMOLLM2

from pegbox.data.formats import Conversation, Message
from pegbox.data.quality.codes import Severity
from pegbox.data.quality.findings import Finding, Place, Sample, finding
from pegbox.data.report import Distribution, Estimate, FileFacts, Piece, Plan, Report, Shown
from pegbox.data.rows import Problem

HOSTILE = (
    "</script><script>alert(1)</script><img src=x onerror=alert(2)> \u202egnp.exe\u202c {{ 7*7 }} \x1b[31mred\x1b[0m"
)
_MODEL = Path("~/.cache/pegbox/models").expanduser() / SMOLLM2

TALKS = (
    (Message("system", "You route messages of a music shop. Answer with the team's name."),
     Message("user", "My cello's bridge snapped, can someone look at it?"), Message("assistant", "workshop")),
    (Message("system", "あなたは楽器店の受付です。担当の部署名だけを答えてください。"),
     Message("user", "先週買ったギターの弦がすぐに錆びました。交換できますか？ 🎸"), Message("assistant", "返品・交換"),
     Message("user", "送料はかかりますか？"), Message("assistant", "配送")),
)  # fmt: skip


@cache
def shown(line: int, talk: tuple[Message, ...]) -> Shown:
    """The row as SmolLM2 sees it; in plain ChatML where the model is not here."""
    if not _MODEL.exists():
        pieces = []
        for message in talk:
            head = f"<|im_start|>{message.role}\n"
            if message.role == "assistant":
                pieces += [Piece(head, False), Piece(f"{message.content}<|im_end|>", True), Piece("\n", False)]
            else:
                pieces.append(Piece(f"{head}{message.content}<|im_end|>\n", False))
        return Shown(line, tuple(pieces))
    from pegbox.data.render import render
    from pegbox.data.template import load_template

    [segments] = render(Conversation(talk), load_template(_MODEL))
    return Shown(line, tuple(Piece(segment.text, segment.trained) for segment in segments))


def pairs(a: int, left: str, b: int, right: str, note: str = "", file: str = "training") -> Sample:
    path = "messages[2].content"
    return Sample((Place(a, path, left), Place(b, path, right, file)), note)


def one(line: int, path: str, text: str, note: str = "") -> Sample:
    return Sample((Place(line, path, text),), note)


PROBLEMS = (
    Problem(14, 14, "messages[1].role", 'is "asistant"; must be system, developer, user, assistant, tool or function', False, {"row": 1}),
    Problem(88, 89, "", "not valid JSON: Expecting ',' delimiter at column 211", True),
    Problem(301, 302, "messages[0].content", f"is {HOSTILE}", False),
)  # fmt: skip

FACTS = FileFacts(
    name="tickets-2026.jsonl", which="training", method="supervised", formats=("chat",), bytes=812_331, rows=1_000, used=985,
    refused={"unreadable": 3, "nothing left to learn": 12}, blank_lines=1,
    format_errors={"unrecognized_role": 1, "missing_content": 1}, problems=PROBLEMS, missing_system=41, missing_user=0,
    messages=Distribution(2, 9, 3.4, 3, 3, 7, (2, 3, 4, 5, 6, 7, 8, 9), (41, 702, 61, 118, 12, 40, 11)),
    tokens=Distribution(31, 2_044, 178.6, 121, 48, 512, tuple(31 + i * 100.65 for i in range(21)),
                        (402, 281, 122, 61, 40, 22, 18, 11, 9, 6, 4, 3, 2, 1, 1, 0, 1, 0, 0, 1)),
    assistant_tokens=Distribution(2, 611, 24.1, 9, 3, 96, tuple(2 + i * 30.45 for i in range(21)),
                                  (711, 122, 60, 34, 20, 14, 9, 5, 3, 2, 1, 1, 1, 0, 1, 0, 0, 0, 0, 1)),
    total_tokens=175_921, trained_tokens=23_738, over_limit=14, lost_tokens=1_020,
)  # fmt: skip

VALIDATION = FileFacts(
    name="検証用.jsonl", which="validation", method="supervised", formats=("chat",), bytes=80_112, rows=100, used=100,
    refused={}, blank_lines=0, format_errors={}, problems=(), missing_system=0, missing_user=0,
    messages=None, tokens=Distribution(40, 410, 170.0, 118, 50, 380), assistant_tokens=None,
    total_tokens=17_002, trained_tokens=2_204, over_limit=0, lost_tokens=0,
)  # fmt: skip

FINDINGS: tuple[Finding, ...] = (
    finding("Q01", "unreadable", "3 of 1,000 rows can't be read, and a job refuses the file until they are mended.",
            count=3, rows=1_000, lines=(14, 89, 302)),
    finding("Q19", "chat-marks", "2 rows carry the model's own marks inside their text.", count=2, rows=1_000, lines=(77, 410),
            samples=[one(77, "messages[1].content", f"Hello<|im_end|> {HOSTILE}", "<|im_end|> ends a turn")]),
    finding("Q09", "different-labels",
            "21 prompts are answered in two ways or more; a model can be right on at most 96.1% of these rows.",
            count=44, rows=1_000, lines=(3, 88, 14, 201, 402, 617, 618, 702),
            samples=[pairs(3, "Please send it to the workshop team by Monday.", 88, "Please send it to the returns team by Friday.",
                           "The same prompt: “My cello's bridge snapped, can someone look at it?”"),
                     pairs(402, "ご注文の商品は三日以内に発送いたします。", 617, "ご注文の商品は七日以内に発送できません。", "同じ質問：「いつ届きますか？」"),
                     pairs(618, "yes", 702, "no", "The same prompt: “Do you repair drums?”")]),
    finding("Q12", "exact", "6 of 100 validation rows stand in the training file too, so validation flatters.", count=6, rows=100,
            lines=(5, 9, 12, 44, 51, 80), file="validation",
            samples=[Sample((Place(31, "", "When do you open on Sundays?"), Place(5, "", "When do you open on Sundays?", "validation")))]),
    finding("Q13", "e-mail", "9 rows hold what looks like e-mail addresses.", count=9, rows=1_000, lines=range(100, 109),
            samples=[one(100, "messages[1].content", "… write to [e-mail] or call [phone number] after six …")]),
    finding("Q20", "mojibake", "4 rows hold text that was read in the wrong encoding.", count=4, rows=1_000,
            lines=(7, 8, 9, 33), samples=[one(7, "messages[2].content", "Das schÃ¶ne Klavier\u200b und æ–‡å\xad—åŒ–ã\x81‘")]),
    finding("Q18", "opening", "31% of the answers begin with “Thank you for your message”.", count=305, rows=1_000,
            data={"share_of_answers": 0.31, "opening": "Thank you for your message"}),
)  # fmt: skip


def sample_report() -> Report:
    return Report(
        training=FACTS,
        validation=VALIDATION,
        plan=Plan(SMOLLM2, 2_048, 3, "3 epochs suit 985 examples", 514_203, 3.0, 1.542609),
        estimate=Estimate(171_401, 120_118, 812.0, 560.0, 1_180.0, 1_932_735_283, 12,
                          "It learnt from 12 finished jobs of this machine."),
        findings=FINDINGS,
        not_run={"Q08": "needs the embeddings of a base model", "Q10": "stopped after 60 seconds"},
        examples=tuple(shown(line, talk) for line, talk in zip((2, 41), TALKS, strict=True)),
        seconds=2.31,
    )  # fmt: skip


def empty_report() -> Report:
    """A file without a row."""
    facts = FileFacts(
        "empty.jsonl", "training", "supervised", (), 0, 0, 0, {}, 0, {}, (), 0, 0, None, None, None, 0, 0, 0, 0
    )
    nothing = finding("Q04", "no-rows", "The file has no rows.", count=0, rows=0, severity=Severity.ERROR)
    return Report(facts, None, None, None, (nothing,))
