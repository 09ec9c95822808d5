"""The GPU's way of attending, with a plain stand-in for its kernel on the CPU; and the kernel itself where there is
a GPU."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

from pegbox.data import trie
from pegbox.data.render import Example
from pegbox.train import ragged as module
from pegbox.train.attention import attend, layout
from pegbox.train.ragged import attend_ragged, ragged


def plain_kernel(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, starts_q: torch.Tensor, starts_k: torch.Tensor, *_: int
) -> torch.Tensor:
    """Sequence by sequence, causal, aligned at the end; (T, H, D) in and out."""
    out = []
    for i in range(len(starts_q) - 1):
        a, b, c, d = int(starts_q[i]), int(starts_q[i + 1]), int(starts_k[i]), int(starts_k[i + 1])
        mask = torch.ones(b - a, d - c, dtype=torch.bool).tril(d - c - (b - a))
        one = (x.transpose(0, 1) for x in (q[a:b], k[c:d], v[c:d]))
        out.append(F.scaled_dot_product_attention(*one, attn_mask=mask).transpose(0, 1))
    return torch.cat(out)


def texts() -> list[Example]:
    found = [[1, 2, 3, 4, 5, 6], [1, 2, 3, 7, 8], [1, 2, 9, 9], [30, 31, 32]]
    return [Example(tokens, [False] + [True] * (len(tokens) - 1)) for tokens in found]


def both(kernel: module.Kernel, device: str, dtype: torch.dtype) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Outcome and gradients of the two ways."""
    laid = trie.build(texts())
    made = layout(laid)
    given = [torch.randn(1, n, len(laid.tokens), 64, generator=torch.Generator().manual_seed(n)) for n in (6, 3, 2)]
    given[2] = given[2][:, :1].expand(1, 3, -1, -1)
    results = []
    for way in ("segments", "ragged"):
        q, k, v = (x.to(device, dtype).clone().requires_grad_() for x in given)
        if way == "segments":
            out = attend(torch.nn.Identity(), q.cpu(), k.cpu(), v.cpu(), None, scaling=0.2, trie=made)[0]
        else:
            laid_out = ragged(made.sizes, [laid.path(i) for i in range(len(made.sizes))], device)
            out = attend_ragged(kernel, q, k, v, laid_out, 0.2)
        out.float().square().sum().backward()
        results.append([x.float().cpu() for x in (out.detach(), q.grad, k.grad, v.grad)])  # type: ignore[union-attr]
    return list(zip(*results, strict=True))


def test_the_ragged_way_is_the_same() -> None:
    for expected, found in both(plain_kernel, "cpu", torch.float32):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_kernel_that_errs_is_found_out() -> None:
    assert module._is_right(plain_kernel, "cpu", torch.float32)

    def too_loud(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *starts: torch.Tensor) -> torch.Tensor:
        return plain_kernel(q, k, v, *starts) * 1.05

    assert not module._is_right(too_loud, "cpu", torch.float32)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here: torch.nn.attention.varlen runs on CUDA only")
def test_the_gpu_kernel_in_bf16() -> None:
    found = module.kernel()
    assert found is not None, "this torch has no ragged kernel"
    for expected, mine in both(found, "cuda", torch.bfloat16):
        assert (mine - expected).norm() < 2e-2 * expected.norm()
