"""What the operator chose for inferlets, as a host of them takes it. Imports nothing heavy."""

from __future__ import annotations

from bakehouse.inferlets.base import Limits, OwnerLimits
from bakehouse.settings import Settings

#: Below the data directory.
FOLDER = "inferlets"


def owner_limits(settings: Settings) -> OwnerLimits:
    """What all instances of an owner may use together."""
    return OwnerLimits(
        instances=settings.inferlet_instances_per_owner,
        memory=settings.inferlet_memory_per_owner,
        programs=settings.inferlet_programs_per_owner,
    )


def instance_limits(settings: Settings) -> Limits:
    """What one instance may use, at most, where others launch it."""
    return Limits(memory=settings.inferlet_memory, cpu=settings.inferlet_cpu_time, wall=settings.inferlet_wall_time)
