# One root over the whole matrix: (tp, pp) in {1,2,4} x {1,2,4} with tp*pp <= 8, M in {1,2,4}, threads and processes,
# kernels mixed between ranks, and mpirun.
. "$(dirname "$0")/lib.sh"
small="--preset nano --data $DATA --replicas 2 --rounds 3 --steps 6 --seed 11"
want 0 "$ATOLL" train $small --json
root=$(json state_root)
kernels=avx2,avx512
"$ATOLL" train $small --rounds 1 --steps 1 --kernels avx512 >/dev/null 2>&1 || kernels=avx2,ref
mpi=no
if command -v mpirun >/dev/null && ! "$ATOLL" train $small --link mpi 2>&1 | grep -q "has no MPI"; then mpi=yes; fi
for tp in 1 2 4; do
    for pp in 1 2 4; do
        [ $((tp * pp)) -le 8 ] || continue
        for m in 1 2 4; do
            split="--tp $tp --pp $pp --microbatches $m"
            for link in inproc tls; do
                want 0 "$ATOLL" train $small $split --link $link --kernels $kernels --threads 1 --json
                is "$(json state_root)" "$root" "$split --link $link"
            done
            echo "$split: $root"
        done
        [ $mpi = yes ] || continue
        want 0 mpirun -n $((2 * tp * pp)) --oversubscribe --allow-run-as-root "$ATOLL" train $small $split --threads 1 \
            --kernels $kernels --json
        is "$(json state_root)" "$root" "$split under mpirun"
        echo "mpirun, $split: $root"
    done
done
