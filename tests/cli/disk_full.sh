# A full disk: exit code 5, a line that says so, nothing lost: with room again the run goes on to the right root.
. "$(dirname "$0")/lib.sh"
PRESET=nano # its files have the size that does not fit
. "$(dirname "$0")/swarm_lib.sh"
head -c 12000 "$DATA" >"$WORK/text.txt"
DATA=$WORK/text.txt
want 0 "$ATOLL" train --data "$DATA" --rounds 2 --steps 1 --seed 7 --json
root=$(json state_root)

# A limit on the size of files stands for the disk: the model does not fit.
found "$WORK/a" --rounds 2 --steps 1 --seed 7
want 5 sh -c 'ulimit -f 1000; exec "$0" start --dir "$1" --threads 1' "$ATOLL" "$WORK/a"
says "atoll: "
want 5 sh -c 'ulimit -f 1000; exec "$0" start --dir "$1" --threads 1 --json' "$ATOLL" "$WORK/a"
is "$(json error.code)" 5
want 0 "$ATOLL" ledger verify "$WORK/a"
want 0 "$ATOLL" start --dir "$WORK/a" --threads 1 --json
is "$(json state_root)" "$root" "after the disk had room again"

# Founding where there is no room leaves no run behind.
want 5 sh -c 'ulimit -f 40; exec "$0" init --dir "$1" --data "$2"' "$ATOLL" "$WORK/b" "$DATA"
[ ! -e "$WORK/b/genesis" ] || fail "a run was founded without room for it"
want 0 "$ATOLL" init --dir "$WORK/b" --data "$DATA"

# A real full file system, where we may make one.
mkdir "$WORK/disk"
if [ "$(id -u)" = 0 ] && mount -t tmpfs -o size=3m tmpfs "$WORK/disk" 2>/dev/null; then
    MOUNTED=$WORK/disk
    found "$WORK/disk/a" --rounds 2 --steps 1 --seed 7
    want 5 "$ATOLL" start --dir "$WORK/disk/a" --threads 1
    says "atoll: "
    want 0 "$ATOLL" ledger verify "$WORK/disk/a"
    mount -o remount,size=100m "$WORK/disk"
    want 0 "$ATOLL" start --dir "$WORK/disk/a" --threads 1 --json
    is "$(json state_root)" "$root" "after the file system had room again"
else
    echo "SKIPPED: no tmpfs can be mounted here; only the file size limit was tried"
fi
