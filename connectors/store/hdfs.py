"""HDFS, by its own protocol and over WebHDFS. The NameNode refuses a rename onto a name that is taken.

The invariant: a rename counts by what is at both names afterwards, never by its answer.
"""

from __future__ import annotations

import errno

from connectors.store.remote import PlacedFiles


class HdfsFiles(PlacedFiles):
    def _named(self, temporary: str, final: str) -> bool:
        """The refusal may be silent: WebHDFS answers false."""
        self._make_folder(final)
        cause: Exception | None = None
        try:
            self.client.mv(temporary, final)
        except Exception as error:  # of any kind: what is at the two names now decides
            cause = error
        taken, left = self.client.exists(final), self.client.exists(temporary)
        if taken:
            return not left
        raise cause or OSError(errno.EIO, "the rename was answered, and had no effect")
