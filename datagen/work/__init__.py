"""The work folder of a run: its plan, its pinned configuration, its progress, and what its ledger says."""
