"""What a device can do."""

import pytest
import torch

from modeling_metaqap.devices import has_bfloat16, is_faster_in_bfloat16, resolve_device
from modeling_metaqap.errors import MetaQAPError


@pytest.mark.parametrize(
    ("capabilities", "has", "is_faster"),
    [
        ({}, False, False),
        ({"avx512_bf16": True, "amx_bf16": False}, True, False),
        ({"avx512_bf16": True, "amx_bf16": True}, True, True),
        ({"amx_bf16": True}, True, True),
    ],
)
def test_a_processor_is_faster_in_bfloat16_with_amx_alone(monkeypatch, capabilities, has, is_faster):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    cpu = torch.device("cpu")
    assert (has_bfloat16(cpu), is_faster_in_bfloat16(cpu)) == (has, is_faster)


@pytest.mark.parametrize("has", [False, True])
def test_a_gpu_is_faster_in_bfloat16_where_it_has_it(monkeypatch, has):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has and not including_emulation)
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    assert is_faster_in_bfloat16(torch.device("cuda")) == has
    assert not is_faster_in_bfloat16(torch.device("mps"))


def test_a_device_that_cannot_be_used_is_one_sentence():
    assert resolve_device("cpu") == torch.device("cpu")
    for name in ("abacus", "cuda:99"):
        with pytest.raises(MetaQAPError, match=f"The device '{name}' cannot be used"):
            resolve_device(name)
