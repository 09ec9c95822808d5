"""`python -m pegbox.catalog.inspect FOLDER`: can this folder be trained and served? Prints the facts as JSON,
or the reason against it on the error stream with exit status 1.

A program of its own because it loads the model, which needs torch.
"""

import json
import sys
from pathlib import Path

from pegbox.catalog.config import check_config
from pegbox.data.weights import read_header, weight_files


def inspect(folder: Path) -> dict[str, object]:
    """Load the model as the trainer will, and say what it is. Raises ValueError with the reason against it."""
    config_path = folder / "config.json"
    if not config_path.exists():
        raise ValueError(f"{folder} holds no config.json; name a folder in Hugging Face layout")
    check_config(config_path)
    files = weight_files(folder)
    if not files:
        raise ValueError("no .safetensors weights; convert them (pickled .bin files are never opened)")
    for file in files:
        read_header(file)

    import torch
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForCausalLM

    if not (folder / "tokenizer.json").exists():
        raise ValueError(
            "no fast tokenizer (tokenizer.json); make one with "
            "transformers.AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        )
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        model, report = AutoModelForCausalLM.from_pretrained(
            folder, dtype="auto", output_loading_info=True, trust_remote_code=False, use_safetensors=True
        )
    except (ValueError, LookupError, OSError, RuntimeError, TypeError, AttributeError, ImportError,
            SafetensorError) as error:  # fmt: skip
        raise ValueError(f"transformers can't load it as a causal language model: {error}") from None
    if report["missing_keys"]:  # transformers would make them up
        raise ValueError(f"weights are missing: {', '.join(sorted(report['missing_keys'])[:5])}")
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([[0, 1, 2]])).logits  # (1, 3, V)
    if not bool(torch.isfinite(logits).all()):
        raise ValueError("the model's output is not finite; the weights are damaged")
    text = config.get_text_config()
    return {
        "hidden_size": int(text.hidden_size),
        "parameters": sum(p.numel() for p in model.parameters()),
    }


if __name__ == "__main__":
    try:
        print(json.dumps(inspect(Path(sys.argv[1]))))  # noqa: T201 - the answer goes to stdout
    except ValueError as error:
        sys.exit(" ".join(str(error).split()))  # one line: the last is what is shown
