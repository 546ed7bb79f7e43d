# The paper's figures, each as PDF and PNG.


rule plot_figure2:
    """Figure 2: performance against compression, with and without alignment."""
    input:
        table5="{results}/tables/table5_tidy.csv",
    output:
        pdf="{results}/figures/figure2.pdf",
        png="{results}/figures/figure2.png",
        record="{results}/figures/figure2.record.json",
    log:
        "{results}/logs/plot_figure2.log",
    localrule: True
    params:
        job=job("plot_figure2", lambda w: {"tasks": figure_tasks()}),
        files=files,
    shell:
        command("plot_figure2")


rule plot_figure4:
    """Figure 4: the score of every window of the 1/3 setting before tuning."""
    input:
        windows=expand("{{results}}/{task}/windows.csv", task=TASKS),
    output:
        pdf="{results}/figures/figure4.pdf",
        png="{results}/figures/figure4.png",
        record="{results}/figures/figure4.record.json",
    log:
        "{results}/logs/plot_figure4.log",
    localrule: True
    params:
        job=job("plot_figure4", lambda w: {"tasks": figure_tasks()}),
        files=files,
    shell:
        command("plot_figure4")
