"""Periodic Focusing and Internal-Transfer Weighting of auxiliary diagnoses for lung cancer detection."""

__version__ = "0.1.0"
