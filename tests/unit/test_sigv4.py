"""The signature of requests on the direct path is the one that botocore computes."""

from __future__ import annotations

import re

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from snapferry.stores.backends.s3.direct.sigv4 import Signer
from snapferry.stores.backends.s3.direct_path import Keys

_TIME = "20260501T101010Z"


@pytest.mark.parametrize("etag", ['"one"', '"a b"', '"a  b"', '"a\tb"', '"a \t b" '])
def test_an_etag_is_signed_as_botocore_signs_it(etag: str) -> None:
    """Servers compare signatures of values in which each run of spaces is one space."""
    more = {"range": "bytes=0-9", "if-match": etag}
    lines = Signer("r-1", "host:1").headers_with(Keys("id", "secret", None), "GET", "/b/k", more, _TIME)
    sent = dict(re.findall(r"(?m)^([^:\r\n]+): (.*)\r$", lines))

    request = AWSRequest("GET", "http://host:1/b/k", headers=sent)
    del request.headers["Authorization"]
    request.context["timestamp"] = _TIME
    auth = S3SigV4Auth(Credentials("id", "secret"), "s3", "r-1")
    expected = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)

    assert sent["Authorization"].endswith(f"Signature={expected}")
