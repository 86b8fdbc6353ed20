"""The numbers of the sequential gate, in one frozen value: the bars, the error bounds, the clocks, the breaker."""

from __future__ import annotations

from dataclasses import dataclass

POOLED = "*"
"""The stream of all types together."""


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What a gate is told before it sees anything. The defaults are the runbook's bars and a total risk of 1 %."""

    ok: float = 0.95
    """A release with this success rate is healthy: it is rolled back with a probability of at most `alpha`."""
    tolerable: float = 0.90
    """A release with this success rate is for a person to judge: rolled back with at most `alpha_mid`."""
    bad: float = 0.80
    """A release with this success rate is promoted with a probability of at most `beta`."""
    alpha: float = 0.01
    alpha_mid: float = 0.10
    beta: float = 0.05
    beta_mid: float = 0.20

    pooled_share: float = 0.5
    """The share of the risk that the pooled stream gets. The types divide the rest."""
    soft_share: float = 0.45
    hard_share: float = 0.45
    waits_share: float = 0.10

    deadline_s: float = 60.0
    """An item that has not completed at this age has failed."""
    slow_s: float = 15.0
    """An item older than this, and than the p99 of its type, is suspicious."""
    time_s: float = 5.0
    """What a webhook may take. Only what takes longer can be slower than the day before."""
    blip_s: float = 120.0
    """A fault of at most this length is forgiven if a retry cures it."""
    block_s: float = 30.0
    watch_s: float = 1800.0
    guard_s: float = 86400.0

    records_min: int = 1
    """So many records at least must be seen for a pass. Twenty clean ones are needed in any case."""
    unit_s: float = 120.0
    """A record counts again after this time, and after `unit_failed_s` if it failed."""
    unit_failed_s: float = 600.0
    promotion_unit_s: float = 600.0

    wait_min_s: float = 180.0
    """The shortest wait for a parent that counts as a failure."""
    wait_factor: float = 1.25
    """A wait of this many times the p99 of the day before counts as a failure, if it is longer."""
    outage_margin_s: float = 60.0
    """What was admitted this close to a confirmed outage of the upstream is no evidence."""

    suspect: float = 10.0
    """The odds, times the stream's share, at which the gate holds the intake. They promise nothing, so they are low."""
    backlog_odds: float = 1e7
    probe: int = 3
    """How many items of a held stream are admitted in `tick_s`, and may be unanswered."""
    probe_waiting: int = 6
    """The same where a probe waits for a parent: five are needed to prove that parents are not found."""
    tick_s: float = 10.0
    clean_probes: int = 5
    quota_max: int = 128
    hold_max_s: float = 480.0

    def __post_init__(self) -> None:
        if not 0 < self.bad < self.tolerable < self.ok < 1:
            raise ValueError("the bars must be 0 < bad < tolerable < ok < 1")
        for name in ("alpha", "alpha_mid", "beta", "beta_mid"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must be above 0 and at most 1")
        if self.soft_share + self.hard_share + self.waits_share > 1 + 1e-9:
            raise ValueError("the shares of the tracks exceed 1")

    @property
    def stuck_s(self) -> float:
        """The age at which no forgivable blip explains an unfinished item."""
        return self.blip_s + self.deadline_s

    @property
    def forgiven_blocks(self) -> int:
        """A window of `blip_s` touches this many blocks at most."""
        return int(-(-self.blip_s // self.block_s)) + 1 if self.blip_s > 0 else 0

    def share(self, stream: str, types: int) -> float:
        """The share of the risk of one stream, for all of its tracks."""
        return self.pooled_share if stream == POOLED else (1 - self.pooled_share) / max(types, 1)

    def block(self, at: float) -> int:
        """The number of the block in which *at* lies. Block 0 begins at the switch."""
        return max(int(at // self.block_s), 0)
