"""Muon for convolutions, AdamW for everything else, or AdamW for all, behind one `step`."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import AdamW, Optimizer


class Muon(Optimizer):
    """Momentum whose update is orthogonalised: every direction of a weight matrix moves equally far.

    From Keller Jordan's modded-nanogpt and airbench; known to reach an accuracy in fewer steps
    than AdamW (docs/decisions/0003-muon.md).
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float, dtype: torch.dtype, momentum: float = 0.95
    ) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self.dtype = dtype  # bfloat16 is exact enough for a direction, and twice as fast where there is hardware for it

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002  (torch's signature)
        for group in self.param_groups:
            for weight in group["params"]:
                momentum = self.state[weight].setdefault("momentum", torch.zeros_like(weight))
                momentum.lerp_(weight.grad, 1 - group["momentum"])
                nesterov = weight.grad.lerp(momentum, group["momentum"])
                update = orthogonal(nesterov.flatten(1).to(self.dtype)).view_as(weight)
                scale = max(1, weight.shape[0] / weight[0].numel()) ** 0.5
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(update, alpha=-group["lr"] * scale)


def orthogonal(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Return about U V^T of the matrix's singular value decomposition U S V^T (Newton-Schulz iteration)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = wide / (wide.norm() + 1e-7)
    for _ in range(steps):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x if wide is matrix else x.T


class Optimizers:
    """The two optimizers as one; `share` scales both learning rates from their peaks."""

    def __init__(
        self,
        network: nn.Module,
        learning_rate: float,
        learning_rate_other: float,
        weight_decay: float,
        muon: bool = True,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        learning = [p for p in network.parameters() if p.requires_grad]
        convolutions = [p for p in learning if p.ndim == 4]
        decayed, plain = [p for p in learning if p.ndim in (2, 3)], [p for p in learning if p.ndim <= 1]
        matrices = [p for p in convolutions if p.shape[1] > 3] if muon else []
        known = set(map(id, matrices))
        other = [p for p in convolutions if id(p) not in known]
        groups = [
            {"params": other, "weight_decay": weight_decay, "lr": learning_rate_other if muon else learning_rate},
            {"params": decayed, "weight_decay": weight_decay, "lr": learning_rate_other},
            {"params": plain, "weight_decay": 0.0, "lr": learning_rate_other},
        ]
        self.all: list[Optimizer] = [AdamW([group for group in groups if group["params"]], betas=(0.9, 0.99))]
        if matrices:
            self.all.append(Muon(matrices, learning_rate, weight_decay, dtype))
        self.peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.all]

    def step(self, share: float) -> None:
        """Apply the gradients at `share` of the peak learning rates, and clear them."""
        for optimizer, peaks in zip(self.all, self.peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * share
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict[str, object]]:
        return [optimizer.state_dict() for optimizer in self.all]

    def load_state_dict(self, states: list[dict[str, object]]) -> None:
        for optimizer, state in zip(self.all, states, strict=True):
            optimizer.load_state_dict(state)
