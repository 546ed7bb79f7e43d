# The paper's figures, each as PDF and PNG.


rule plot_figure1:
    """Figure 1: the method, drawn for the window of 1/3 that was selected in each model."""
    input:
        base_models=[base_model_of(task) for task in TASKS],
        selections=[
            f"{{results}}/{name}/selection/k{task.merge.k.third}.json"
            for name, task in TASKS.items()
        ],
    output:
        **figure("figure1"),
    log:
        "{results}/logs/plot_figure1.log",
    localrule: True
    params:
        **job(
            "plot_figure1",
            lambda w: {
                "tasks": {
                    name: {**task, "anchor": TASKS[name].merge.anchor, "inputs": pinned(name)}
                    for name, task in figure_tasks().items()
                },
            },
        ),
    shell:
        command("plot_figure1")


rule plot_figure2:
    """Figure 2: performance against compression, with and without alignment."""
    input:
        **tested(TABLE5),
    output:
        **figure("figure2"),
    log:
        "{results}/logs/plot_figure2.log",
    localrule: True
    params:
        **job("plot_figures_2_3", lambda w: table_params(TABLE5)),
    shell:
        command("plot_figures_2_3")


use rule plot_figure2 as plot_figure3 with:
    # Figure 3: merging at 1/3 and 1/2 against dropping 1/6 and 1/3 of the layers
    input:
        **tested(FIGURE3),
    output:
        **figure("figure3"),
        tidy="{results}/tables/figure3_tidy.csv",
    log:
        "{results}/logs/plot_figure3.log",
    params:
        **job("plot_figures_2_3", lambda w: table_params(FIGURE3)),


rule plot_figure4:
    """Figure 4: the score of every window of the 1/3 setting before tuning."""
    input:
        windows=task_files("windows.csv"),
    output:
        **figure("figure4"),
    log:
        "{results}/logs/plot_figure4.log",
    localrule: True
    params:
        **job("plot_figure4", lambda w: {"tasks": figure_tasks()}),
    shell:
        command("plot_figure4")


rule plot_figures_5_6:
    """Figure 5 or 6: CKA of all pairs of FF sublayers, or of self-attention sublayers."""
    input:
        cka=task_files("cka.csv"),
    output:
        **figure("figure{n}"),
    log:
        "{results}/logs/plot_figure{n}.log",
    wildcard_constraints:
        n="5|6",
    localrule: True
    params:
        **job("plot_figures_5_6", lambda w: {"tasks": figure_tasks()}),
    shell:
        command("plot_figures_5_6")
