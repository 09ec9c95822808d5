"""How many epochs "auto" means. The rule is OpenAI's published one."""

TARGET_EPOCHS = 3
MIN_TARGET_EXAMPLES = 100
MAX_TARGET_EXAMPLES = 25_000
MAX_DEFAULT_EPOCHS = 25


def auto_epochs(examples: int) -> tuple[int, str]:
    """The number of epochs for a file of that many examples, and the reason in words."""
    if examples * TARGET_EPOCHS < MIN_TARGET_EXAMPLES:
        n = min(MAX_DEFAULT_EPOCHS, MIN_TARGET_EXAMPLES // max(examples, 1))
        return n, f"{examples} examples are few, so each is seen {n} times to reach about {MIN_TARGET_EXAMPLES}"
    if examples * TARGET_EPOCHS > MAX_TARGET_EXAMPLES:
        n = max(1, MAX_TARGET_EXAMPLES // examples)
        return n, f"{examples} examples are many, so {n} epochs keep the run near {MAX_TARGET_EXAMPLES}"
    return TARGET_EPOCHS, f"{TARGET_EPOCHS} epochs suit {examples} examples"
