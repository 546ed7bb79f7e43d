# The report page, which a reader opens first.
DISCREPANCIES = "docs/discrepancies.md"


rule make_report:
    """Write all tables and figures to one file that opens offline, with each number's lineage."""
    input:
        tables=expand("{{results}}/tables/{name}.csv", name=shown_tables()),
        table_ledgers=expand("{{results}}/tables/{name}.ledger.json", name=shown_tables()),
        figures=expand("{{results}}/figures/figure{n}.png", n=range(1, 7)),
        figure_ledgers=expand("{{results}}/figures/figure{n}.ledger.json", n=range(1, 7)),
        against_paper=expand("{{results}}/tables/{name}.ledger.json", name=["claims", "comparison"]),
        discrepancies=ancient(DISCREPANCIES),
    output:
        page="{results}/report.html",
        record="{results}/report.record.json",
    log:
        "{results}/logs/make_report.log",
    localrule: True
    params:
        **job(
            "make_report",
            lambda w: {
                # template, style, program and captions, which are not among the script's code
                "page": sha256_of(WORKFLOW / "report/page"),
                "discrepancies": sha256_of(Path(DISCREPANCIES)),
            },
            # the page has the time it was made and the state of the files then
            reproduces="decisions",
        ),
    shell:
        command("make_report")
