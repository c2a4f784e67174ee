"""Which batch policies are worth trying, from how long batches take. Runs no model and no queue."""

from halve.techniques.infrastructure.batching.policies import (
    CandidatePolicy,
    candidate_policies,
    capacity_requests_per_second,
)

__all__ = ["CandidatePolicy", "candidate_policies", "capacity_requests_per_second"]
