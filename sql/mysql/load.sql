-- load: reads how many threads run a statement, with this one, and for how many nanoseconds Galera's flow control has paused the node.
SHOW GLOBAL STATUS WHERE Variable_name IN ('Threads_running', 'wsrep_flow_control_paused_ns');
