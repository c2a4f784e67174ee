"""auto-round's opt-RTN for 4-bit weights: its search for each group's scale, weighted by the inputs' mean square.

auto-round as a whole takes only language models of transformers with their tokenizer; its grid is applied here to
every `nn.Linear`, with the importance matrix that it would collect. Products run in fp32: errors count, not seconds.
"""

from typing import Any

import torch
from auto_round.data_type.int import quant_tensor_opt_rtn_sym

from benchmarks._peers.worker import Built, Model, serve, torch_answer

GROUP = 64


def mean_squares(module: torch.nn.Module, batches: list[tuple[Any, ...]]) -> dict[str, torch.Tensor]:
    """Return each linear layer's mean squared input, per input feature."""
    sums: dict[str, torch.Tensor] = {}
    counts: dict[str, int] = {}

    def see(name: str, states: torch.Tensor) -> None:
        rows = states.detach().reshape(-1, states.shape[-1])
        sums[name] = sums.get(name, torch.zeros(rows.shape[1])) + rows.square().sum(dim=0)
        counts[name] = counts.get(name, 0) + len(rows)

    hooks = [
        part.register_forward_pre_hook(lambda _, inputs, name=name: see(name, inputs[0]))
        for name, part in module.named_modules()
        if isinstance(part, torch.nn.Linear)
    ]
    with torch.inference_mode():
        for batch in batches:
            module(*batch)
    for hook in hooks:
        hook.remove()
    return {name: total / counts[name] for name, total in sums.items()}


def opt_rtn(model: Model) -> Built:
    module = model.module()
    importance = mean_squares(module, model.torch_calibration())
    size = 0
    with torch.no_grad():
        for name, part in module.named_modules():
            if not isinstance(part, torch.nn.Linear):
                continue
            weight = part.weight.detach().clone()
            rounded, *_ = quant_tensor_opt_rtn_sym(weight, bits=4, group_size=GROUP, imatrix=importance[name].clone())
            size += weight.numel() // 2 + 2 * weight.numel() // GROUP - 4 * weight.numel()
            part.weight.copy_(rounded)
    size += sum(4 * parameter.numel() for parameter in module.parameters())
    return Built(answer=torch_answer(module), size_bytes=size, note="fp32 arithmetic; size as it would be packed")


METHODS = {"opt-RTN int4": opt_rtn}

if __name__ == "__main__":
    serve(METHODS)
