# The report page: what a reader opens first.
DISCREPANCIES = "docs/discrepancies.md"


rule make_report:
    """All tables and figures in one file that opens offline, each number with its lineage."""
    input:
        tables=expand("{{results}}/tables/table{n}.csv", n=shown_tables()),
        table_ledgers=expand("{{results}}/tables/table{n}.ledger.json", n=shown_tables()),
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
        job=job(
            "make_report",
            lambda w: {
                # no code of the script's: template, style, program and captions
                "page": sha256_of(WORKFLOW / "report/page"),
                "discrepancies": sha256_of(Path(DISCREPANCIES)),
            },
            # the page says when it was made, and what was found then
            reproduces="decisions",
        ),
        files=files,
    shell:
        command("make_report")
