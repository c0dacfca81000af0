# Lossy outer steps in a swarm: two members end on the root of `atoll train` with the same settings, and the ledger alone
# gives it again, error feedback included; one that is stopped in between goes on with the error feedback that it had.
. "$(dirname "$0")/swarm_lib.sh"
