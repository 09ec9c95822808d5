"""How many epochs "auto" means. For supervised jobs the rule is OpenAI's published one; there is none for dpo."""

TARGET_EPOCHS = 3
MIN_TARGET_EXAMPLES = 100
MAX_TARGET_EXAMPLES = 25_000
MAX_DEFAULT_EPOCHS = 25
MAX_TARGET_PAIRS = 10_000
MAX_PREFERENCE_EPOCHS = 10


def epochs_for(method: str, examples: int) -> tuple[int, str]:
    """The number of epochs for a file of that many examples by that method, and the reason in words."""
    return auto_preference_epochs(examples) if method == "dpo" else auto_epochs(examples)


def auto_epochs(examples: int) -> tuple[int, str]:
    """The number of epochs for a file of that many examples, and the reason in words."""
    if examples * TARGET_EPOCHS < MIN_TARGET_EXAMPLES:
        n = min(MAX_DEFAULT_EPOCHS, MIN_TARGET_EXAMPLES // max(examples, 1))
        return n, f"{examples} examples are few, so each is seen {n} times to reach about {MIN_TARGET_EXAMPLES}"
    if examples * TARGET_EPOCHS > MAX_TARGET_EXAMPLES:
        n = max(1, MAX_TARGET_EXAMPLES // examples)
        return n, f"{examples} examples are many, so {n} epochs keep the run near {MAX_TARGET_EXAMPLES}"
    return TARGET_EPOCHS, f"{TARGET_EPOCHS} epochs suit {examples} examples"


def auto_preference_epochs(pairs: int) -> tuple[int, str]:
    """The number of epochs for that many preference pairs, and the reason in words.

    Fewer than for answers to be learnt: once a pair is told apart, seeing it again only drives its answers away from
    the reference, the preferred one too.
    """
    if pairs * TARGET_EPOCHS < MIN_TARGET_EXAMPLES:
        n = min(MAX_PREFERENCE_EPOCHS, MIN_TARGET_EXAMPLES // max(pairs, 1))
        return n, f"{pairs} pairs are few, so each is seen {n} times"
    if pairs * TARGET_EPOCHS > MAX_TARGET_PAIRS:
        n = max(1, MAX_TARGET_PAIRS // pairs)
        return n, f"{pairs} pairs are many, so {n} epochs are enough to tell the better answer"
    return TARGET_EPOCHS, f"{TARGET_EPOCHS} epochs suit {pairs} pairs"
