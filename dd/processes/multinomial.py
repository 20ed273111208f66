"""Multinomial diffusion (Hoogeboom et al. 2021): a uniform chain, cosine schedule, all of it in log space.

One step is x_n ~ alpha_n x_(n-1) + (1 - alpha_n) / K, so that x_n ~ abar_n x_0 + (1 - abar_n) / K, and a probability
vector x0_hat over clean categories is plugged into the posterior

    theta_post(x_t, x0_hat)_i  ~  [a x_t + (1 - a) / K]_i [abar_s x0_hat + (1 - abar_s) / K]_i,     a = abar_t / abar_s.

Their network predicts x0_hat from x_t and its optimum is the posterior of the *other* cells: here softmax(f). Then the
plugged-in posterior is the Bayesian one and the step equals D3PM-uniform's with the same schedule. Plugging in
softmax(f + l), the posterior itself, would count a cell's own evidence twice.
"""

import torch
from torch import Tensor

from dd.processes.d3pm import D3PM


class Multinomial(D3PM):
    """K categories, T steps. Forward process, evidence, times and kl_prior are the uniform chain's."""

    def __init__(self, K: int, T: int = 1000, schedule: str = "cosine"):
        super().__init__(K, "uniform", T, schedule)
        self.name = "multinomial"

    def _law(self, x_t: Tensor, f: Tensor, t: float, n: Tensor, s: Tensor) -> Tensor:
        """theta_post(x_t, softmax(f)), states on the last axis: (B, H, W, K)."""
        return self.log_theta_post(x_t, torch.log_softmax(f.double(), 1), n, s).movedim(1, -1).exp()

    def log_theta_post(self, x_t: Tensor, log_x0: Tensor, n: Tensor, s: Tensor) -> Tensor:
        """log theta_post(x_t, x0_hat) for x_t (B, H, W), log_x0 (B, K, H, W), steps n > s (B,): (B, K, H, W)."""
        abar = self.chain.alpha_bar
        abar_s = abar[s].view(-1, 1, 1, 1)
        a = abar[n].view(-1, 1, 1, 1) / abar_s.clamp(min=1e-300)
        hot = torch.zeros_like(log_x0).scatter_(1, x_t[:, None], 1.0)
        log_arrive = (a * hot + (1 - a) / self.K).log()
        log_depart = torch.logaddexp(abar_s.log() + log_x0, ((1 - abar_s) / self.K).log())
        return torch.log_softmax(log_arrive + log_depart, 1)

    def kl_between(self, logits: Tensor, x0: Tensor, x_t: Tensor, n: Tensor, s: Tensor) -> Tensor:
        """KL(theta_post(x_t, x_0) || theta_post(x_t, softmax(f))), nats per image: (B,); logits = f + l."""
        t = self.clock.t(n)
        log_f = torch.log_softmax((logits - self.evidence(x_t, t)).double(), 1)
        log_hot = torch.full_like(log_f, -torch.inf).scatter_(1, x0[:, None], 0.0)
        log_q, log_p = (self.log_theta_post(x_t, v, n, s) for v in (log_hot, log_f))
        return torch.where(log_q > -torch.inf, log_q.exp() * (log_q - log_p), 0.0).flatten(1).sum(1)
