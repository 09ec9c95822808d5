"""Checks that need no engine and no tokens: where rows and tokens went, and whether anything was learnt."""

from pegbox.receipt.accounts import Account
from pegbox.receipt.case import Case
from pegbox.receipt.record import Check, Status

LEAST_SHARE = 0.01  # of tokens that are learnt
_SAME = 0.01  # two counts of the same tokens may differ by this share, no more


def row_accounting(case: Case) -> Check:
    """Rows read = trained + held out + refused, for each file; and the trainer had the same rows."""
    name = "row_accounting"
    if case.accounts is None:
        text = "The job was laid out without row accounts, so they can't be balanced."
        return Check(name, "warned", text, ran=False)
    training, other = case.accounts.training, case.accounts.validation
    ours, theirs = case.evidence.train, case.evidence.valid
    trained = training.used - training.held_out
    held_out = other.used if other else training.held_out
    figures = {
        "read": training.read, "trained": trained, "held_out": training.held_out,
        "refused": sum(training.refused.values()), "trainer_rows": ours.rows, "trainer_held_out": theirs.rows,
        "trainer_strangers": ours.strangers + theirs.strangers,
    }  # fmt: skip
    sums = all(_sums(account) for account in (training, other) if account)
    if not sums or ours.strangers or theirs.strangers or ours.rows > trained or theirs.rows > held_out:
        text = (
            f"The rows don't add up: {training.read} read, {trained} to train, {training.held_out} held out, "
            f"{figures['refused']} refused; the trainer had {ours.rows} and {theirs.rows} rows, and "
            f"{ours.strangers + theirs.strangers} examples that are no row."
        )
        return Check(name, "failed", text, figures, "This is a fault of the server; report it with the run's log.")
    missing = trained - ours.rows + held_out - theirs.rows
    if missing:
        cut = training.cut + (other.cut if other else 0)
        text = f"{missing} rows that were to be used gave the trainer nothing to learn."
        status: Status = "warned" if missing <= cut else "failed"
        return Check(name, status, text, {**figures, "missing": missing}, "Shorten the examples that were cut.")
    reasons = ", ".join(f"{n} refused ({reason})" for reason, n in training.refused.items())
    text = f"{training.read} rows read = {trained} trained + {training.held_out} held out + {reasons or '0 refused'}."
    return Check(name, "passed", text, figures)


def _sums(account: Account) -> bool:
    return account.read == account.used + sum(account.refused.values()) and account.held_out <= account.used


def supervised_tokens(case: Case) -> Check:
    """There is something to learn, and as much of it as was counted when the file was read."""
    name, found = "supervised_tokens", case.evidence.train
    share = found.trained / found.tokens if found.tokens else 0.0
    figures: dict[str, float | int | None] = {"supervised": found.trained, "tokens": found.tokens, "share": share}
    if not found.trained:
        text = "Not one token of the training rows was learnt: every one is context."
        return Check(name, "failed", text, figures, "See that each row has an assistant message with weight 1.")
    counted = _counted(case)
    both = found.trained + (case.evidence.valid.trained if _carved(case) else 0)
    if counted is not None and both != counted:
        figures["counted_before"] = counted
        far = abs(both - counted) > _SAME * counted
        text = f"The trainer learnt from {both:,} tokens, but {counted:,} were counted when the file was read."
        remedy = "This is a fault of the server; report it with the run's log."
        return Check(name, "failed" if far else "warned", text, figures, remedy)
    if share < LEAST_SHARE:
        text = f"Only {share:.2%} of the training tokens are learnt; the rest is context."
        return Check(name, "warned", text, figures, "Shorten what stands before the answers, or write longer answers.")
    return Check(name, "passed", f"{found.trained:,} of {found.tokens:,} training tokens are learnt.", figures)


def _carved(case: Case) -> bool:
    return case.accounts is not None and case.accounts.validation is None


def _counted(case: Case) -> int | None:
    """Tokens to learn of the training file, where the trainer's count is of the same (a dpo row has two answers)."""
    if case.accounts is None or case.recipe.method != "supervised":
        return None
    return case.accounts.training.trained


def truncation(case: Case) -> Check:
    name = "truncation"
    if case.accounts is None:
        return Check(name, "warned", "The job was laid out without row accounts: cut rows aren't known.", ran=False)
    accounts = [account for account in (case.accounts.training, case.accounts.validation) if account]
    cut, lost = sum(a.cut for a in accounts), sum(a.lost for a in accounts)
    kept = sum(a.trained for a in accounts)
    figures = {"limit": case.recipe.max_tokens, "rows": cut, "tokens_lost": lost, "share": lost / (lost + kept or 1)}
    if not cut:
        return Check(name, "passed", f"No row is longer than {case.recipe.max_tokens:,} tokens.", figures)
    text = (
        f"{cut} rows are longer than {case.recipe.max_tokens:,} tokens and were cut at the end; {lost:,} tokens to "
        f"learn ({figures['share']:.1%}) were lost."
    )
    return Check(name, "warned", text, figures, "Split or shorten those rows, or take a base with a longer context.")


def template_rewrites_turns(case: Case) -> Check:
    """Rows that became several examples, each answer in the context it will really be given in."""
    name, found = "template_rewrites_turns", (case.evidence.train, case.evidence.valid)
    split, examples = sum(c.split for c in found), sum(c.examples for c in found)
    figures = {"rows": sum(c.rows for c in found), "split": split, "examples": examples}
    if not split:
        return Check(name, "passed", "The template leaves earlier turns as they were: one example a row.", figures)
    text = (
        f"The base's chat template rewrites earlier turns (drops old reasoning, say): {split} rows were trained as "
        f"several examples, one an answer, {examples} in all."
    )
    return Check(name, "warned", text, figures, "Nothing need be done; single-turn rows are cheaper to train.")


def learnt(case: Case) -> Check:
    """The loss after training, against that before."""
    name, found = "learnt", case.evidence
    figures = {"rows": found.scored, "before": found.before, "after": found.after}
    if found.before is None or found.after is None:
        return Check(name, "warned", "The loss before or after training is not known.", figures, ran=False)
    who = "the model trained on from" if case.recipe.adapter_folder or case.recipe.base_key else "the base"
    where = "held-out rows" if found.scored == "validation" else "training rows (none were held out)"
    text = f"Loss on the {where}: {found.before:.3f} with {who}, {found.after:.3f} after training."
    if found.after > found.before:
        remedy = "Take an earlier checkpoint, fewer epochs or a smaller learning_rate_multiplier; look at the rows."
        return Check(name, "warned", f"It got worse. {text}", figures, remedy)
    return Check(name, "passed", text, figures)
