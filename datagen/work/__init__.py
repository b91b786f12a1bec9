"""The work folder of a run: its plan, its pinned configuration and its recorded replies."""
