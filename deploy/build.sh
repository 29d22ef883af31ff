#!/bin/sh
# Builds what is shipped: bash deploy/build.sh FOLDER
#
# Leaves FOLDER/riser and FOLDER/riser-control, the release binaries without the debugger's tables (names of functions
# stay, so that a panic's backtrace can be read), and FOLDER/SHA256SUMS. The Dockerfile runs it, and so do the tests, which then test what is
# shipped. Needs cargo and a C compiler; honours CARGO_TARGET_DIR.
set -eu

if [ "$#" -ne 1 ]; then
    echo "usage: deploy/build.sh FOLDER" >&2
    exit 64
fi
mkdir -p "$1"
out=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."

cargo build --release --locked --package riser --package riser-control
for name in riser riser-control; do
    # Beside and renamed, so that a binary that runs is never written into.
    objcopy --strip-debug "${CARGO_TARGET_DIR:-target}/release/$name" "$out/.$name.new"
    mv -f "$out/.$name.new" "$out/$name"
done
cd "$out"
sha256sum riser riser-control > SHA256SUMS
