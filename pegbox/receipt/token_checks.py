"""Checks of tokens: what was learnt is what the user wrote, and is asked for as it was learnt."""

from collections.abc import Iterator

from pegbox.data.formats import Message
from pegbox.data.quality.text import excerpt
from pegbox.data.template import Template
from pegbox.errors import RenderError
from pegbox.receipt.case import Case, SampledRow, Span, Turn
from pegbox.receipt.record import Check, Status

LABELLED = 0.99  # of the answers that are whole carry the stop token among what is learnt
SURE_TO_STOP = 0.5
KNOWN_TO_STOP = 0.1  # below it the base did not stop either, and there is nothing to forget
_FAULT = "This is a fault of the server; report it with the run's log."


# --- the mask ------------------------------------------------------------------------------------------------


def mask(case: Case) -> Check:
    """The learnt tokens, decoded, are the assistant's words in the user's own row, and the stop token after them."""
    name = "mask"
    if not case.rows:
        return Check(name, "warned", "No row was short enough to be looked at.", ran=False)
    wrong = [said for row in case.rows if (said := _mask_fault(row, case))]
    spans = sum(len(row.spans) for row in case.rows)
    figures = {"rows": len(case.rows), "answers": spans, "wrong": len(wrong)}
    if wrong:
        return Check(name, "failed", f"What was learnt is not what the row says: {wrong[0]}.", figures, _FAULT)
    text = f"In {len(case.rows)} rows looked at, what is learnt is the assistant's words and the stop, no more."
    return Check(name, "passed", text, figures)


def _mask_fault(row: SampledRow, case: Case) -> str | None:
    """What is wrong with a row's mask, or None."""
    limit, template = case.recipe.max_tokens, case.template
    if len(row.spans) > len(row.turns):
        return f"{row.name} has {len(row.turns)} answers to learn, but {len(row.spans)} runs of tokens are learnt"
    for turn, span in zip(row.turns, row.spans, strict=False):
        cut = span.stop >= limit
        words = _without_stop(span, template)
        stopped = len(words) < len(span.tokens)
        if template.stop_ids and not stopped and not cut:
            return f'{row.name}: the learnt text ends "{_shown(span.tokens[-20:], template)}", without the stop token'
        if not _says(template.decode(words, keep_specials=True), turn.answer, template, cut=cut and not stopped):
            learnt = _shown(span.tokens, template)
            return f'{row.name}: "{learnt}" is learnt, but the answer is "{excerpt(turn.answer.content or "")}"'
    for turn in row.turns[len(row.spans) :]:  # answers of which nothing is learnt must lie beyond the limit
        if _asked(turn, template) < limit:
            return f'{row.name}: nothing is learnt of the answer "{excerpt(turn.answer.content or "")}"'
    return None


def _asked(turn: Turn, template: Template) -> int:
    """Tokens before the answer; 0 where it can't be asked for (token_parity says so)."""
    try:
        return len(turn.ask(template))
    except RenderError:
        return 0


def _without_stop(span: Span, template: Template) -> list[int]:
    return span.tokens[:-1] if span.tokens[-1] in template.stop_ids else span.tokens


def _says(text: str, answer: Message, template: Template, *, cut: bool) -> bool:
    """Whether the text is that answer. White space does not count, because templates trim it."""
    words, said = answer.content or "", _bare(text)
    if answer.tool_calls:
        # Each template writes calls in a way of its own; the function's name and what is said stand in all.
        return cut or all(_bare(part) in said for part in (words, *(call.name for call in answer.tool_calls)))
    said = said.removeprefix(_bare(template.around_answer[0]))
    wanted = _bare(template.decode(template.encode(words), keep_specials=True))  # as the tokenizer normalises it
    thought, mark, rest = wanted.partition("</think>")
    for whole in (wanted, _bare(words), rest if mark else wanted, f"{thought.removeprefix('<think>')}{mark}{rest}"):
        if said == whole or (cut and whole.startswith(said.rstrip("\ufffd"))):
            return True
    return False


def _bare(text: str) -> str:
    return "".join(text.split())


def _shown(tokens: list[int], template: Template) -> str:
    return excerpt(template.decode(tokens, keep_specials=True))


# --- parity --------------------------------------------------------------------------------------------------


