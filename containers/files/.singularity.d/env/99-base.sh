#!/bin/sh
# Where `--nv` puts the driver's libraries. Apptainer knows this file by its name.
export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}/.singularity.d/libs"
