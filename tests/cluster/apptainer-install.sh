#!/usr/bin/env bash
# Install Apptainer on this Debian 12 machine, as root, for the tests on a cluster. Does nothing if it
# is there. A real cluster brings its own Apptainer and needs none of this.
#
# Debian has Apptainer in sid alone, built against glibc 2.38. Its one package is taken from there,
# bound to glibc 2.34 (rebind_glibc.py), and installed; nothing else comes from sid, and the machine's
# own apt sources stay as they are.
set -euo pipefail

if command -v apptainer >/dev/null; then
    apptainer --version
    exit
fi

here=$(cd "$(dirname "$0")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
chmod 755 "$scratch" # apt's downloader is another user
mkdir -p "$scratch"/lists/partial "$scratch"/cache/archives/partial

# The machine's own Debian mirror, in another suite.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' | head -1)
key=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$key] $mirror sid main" >"$scratch/sources.list"
apt=(
    apt-get -qq
    -o Dir::Etc::SourceList="$scratch/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o Dir::State::Lists="$scratch/lists" -o Dir::Cache="$scratch/cache" -o APT::Sandbox::User=root
)
"${apt[@]}" update
cd "$scratch"
"${apt[@]}" download apptainer

dpkg-deb --raw-extract apptainer_*.deb package
python3 "$here/rebind_glibc.py" package/usr/bin/apptainer package/usr/lib/*/apptainer/bin/starter
sed -i -E 's/^Version: .*/&+glibc2.34/; s/libc6 \(>= 2\.3[0-9]\)/libc6 (>= 2.34)/' package/DEBIAN/control
(cd package && find usr -type f -print0 | sort -z | xargs -0 md5sum >DEBIAN/md5sums)
dpkg-deb -Zgzip -z1 --build --root-owner-group package apptainer.deb >/dev/null

# What it mounts images with. The index is needed where the machine is new.
apt-get -qq update
if ! DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends \
    -o Dpkg::Use-Pty=0 ./apptainer.deb squashfuse fuse-overlayfs fuse2fs e2fsprogs >log 2>&1; then
    cat log
    exit 1
fi
apptainer --version
