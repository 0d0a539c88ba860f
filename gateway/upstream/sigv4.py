"""Signatures for requests to Bedrock: AWS Signature Version 4, by botocore's signer alone.

Nothing else of botocore is used: no session, no search for credentials (they stand in the configuration), no retries,
no client. Signed are the method, the path as it is sent, the whole body, and the headers ``host``, ``content-type``,
``x-amz-date`` and, for temporary credentials, ``x-amz-security-token``. The path is percent-encoded twice in what is
signed, as AWS wants of every service but S3: ``%3A`` of a model's identifier is signed as ``%253A``.

botocore is imported when the first provider with credentials is made; it is the extra ``bedrock``.
Cost: about 0.1 ms and one SHA-256 of the body per request.
Source: AWS General Reference, "Signature Version 4 signing process"; IAM user guide, "Create a signed AWS API request".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from gateway import config

_SERVICE = "bedrock"  # what signatures call it; its host is named bedrock-runtime
_CONTENT_TYPE = "application/json"


class SignerMissing(RuntimeError):
    """botocore is not installed."""


def make_signer(settings: config.Provider) -> Callable[[bytes, bytes], Iterable[tuple[bytes, bytes]]]:
    """What signs a provider's requests.

    Args:
        settings: With ``access_key_id``, ``secret_access_key`` and ``region``.

    Returns:
        ``sign(path, body)`` gives the headers of one ``POST``; the path as it is sent, with the base URL's. The clock
        is the machine's: AWS refuses a signature that is more than five minutes off.

    Raises:
        SignerMissing: botocore is not installed.
    """
    try:
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials
    except ImportError:
        raise SignerMissing(
            f"provider {settings.name!r} signs its requests with access_key_id, which takes botocore: "
            "pip install 'sluice[bedrock]' (or use a Bedrock api_key, which needs nothing)"
        ) from None
    if settings.access_key_id is None or settings.secret_access_key is None:
        raise ValueError(f"provider {settings.name!r} has no access_key_id and secret_access_key to sign with")
    token = settings.session_token.reveal() if settings.session_token else None
    credentials = Credentials(settings.access_key_id.reveal(), settings.secret_access_key.reveal(), token)
    signer = SigV4Auth(credentials, _SERVICE, settings.region)
    url = urlsplit(settings.base_url)
    origin = f"{url.scheme}://{url.netloc.rpartition('@')[2]}"

    def sign(path: bytes, body: bytes) -> list[tuple[bytes, bytes]]:
        request = AWSRequest(
            method="POST", url=origin + path.decode("ascii"), headers={"content-type": _CONTENT_TYPE}, data=body
        )
        signer.add_auth(request)
        # What is not given out is the transport's own: host, and the content type that every request has.
        headers = ((name.lower(), value) for name, value in request.headers.items())
        return [(name.encode("ascii"), value.encode("ascii")) for name, value in headers]

    return sign
