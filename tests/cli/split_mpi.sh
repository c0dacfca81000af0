# Under mpirun: one root with the single process; a killed rank ends all; another number of ranks is refused in words.
. "$(dirname "$0")/lib.sh"
command -v mpirun >/dev/null || skip "there is no mpirun here (openmpi-bin)"
head -c 12000 "$DATA" >"$WORK/text.txt"
small="--preset $PRESET --data $WORK/text.txt --replicas 2 --rounds 2 --steps 2 --seed 11 --threads 1"
if ! "$ATOLL" train $small --link mpi >/dev/null 2>"$WORK/err" && grep -q "this build has no MPI" "$WORK/err"; then
    skip "this build has no MPI"
fi
mpi() {
    n=$1
    shift
    timeout 120 mpirun -n "$n" --oversubscribe --allow-run-as-root "$ATOLL" train $small "$@"
}
want 0 "$ATOLL" train $small --json --out "$WORK/a"
root=$(json state_root)
want 0 mpi 4 --tp 2 --json --out "$WORK/b"
is "$(json state_root)" "$root" "tp 2"
for file in "$WORK"/a/*; do cmp "$file" "$WORK/b/$(basename "$file")" || fail "$file differs"; done
want 0 mpi 8 --tp 2 --pp 2 --microbatches 4 --kernels avx2,ref --json
is "$(json state_root)" "$root" "tp 2, pp 2"
want 2 mpi 3 --tp 2 --json
says "use mpirun -n 4"

rm "$WORK/err"
mpi 4 --rounds 100000 --tp 2 >"$WORK/out" 2>"$WORK/err" &
pid=$!
PIDS=$pid
while ! grep -qs '^round ' "$WORK/err"; do sleep 0.1; done
all=$(pgrep -f -- "--data $WORK/text.txt" | while read -r p; do grep -q OMPI_COMM_WORLD_RANK "/proc/$p/environ" && echo "$p"; done)
set -- $all
is $# 4 "ranks"
start=$(date +%s)
kill -9 "$3"
got=0
wait $pid || got=$?
[ $got -ne 0 ] || fail "exit code 0 though a rank was killed"
for p in $all; do # mpirun may be gone a moment before its ranks
    while alive "$p"; do
        [ $(($(date +%s) - start)) -le 6 ] || fail "rank $p still runs"
        sleep 0.05
    done
done
