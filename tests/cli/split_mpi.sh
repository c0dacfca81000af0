# Under mpirun: one root with the single process; a killed rank ends all; another number of ranks is refused in words.
. "$(dirname "$0")/lib.sh"
command -v mpirun >/dev/null || skip "there is no mpirun here (openmpi-bin)"
head -c 12000 "$DATA" >"$WORK/text.txt"
small="--preset $PRESET --data $WORK/text.txt --replicas 2 --rounds 2 --steps 2 --seed 11 --threads 1"
if ! "$ATOLL" train $small --link mpi >/dev/null 2>"$WORK/err" && grep -q "this build has no MPI" "$WORK/err"; then
    [ -z "${SANITIZE:-}" ] || skip "no MPI under sanitizers, whose reports of MPI's own inside help nobody"
    fail "this machine has mpirun and this build has no MPI: install libopenmpi-dev and configure again"
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

# trouble SIGNAL RANK: while 4 ranks train, RANK gets SIGNAL. All processes are gone 6 s later, and what is told names it.
trouble() {
    rm -f "$WORK/err"
    mpi 4 --rounds 100000 --tp 2 >"$WORK/out" 2>"$WORK/err" &
    pid=$!
    PIDS="$PIDS $pid"
    await_round $pid
    all= victim=
    for p in $(pgrep -f -- "--data $WORK/text.txt"); do
        rank=$(tr '\0' '\n' <"/proc/$p/environ" 2>/dev/null | sed -n 's/^OMPI_COMM_WORLD_RANK=//p')
        [ -n "$rank" ] || continue
        all="$all $p"
        [ "$rank" != "$2" ] || victim=$p
    done
    PIDS="$PIDS $all"
    set -- "$1" "$2" $all
    is $# 6 "ranks and two words"
    kill "-$1" "$victim"
    all_end_in_time "$1 of rank $2" $pid $all
    got=0
    wait $pid || got=$?
    [ $got -ne 0 ] || fail "exit code 0 though rank $2 got $1"
    says "atoll: rank $2 (replica $(($2 / 2)), stage 0, tensor rank $(($2 % 2)); pid $victim at 127.0.0.1"
    [ "$(grep 'is gone: ' "$WORK/err" | sed 's/.*is gone: //' | sort -u | wc -l)" = 1 ] || fail "two stories: $(cat "$WORK/err")"
    echo "rank $2, $1: all gone after $took ms"
}
trouble KILL 2
says "is gone: connection closed"
trouble STOP 3
says "is gone: silent for 4 s"
trouble STOP 0
says "is gone: silent for 4 s"
