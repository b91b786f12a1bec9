"""The ledger's notes: texts under keys, such as how far a run is, for those who read beside it."""

from datagen.ledger.connection import Connection


class Notes(Connection):
    """What a run wants a reader to know."""

    def note(self, key: str, text: str) -> None:
        """Keep a text under a key, in place of the one before it."""
        self.execute("INSERT OR REPLACE INTO notes (key, text) VALUES (?, ?)", (key, text))

    def noted(self, key: str) -> str | None:
        """Return the text kept under a key; None where there is none, or in a ledger of version 1."""
        if self.version < 2:
            return None
        row = self.execute("SELECT text FROM notes WHERE key = ?", (key,)).fetchone()
        return None if row is None else row[0]
