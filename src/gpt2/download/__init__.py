"""Download of released models: a file is renamed to its final name once it is verified.

`releases` lists the files, their URLs and checksums; `transfer` downloads one file with retries and
resume; `checks` verifies a file; `models` downloads and verifies whole models.
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
