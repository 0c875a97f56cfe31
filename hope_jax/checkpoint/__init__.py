"""Checkpoints: asynchronous, one item per level, resumable to the bit."""

from hope_jax.checkpoint.manager import CheckpointManager
from hope_jax.checkpoint.snapshot import Snapshot
from hope_jax.checkpoint.storage import CorruptCheckpoint, WriteFailed

__all__ = ["CheckpointManager", "CorruptCheckpoint", "Snapshot", "WriteFailed"]
