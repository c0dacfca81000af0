#!/bin/sh
# Builds and runs tests of the pure layers for AArch64 on a machine that is none. Exit code 77: not here.
#   cross.sh build gcc|clang FOLDER TESTS TARGET...     TESTS: sources of test programs, with semicolons between
#   cross.sh run FOLDER/bin/PROGRAM           through $CROSS_RUN, which computes the digests that it asks for
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)

skip() {
    echo "skipped: $1 is missing; 'make test' installs it, or: apt-get install --no-install-recommends $2"
    exit 77
}

emulator=$(command -v qemu-aarch64-static || command -v qemu-aarch64) || skip qemu-aarch64 qemu-user-static
command -v aarch64-linux-gnu-gcc >/dev/null || skip aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu
# clang takes the library, the start files and the linker of this gcc
echo 'int main(void) { return 0; }' | aarch64-linux-gnu-gcc -static -x c - -o /dev/null 2>/dev/null ||
    skip "the C library for AArch64" libc6-dev-arm64-cross

case $1 in
build)
    command -v "$2" >/dev/null || [ "$2" = gcc ] || skip "$2" "$2"
    compiler=$2 folder=$3 tests=$4
    shift 4
    cmake -G Ninja -S "$root" -B "$folder" -DATOLL_CROSS=ON -DATOLL_WERROR=ON -DATOLL_CROSS_COMPILER="$compiler" \
        -DCMAKE_TOOLCHAIN_FILE="$root/cmake/aarch64.cmake" -DATOLL_CROSS_TESTS="$tests"
    cmake --build "$folder" --target "$@"
    ;;
run)
    shift
    [ -x "$1" ] || { echo "there is no $1: the build before this test says why"; exit 77; }
    ulimit -c 0 # the canaries die of it
    exec "$CROSS_RUN" "$emulator" "$@"
    ;;
esac
