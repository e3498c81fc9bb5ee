"""Downloads: one published file, from the addresses that it is known to have, whole and checked or not there at all.

    NAME.part       what has come so far; it stays when the connection, the program or the machine stops
    Range, If-Range what is missing is asked for; a server that does not know of ranges, or has other bytes now, begins anew
    NAME            only when size and sha256 are the published ones; a file that is not is fetched once more from its beginning

Only https, and only https after a redirection; plain http is for the machine itself (tests). No cookies, no credentials. Every wait and
every number of attempts is bounded. A server that sends more than the published size is stopped at that size.
RFC 9110, sections 13.1.5 (If-Range), 14 (range requests), 15.4 (redirection)
"""

from __future__ import annotations

import http.client
import os
import re
import ssl
import time
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
)

from twofold.data.published import PublishedFile

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})  # answers after which asking again makes sense
LONGEST_PAUSE = 60.0  # seconds
_PIECE = 1 << 16  # bytes read at once
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")


class DownloadError(ValueError):
    """None of a file's addresses served it; says why, address by address."""


@dataclass(frozen=True)
class Patience:
    """How long a server is waited for.

    timeout: seconds without a byte. slowest: bytes a second, over as long. attempts: in a row that bring nothing new. most: attempts of
    one file at one address. pause: seconds before the second attempt, doubled before each further one.
    """

    timeout: float = 30.0
    slowest: float = 1024.0
    attempts: int = 5
    most: int = 100
    pause: float = 1.0


class Listener:
    """Told what happens; this one keeps it to itself."""

    def begin(self, name: str, size: int) -> None:
        """A file of `size` bytes is fetched."""

    def at(self, count: int) -> None:
        """So many of its bytes are there."""

    def say(self, sentence: str) -> None:
        """Something that the user should know."""


