"""Put a document into the HTTP cache of roc-validator, so that it needs no network.

usage: seed_cache.py CACHE URL FILE
"""

import io
import sys
from pathlib import Path

import requests
import urllib3
from rocrate_validator.utils.http import HttpRequester


def main(cache: str, url: str, file: str) -> None:
    HttpRequester.initialize_cache(cache_path=cache, cache_max_age=-1)  # never out of date
    session, content = HttpRequester().session, Path(file).read_bytes()
    answer = requests.Response()
    answer.request = session.prepare_request(requests.Request("GET", url))
    answer.status_code, answer.reason, answer.url = 200, "OK", url
    answer.headers["Content-Type"] = "application/ld+json"
    answer._content = content
    answer.raw = urllib3.HTTPResponse(
        io.BytesIO(content), answer.headers, 200, preload_content=False, request_url=url
    )
    session.cache.save_response(answer, session.cache.create_key(answer.request))
    if not HttpRequester().has_cached(url):
        sys.exit(f"{url} is not in the cache though it was put there")


if __name__ == "__main__":
    main(*sys.argv[1:])
