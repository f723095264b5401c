# Runs one server for a test process, and ends it when that process has ended, even if it was killed.
#
# usage: sh supervise.sh DIR SIGNAL [COMMAND...]
#
# Standard input is a pipe from the test process. A line `start` starts COMMAND (again, after it has ended). The end of the input ends
# it; the kernel closes the pipe even if the test process is killed with SIGKILL. DIR has everything that the server wrote, including
# `log` and `pid`, and is removed last. Without COMMAND only the folder is removed. Signals that a terminal sends to the test process
# must not end this one first.
trap '' HUP INT QUIT TERM
dir=$1
signal=$2
shift 2
pid=
if [ -n "${CINDER_TEST_RUNNING-}" ]; then
    echo "$dir" >"$CINDER_TEST_RUNNING/$$"
fi
while read -r line; do
    if [ "$line" = start ]; then
        if [ -n "$pid" ]; then wait "$pid"; fi
        # The server must not inherit the ignored signals.
        (trap - HUP INT QUIT TERM; exec "$@") >>"$dir/log" 2>&1 </dev/null &
        pid=$!
        echo "$pid" >"$dir/pid.new"
        mv "$dir/pid.new" "$dir/pid"
    fi
done
if [ -n "$pid" ]; then
    # A test may have stopped the server with SIGSTOP. It would not receive the signal.
    kill -s "$signal" "$pid"
    kill -s CONT "$pid"
    wait "$pid"
fi 2>/dev/null
rm -rf "$dir"
if [ -n "${CINDER_TEST_RUNNING-}" ]; then
    rm -f "$CINDER_TEST_RUNNING/$$"
fi