class _PassingError(Exception):
    """It may go better the next time; `wait`: seconds that the server asked for."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class _RefusedError(Exception):
    """This address will not do."""


def fetch(file: PublishedFile, folder: Path, patience: Patience | None = None, listener: Listener | None = None) -> str:
    """Bring the published file into `folder`, going on from what lies there of it; return the address that served it.

    Raises DownloadError; what has come so far stays.
    """
    patience, listener = patience or Patience(), listener or Listener()
    target = folder / file.name
    if target.is_file() and not file.fault(target):
        return "an earlier download"
    reasons = []
    for url in file.urls:
        listener.begin(file.name, file.size)
        try:
            _fetch_from(url, file, target, patience, listener)
            return url
        except _RefusedError as refusal:
            reasons.append(f"{url}: {refusal}")
            listener.say(reasons[-1])
    raise DownloadError(f"{file.name}: no address served it. {'; '.join(reasons)}")


def size_at(url: str, most: int, patience: Patience | None = None) -> int:
    """How many bytes the server says that the file has. Raises DownloadError where it does not say, or says more than `most`."""
    headers = {"User-Agent": "twofold", "Accept-Encoding": "identity"}
    try:
        with _open(url, headers, (patience or Patience()).timeout) as response:
            length = response.headers.get("Content-Length", "")
    except (_PassingError, _RefusedError) as failure:
        raise DownloadError(f"{url}: {failure}") from None
    if not re.fullmatch(r"\d{1,18}", length, re.ASCII) or not 0 < int(length) <= most:
        raise DownloadError(f"{url}: expected a file of at most {most:,} bytes, the server says {length or 'nothing of its size'}")
    return int(length)


def _fetch_from(url: str, file: PublishedFile, target: Path, patience: Patience, listener: Listener) -> None:
    part = target.with_name(f"{target.name}.part")
    farthest, fruitless, attempts, wrong = _size(part), 0, 0, False
    while True:
        try:
            if _size(part) < file.size:
                _receive(url, file, part, patience, listener)
        except _PassingError as failure:
            attempts += 1
            fruitless = 0 if _size(part) > farthest else fruitless + 1
            farthest = max(farthest, _size(part))
            if fruitless >= patience.attempts or attempts >= patience.most:
                raise _RefusedError(f"given up after {attempts} attempts: {failure}") from None
            wait = min(LONGEST_PAUSE, max(failure.wait, patience.pause * 2 ** max(0, fruitless - 1)))
            listener.say(f"{file.name}: {failure}; trying again in {wait:g} s, from byte {_size(part):,}")
            time.sleep(wait)
            continue
        fault = file.fault(part)
        if not fault:
            os.replace(part, target)
            _note(part).unlink(missing_ok=True)
            return
        _drop(part)
        if wrong:
            raise _RefusedError(f"not the published file: {fault}")
        wrong, farthest = True, 0
        listener.say(f"{file.name}: not the published file ({fault}); fetching it from its beginning")


def _receive(url: str, file: PublishedFile, part: Path, patience: Patience, listener: Listener) -> None:
    """Add what the server sends to the part, up to the published size."""
    have = _size(part)
    headers = {"User-Agent": "twofold", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if validator := _validator(part, url):
            headers["If-Range"] = validator
    with _open(url, headers, patience.timeout) as response:
        count = _begins_at(response, have, file, part)
        _remember(part, url, response.headers)
        began, since = time.monotonic(), 0
        with part.open("ab" if count else "wb") as out:
            while piece := _read(response):
                count += len(piece)
                if count > file.size:
                    break
                out.write(piece)
                listener.at(count)
                since += len(piece)
                passed = time.monotonic() - began
                if passed >= patience.timeout:
                    if since < patience.slowest * passed:
                        raise _PassingError(f"only {since:,} bytes came in {passed:.0f} s")
                    began, since = time.monotonic(), 0
            out.flush()
            os.fsync(out.fileno())
    if count > file.size:
        _drop(part)
        raise _RefusedError(f"it sends more than the {file.size:,} bytes that are published")
    if count < file.size:
        raise _PassingError(f"the connection ended after {count:,} of {file.size:,} bytes")


def _begins_at(response: http.client.HTTPResponse, have: int, file: PublishedFile, part: Path) -> int:
    """Where in the file the answer begins. Raises _RefusedError where it is the answer of another file."""
    if response.status == 206:
        found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if not found or int(found[1]) != have:
            _drop(part)
            raise _PassingError(f"the server sends another part than asked for ({response.headers.get('Content-Range')!r})")
        total = file.size if found[3] == "*" else int(found[3])
    elif response.status == 200:
        have = 0
        length = response.headers.get("Content-Length", "")
        total = int(length) if re.fullmatch(r"\d{1,18}", length, re.ASCII) else file.size
    else:
        raise _RefusedError(f"it answers {response.status} {response.reason}")
    if total != file.size:
        raise _RefusedError(f"it offers {total:,} bytes, the published file has {file.size:,}: another file, or a page in its place")
    return have


@contextmanager
def _open(url: str, headers: dict[str, str], timeout: float) -> Iterator[http.client.HTTPResponse]:
    """The answer of the server, closed afterwards."""
    loopback = urlsplit(url).hostname in LOOPBACK
    if not permitted(url, loopback):
        raise _RefusedError("only https is used")
    try:
        response = _opener(loopback).open(Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code not in AGAIN:
            raise _RefusedError(f"it answers {error.code} {error.reason}") from None
        asked = error.headers.get("Retry-After", "")
        raise _PassingError(f"it answers {error.code} {error.reason}", float(asked) if re.fullmatch(r"\d{1,9}", asked) else 0.0) from None
    except ssl.SSLCertVerificationError as error:
        raise _RefusedError(f"its certificate does not hold: {error.verify_message}") from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise _RefusedError(f"its certificate does not hold: {error.reason.verify_message}") from None
        raise _PassingError(_words(error.reason)) from None
    except (OSError, http.client.HTTPException) as error:
        raise _PassingError(_words(error)) from None
    except ValueError as error:
        raise _RefusedError(str(error)) from None  # a redirection to what is no address
    with response:
        yield response


def _read(response: http.client.HTTPResponse) -> bytes:
    """What has come next, at least a byte; nothing at the end."""
    try:
        return response.read1(_PIECE)
    except (OSError, http.client.HTTPException) as error:
        raise _PassingError(_words(error)) from None


def permitted(url: str, loopback: bool) -> bool:
    """Whether an address may be asked: https without credentials, and on request plain http of this machine."""
    parts = urlsplit(url)
    if "@" in parts.netloc or not parts.hostname:
        return False
    return parts.scheme == "https" or (loopback and parts.scheme == "http" and parts.hostname in LOOPBACK)


class _Redirects(HTTPRedirectHandler):
    max_redirections = 5

    def __init__(self, loopback: bool) -> None:
        self.loopback = loopback

    def redirect_request(self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str) -> Request | None:
        if not permitted(newurl, self.loopback):
            raise _RefusedError(f"it redirects to {newurl}, and only https is followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def _opener(loopback: bool) -> OpenerDirector:
    """Of all that urllib can open, only what is needed: no files, no ftp, no cookies, no passwords."""
    opener = OpenerDirector()
    opener.addheaders = []
    for handler in (
        ProxyHandler({} if loopback else None),
        HTTPSHandler(),
        HTTPDefaultErrorHandler(),
        HTTPErrorProcessor(),
        _Redirects(loopback),
        *([HTTPHandler()] if loopback else []),
    ):
        opener.add_handler(handler)
    return opener


def _note(part: Path) -> Path:
    """Where the address and the validator of what has come are kept."""
    return part.with_name(f"{part.name}.from")


def _drop(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


def _remember(part: Path, url: str, headers: Any) -> None:
    tag = headers.get("ETag", "")
    validator = tag if tag.startswith('"') else headers.get("Last-Modified", "")  # a weak tag does not promise the same bytes
    _note(part).write_text(f"{url}\n{validator}\n", encoding="utf-8")


def _validator(part: Path, url: str) -> str:
    """What the server called the bytes that came from this address; empty where nothing is known. The checksum judges in any case."""
    try:
        with _note(part).open(encoding="utf-8") as file:
            lines = file.read(1 << 13).splitlines()
    except (OSError, UnicodeDecodeError):
        return ""
    return lines[1] if len(lines) == 2 and lines[0] == url and lines[1].isascii() and lines[1].isprintable() else ""


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _words(error: object) -> str:
    if isinstance(error, TimeoutError):
        return "the server does not answer"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
