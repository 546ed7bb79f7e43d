"""Vouch for a run: sign the digests of all its records, ledgers, tables and figures.

In the folder of results, seal.txt lists the digests, and seal.txt.1.sig is the signature that
OpenSSH's ssh-keygen makes with your SSH key. In a collected folder the seal lists all files. Others
may add their signatures to a seal that still holds. What does not hold is not signed.

    ffmerge sign ~/.ssh/id_ed25519            results/demo
    ffmerge verify --signers FILE             who signed, and what differs since

FILE is of the form that git uses for signed commits, one line a key: `NAME ssh-ed25519 AAAA…`.
"""

import argparse
from pathlib import Path

from provenance.project import PROJECT, add_results_argument
from provenance.records import Records
from provenance.seal import sign
from provenance.verify.command import require_unbroken


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `ffmerge sign`."""
    text = "a private SSH key, or a public one whose private key an agent holds"
    parser.add_argument("key", metavar="KEY", type=Path, help=text)
    add_results_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Sign, unless something on disk is not what the jobs made."""
    results = options.results or PROJECT.results
    require_unbroken(results)
    seal, signature = sign(options.key, Records(results))
    print(f"{signature}: {seal.summary}, sealed on {seal.on}")
    return 0
