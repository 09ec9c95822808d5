"""`python -m pegbox.catalog.convert GGUF OUT`: a GGUF file's weights and tokenizer in hub layout, as fp32.

A program of its own because it needs torch and transformers, which nothing else in this folder may import.
"""

import sys
from pathlib import Path


def convert(gguf: Path, out: Path) -> None:
    """De-quantise with transformers' own GGUF loader and save safetensors, config, tokenizer, template."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32, trust_remote_code=False
    )
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, trust_remote_code=False)
    # The weights are plain fp32 now; the memory of having been GGUF makes saving refuse.
    model.hf_quantizer = None
    del model.config.quantization_config
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
