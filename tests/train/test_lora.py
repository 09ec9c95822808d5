"""Our linear layer and PEFT's: the same outputs and gradients; and the flat buffer behind them."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from pegbox.train.lora import use_own_linear
from pegbox.train.model import trainable
from pegbox.train.optim import FlatAdapter, make_optimizer, step


class Two(torch.nn.Module):
    """Two linear layers, one with a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(12, 20)
        self.second = torch.nn.Linear(20, 7, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(self.first(x)))


def made(**choices: object):
    torch.manual_seed(0)
    model = get_peft_model(Two(), LoraConfig(r=4, lora_alpha=10, target_modules=["first", "second"], **choices))
    for p in trainable(model).values():
        torch.nn.init.normal_(p, std=0.3)
    return model


@pytest.mark.parametrize("shape", [(12,), (5, 12), (2, 3, 12)])
def test_the_same_as_peft(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    theirs, ours = made(), made()
    assert use_own_linear(ours, FlatAdapter(trainable(ours))) == 2
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    outputs = [model(i) for model, i in zip((theirs, ours), inputs, strict=True)]
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-5, atol=1e-6)
    for out in outputs:
        (out**2).sum().backward()
    torch.testing.assert_close(inputs[1].grad, inputs[0].grad, rtol=1e-5, atol=1e-5)
    expected, found = trainable(theirs), trainable(ours)
    for name, p in expected.items():
        torch.testing.assert_close(found[name].grad, p.grad, rtol=1e-5, atol=1e-5)


def test_with_the_adapter_off_the_base_speaks() -> None:
    model = made()
    x = torch.randn(3, 12)
    adapter = FlatAdapter(trainable(model))
    with model.disable_adapter():
        expected = model(x)
        use_own_linear(model, adapter)
        torch.testing.assert_close(model(x), expected)
    assert not torch.allclose(model(x), expected)


@pytest.mark.parametrize("choices", [{"lora_dropout": 0.1}, {"use_dora": True}, {"lora_bias": True}])
def test_layers_of_another_kind_stay_as_they_are(choices: dict[str, object]) -> None:
    model = made(**choices)
    assert use_own_linear(model, FlatAdapter(trainable(model))) == 0


def test_one_flat_step_is_adamw_with_a_clipped_norm() -> None:
    from dataclasses import dataclass

    @dataclass
    class Choice:
        learning_rate: float = 0.1

    x = torch.randn(6, 12, generator=torch.Generator().manual_seed(2))
    theirs, ours = made(), made()
    reference = torch.optim.AdamW(trainable(theirs).values(), lr=0.1, weight_decay=0.0)
    adapter = FlatAdapter(trainable(ours))
    optimizer = make_optimizer(adapter, Choice())  # type: ignore[arg-type]
    for rate in (0.1, 0.05, 0.02):
        (theirs(x) ** 2).sum().backward()
        torch.nn.utils.clip_grad_norm_(trainable(theirs).values(), 1.0)
        reference.param_groups[0]["lr"] = rate
        reference.step()
        reference.zero_grad()
        (ours(x) ** 2).sum().backward()
        step(optimizer, adapter, rate)
        found = trainable(ours)
        for name, p in trainable(theirs).items():
            torch.testing.assert_close(found[name].detach(), p.detach(), rtol=1e-5, atol=1e-5)
            assert found[name].grad is not None
            assert not found[name].grad.any()
