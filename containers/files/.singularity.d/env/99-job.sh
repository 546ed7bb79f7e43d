#!/bin/sh
# The environment of a job. Apptainer gives the caller's variables back after 99-base.sh, so this comes
# after that: no PYTHON… of the caller's reaches a job. Its own command says PYTHONPATH=workflow.
for name in $(env | sed -n 's/^\(PYTHON[A-Z_]*\)=.*/\1/p'); do
    unset "$name"
done
export PATH=/usr/local/bin:/usr/bin:/bin
export LC_ALL=C.UTF-8 PYTHONNOUSERSITE=1 PYTHONDONTWRITEBYTECODE=1
# HOME is the repository (Snakemake sees to that), whose .cache git does not look at.
export MPLCONFIGDIR="$HOME/.cache/matplotlib"
