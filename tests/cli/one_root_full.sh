# One state root at the size that is promised: 6 rounds of 10 steps on the whole of Moby-Dick.
ROUNDS=6 STEPS=10 KERNELS="avx2 avx512"
export ROUNDS STEPS KERNELS
. "$(dirname "$0")/one_root.sh"
