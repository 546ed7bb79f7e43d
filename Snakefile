include: "workflow/Snakefile"


# An included file does not set the default target, and without one nothing would be made.
rule default:
    input:
        rules.main.input,
