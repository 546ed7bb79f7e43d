"""Answer SPARQL queries from an RO-Crate.

usage: ask.py CRATE CONTEXT < QUERIES > ANSWERS

CONTEXT: a file with the JSON-LD context that the crate names. QUERIES: a JSON string a line.
ANSWERS: a line for each, with its rows as JSON lists of strings; identifiers in the crate are
relative to it.
"""

import json
import sys
from pathlib import Path

from rdflib import Graph

BASE = "https://crate.invalid/"
PREFIXES = """
PREFIX schema: <http://schema.org/>
PREFIX bioschemas: <https://bioschemas.org/>
PREFIX cw: <https://bioschemas.org/ComputationalWorkflow#>
PREFIX wfrun: <https://w3id.org/ro/terms/workflow-run#>
PREFIX codemeta: <https://codemeta.github.io/terms/>
"""


def main(crate: str, context: str) -> None:
    content = json.loads(Path(crate, "ro-crate-metadata.json").read_text())
    named, terms = content["@context"]
    known = json.loads(Path(context).read_text())
    if named != known["@id"]:
        sys.exit(f"the crate names {named}, and {context} is {known['@id']}")
    content["@context"] = [known["@context"], terms]
    graph = Graph().parse(data=json.dumps(content), format="json-ld", publicID=BASE)
    for line in sys.stdin:
        rows = graph.query(PREFIXES + json.loads(line))
        answers = [[str(value).removeprefix(BASE) for value in row] for row in rows]
        print(json.dumps(answers), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