def token_parity(case: Case) -> Check:
    """A request with a row's messages becomes exactly the tokens that the trainer had before the answer."""
    name = "token_parity"
    compared, first = 0, ""
    for row in case.rows:
        for turn, span in zip(row.turns, row.spans, strict=False):
            if turn.comes_first:
                continue
            compared += 1
            first = first or _difference(row, turn, span, case.template)
    figures = {"rows": len(case.rows), "prompts": compared}
    if not compared:
        return Check(name, "warned", "No row could be compared.", figures, ran=False)
    if not first:
        text = f"{compared} prompts are the same tokens in training and when the model is asked."
        return Check(name, "passed", text, figures)
    dated = "strftime_now" in (case.template.source or "")
    status: Status = "warned" if dated else "failed"
    text = f"The model would be asked with other tokens than it was trained on: {first}."
    remedy = (
        "The template writes today's date, which has changed since training began."
        if dated
        else "The base's chat template or tokenizer was changed while the server ran: restart it and train again."
    )
    return Check(name, status, text, figures, remedy)


def _difference(row: SampledRow, turn: Turn, span: Span, template: Template) -> str:
    """Where training and serving part, in words; empty where they are one."""
    try:
        asked = turn.ask(template)
    except RenderError as error:
        return f"{row.name} can't be asked ({error})"
    learnt = span.part.tokens[: span.start]
    if asked == learnt:
        return ""
    at = next((i for i, (a, b) in enumerate(zip(asked, learnt, strict=False)) if a != b), min(len(asked), len(learnt)))
    ours, theirs = (_shown(tokens[at : at + 20], template) for tokens in (asked, learnt))
    return f'{row.name}, token {at + 1}: asked "{ours}", trained "{theirs}"'


def single_bos(case: Case) -> Check:
    """At most one beginning-of-text token, at the start, in training and in serving."""
    name, template = "single_bos", case.template
    bos = template.tokenizer.token_to_id(template.bos) if template.bos else None
    trained = max((_leading(part.tokens, bos) for row in case.rows for part in row.sample.parts), default=0)
    served = max((_leading(tokens, bos) for tokens in _prompts(case)), default=0)
    figures = {"trained": trained, "served": served}
    if max(trained, served) > 1:
        text = f"Texts begin with {trained} beginning-of-text tokens in training and {served} when the model is asked."
        remedy = "Take the token out of the chat template, or keep the tokenizer from adding it: it may stand once."
        return Check(name, "failed", text, figures, remedy)
    return Check(name, "passed", f"Texts begin with {max(trained, served)} beginning-of-text tokens.", figures)


def _prompts(case: Case) -> Iterator[list[int]]:
    for row in case.rows:
        for turn in row.turns[:1]:
            try:
                yield turn.ask(case.template)
            except RenderError:  # token_parity says so
                continue


def _leading(tokens: list[int], bos: int | None) -> int:
    return next((i for i, token in enumerate(tokens) if token != bos), len(tokens))


# --- the stop ------------------------------------------------------------------------------------------------


def stop_learned(case: Case) -> Check:
    """The stop token is among what is learnt, and the tuned model writes it where an answer ends."""
    name, found = "stop_learned", case.evidence.stop
    share = found.labelled / found.ends if found.ends else 1.0
    figures = {
        "answers": found.ends, "labelled": found.labelled, "share": share, "measured": found.measured,
        "tuned": found.tuned, "base": found.base,
    }  # fmt: skip
    if not case.template.stop_ids:
        return Check(name, "warned", "The base has no token that ends a text, so none can be learnt.", figures)
    if share < LABELLED:
        text = f"Only {found.labelled} of {found.ends} answers have the stop token among what is learnt ({share:.1%})."
        return Check(name, "failed", text, figures, _FAULT)
    if found.tuned is None or found.base is None:
        text = "No answer ends within the limit, so whether the model stops can't be measured."
        remedy = "Shorten the rows; a model that never saw an end may never stop."
        return Check(name, "warned", text, figures, remedy, ran=False)
    text = f"P(stop) where an answer ends: {found.base:.3f} with the base, {found.tuned:.3f} tuned."
    if found.tuned >= min(SURE_TO_STOP, found.base):
        return Check(name, "passed", text, figures)
    remedy = "Train longer or with a larger learning_rate_multiplier; until then set max_tokens when you ask."
    forgotten = found.base >= KNOWN_TO_STOP and found.tuned < found.base / 2
    if forgotten and case.recipe.method == "supervised":
        return Check(name, "failed", f"Training made the model forget to stop. {text}", figures, _FAULT)
    return Check(name, "warned", text, figures, remedy)
