# Runs one server for a test process, and ends it when that process is gone, however it went.
#
# usage: sh supervise.sh DIR SIGNAL [COMMAND...]
#
# Standard input is a pipe whose other end only the test process holds. A line `start` starts COMMAND (again, after it
# has ended); the end of the input, which the kernel makes even when the test process is killed with SIGKILL, ends it.
# DIR holds everything that the server wrote, `log` and `pid` among it, and is removed last. Without COMMAND there is
# only the folder to remove. Signals that a terminal sends to the test process must not end this one first.
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
        # The shell ignores these signals, and what it starts would too.
        (trap - HUP INT QUIT TERM; exec "$@") >>"$dir/log" 2>&1 </dev/null &
        pid=$!
        echo "$pid" >"$dir/pid.new"
        mv "$dir/pid.new" "$dir/pid"
    fi
done
if [ -n "$pid" ]; then
    # A test may have stopped the server to see what a client does then; stopped, it would not see the signal.
    kill -s "$signal" "$pid"
    kill -s CONT "$pid"
    wait "$pid"
fi 2>/dev/null
rm -rf "$dir"
if [ -n "${CINDER_TEST_RUNNING-}" ]; then
    rm -f "$CINDER_TEST_RUNNING/$$"
fi
