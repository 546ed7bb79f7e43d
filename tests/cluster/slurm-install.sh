#!/usr/bin/env bash
# Install SLURM, its accounting and what both need from Debian, as root, for the tests on a cluster. Does
# nothing if they are there, and starts none of their services: cluster.py starts its own.
set -euo pipefail

packages=(slurmctld slurmd slurmdbd slurm-client slurm-wlm-mysql-plugin munge mariadb-server)
missing=()
for package in "${packages[@]}"; do
    dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
        missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
    exit
fi

policy=/usr/sbin/policy-rc.d # what Debian asks before it starts a service that was just installed
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
fi
apt-get -qq update
DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends \
    -o Dpkg::Use-Pty=0 "${missing[@]}" >/dev/null
