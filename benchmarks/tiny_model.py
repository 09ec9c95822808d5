"""A random model of two layers with a byte-level tokenizer and ChatML's template: for runs that end in a second."""

import subprocess
import sys
from pathlib import Path

_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def tiny_model(folder: Path, *, width: int = 64, context: int = 2_048) -> Path:
    """Write it to that folder, in hub layout. The same weights every time."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = {token: i for i, token in enumerate((*_MARKS, *sorted(pre_tokenizers.ByteLevel.alphabet())))}
    tokenizer = Tokenizer(models.BPE(vocab=words, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(_MARKS))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=_MARKS[0], eos_token=_MARKS[2], pad_token=_MARKS[2]
    )
    fast.chat_template = _TEMPLATE
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=context,
        bos_token_id=0, eos_token_id=2, pad_token_id=2, tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def in_process(folder: Path) -> Path:
    """The same by a child, so that the caller stays without torch."""
    subprocess.run([sys.executable, __file__, str(folder)], check=True, capture_output=True)
    return folder


if __name__ == "__main__":
    tiny_model(Path(sys.argv[1]))
