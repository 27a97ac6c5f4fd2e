"""Fetching released models: nothing gets its name before it is whole and checked.

`releases` knows what there is to fetch and where, `transfer` fetches one file over a connection
that may break, `checks` tells a whole file from a broken one, `models` fetches and verifies models.
"""

from gpt2.download.models import Download, Finding, download, verify
from gpt2.download.releases import FILES, RELEASES
from gpt2.download.transfer import DownloadProgress, RetryPolicy

__all__ = [
    "FILES",
    "RELEASES",
    "Download",
    "DownloadProgress",
    "Finding",
    "RetryPolicy",
    "download",
    "verify",
]
