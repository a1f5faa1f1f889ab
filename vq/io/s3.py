"""Files in S3, or in a store that speaks its protocol (AWS_ENDPOINT_URL): ``s3://BUCKET/KEY``. Needs boto3, the extra ``s3``.

Keys, region and endpoint are those of boto3: its environment variables and files. VQ_S3_ANONYMOUS=1: public buckets.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from urllib.parse import urlsplit

from vq.core.errors import RunFailure, UserError
from vq.io import stores
from vq.io.stores import Changed, Missing, Passing, Stat

T = TypeVar('T')

_PASSING = ('SlowDown', 'RequestTimeout', 'InternalError', 'ServiceUnavailable', 'ThrottlingException', 'RequestTimeTooSkewed')


class S3Store:
    local = False

    def stat(self, url: str) -> Stat:
        bucket, key = place_of(url)
        found = self._ask(url, lambda client: client.head_object(Bucket=bucket, Key=key))
        return Stat(int(found['ContentLength']), str(found['ETag']))

    def read(self, url: str, start: int, stop: int, version: str) -> bytes:
        if stop <= start:
            return b''
        bucket, key = place_of(url)
        more = {'IfMatch': version} if version else {}

        def get(client: Any) -> bytes:
            body = client.get_object(Bucket=bucket, Key=key, Range=f'bytes={start}-{stop - 1}', **more)['Body']
            try:
                return stores.gather(body.read, stop - start)
            finally:
                body.close()

        return self._ask(url, get)

    def walk(self, url: str) -> Iterator[tuple[str, Stat]]:
        bucket, key = place_of(url)
        prefix = f'{key.rstrip("/")}/' if key else ''
        token: dict[str, str] = {}
        while True:
            page = self._ask(url, functools.partial(_list, Bucket=bucket, Prefix=prefix, **token))
            for entry in page.get('Contents', []):
                name = str(entry['Key']).removeprefix(prefix)
                if name and not name.endswith('/'):  # keys that stand for folders
                    yield name, Stat(int(entry['Size']), str(entry['ETag']))
            if not page.get('IsTruncated'):
                return
            token = {'ContinuationToken': page['NextContinuationToken']}

    def _ask(self, url: str, call: Callable[[Any], T]) -> T:
        client = client_of(os.getpid(), stores.SILENCE)
        from botocore import exceptions
        from urllib3.exceptions import HTTPError

        try:
            return call(client)
        except exceptions.ClientError as error:
            raise _failure(url, error.response) from error
        except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
            raise UserError(
                f'{url}: there are no keys for S3 ({error})',
                'Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or VQ_S3_ANONYMOUS=1 for a public bucket.',
            ) from error
        except exceptions.ParamValidationError as error:
            raise UserError(f"'{url}' is not the address of a file in S3: {error}", 'Write s3://BUCKET/KEY.') from error
        except (exceptions.HTTPClientError, exceptions.IncompleteReadError, HTTPError, OSError) as error:
            raise Passing(f'the connection broke ({error})') from error
        except exceptions.BotoCoreError as error:
            raise UserError(f'{url}: {error}', 'Look at the settings of boto3: region, endpoint, profile.') from error


def _list(client: Any, **settings: Any) -> Any:
    return client.list_objects_v2(**settings)


def place_of(url: str) -> tuple[str, str]:
    """Bucket and key of an address."""
    parts = urlsplit(url, allow_fragments=False)  # a key may hold a #
    if not parts.netloc:
        raise UserError(f"'{url}' names no bucket", 'Write s3://BUCKET/KEY.')
    return parts.netloc, parts.path.lstrip('/') + (f'?{parts.query}' if parts.query else '')


@functools.lru_cache(8)
def client_of(process: int, silence: float) -> Any:
    """The client of this process: a connection does not survive a fork. Attempts are counted by ``stores.persist``."""
    try:
        import boto3
        from botocore import UNSIGNED
        from botocore.config import Config
    except ImportError as error:
        raise UserError(f'addresses s3://... need boto3, which cannot be imported: {error}', "pip install 'vq[s3]'") from error
    anonymous = {'signature_version': UNSIGNED} if os.environ.get('VQ_S3_ANONYMOUS') == '1' else {}
    config = Config(
        retries={'total_max_attempts': 1}, connect_timeout=min(10.0, silence), read_timeout=silence, max_pool_connections=32,
        **anonymous,
    )  # fmt: skip
    return boto3.session.Session().client('s3', config=config)


def _failure(url: str, response: Any) -> Exception:
    code = str(response.get('Error', {}).get('Code', ''))
    status = int(response.get('ResponseMetadata', {}).get('HTTPStatusCode', 0))
    if code == 'NoSuchBucket':
        return UserError(f'{url}: there is no such bucket', 'Look at its name, and at AWS_ENDPOINT_URL.')
    if status == 404 or code in ('NoSuchKey', '404'):
        return Missing(f'{url}: there is no such key')
    if status == 412 or code == 'PreconditionFailed':
        return Changed()
    if status >= 500 or status == 429 or code in _PASSING:
        return Passing(f'status {status} {code}')
    if status == 416:
        return Changed()  # it is shorter than it was
    hint = 'Look at the keys, and at the rights of the bucket.' if status in (401, 403) else 'Look at the address.'
    return RunFailure(f'{url}: status {status} {code}', hint)
