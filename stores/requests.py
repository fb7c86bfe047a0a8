"""
What a store charges for: requests, counted by the names of their operations.

The names are those of Amazon's price lists and logs. Directories and memory
send none, so theirs is the empty count. A prediction counts every request once;
a count of what was really sent has those that were sent again as well.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

Requests = Counter[str]

GET: Final = "GetObject"
HEAD: Final = "HeadObject"
LIST: Final = "ListObjectsV2"
PUT: Final = "PutObject"
DELETE: Final = "DeleteObject"
CREATE_UPLOAD: Final = "CreateMultipartUpload"
UPLOAD_PART: Final = "UploadPart"
COMPLETE_UPLOAD: Final = "CompleteMultipartUpload"
ABORT_UPLOAD: Final = "AbortMultipartUpload"
HEAD_BUCKET: Final = "HeadBucket"
